"""Weights of a reference, cut to a descriptor: where the fine-tuned baseline starts."""

import warnings

import torch
from torch import Tensor

from prunenas.arch.descriptor import Descriptor, apply, kept_positions
from prunenas.build.initialise import build
from prunenas.build.modules import Masked
from prunenas.build.network import Network
from prunenas.errors import DescriptorError
from prunenas.ir.coupling import ChannelGroups, GroupAxis, couple, own_dims
from prunenas.ir.graph import Graph, Node
from prunenas.ir.ops import (
    Conv1d,
    Conv2d,
    Convolve,
    Linear,
    PadChannels,
    Select,
)


def inherit(reference: Network, descriptor: Descriptor) -> Network:
    """Return the network of ``descriptor`` with the reference's weights of the kept channels.

    Args:
        reference: A trained network; it is not changed.
        descriptor: Must say by its selections which channels each narrowed group keeps.

    Raises:
        DescriptorError: It does not fit the reference's graph, tells a width without the channels,
            takes channels from a selection without telling which it has left, or keeps unequal
            parts of a grouped convolution: where it tells another number of parts, so many are
            kept whole or equally narrowed, and of the others nothing.
    """
    graph = reference.graph
    network = build(apply(graph, descriptor), device=next(reference.parameters()).device)
    network.init_seed = None
    groups = couple(graph)
    silent = sorted(
        group.name
        for group in groups
        if descriptor.widths.get(group.name, group.width) != group.width
        and group.name not in descriptor.selections
    )
    if silent:
        raise DescriptorError(
            "weights can be inherited only where the kept channels are told; widths alone are "
            f"given for {', '.join(silent)}"
        )
    robbed = sorted(
        node.name
        for node in graph.nodes
        if isinstance(node.op, Select)
        and groups.axes[node.name][0].group not in descriptor.selections
        and not {*node.op.indices} <= {*_positions(groups.read(node), groups, descriptor).tolist()}
    )
    if robbed:
        raise DescriptorError(
            f"weights can be inherited only where the kept channels are told: {', '.join(robbed)} "
            "lost some of its source's channels, say in selections which it keeps"
        )
    _warn_of_shifted_shortcuts(graph, groups, descriptor)
    _warn_of_ordered_groups(groups, descriptor)
    with torch.no_grad():
        for node in network.graph.nodes:
            if isinstance(node.op, Convolve):
                out = _positions(groups.axes[node.name], groups, descriptor)
                _in_parts(out, graph.shapes[node.name].channels, node.op.groups, node.name)
            if node.weights is None:
                _copy(reference, network, graph[node.name], groups, descriptor)
    return network


def _warn_of_shifted_shortcuts(graph: Graph, groups: ChannelGroups, descriptor: Descriptor) -> None:
    """Warn where a padded shortcut no longer adds each channel to the one it was added to."""
    shifted = []
    for node in graph.nodes:
        if isinstance(node.op, PadChannels):
            short, long = (_positions(groups.read(node, i), groups, descriptor) for i in range(2))
            if not torch.equal(short, long[: len(short)]):
                shifted.append(node.name)
    if shifted:
        warnings.warn(
            "the inherited network is not the reference with channels removed: the padded "
            f"shortcuts {', '.join(shifted)} join channels by their place, and the two sides keep "
            "different ones. Fine-tuning starts further away; training from scratch is not touched",
            stacklevel=3,
        )


def _warn_of_ordered_groups(groups: ChannelGroups, descriptor: Descriptor) -> None:
    """Warn where channels are fewer that an op tells apart by their place."""
    moved = [
        f"{group.name} ({group.ordered})"
        for group in groups
        if group.ordered and descriptor.widths.get(group.name, group.width) != group.width
    ]
    if moved:
        warnings.warn(
            "the inherited network is not the reference with channels removed: an op joins "
            f"channels by their place, and others stand there now, in {', '.join(moved)}. "
            "Fine-tuning starts further away; training from scratch is not touched",
            stacklevel=3,
        )


def _copy(
    reference: Network, network: Network, node: Node, groups: ChannelGroups, descriptor: Descriptor
) -> None:
    source, target = reference.node(node.name), network.node(node.name)
    # What is no part of the state, such as masks and constants, follows from the graph.
    own = target.state_dict()
    if not own:
        return
    kept = [_positions(axis, groups, descriptor) for axis in tensor_axes(node, groups)]
    parts = node.op.groups if isinstance(node.op, Conv2d | Conv1d) else 1
    left = descriptor.part_counts.get(node.name, parts)
    for name, tensor in own.items():
        old: Tensor = getattr(source, name).detach()
        if parts > 1 and old.dim() > 1:
            out, into = kept
            old = _grouped(old, out, into, parts, left, node.name)
        else:
            for dim, places in enumerate(kept[: old.dim()]):
                old = old.index_select(dim, places.to(old.device))
        tensor.copy_(old)
    if isinstance(target, Masked):
        target.weight.mul_(target.mask)


def tensor_axes(node: Node, groups: ChannelGroups) -> tuple[GroupAxis, ...]:
    """Return what the first dimensions of a node's tensors are made of; the others stay whole."""
    if isinstance(node.op, Conv2d | Conv1d | Linear):
        return groups.axes[node.name], groups.read(node)
    dims = groups.dims[node.name]
    return tuple(dims[dim] for dim in own_dims(node, len(dims)))


def _positions(axis: GroupAxis, groups: ChannelGroups, descriptor: Descriptor) -> Tensor:
    kept = kept_positions(axis, groups, descriptor)
    assert kept is not None, "every narrowed group has a selection"
    return torch.tensor(kept)


def _grouped(weight: Tensor, out: Tensor, into: Tensor, count: int, left: int, name: str) -> Tensor:
    """Return what is kept of a grouped kernel: ``left`` of its ``count`` parts.

    Parts that keep something must keep equally many channels on each side.
    """
    of_in = weight.shape[1]
    outs = _parted(out, len(weight), count)
    ins = _parted(into, of_in * count, count)
    parts = [p for p in enumerate(zip(outs, ins, strict=True)) if any(map(len, p[1]))]
    kept = {(len(o), len(i)) for _, (o, i) in parts}
    if len(parts) != left or len(kept) > 1:
        raise DescriptorError(_unequal(name, count, left))
    return torch.cat([weight[o][:, i - part * of_in] for part, (o, i) in parts])


def _in_parts(kept: Tensor, full: int, count: int, name: str) -> None:
    """Refuse to keep another number of channels in one of ``count`` equal parts than in another."""
    if len({len(part) for part in _parted(kept, full, count)}) > 1:
        raise DescriptorError(_unequal(name, count, count))


def _parted(kept: Tensor, full: int, count: int) -> list[Tensor]:
    """Return which of ``full`` channels are kept of each of ``count`` equal parts."""
    return [kept[kept // (full // count) == part] for part in range(count)]


def _unequal(name: str, count: int, left: int) -> str:
    if left == count:
        return f"{name}: the {count} groups must keep equally many channels each"
    return (
        f"{name}: {left} of its {count} groups must keep equally many channels each, the others "
        "none, on both sides alike"
    )
