"""The certificate: the graph and the module it was traced from are the same function."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from prunenas.build.modules.stored import ConstantTensor
from prunenas.build.network import Network
from prunenas.errors import GraphError, TraceError
from prunenas.ir.graph import Graph
from prunenas.ir.ops import (
    Activation,
    Add,
    BatchNorm,
    Concat,
    Conv2d,
    Depthwise2d,
    Dropout,
    DropPath,
    Flatten,
    Gate,
    GlobalPool,
    Input,
    LeakyRelu,
    Linear,
    Pool2d,
    Shuffle,
    Split,
)

BOUND = 1e-4
"""Largest difference, relative to the largest output: float noise of a deep network."""

_CONVOLUTIONAL = (
    *(Input, Conv2d, Depthwise2d, Linear, BatchNorm, Activation, LeakyRelu, Dropout, DropPath),
    *(Pool2d, GlobalPool, Flatten, Add, Gate, Concat, Split, Shuffle),
)
"""Ops that hold no size of the image: with these alone, a second image size can be tried."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One comparison.

    Args:
        images: Sizes of the batch, ``[n c h w]``.
        weights: ``own`` for the module's, ``drawn`` for ones that leave no branch silent.
        difference: Largest difference of an output, relative to the largest output.
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
        bound: What a difference may be.
    """

    checks: tuple[Check, ...]
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
    drawn = drawn_anew(own)
    channels, *size = graph.input_size
    checks = []
    generator = torch.Generator().manual_seed(0)
    smaller = [max(32, int(side * 0.75) // 32 * 32) for side in size]
    for count, tensors, word, spatial in (
        (1, own, "own", size),
        (2, drawn, "drawn", size),
        (1, drawn, "drawn", smaller),
    ):
        other = graph if spatial == size else _resized(graph, spatial)
        if other is None:
            continue
        images = torch.rand((count, channels, *spatial), generator=generator) * 2 - 1
        with torch.no_grad(), evaluating(module):
            wanted = _output(module, tensors, images, must=spatial == size)
            if wanted is None:
                continue
            network = network_of(other, {name: tensors[key] for name, key in state.items()})
            found = network(images)
        if spatial != size and not _alike(wanted, found):
            continue  # the module itself goes by the size of the image
        checks.append(
            Check(images=tuple(images.shape), weights=word, difference=_difference(wanted, found))
        )
    certificate = Certificate(checks=tuple(checks))
    if not certificate.difference <= certificate.bound:
        raise TraceError(
            f"the graph is not the same function as the module: outputs differ by "
            f"{certificate.difference:.2g} of the largest, allowed is {BOUND:g}"
        )
    return certificate


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


def drawn_anew(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``tensors`` with rows and constants drawn so that each of them tells."""
    generator = torch.Generator().manual_seed(1)
    result: dict[str, Tensor] = {}
    # One tensor may have several names.
    known: dict[int, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.numel() and tensor.data_ptr() in known:
            result[name] = known[tensor.data_ptr()].reshape(tensor.shape)
            continue
        if not tensor.is_floating_point() or not tensor.numel():
            result[name] = tensor
            continue
        flat = tensor.detach()
        if flat.dim() >= 2 and float(flat.std()) > 1e-3:
            result[name] = flat
            continue
        values = torch.rand(flat.shape, generator=generator)
        centred = name.endswith(("bias", "running_mean")) or flat.dim() >= 2
        drawn = (values - 0.5) * 0.2 if centred and float(flat.abs().max()) < 1 else values + 0.5
        result[name] = known[tensor.data_ptr()] = drawn.to(flat.dtype)
    return result


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
        output = functional_call(module, dict(tensors), (images,), tie_weights=False)
    except (RuntimeError, AssertionError, ValueError):
        if must:
            raise
        return None  # the module itself wants its own image size
    if isinstance(output, tuple | list):
        output = output[0]
    assert isinstance(output, Tensor)
    return output


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
    scale = float(wanted.abs().max())
    return float((wanted - found).abs().max()) / (scale or 1.0)
