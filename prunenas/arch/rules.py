"""What a graph allows to be changed: every breach is told, each in one line."""

import math
from collections.abc import Collection, Mapping
from dataclasses import replace

from prunenas.errors import InputError
from prunenas.ir.blocks import blocks
from prunenas.ir.coupling import (
    ChannelGroups,
    GroupAxis,
    GroupSegment,
    axis_width,
    in_parts,
    resized,
)
from prunenas.ir.graph import Graph, Node
from prunenas.ir.ops import Conv2d, ExactMask, KernelOp, kernel_of


def width_faults(groups: ChannelGroups, asked: Mapping[str, int]) -> list[str]:
    """Return which widths no network of these groups can have: unknown, fixed, divisors, bounds.

    Args:
        groups: With the divisors that hold (``recut``).
        asked: New width by group.
    """
    known = {group.name: group for group in groups}
    faults = []
    for name, width in asked.items():
        if name not in known:
            owner = next((g.name for g in groups if name in g.members), None)
            hint = f" (it is a member of {owner!r})" if owner else ""
            faults.append(f"{name}: no such group{hint}")
            continue
        group = known[name]
        if group.fixed is not None and width != group.width:
            faults.append(f"{name}: fixed at {group.width} ({group.fixed}), asked for {width}")
        if width < 1:
            faults.append(f"{name}: the smallest width is 1, asked for {width}")
        elif width % group.divisor:
            faults.append(f"{name}: must be a multiple of {group.divisor}, asked for {width}")
    widths = groups.widths | {n: w for n, w in asked.items() if n in known}
    for bound in groups.bounds:
        excess = bound.excess(widths)
        if excess > 0:
            lower, upper = (" + ".join(map(_product, axis)) for axis in (bound.lower, bound.upper))
            faults.append(f"{bound.node}: {lower} may not be wider than {upper} (by {excess})")
    return faults


def _product(segment: GroupSegment) -> str:
    return " x ".join(
        map(str, (*([segment.repeat] if segment.repeat > 1 else []), *segment.groups))
    )


def count_faults(
    graph: Graph, groups: ChannelGroups, widths: Mapping[str, int], part_counts: Mapping[str, int]
) -> list[str]:
    """Return which convolutions cannot have as many parts as is told.

    Args:
        graph: The reference.
        groups: Its groups, with the divisors that the new counts ask for (``recut``).
        widths: New width by group.
        part_counts: New number of parts by convolution.
    """
    faults = []
    for name, count in part_counts.items():
        if name not in graph or not in_parts(node := graph[name]):
            faults.append(f"{name}: only a grouped convolution has a number of parts")
        elif node.weights is not None:
            faults.append(f"{name}: it has the weights of {node.weights}, say its parts there")
        else:
            faults += _count_fault(node, groups, widths, count)
    return faults


def _count_fault(
    node: Node, groups: ChannelGroups, widths: Mapping[str, int], count: int
) -> list[str]:
    assert isinstance(node.op, Conv2d)
    name, full = node.name, node.op.groups
    if not 1 <= count <= full:
        return [f"{name}: has {full} parts and can have 1 to {full}, asked for {count}"]
    if count == full:
        return []
    if isinstance(node.op.sparsity, ExactMask):
        return [f"{name}: has an exact mask, so its {full} parts stay"]
    return [
        fault
        for what, axis in (("reads", groups.read(node)), ("makes", groups.axes[name]))
        if (fault := _side_fault(f"{name}: the channels it {what}", axis, groups, widths, count))
    ]


def _side_fault(
    what: str, axis: GroupAxis, groups: ChannelGroups, widths: Mapping[str, int], count: int
) -> str | None:
    """Return why the channels on one side of a convolution are not ``count`` equal parts."""
    names = [name for segment in axis for name in segment.groups]
    if not {*names} & widths.keys():
        # Fewer parts of as many channels are wider parts, which nobody asked for.
        return f"{what} need a new width for {count} parts: {', '.join(names) or 'they are fixed'}"
    every = groups.widths | dict(widths)
    width = axis_width(axis, every)
    # A group that breaks its divisor is told by itself.
    if width % count and not any(every[name] % groups[name].divisor for name in names):
        return f"{what} must be a multiple of {count}, asked for {width}"
    return None


def block_faults(graph: Graph, dropped: Collection[str]) -> list[str]:
    """Return which blocks cannot be dropped."""
    if not dropped:
        return []
    known = [block.name for block in blocks(graph)]
    unknown = sorted({*dropped} - {*known})
    if not unknown:
        return []
    return [f"no removable block {', '.join(unknown)}; removable: {', '.join(known) or 'none'}"]


def sparsity_faults(
    graph: Graph, densities: Mapping[str, tuple[float, ...]], masks: Mapping[str, ExactMask]
) -> list[str]:
    """Return which layers cannot have the sparsity that is told, whatever a mask's shape."""
    faults = []
    for name in {**densities, **masks}:
        if name not in graph or not isinstance((node := graph[name]).op, KernelOp):
            faults.append(f"{name}: sparsity belongs to a convolution or a linear layer")
        elif node.weights is not None:
            faults.append(f"{name}: it has the weights of {node.weights}, say its sparsity there")
        elif name in densities and name in masks:
            faults.append(f"{name}: has densities and an exact mask")
        elif name in densities:
            faults += _density_faults(name, node.op, densities[name])
    return faults


def _density_faults(name: str, op: KernelOp, density: tuple[float, ...]) -> list[str]:
    area = math.prod(kernel_of(op))
    if len(density) != area:
        return [f"{name}: its kernel has {area} position(s), got {len(density)} densities"]
    if not all(0 <= p <= 1 for p in density) or not any(density):
        return [f"{name}: densities lie in [0, 1] and one is not 0, got {density}"]
    return []


def mask_faults(
    graph: Graph,
    widths: Mapping[str, int],
    part_counts: Mapping[str, int],
    masks: Mapping[str, ExactMask],
) -> list[str]:
    """Return which masks are not of their kernel as widths and counts of parts leave it."""
    if not masks:
        return []
    try:
        narrow = replace(graph, nodes=resized(graph, widths, part_counts))
    except InputError:
        return []  # widths that make no network are told by themselves
    shapes = narrow.parameters()
    return [
        f"{name}: the kernel is {list(shapes[f'{name}.weight'])}, its mask {list(mask.shape)}"
        for name, mask in masks.items()
        if shapes[f"{name}.weight"] != mask.shape
    ]
