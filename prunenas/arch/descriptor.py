"""Descriptor: what pruning found, as a delta on one reference; ``apply`` is the only bridge."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from prunenas.arch.rules import (
    block_faults,
    count_faults,
    mask_faults,
    sparsity_faults,
    width_faults,
)
from prunenas.errors import DescriptorError, KeepError
from prunenas.ir.blocks import drop_blocks
from prunenas.ir.canonical import digest
from prunenas.ir.coupling import (
    ChannelGroups,
    GroupAxis,
    axis_width,
    channel_places,
    recut,
    resized,
)
from prunenas.ir.draw import subset
from prunenas.ir.graph import Graph, Node
from prunenas.ir.ops import ExactMask, KernelOp, KernelSparsity, Select
from prunenas.ir.records import Remade, remade


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a descriptor comes from.

    Args:
        method: Name of the generator, or of the profile's source.
        keep: The keep that was asked for; None where a method takes none.
        reached: Kept / full of what the method counts: channels, each free group once; the weights
            that a mask method may remove; or blocks.
        kept_best: Groups or layers that the method would have emptied; they keep their best.
        options: What else the method was given, as JSON values.
        nominal: Keep that the method meant for each group or layer, where that is not what the
            architecture can have.
        found: What the method measured on its way, as JSON values.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    method: str
    keep: float | None = None
    reached: float | None = None
    kept_best: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    nominal: Mapping[str, float] = field(default_factory=dict, metadata={"omit": True})
    found: Mapping[str, Any] = field(default_factory=dict, metadata={"omit": True})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """Widths, selections, dropped blocks, masks and counts of parts, on one named reference.

    Args:
        reference: Digest of the graph this speaks of.
        widths: New width by group; groups that are not named stay as they are.
        selections: Kept channels by group, ascending indices into the reference's channels. A
            channel selection needs them to be exact; elsewhere they say what weights to inherit.
        dropped: Removable residual blocks to leave out, by the name of their addition.
        densities: Keep probability of each kernel position by layer, row by row; one number for
            a linear layer.
        masks: Exact masks by layer, of the kernels as the widths here leave them.
        part_counts: New number of parts by grouped convolution; what is said of a layer holds for
            those that share its weights. Its inputs and outputs must have new widths then.
        seed: Seed of what is drawn: the indices of selections that have a width only, and masks.
        origin: Where this comes from; no part of what it says.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    reference: str
    widths: Mapping[str, int] = field(default_factory=dict)
    selections: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    densities: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    seed: int = 0
    origin: Origin | None = field(default=None, compare=False)
    masks: Mapping[str, ExactMask] = field(default_factory=dict, metadata={"omit": True})
    part_counts: Mapping[str, int] = field(default_factory=dict, metadata={"omit": True})

    def __post_init__(self) -> None:
        selections = {name: tuple(kept) for name, kept in self.selections.items()}
        faults = [
            f"{name}: width {self.widths[name]} but {len(kept)} selected channels"
            for name, kept in selections.items()
            if self.widths.get(name, len(kept)) != len(kept)
        ]
        if faults:
            raise DescriptorError("a descriptor contradicts itself: " + "; ".join(faults))
        widths = dict(self.widths) | {name: len(kept) for name, kept in selections.items()}
        densities = {name: tuple(d) for name, d in self.densities.items()}
        object.__setattr__(self, "widths", MappingProxyType(widths))
        object.__setattr__(self, "selections", MappingProxyType(selections))
        object.__setattr__(self, "dropped", tuple(self.dropped))
        object.__setattr__(self, "densities", MappingProxyType(densities))
        object.__setattr__(self, "masks", MappingProxyType(dict(self.masks)))
        object.__setattr__(self, "part_counts", MappingProxyType(dict(self.part_counts)))

    def __reduce__(self) -> Remade:
        return remade(self)


def kept_width(full: int, keep: float, *, divisor: int = 1) -> int:
    """Return the width left of ``full`` channels.

    It is the multiple of ``divisor`` nearest to ``full * keep``, never 0, never above ``full``.

    Where ``divisor`` does not divide ``full``, the full width stands for the multiple above it.

    Raises:
        KeepError: ``keep`` is not in (0, 1], or ``divisor`` is below 1.

    Example:
        >>> kept_width(64, 0.9)
        58
    """
    check_keep(keep)
    if divisor < 1:
        raise KeepError(f"widths can be rounded to multiples from 1 on, got {divisor}")
    return min(full, max(1, round(full * keep / divisor)) * divisor)


def kept_widths(
    full: NDArray[np.int64], keep: NDArray[np.float64], divisor: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return ``kept_width`` of many groups at once, ``[g]``."""
    steps = np.maximum(1, np.rint(full * keep / divisor)).astype(np.int64)
    widths: NDArray[np.int64] = np.minimum(full, steps * divisor)
    return widths


def check_keep(keep: float) -> None:
    """Refuse a keep outside (0, 1].

    Raises:
        KeepError: It is outside.
    """
    if not 0 < keep <= 1:
        raise KeepError(f"keep is a fraction in (0, 1], got keep={keep!r}")


def within_bounds(groups: ChannelGroups, widths: Mapping[str, int]) -> dict[str, int]:
    """Return ``widths`` of all groups with every bounded one cut down to its bound.

    Profiles and rates round each group for itself, which can leave a selection wider than its
    source by a channel; the source wins. An axis of several groups gives way group by group.
    Where what is bounded cannot give way (a network's input that is padded, say), the source grows
    to the smallest width that fits.
    """
    fitted = groups.widths | dict(widths)
    least = _least_widths(groups)
    for group in groups.free:
        fitted[group.name] = max(fitted[group.name], least[group.name])
    changed = True
    while changed:
        changed = False
        for bound in groups.bounds:
            for name in (name for segment in bound.lower for name in segment.groups):
                excess = bound.excess(fitted)
                group = groups[name]
                if excess <= 0 or group.fixed is not None:
                    continue
                steps = -(-excess // (_worth(bound.lower, name, fitted) * group.divisor))
                smaller = max(least[group.name], fitted[group.name] - steps * group.divisor)
                changed |= smaller < fitted[group.name]
                fitted[group.name] = smaller
    return fitted


def _least_widths(groups: ChannelGroups) -> dict[str, int]:
    """Return the smallest width of each group with which the bounds can be met."""
    least = {g.name: g.divisor if g.fixed is None else g.width for g in groups}
    changed = True
    while changed:
        changed = False
        for bound in groups.bounds:
            for name in (name for segment in bound.upper for name in segment.groups):
                excess = bound.excess(least)
                group = groups[name]
                if excess <= 0 or group.fixed is not None:
                    continue
                steps = -(-excess // (_worth(bound.upper, name, least) * group.divisor))
                larger = min(group.width, least[group.name] + steps * group.divisor)
                changed |= larger > least[group.name]
                least[group.name] = larger
    return least


def _worth(axis: GroupAxis, name: str, widths: Mapping[str, int]) -> int:
    """Return how many entries of ``axis`` one channel of a group makes."""
    one_more = axis_width(axis, {**widths, name: widths[name] + 1})
    return one_more - axis_width(axis, widths)


def apply(graph: Graph, descriptor: Descriptor) -> Graph:
    """Return ``graph`` with the descriptor's numbers put in.

    Raises:
        DescriptorError: The descriptor is for another graph, or breaks rules of this one: unknown
            or fixed groups, divisors, bounds, parts, selections, blocks. All violations are told
            at once.
    """
    if descriptor.reference != digest(graph):
        raise DescriptorError(
            f"the descriptor is for the graph {descriptor.reference}, this one is "
            f"{digest(graph)}: carry it over as a profile instead"
        )
    groups = recut(graph, descriptor.part_counts)
    faults = [
        *count_faults(graph, groups, descriptor.widths, descriptor.part_counts),
        *width_faults(groups, descriptor.widths),
        *_selection_faults(graph, groups, descriptor),
        *block_faults(graph, descriptor.dropped),
        *(
            sparsity_faults(graph, descriptor.densities, descriptor.masks)
            or mask_faults(graph, descriptor.widths, descriptor.part_counts, descriptor.masks)
        ),
    ]
    if faults:
        raise DescriptorError("the descriptor breaks the graph's rules:\n  " + "\n  ".join(faults))
    nodes = tuple(
        _rewritten(node, graph[node.name], groups, descriptor)
        for node in resized(graph, descriptor.widths, descriptor.part_counts)
    )
    return drop_blocks(replace(graph, nodes=nodes), descriptor.dropped)


def _rewritten(node: Node, old: Node, groups: ChannelGroups, descriptor: Descriptor) -> Node:
    op = node.op
    owner = node.weights or node.name
    if isinstance(op, KernelOp) and owner in descriptor.masks:
        return replace(node, op=replace(op, sparsity=descriptor.masks[owner]))
    if isinstance(op, KernelOp) and owner in descriptor.densities:
        density = descriptor.densities[owner]
        sparsity = KernelSparsity(density=density, seed=descriptor.seed)
        return replace(node, op=replace(op, sparsity=sparsity))
    if isinstance(op, Select):
        group = groups.axes[node.name][0].group
        width = descriptor.widths.get(group, groups[group].width)
        return replace(node, op=replace(op, indices=_indices(old, op, width, groups, descriptor)))
    return node


def _indices(
    node: Node, op: Select, width: int, groups: ChannelGroups, descriptor: Descriptor
) -> tuple[int, ...]:
    """Return what a selection takes of its source, whose own width may have changed."""
    axis = groups.read(node)
    group = groups.axes[node.name][0].group
    kept = kept_positions(axis, groups, descriptor)
    told = descriptor.selections.get(group)
    if told is None and width == op.width:
        told = tuple(range(width))
    if told is not None and kept is not None:
        chosen = {op.indices[i] for i in told}
        # A selection of which nothing is said may have lost some of its channels: it is drawn then.
        if chosen <= {*kept}:
            return tuple(new for new, old in enumerate(kept) if old in chosen)
    source = axis_width(axis, groups.widths | dict(descriptor.widths))
    return subset(source, width, seed=descriptor.seed, stream=node.name)


def kept_positions(
    axis: GroupAxis, groups: ChannelGroups, descriptor: Descriptor
) -> list[int] | None:
    """Return which of the reference's channels of ``axis`` remain; None where that is not told."""
    left = np.ones(axis_width(axis, groups.widths), dtype=np.bool_)
    for name, places in channel_places(axis, groups.widths):
        kept = {*descriptor.selections.get(name, range(len(places)))}
        if name not in descriptor.selections and descriptor.widths.get(name, len(kept)) != len(
            kept
        ):
            return None
        left[places[[channel not in kept for channel in range(len(places))]]] = False
    return [int(place) for place in np.flatnonzero(left)]


def _selection_faults(graph: Graph, groups: ChannelGroups, descriptor: Descriptor) -> list[str]:
    known = {group.name: group for group in groups}
    faults = []
    for name, kept in descriptor.selections.items():
        if name not in known:
            continue
        ascending = all(a < b for a, b in pairwise(kept))
        if not kept or not ascending or kept[0] < 0 or kept[-1] >= known[name].width:
            faults.append(
                f"{name}: a selection is ascending indices below {known[name].width}, got "
                f"{_short(kept)}"
            )
            continue
        if not known[name].select:
            continue
        for member in known[name].members:
            node = graph[member]
            positions = kept_positions(groups.read(node), groups, descriptor)
            if not isinstance(node.op, Select):
                faults.append(f"{name}: {member} cannot select channels")
            elif positions is None:
                faults.append(f"{name}: its source is narrowed, but not which channels it keeps")
            elif gone := {node.op.indices[i] for i in kept} - {*positions}:
                faults.append(f"{name}: its source has lost the channels {_short(sorted(gone))}")
    return faults


def _short(values: Iterable[int]) -> str:
    shown = [*values]
    text = ", ".join(map(str, shown[:8]))
    return f"[{text}, ... {len(shown)} in all]" if len(shown) > 8 else f"[{text}]"


def reached_keep(groups: ChannelGroups, widths: Mapping[str, int]) -> float:
    """Return kept / full channels, each free group counted once (1 where no group is free)."""
    full = sum(group.width for group in groups.free)
    kept = sum(widths.get(group.name, group.width) for group in groups.free)
    return kept / full if full else 1.0
