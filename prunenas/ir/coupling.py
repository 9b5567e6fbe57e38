"""Which widths may vary, and together with which: the equations of a graph, solved."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import final

from prunenas.errors import GraphError
from prunenas.ir.axis import Axis, Unifier
from prunenas.ir.graph import Graph
from prunenas.ir.ops import Select


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelGroup:
    """Producers that must share one width.

    Args:
        name: The first member in topological order.
        members: All nodes that decide the width.
        width: The width now.
        divisor: What the width must stay a multiple of.
        fixed: Why the width may not vary; None for a free group.
        select: The members choose among a source's channels.
    """

    name: str
    members: tuple[str, ...]
    width: int
    divisor: int = 1
    fixed: str | None = None
    select: bool = False


@final
@dataclass(frozen=True, slots=True)
class GroupSegment:
    """The channels of ``group``, each ``repeat`` times in a row."""

    group: str
    repeat: int = 1


GroupAxis = tuple[GroupSegment, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class WidthBound:
    """``lower`` may never be wider than ``upper``, because of ``node``."""

    lower: GroupAxis
    upper: GroupAxis
    node: str

    def excess(self, widths: Mapping[str, int]) -> int:
        """Return by how many channels ``lower`` is wider than ``upper`` under ``widths``."""
        lower, upper = (
            sum(widths[s.group] * s.repeat for s in axis) for axis in (self.lower, self.upper)
        )
        return lower - upper


@final
@dataclass(frozen=True, kw_only=True)
class ChannelGroups:
    """All groups of a graph, in topological order.

    Args:
        groups: Free and fixed ones.
        axes: What the channels of each node's value are made of.
        bounds: Inequalities between widths.
    """

    groups: tuple[ChannelGroup, ...]
    axes: Mapping[str, GroupAxis]
    bounds: tuple[WidthBound, ...]

    def __iter__(self) -> Iterator[ChannelGroup]:
        return iter(self.groups)

    def __getitem__(self, name: str) -> ChannelGroup:
        """Return the group called ``name``.

        Raises:
            GraphError: There is none.
        """
        for group in self.groups:
            if group.name == name:
                return group
        raise GraphError(f"the graph has no group {name!r}")

    @property
    def free(self) -> tuple[ChannelGroup, ...]:
        """The groups whose width may vary."""
        return tuple(group for group in self.groups if group.fixed is None)

    @property
    def widths(self) -> dict[str, int]:
        """The width of every group by name, fixed ones too."""
        return {group.name: group.width for group in self.groups}


def couple(graph: Graph) -> ChannelGroups:
    """Return the groups of ``graph``: which widths vary together, which are fixed and why."""
    unifier = Unifier()
    axes: dict[str, Axis] = {}
    for node in graph.nodes:
        sources = [axes[name] for name in node.inputs]
        shapes = graph.input_shapes(node)
        axes[node.name] = node.op.channels(sources, shapes, unifier, node.name)
        if node.weights is not None:
            owner = graph[node.weights]
            for mine, own in zip(node.inputs, owner.inputs, strict=True):
                unifier.unify(axes[own], axes[mine], node=node.name)
            unifier.unify(axes[owner.name], axes[node.name], node=node.name)
    unifier.fix(axes[graph.output], "network output")
    return _named(graph, unifier, axes)


def _named(graph: Graph, unifier: Unifier, axes: Mapping[str, Axis]) -> ChannelGroups:
    position = {node.name: i for i, node in enumerate(graph.nodes)}
    groups = {}
    for root in unifier.roots():
        variable = unifier.variable(root)
        members = tuple(sorted(variable.members, key=position.__getitem__))
        groups[root] = ChannelGroup(
            name=members[0],
            members=members,
            width=variable.width,
            divisor=variable.divisor,
            fixed=variable.fixed,
            select=any(isinstance(graph[name].op, Select) for name in members),
        )

    def named(axis: Axis) -> GroupAxis:
        return tuple(
            GroupSegment(groups[s.variable].name, s.repeat) for s in unifier.canonical(axis)
        )

    return ChannelGroups(
        groups=tuple(sorted(groups.values(), key=lambda group: position[group.name])),
        axes=MappingProxyType({name: named(axis) for name, axis in axes.items()}),
        bounds=tuple(
            WidthBound(lower=named(b.lower), upper=named(b.upper), node=b.node)
            for b in unifier.bounds
        ),
    )
