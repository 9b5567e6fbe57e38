"""Sampled inputs of layers, and what each channel contributes to a layer's output there.

A location is one position of a layer's output. A layer's output there, less its bias, is the sum
of what its input channels contribute: each the product of the channel's patch and its part of the
kernel. Only patches at drawn locations are ever kept: those of one batch at a time, or, to refit a
layer that reads more values than there are samples, those of all samples.
"""

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from prunenas.build.modules import Masked
from prunenas.build.network import Network
from prunenas.build.silence import silence
from prunenas.generators.base.fit import fitted
from prunenas.generators.base.method import Proposal, Subject
from prunenas.generators.base.readers import NOBODY
from prunenas.ir.coupling import ChannelGroups
from prunenas.ir.draw import uniform
from prunenas.ir.graph import Graph
from prunenas.ir.ops import Conv1d, Conv2d, Linear

_ELEMENTS = 2**23
"""Numbers in one intermediate tensor: 64 MiB."""


def positions(graph: Graph, name: str) -> int:
    """Return at how many locations a dense layer computes each output for one image."""
    shape = graph.shapes[name]
    channels = shape.dims[-1] if isinstance(graph[name].op, Linear) else shape.dims[0]
    return shape.numel // channels


def locations(
    graph: Graph, name: str, images: int, each: int, *, seed: int, distinct: bool = False
) -> Tensor:
    """Return drawn locations of the outputs of a layer ``[images each]``, below ``positions``.

    Args:
        graph: The reference.
        name: The layer.
        images: How many images.
        each: How many locations of an image; a location can be drawn twice.
        seed: Of the draw, which is another one for every layer.
        distinct: Return all locations, each once, where there are no more than ``each``.
    """
    there = positions(graph, name)
    if distinct and there <= each:
        return torch.arange(there).expand(images, there)
    drawn = uniform(images * each, seed=seed, stream=f"locations of {name}") * there
    return torch.from_numpy(drawn.astype(np.int64)).reshape(images, each)


def patches(graph: Graph, name: str, value: Tensor, where: Tensor) -> Tensor:
    """Return what a dense layer reads to compute its outputs at some locations ``[b each in k]``.

    Args:
        graph: The network's.
        name: The layer.
        value: What it reads, for ``b`` images.
        where: Locations ``[b each]``.

    Returns:
        In double precision; ``k`` is the area of the layer's window, 1 of a linear layer.
    """
    op = graph[name].op
    where = where.to(value.device)
    images = torch.arange(len(where), device=value.device)[:, None]
    if isinstance(op, Linear):
        rows = value.reshape(len(where), -1, value.shape[-1])
        return rows[images, where].unsqueeze(-1).double()
    assert isinstance(op, Conv2d | Conv1d)
    kernel, stride, padding, dilation = _window(op)
    if isinstance(op, Conv1d):
        value = value.unsqueeze(2)
    # Several entries of the batch for an image (windows it was cut into) are more positions.
    height, width = _sides(graph, name)
    entry, where = where // (height * width), where % (height * width)
    value = functional.pad(value, (padding[1], padding[1], padding[0], padding[0]))
    value = value.reshape(len(images), -1, *value.shape[1:])
    rows = _reach(where // width, stride[0], dilation[0], kernel[0])[..., :, None]
    columns = _reach(where % width, stride[1], dilation[1], kernel[1])[..., None, :]
    # What is indexed moves to the front, the channels between stay: [b each kh kw c].
    found = value[images[..., None, None], entry[..., None, None], :, rows, columns]
    return found.flatten(2, 3).transpose(2, 3).double()


def _window(op: Conv2d | Conv1d) -> tuple[tuple[int, int], ...]:
    if isinstance(op, Conv2d):
        return op.kernel, op.stride, op.padding, op.dilation
    return (1, op.kernel), (1, op.stride), (0, op.padding), (1, 1)


def _sides(graph: Graph, name: str) -> tuple[int, int]:
    *_, height, width = (1, *graph.shapes[name].dims[1:])
    return height, width


def _reach(first: Tensor, stride: int, dilation: int, size: int) -> Tensor:
    """Return the places that windows at ``first`` cover along one side ``[... size]``."""
    return first[..., None] * stride + torch.arange(size, device=first.device) * dilation


def dense_kernel(network: Network, name: str) -> Tensor:
    """Return the kernel of a layer as if it had one group, ``[out in k]`` in double precision.

    Weights that a mask hides are zero.
    """
    module, op = network.node(name), network.graph[name].op
    weight = network.weight(name)
    if isinstance(module, Masked):
        weight = weight * module.mask
    weight = weight.reshape(*weight.shape[:2], -1).double()
    parts = op.groups if isinstance(op, Conv2d | Conv1d) else 1
    if parts == 1:
        return weight
    out, into, area = weight.shape
    whole = weight.new_zeros(out, into * parts, area)
    for part in range(parts):
        rows = slice(part * out // parts, (part + 1) * out // parts)
        whole[rows, part * into : (part + 1) * into] = weight[rows]
    return whole


def bias(network: Network, name: str) -> Tensor:
    """Return the bias of a layer ``[out]`` in double precision, zeros where it has none."""
    own = network.node(name).bias
    if isinstance(own, Tensor):
        return own.detach().double()
    weight = network.weight(name)
    return weight.new_zeros(len(weight), dtype=torch.float64)


def contributions(
    read: Tensor, kernel: Tensor, outputs: Tensor, owners: NDArray[np.int64], width: int
) -> Tensor:
    """Return what each channel of a group contributes to one output of every sample.

    Args:
        read: Patches ``[n in k]``.
        kernel: The layer's, ``[out in k]``.
        outputs: An output of each sample ``[n]``.
        owners: The channel at each place that is read ``[in]``.
        width: How many channels the group has.

    Returns:
        Contributions ``[n width + 1]``; the last column is of the places that are nobody's.
    """
    size = max(1, _ELEMENTS // math.prod(read.shape[1:]))
    rows = [
        (some * kernel[of]).sum(dim=2)
        for some, of in zip(torch.split(read, size), torch.split(outputs, size), strict=True)
    ]
    return _by_owner(torch.cat(rows), owners, width, dim=1)


def every_contribution(
    read: Tensor, kernel: Tensor, owners: NDArray[np.int64], width: int
) -> Iterator[tuple[slice, Tensor]]:
    """Yield what each channel contributes to all outputs, for some samples at a time.

    Yields:
        Which samples, and ``[samples out width + 1]`` as of ``contributions``.
    """
    size = max(1, _ELEMENTS // (kernel.shape[0] * kernel.shape[1]))
    by_place = kernel.permute(1, 2, 0)
    for start in range(0, len(read), size):
        some = slice(start, start + size)
        found = torch.bmm(read[some].transpose(0, 1), by_place)
        yield some, _by_owner(found, owners, width, dim=0).permute(1, 2, 0)


def _by_owner(found: Tensor, owners: NDArray[np.int64], width: int, *, dim: int) -> Tensor:
    """Return sums over the places of each channel; those of nobody come last."""
    into = torch.from_numpy(np.where(owners == NOBODY, width, owners)).to(found.device)
    sizes = [*found.shape]
    sizes[dim] = width + 1
    return found.new_zeros(sizes).index_add_(dim, into, found)


@torch.no_grad()
def sampled(
    subject: Subject, networks: tuple[Network, ...], where: Mapping[str, Tensor], images: int
) -> Iterator[tuple[str, tuple[Tensor, ...], Tensor]]:
    """Yield what calls of layers read at drawn locations, batch by batch.

    Args:
        subject: Draws the images.
        networks: Of one graph; all see the same images at the same locations.
        where: Locations ``[images each]`` by call.
        images: How many images.

    Yields:
        The call, the patches ``[n in k]`` of every network, and at which of the images' samples
        these stand ``[n]``.
    """
    start = 0
    for batch, _ in subject.batches(images):
        stop = start + len(batch)
        for read in zip(*(net.reads(batch, where.keys()) for net in networks), strict=True):
            name = read[0][0]
            drawn = where[name][start:stop]
            rows = torch.arange(start * drawn.shape[1], stop * drawn.shape[1])
            found = tuple(
                patches(subject.graph, name, values[0], drawn).flatten(0, 1) for _, values in read
            )
            yield name, found, rows
        start = stop


def scored_images(subject: Subject, most: int) -> int:
    """Return how many images are looked at where ``most`` are asked for."""
    return min(most, len(subject.images.part("fit")))


@torch.no_grad()
def scale_inputs(network: Network, name: str, factors: Tensor) -> None:
    """Multiply what a dense layer reads of each place ``[in]``, by changing its kernel in place."""
    weight = network.weight(name)
    op = network.graph[name].op
    parts = op.groups if isinstance(op, Conv2d | Conv1d) else 1
    shaped = weight.view(parts, len(weight) // parts, weight.shape[1], -1)
    shaped.mul_(factors.to(weight.dtype).reshape(parts, 1, weight.shape[1], 1))


def silence_the_rest(
    graph: Graph, groups: ChannelGroups, proposal: Proposal, network: Network
) -> None:
    """Silence in ``network`` what bounds and divisors take beyond the channels it lost before."""
    _, selections = fitted(graph, groups, proposal)
    gone = {
        name: sorted({*range(groups[name].width)} - {*kept}) for name, kept in selections.items()
    }
    silence(network, groups, gone)
