"""Going through traced calls one by one: what a front end found becomes nodes of the graph.

Both front ends give a graph of ``torch.fx``. Whatever depends on no image and no weight is
computed on the way, so sizes, loops over them and masks are gone when the end is reached.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch
from torch import fx, nn

from prunenas.errors import ShapeError, TraceError
from prunenas.importers.builder import Builder
from prunenas.importers.optable import FUNCTIONS, MODULES
from prunenas.importers.values import BATCH, Site, UnsupportedError, Value, Weight, is_traced


@final
@dataclass(frozen=True, slots=True)
class Refusal:
    """A call that has no counterpart, and why."""

    site: Site
    reason: str

    def __str__(self) -> str:
        return f"{self.site}: {self.reason}"


@final
class _Nothing:
    """The value of a call that was refused."""


NOTHING = _Nothing()

Unknown = Callable[[Builder, fx.Node, tuple[Any, ...], dict[str, Any]], Any]


@final
@dataclass(kw_only=True)
class Walk:
    """One pass over a traced graph.

    Args:
        graph: What a front end found.
        builder: What the calls become.
        module: The module that was traced, whose layers and tensors the calls name.
        given: Values of the graph's placeholders.
        unknown: What a call becomes that the table cannot spell; without it, a refusal.
        lines: Source line of each node, where the front end knows it.
        inner: Graphs that stand inside of this one, by name.

    Attributes:
        refusals: What was refused so far.
        frozen: What the table cannot spell and ``unknown`` took.
    """

    graph: fx.Graph
    builder: Builder
    module: nn.Module
    given: Mapping[str, Any]
    unknown: Unknown | None = None
    lines: Callable[[fx.Node], str] = lambda node: ""
    inner: Mapping[str, Any] | None = None
    refusals: list[Refusal] = field(default_factory=list)
    frozen: list[Refusal] = field(default_factory=list)

    def run(self) -> Any:
        """Return what the graph's output becomes."""
        known: dict[fx.Node, Any] = {}
        for node in self.graph.nodes:
            if node.op == "output":
                return fx.node.map_arg(node.args[0], known.__getitem__)
            known[node] = self._value(node, known)
        raise AssertionError("a graph of torch.fx ends with its output")

    def _value(self, node: fx.Node, known: Mapping[fx.Node, Any]) -> Any:
        if node.op == "placeholder":
            return self.given.get(node.name, node.args[0] if node.args else None)
        if node.op == "get_attr":
            return self._attribute(str(node.target))
        args = fx.node.map_aggregate(node.args, lambda a: _of(a, known))
        kwargs = fx.node.map_aggregate(node.kwargs, lambda a: _of(a, known))
        if _has_nothing(args) or _has_nothing(kwargs):
            return NOTHING
        self.builder.site = Site(path_of(node), spelling(node, self.module), self.lines(node))
        try:
            return self._called(node, args, dict(kwargs))
        except (UnsupportedError, ShapeError) as error:
            reason = str(error)
        except TraceError:
            raise  # time is up
        except Exception as error:  # whatever a handler or torch raises on strange arguments
            # A spelling with arguments that the table does not know of.
            reason = f"it is called in a way that is not known ({error})"
        if self.unknown is not None:
            try:
                value = self.unknown(self.builder, node, args, dict(kwargs))
                self.frozen.append(Refusal(self.builder.site, reason))
                return value
            except (UnsupportedError, ShapeError) as error:
                reason = reason if reason == str(error) else f"{reason}; {error}"
        self.refusals.append(Refusal(self.builder.site, reason))
        return NOTHING

    def _called(self, node: fx.Node, args: Any, kwargs: dict[str, Any]) -> Any:
        if node.op == "call_module":
            called = self.module.get_submodule(str(node.target))
            handler = MODULES.get(type(called).__name__)
            if handler is None:
                raise UnsupportedError("no op for it")
            return handler(self.builder, called, str(node.target), *args, **kwargs)
        name = bare_name(node)
        if name.startswith("wrap_with_"):
            return self._inside(args)
        if name == "getitem" and isinstance(args[0], tuple | list):
            return args[0][args[1]]
        if not is_traced(args) and not is_traced(kwargs) and not _spreads(args):
            return _computed(node, args, kwargs)
        if name == "_assert":
            return None
        handler = FUNCTIONS.get(f"aten.{name}") if _is_aten(node) else None
        handler = handler or FUNCTIONS.get(name)
        if handler is None:
            raise UnsupportedError("no op for it")
        return handler(self.builder, *args, **kwargs)

    def _inside(self, args: tuple[Any, ...]) -> Any:
        """Go through a graph that stands inside, such as a block with autocast switched off."""
        place = next(i for i, arg in enumerate(args) if isinstance(arg, fx.GraphModule))
        graph, inputs = args[place].graph, args[place + 1 :]
        names = [node.name for node in graph.nodes if node.op == "placeholder"]
        walk = replace(self, graph=graph, given=dict(zip(names, inputs, strict=True)))
        return walk.run()

    def _attribute(self, path: str) -> Any:
        if self.inner is not None and path in self.inner:
            return self.inner[path]
        value: Any = self.module
        for part in path.split("."):
            value = getattr(value, part)
        return Weight(path, value) if isinstance(value, nn.Parameter) else value


def _of(argument: Any, known: Mapping[fx.Node, Any]) -> Any:
    return known[argument] if isinstance(argument, fx.Node) else argument


def _has_nothing(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(map(_has_nothing, value))
    if isinstance(value, dict):
        return any(map(_has_nothing, value.values()))
    return value is NOTHING


def _spreads(args: Any) -> bool:
    """Return whether a constant tensor is being repeated for each image of the batch."""
    tensor = isinstance(args, tuple) and bool(args) and isinstance(args[0], torch.Tensor)
    sizes = [s for a in args[1:] for s in (a if isinstance(a, tuple | list) else [a])]
    return tensor and any(isinstance(s, int) and s and s % BATCH == 0 for s in sizes)


def _computed(node: fx.Node, args: Any, kwargs: dict[str, Any]) -> Any:
    """Return the value of a call that no image and no weight has a part in."""
    with torch.no_grad():
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        assert callable(node.target)
        return node.target(*args, **kwargs)


def _is_aten(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload)


def bare_name(node: fx.Node) -> str:
    """Return what a call is called, whoever spells it."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target._schema.name).rpartition("::")[2]
    if isinstance(target, str):
        return target
    return str(getattr(target, "__name__", target))


def spelling(node: fx.Node, module: nn.Module) -> str:
    """Return how the call is written, for messages."""
    if node.op == "call_module":
        return type(module.get_submodule(str(node.target))).__name__
    if isinstance(node.target, torch._ops.OpOverload):
        return str(node.target)
    name = bare_name(node)
    return f"Tensor.{name}" if node.op == "call_method" else name


def path_of(node: fx.Node) -> str:
    """Return the dotted name of the module whose forward makes the call."""
    stack = node.meta.get("nn_module_stack") or {}
    for entry in reversed(stack.values()):
        path = entry[0] if isinstance(entry, tuple) else ""
        if isinstance(path, str):
            # A module that is called twice is told apart by a suffix that is no part of its name.
            return path.partition("@")[0]
    return ""


def single(value: Any) -> Any:
    """Return what is alone in a sequence or a dictionary, anything else as it is."""
    if isinstance(value, tuple | list) and len(value) == 1:
        return value[0]
    if isinstance(value, dict) and len(value) == 1:
        return next(iter(value.values()))
    return value


def output_of(value: Any) -> Value:
    """Return the one tensor that a network returns.

    Raises:
        UnsupportedError: It returns several, or none.
    """
    value = single(value)
    if not isinstance(value, Value):
        kind = type(value).__name__
        raise UnsupportedError(f"the network must return one tensor, it returns a {kind}")
    return value
