"""The certificate: the graph and the module it was traced from are the same function."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from prunenas.build.modules.stored import ConstantTensor
from prunenas.build.network import Network
from prunenas.errors import GraphError, TraceError
from prunenas.importers.calls import single
from prunenas.ir.graph import Graph
from prunenas.ir.ops import (
    Activation,
    Add,
    Affine,
    Arithmetic,
    BatchNorm,
    Clamp,
    Concat,
    Constant,
    Conv2d,
    Convolve,
    Depthwise2d,
    Dropout,
    DropPath,
    Filled,
    Flatten,
    Gate,
    GlobalPool,
    GroupNorm,
    Input,
    Join,
    LayerNorm,
    LeakyRelu,
    Linear,
    Normalize,
    Opaque,
    Parameter,
    Permute,
    Pool2d,
    Power,
    Reduce,
    RmsNorm,
    Shuffle,
    Slice,
    Softmax,
    Split,
)

BOUND = 1e-4
"""Largest difference, relative to the spread of the outputs: float noise of a deep network."""

_CONVOLUTIONAL = (
    *(Input, Conv2d, Depthwise2d, Linear, BatchNorm, Activation, LeakyRelu, Dropout, DropPath),
    *(Pool2d, GlobalPool, Flatten, Add, Gate, Concat, Split, Shuffle, Arithmetic, Affine, Power),
    *(Clamp, Softmax, Normalize, Reduce, Slice, Join, Permute, GroupNorm, LayerNorm, RmsNorm),
    *(Parameter, Filled, Constant, Convolve),
)
"""Ops that hold no size of the image: with these alone, a second image size can be tried."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One comparison.

    Args:
        images: Sizes of the batch, ``[n c h w]``.
        weights: ``own`` for the module's, ``drawn`` for ones that leave no branch silent.
        difference: Largest difference of an output, relative to how far outputs lie from their
            mean.
    """

    images: tuple[int, ...]
    weights: str
    difference: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Same weights, same outputs.

    Args:
        checks: What was compared.
        one_size: Why no second image size was compared; None where one was.
        bound: What a difference may be.
    """

    checks: tuple[Check, ...]
    one_size: str | None = None
    bound: float = BOUND

    @property
    def difference(self) -> float:
        """The largest difference of all checks."""
        return max(check.difference for check in self.checks)


def certify(graph: Graph, module: nn.Module, state: Mapping[str, str]) -> Certificate:
    """Compare ``graph`` with ``module`` in evaluation mode.

    A fresh network hides mistakes: layer scales of 1e-6 and zeroed norms silence whole branches.
    So two of the comparisons draw such tensors anew, for both sides.

    Args:
        graph: What was traced.
        module: Where from; it is not changed.
        state: Name in the module's state of each tensor of the graph's.

    Raises:
        TraceError: They differ by more than the bound, or the tensors do not fit.
    """
    own = dict(module.state_dict())
    # What the graph holds as constants stays what it is.
    drawn = drawn_anew(own, among={*state.values()})
    channels, *size = graph.input_size
    checks = []
    one_size = None
    generator = torch.Generator().manual_seed(0)
    smaller = [_smaller(side) for side in size]
    for count, tensors, word, spatial in (
        (1, own, "own", size),
        (2, drawn, "drawn", size),
        (1, drawn, "drawn", smaller),
    ):
        other = graph if spatial == size else _resized(graph, spatial)
        if other is None:
            one_size = "the graph holds sizes of its image"
            continue
        images = torch.rand((count, channels, *spatial), generator=generator) * 2 - 1
        with torch.no_grad(), evaluating(module):
            wanted = _output(module, tensors, images, must=spatial == size)
            if wanted is None:
                one_size = "the module takes no other size"
                continue
            network = network_of(other, {name: tensors[key] for name, key in state.items()})
            found = _run(network, images)
            if count > 1 and any(isinstance(node.op, Opaque) for node in graph.nodes):
                _refuse_mixing(network, images, found)
        if spatial != size and not _alike(wanted, found):
            one_size = "the module goes by the size of its image"
            continue
        checks.append(
            Check(images=tuple(images.shape), weights=word, difference=_difference(wanted, found))
        )
    certificate = Certificate(checks=tuple(checks), one_size=one_size)
    if not certificate.difference <= certificate.bound:
        raise TraceError(
            f"the graph is not the same function as the module: outputs differ by "
            f"{certificate.difference:.2g} of their spread, allowed is {BOUND:g}; a forward that "
            "overwrites parts of a tensor in place cannot be followed"
        )
    return certificate


def _smaller(side: int) -> int:
    return side * 3 // 4 if side < 43 else side * 3 // 4 // 32 * 32


def _run(network: Network, images: Tensor) -> Tensor:
    try:
        output: Tensor = network(images)
    except RuntimeError as error:
        raise TraceError(f"the graph does not run: {error}") from None
    return output


def _refuse_mixing(network: Network, images: Tensor, together: Tensor) -> None:
    """Refuse a frozen call that looks at several images at once: no op of ours does."""
    alone = torch.cat([_run(network, image[None]) for image in images])
    if not _alike(together, alone):
        raise TraceError(
            "a frozen call mixes the images of a batch: "
            + ", ".join(node.name for node in network.graph.nodes if isinstance(node.op, Opaque))
        )


def network_of(graph: Graph, tensors: Mapping[str, Tensor]) -> Network:
    """Return the network of ``graph`` on these very tensors, in evaluation mode.

    Raises:
        TraceError: Tensors are missing, left over or of another size.
    """
    with torch.device("meta"):
        network = Network(graph)
    try:
        network.load_state_dict(dict(tensors), assign=True, strict=True)
    except RuntimeError as error:
        raise TraceError(f"the graph's tensors are not the module's: {error}") from None
    for part in network.modules():
        if isinstance(part, ConstantTensor):
            part.value = part.stored()
    return network.eval()


def drawn_anew(
    tensors: Mapping[str, Tensor], among: Collection[str] | None = None
) -> dict[str, Tensor]:
    """Return ``tensors`` with rows and constants drawn so that each of them tells.

    Args:
        tensors: By name; one tensor may have several.
        among: Names of those that may be drawn, under whatever name; None for all.
    """
    free = {_place(tensors[name]) for name in (tensors if among is None else among)}
    generator = torch.Generator().manual_seed(1)
    result: dict[str, Tensor] = {}
    known: dict[object, Tensor] = {}
    for name, tensor in tensors.items():
        place = _place(tensor)
        if tensor.numel() and place in known:
            result[name] = known[place]
            continue
        if not tensor.is_floating_point() or not tensor.numel() or place not in free:
            result[name] = tensor
            continue
        flat = tensor.detach()
        if flat.dim() >= 2 and float(flat.std()) > 1e-3:
            result[name] = flat
            continue
        values = torch.rand(flat.shape, generator=generator)
        centred = name.endswith(("bias", "running_mean")) or flat.dim() >= 2
        drawn = (values - 0.5) * 0.2 if centred and float(flat.abs().max()) < 1 else values + 0.5
        result[name] = known[place] = drawn.to(flat.dtype)
    return result


def _place(tensor: Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tensor.shape, tensor.stride()


def _resized(graph: Graph, spatial: list[int]) -> Graph | None:
    """Return ``graph`` on images of another size; None where it holds its own size inside."""
    first, *others = graph.nodes
    if not all(isinstance(node.op, _CONVOLUTIONAL) for node in graph.nodes):
        return None
    assert isinstance(first.op, Input)
    start = replace(first, op=replace(first.op, spatial=tuple(spatial)))
    try:
        smaller = replace(graph, nodes=(start, *others))
        return smaller if smaller.parameters() == graph.parameters() else None
    except GraphError:
        return None


def _output(
    module: nn.Module, tensors: Mapping[str, Tensor], images: Tensor, *, must: bool
) -> Tensor | None:
    try:
        # Each tensor by one of its names: the others follow.
        names = [name for name, _ in (*module.named_parameters(), *module.named_buffers())]
        given = {name: tensors[name] for name in names if name in tensors}
        output = functional_call(module, given, (images,))
    except TraceError:
        raise  # time is up
    except Exception:  # whatever a forward raises on an image of another size
        if must:
            raise
        return None
    found = single(output)
    return found if isinstance(found, Tensor) else None


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put ``module`` in evaluation mode, and back as each part of it was."""
    modes = [(m, m.training) for m in module.modules()]
    _evaluate(module)
    try:
        yield
    finally:
        _evaluate(module)
        for each, mode in modes:
            each.training = mode


def _evaluate(module: nn.Module) -> None:
    """Let go of what modules keep from one evaluation to the next, such as looked up biases."""
    module.train()
    module.eval()


def _alike(wanted: Tensor, found: Tensor) -> bool:
    return wanted.shape == found.shape and _difference(wanted, found) <= BOUND


def _difference(wanted: Tensor, found: Tensor) -> float:
    if wanted.shape != found.shape:
        raise TraceError(
            f"the graph gives outputs {list(found.shape)}, the module {list(wanted.shape)}"
        )
    # Of their spread: beside a large constant a wrong output would look right.
    largest = float(wanted.abs().max())
    spread = float((wanted - wanted.mean()).abs().max())
    scale = spread if spread > 1e-4 * largest else largest
    return float((wanted - found).abs().max()) / (scale or 1.0)
