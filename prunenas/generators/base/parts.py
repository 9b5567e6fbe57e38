"""Parts of grouped convolutions: which can go whole, and factors on them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from prunenas.generators.base.factors import ChannelFactors, carriers
from prunenas.ir.coupling import ChannelGroups, GroupAxis, couple, in_parts, recut
from prunenas.ir.graph import Graph, Node
from prunenas.ir.ops import (
    Activation,
    Add,
    Affine,
    Arithmetic,
    BatchNorm,
    Clamp,
    Conv2d,
    Depthwise2d,
    Dropout,
    DropPath,
    Gate,
    LeakyRelu,
    Pool2d,
    Power,
    Resize,
)

_CHANNEL_BY_CHANNEL = (
    Activation,
    Add,
    Affine,
    Arithmetic,
    BatchNorm,
    Clamp,
    Depthwise2d,
    Dropout,
    DropPath,
    Gate,
    LeakyRelu,
    Pool2d,
    Power,
    Resize,
)
"""Ops that compute no channel from another one."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Grouped convolutions whose parts can go: those that share channels lose the same parts.

    Args:
        count: Number of parts.
        convolutions: Their names, in topological order; the first one names the parts.
        groups: The channel groups that they read and make, with their widths.
        made: Those of them that they make.
    """

    count: int
    convolutions: tuple[str, ...]
    groups: Mapping[str, int]
    made: frozenset[str]

    @property
    def name(self) -> str:
        """Name of the first convolution."""
        return self.convolutions[0]

    def selections(self, kept: NDArray[np.bool_]) -> dict[str, tuple[int, ...]]:
        """Return the channels of the kept parts, by group.

        Args:
            kept: Whether each part stays, ``[count]``.
        """
        return {
            name: tuple(np.flatnonzero(np.repeat(kept, width // self.count)).tolist())
            for name, width in self.groups.items()
        }


def removable_parts(graph: Graph) -> tuple[tuple[Parts, ...], dict[str, str]]:
    """Return what can lose whole parts, and of the other grouped convolutions why they cannot.

    Inputs and outputs of a convolution must each be one free group, all of whose channels are cut
    into the same parts wherever they are cut. Inputs go with a part, so nobody else may read them,
    unless they are outputs of such parts themselves.
    """
    groups = couple(graph)
    convolutions = [node for node in graph.nodes if in_parts(node) and node.weights is None]
    # One part each: the divisors that are left are those that others ask for.
    others = recut(graph, dict.fromkeys([node.name for node in convolutions], 1))
    found: list[Parts] = []
    alone: dict[str, str] = {}
    for sharing in _sharing(groups, convolutions):
        unfit = {n.name: why for n in sharing if (why := _unfit(n, groups, others)) is not None}
        parts = _whole(groups, sharing) if not unfit else next(iter(unfit.items()))
        if isinstance(parts, Parts):
            parts = _unread(graph, groups, parts)
        if isinstance(parts, Parts):
            found.append(parts)
            continue
        first, why = parts
        shared = f"it shares channels with {first}: {why}"
        alone |= {n.name: unfit.get(n.name, why if n.name == first else shared) for n in sharing}
    return tuple(found), alone


def part_factors(graph: Graph) -> ChannelFactors:
    """Return one factor for each removable part, by the name of the parts.

    A factor stands on the outputs of its part, where these are scaled last.
    """
    removable, alone = removable_parts(graph)
    groups = couple(graph)
    standing: dict[str, dict[str, NDArray[np.int64]]] = {}
    for parts in removable:
        layers: dict[str, NDArray[np.int64]] = {}
        for name in sorted(parts.made):
            found = carriers(graph, groups, groups[name])
            if isinstance(found, str):
                alone |= dict.fromkeys(parts.convolutions, found)
                break
            for layer, places in found.items():
                # Channels of a part are neighbours, so are their rows of places.
                own = places.reshape(parts.count, -1)
                layers[layer] = np.hstack([layers[layer], own]) if layer in layers else own
        else:
            standing[parts.name] = layers
    order = {node.name: i for i, node in enumerate(graph.nodes)}
    told = dict(sorted(alone.items(), key=lambda item: order[item[0]]))
    return ChannelFactors.at(graph, standing, told)


def _names(axis: GroupAxis) -> set[str]:
    return {name for segment in axis for name in segment.groups}


def _sides(node: Node, groups: ChannelGroups) -> tuple[tuple[str, GroupAxis], ...]:
    return ("inputs", groups.read(node)), ("outputs", groups.axes[node.name])


def _sharing(groups: ChannelGroups, convolutions: list[Node]) -> Iterator[list[Node]]:
    """Yield the convolutions that are tied by common channels, in topological order."""
    waiting = [*convolutions]
    while waiting:
        tied, names = [waiting.pop(0)], set[str]()
        while True:
            names |= {name for n in tied for _, axis in _sides(n, groups) for name in _names(axis)}
            more = [n for n in waiting if any(_names(a) & names for _, a in _sides(n, groups))]
            if not more:
                break
            tied += more
            waiting = [n for n in waiting if n not in more]
        yield [node for node in convolutions if node in tied]


def _unfit(node: Node, groups: ChannelGroups, others: ChannelGroups) -> str | None:
    """Return why a convolution cannot lose a part, whatever it shares; None where it can."""
    for what, axis in _sides(node, groups):
        if len(axis) != 1 or len(axis[0].factors) != 1 or not axis[0].groups:
            return f"its {what} are not one channel group"
        group = groups[axis[0].group]
        if (why := group.fixed or group.ordered) is not None:
            return f"its {what} are tied: {why}"
        if group.select:
            return f"its {what} are a channel selection"
        if others[group.name].divisor > 1:
            return f"its {what} are cut elsewhere too, into {others[group.name].divisor}"
        for bound in groups.bounds:
            if group.name in _names((*bound.lower, *bound.upper)):
                return f"{bound.node} bounds the width of its {what}"
    return None


def _whole(groups: ChannelGroups, sharing: list[Node]) -> Parts | tuple[str, str]:
    """Return the common parts of convolutions, or which one has none, and why."""
    counts = {node.name: node.op.groups for node in sharing if isinstance(node.op, Conv2d)}
    if len({*counts.values()}) > 1:
        several = ", ".join(f"{name} into {count}" for name, count in counts.items())
        return sharing[0].name, f"its channels are cut differently: {several}"
    made = {groups.axes[node.name][0].group for node in sharing}
    names = [axis[0].group for node in sharing for _, axis in _sides(node, groups)]
    return Parts(
        count=counts[sharing[0].name],
        convolutions=tuple(counts),
        groups={name: groups[name].width for name in names},
        made=frozenset(made),
    )


def _unread(graph: Graph, groups: ChannelGroups, parts: Parts) -> Parts | tuple[str, str]:
    """Return ``parts`` where nobody else needs their inputs; else the first one, and who does."""
    inputs = parts.groups.keys() - parts.made
    for node in graph.nodes:
        if (node.weights or node.name) in parts.convolutions:
            continue
        read = {n for source in node.inputs for axis in groups.dims[source] for n in _names(axis)}
        passed = {n for axis in groups.dims[node.name] for n in _names(axis)}
        needed = inputs & read
        if needed and not (isinstance(node.op, _CHANNEL_BY_CHANNEL) and needed <= passed):
            return parts.name, f"{node.name} reads its inputs too"
    return parts
