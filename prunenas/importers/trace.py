"""From a user's module to a graph that is the same function."""

import contextlib
import copy
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, final

import torch
from torch import nn

from prunenas.build.network import Network
from prunenas.errors import GraphError, PruneNASError, TraceError
from prunenas.importers import torch_export, torch_fx
from prunenas.importers.builder import Builder
from prunenas.importers.calls import Refusal, Walk, output_of
from prunenas.importers.idioms import simplified
from prunenas.importers.limit import within
from prunenas.importers.sources import find
from prunenas.importers.values import UnsupportedError, Value
from prunenas.importers.verify import Certificate, certify, evaluating, network_of
from prunenas.ir.coupling import couple
from prunenas.ir.graph import Graph, Init, Node, live
from prunenas.ir.ops import LayerNorm, Opaque

TIME_LIMIT = 60.0
"""Seconds."""


@final
@dataclass(frozen=True, kw_only=True)
class ImportedNetwork:
    """A user's network as a graph, with its weights.

    Args:
        graph: The architecture.
        front_end: Which tracer found it, ``torch.fx`` or ``torch.export``.
        certificate: How the graph was compared with the module.
        state: Name in the module's state of each tensor of the graph's.
        dropped: Trainable elements that evaluation does not use, by module: auxiliary heads.
        tensors: The module's own tensors, not copies, by the graph's names.
    """

    graph: Graph
    front_end: str
    certificate: Certificate
    state: Mapping[str, str]
    dropped: Mapping[str, int]
    tensors: Mapping[str, torch.Tensor] = field(repr=False)

    @property
    def frozen(self) -> tuple[str, ...]:
        """Names of the nodes that repeat a call which no op describes."""
        return tuple(node.name for node in self.graph.nodes if isinstance(node.op, Opaque))

    def network(self) -> Network:
        """Return the network with a copy of the module's weights: a trained reference."""
        return network_of(
            self.graph, {name: t.detach().clone() for name, t in self.tensors.items()}
        ).requires_grad_(True)


def trace(
    module: nn.Module | str,
    input_size: Sequence[int] | None = None,
    *,
    unknown: Literal["refuse", "freeze"] = "refuse",
    time_limit: float = TIME_LIMIT,
) -> Graph:
    """Return ``module`` as a graph that is the same function in evaluation mode.

    Args:
        module: Any network from one batch of images to one tensor; it is not changed. Or the name
            of one, such as ``torchvision:resnet50``.
        input_size: Channels, height and width of one image; what has a name brings its own.
        unknown: What becomes of calls that no op describes: ``refuse`` tells all of them,
            ``freeze`` repeats them as they are, with every width that they read fixed.
        time_limit: Seconds that tracing may take.

    Raises:
        TraceError: Calls are unknown, control flow depends on values, time is up, or the graph is
            not the same function.

    Example:
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
        >>> trace(net, (3, 8, 8)).classes
        10
    """
    return _found(module, input_size, None, False, unknown, time_limit).graph


def import_network(
    module: nn.Module | str,
    input_size: Sequence[int] | None = None,
    *,
    classes: int | None = None,
    pretrained: bool = False,
    unknown: Literal["refuse", "freeze"] = "refuse",
    time_limit: float = TIME_LIMIT,
) -> ImportedNetwork:
    """As ``trace``, and with the module's weights, the certificate and what was left out.

    Args:
        module: A network, or the name of one.
        input_size: Channels, height and width of one image; what has a name brings its own.
        classes: Of a network by name: how many it shall tell apart; its own by default.
        pretrained: Of a network by name: whether its published weights come along.
        unknown: As ``trace``.
        time_limit: As ``trace``.

    Raises:
        TraceError: As ``trace``.
        UnknownNameError: There is no network of this name.
        DataError: The trained weights cannot be had.
    """
    return _found(module, input_size, classes, pretrained, unknown, time_limit)


def _found(
    module: nn.Module | str,
    input_size: Sequence[int] | None,
    classes: int | None,
    pretrained: bool,
    unknown: str,
    time_limit: float,
) -> ImportedNetwork:
    if isinstance(module, str):
        source = find(module, classes=classes, pretrained=pretrained)
        module = source.module
        if input_size is None:
            input_size = source.input_size
    elif classes is not None or pretrained:
        raise TraceError("classes and pretrained are asked of networks by name, not of a module")
    if input_size is None:
        raise TraceError("input_size is needed: channels, height and width, such as (3, 224, 224)")
    if len(input_size) != 3 or min(input_size) < 1:
        raise TraceError(f"input_size is channels, height and width, got {tuple(input_size)}")
    given: object = module  # whatever the annotation says, anything may have come in
    if not isinstance(given, nn.Module) or isinstance(given, nn.DataParallel):
        raise TraceError(f"a torch module or a name is needed, got {type(given).__name__}")
    if not 0 < time_limit < math.inf:
        raise TraceError(f"time_limit is in seconds, above 0, got {time_limit}")
    if unknown not in ("refuse", "freeze"):
        raise TraceError(f"unknown is 'refuse' or 'freeze', got {unknown!r}")
    return _import(module, input_size, unknown, time_limit)


def _import(
    module: nn.Module, input_size: Sequence[int], unknown: str, time_limit: float
) -> ImportedNetwork:
    """Try one front end after the other; the graph counts when it is the same function."""
    module = _twin(module)
    doing = ["running it on one image"]
    with evaluating(module), torch.no_grad(), within(time_limit, module, lambda: doing[0]):
        _run_once(module, input_size)
        first: PruneNASError | None = None
        for name, front_end in (("torch.fx", _by_fx), ("torch.export", _by_export)):
            doing[0] = f"tracing with {name}"
            try:
                with evaluating(module):
                    found = front_end(module, input_size, unknown)
            except _CannotError as error:
                first = TraceError(str(error))
                continue
            doing[0] = "comparing the graph with the module"
            try:
                return _imported(name, *found, module)
            except TraceError as error:
                first = error
    assert first is not None
    raise first from None


def _twin(module: nn.Module) -> nn.Module:
    """Return a module on the very same weights: what its forwards leave behind stays with it."""
    shared: dict[int, object] = {id(tensor): tensor for tensor in module.parameters()}
    try:
        return copy.deepcopy(module, shared)
    except Exception:  # whatever an attribute raises that cannot be copied
        return module


def _run_once(module: nn.Module, input_size: Sequence[int]) -> None:
    """Refuse what does not run at all: what a tracer says of it leads astray."""
    strange = sorted(n for n, p in module.named_parameters() if p.dtype != torch.float32)
    if strange:
        raise TraceError(
            f"weights must be float32, {strange[0]} is not"
            + (f", and {len(strange) - 1} more" if len(strange) > 1 else "")
            + ": call module.float() first"
        )
    try:
        with evaluating(module):
            module(torch.zeros(1, *input_size))
    except TraceError:
        raise
    except Exception as error:  # whatever the forward raises
        what = f"{type(error).__name__}: {error}"
        raise TraceError(f"it does not run on an image {[*input_size]}: {what}") from error


class _CannotError(Exception):
    """A front end cannot trace the module; another one may."""


def _by_fx(module: nn.Module, input_size: Sequence[int], unknown: str) -> tuple[Builder, Value]:
    try:
        graph = torch_fx.symbolic(module)
    except TraceError:
        raise
    except Exception as error:  # whatever the forward raises on a proxy
        raise _CannotError(f"torch.fx cannot trace it: {error}") from None
    builder = _builder(module, input_size)
    given = {node.name: builder.input for node in graph.nodes if node.op == "placeholder"}
    walk = Walk(graph=graph, builder=builder, module=module, given=_first_only(given))
    return builder, _output(walk, "torch.fx")


def _first_only(given: dict[str, Any]) -> dict[str, Any]:
    """Return the image for the first argument; the others keep their defaults."""
    return dict([*given.items()][:1])


def _by_export(module: nn.Module, input_size: Sequence[int], unknown: str) -> tuple[Builder, Value]:
    try:
        with _quiet():
            program = torch_export.exported(module, input_size)
    except TraceError:
        raise
    except Exception as error:  # torch.export has no common base of its errors
        raise TraceError(_export_failure(error)) from None
    builder = _builder(module, input_size)
    walk = Walk(
        graph=program.graph,
        builder=builder,
        module=module,
        given=torch_export.given(program, module, builder.input),
        unknown=torch_export.opaque,
        lines=torch_export.line_of,
        inner=dict(program.graph_module.named_children()),
    )
    value = _output(walk, "torch.export")
    if unknown == "refuse" and walk.frozen:
        raise TraceError(_told(walk.frozen))
    return builder, value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what torch warns of and logs while it exports: its error says it again."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _export_failure(error: Exception) -> str:
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    data = "data" in type(error).__name__.lower() or "data-dependent" in str(error).lower()
    line = torch_export.last_line(str(error))
    where = f" ({line})" if line else ""
    if data:
        return (
            "its control flow depends on the values of tensors, which no graph can tell: "
            f"{text}{where}"
        )
    return f"neither torch.fx nor torch.export can trace it: {text}{where}"


def _builder(module: nn.Module, input_size: Sequence[int]) -> Builder:
    return Builder(input_size, {id(t): name for name, t in module.named_buffers()})


def _output(walk: Walk, front_end: str) -> Value:
    value = walk.run()
    if walk.refusals:
        raise _CannotError(_told(walk.refusals))
    try:
        result = output_of(value)
        walk.builder.plain(result)
        return result
    except UnsupportedError as error:
        raise TraceError(str(error)) from None


def _told(refusals: Sequence[Refusal]) -> str:
    by_call: dict[str, list[Refusal]] = {}
    for refusal in refusals:
        by_call.setdefault(f"{refusal.site.called}: {refusal.reason}", []).append(refusal)
    lines = []
    for same in by_call.values():
        more = f", and {len(same) - 1} more" if len(same) > 1 else ""
        lines.append(f"{same[0]}{more}")
    return (
        "no op of the graph describes these calls:\n  "
        + "\n  ".join(lines)
        + "\nunknown='freeze' (--unknown freeze) keeps them as they are and fixes the widths that "
        "they read; docs/add-an-op.md tells how to add an op"
    )


def _imported(
    front_end: str, builder: Builder, output: Value, module: nn.Module
) -> ImportedNetwork:
    graph, names = _graph(builder, builder.plain(output))
    left = {node.name for node in graph.nodes}
    state = {}
    for key, original in builder.state.items():
        node, _, tensor = key.rpartition(".")
        if names[node] in left:
            state[f"{names[node]}.{tensor}"] = original
    own = module.state_dict()
    state = {key: original for key, original in state.items() if original in own}
    certificate = certify(graph, module, state)
    imported = ImportedNetwork(
        graph=graph,
        front_end=front_end,
        certificate=certificate,
        state=state,
        dropped=_dropped(module, {*state.values()}),
        tensors={key: own[original] for key, original in state.items()},
    )
    groups = couple(graph)
    if not groups.free:
        reasons = {f"{group.name}: {group.fixed}" for group in groups}
        warnings.warn(
            "no width of this network may vary: " + "; ".join(sorted(reasons)), stacklevel=5
        )
    return imported


def _graph(builder: Builder, output: str) -> tuple[Graph, dict[str, str]]:
    """Return the graph, and the name that each of the builder's nodes got in it."""
    taken = {node.name for node in builder.nodes}
    names = {node.name: _free_name(node.name, taken) for node in builder.nodes}
    nodes = tuple(
        Node(
            name=names[node.name],
            op=node.op,
            inputs=tuple(names[source] for source in node.inputs),
            weights=None if node.weights is None else names[node.weights],
        )
        for node in builder.nodes
    )
    nodes = live(nodes, names[output])
    transformer = any(isinstance(node.op, LayerNorm) for node in nodes)
    init = Init(linear="normal_0.02") if transformer else Init()
    try:
        graph = Graph(nodes=nodes, output=names[output], init=init)
    except GraphError as error:
        raise TraceError(f"what was traced is no network: {error}") from None
    return simplified(graph), names


def _free_name(name: str, taken: set[str]) -> str:
    """Return ``name`` so that it does not stand below another node: ``bn.act`` as ``bn_act``."""
    parts = name.split(".")
    for depth in range(1, len(parts)):
        above = ".".join(parts[:depth])
        if above in taken:
            flat = _free_name("_".join([above, *parts[depth:]]), taken)
            while flat in taken:
                flat += "_"
            taken.add(flat)
            return flat
    return name


def _dropped(module: nn.Module, used: set[str]) -> dict[str, int]:
    """Return the trainable elements that no node reads, by the module that holds them."""
    found: dict[str, int] = {}
    for name, tensor in module.named_parameters():
        if name not in used:
            place = name.split(".")[0] if name.count(".") > 1 else name.rpartition(".")[0] or name
            found[place] = found.get(place, 0) + tensor.numel()
    return found
