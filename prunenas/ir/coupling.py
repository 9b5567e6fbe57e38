"""Which widths may vary, and together with which: the equations of a graph, solved."""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from prunenas.errors import GraphError
from prunenas.ir.axis import Axes, Axis, Segment, Variable
from prunenas.ir.graph import Graph, Node, once
from prunenas.ir.ops import Conv2d, ExactMask, LayerNorm
from prunenas.ir.records import Remade, remade
from prunenas.ir.unifier import Unifier


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelGroup:
    """A width that several producers must share.

    Args:
        name: The first member in topological order; behind a dot which factor or part of its
            width this is, where it is not the whole: ``attn.qkv.heads``.
        members: All nodes that decide the width.
        width: The width now.
        divisor: What the width must stay a multiple of.
        fixed: Why the width may not vary; None for a free group.
        ordered: Why channels may not change places, only be fewer; None for nearly all.
        select: The members choose among a source's channels.
    """

    name: str
    members: tuple[str, ...]
    width: int
    divisor: int = 1
    fixed: str | None = None
    ordered: str | None = None
    select: bool = False


@final
@dataclass(frozen=True, slots=True)
class GroupSegment:
    """A product of group widths (by name) and constants, outermost first."""

    factors: tuple[int | str, ...] = ()

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups, outermost first."""
        return tuple(factor for factor in self.factors if isinstance(factor, str))

    @property
    def group(self) -> str:
        """Name of the innermost group.

        Raises:
            GraphError: This is a constant.
        """
        if not self.groups:
            raise GraphError(f"a constant of {self.repeat} has no group")
        return self.groups[-1]

    @property
    def repeat(self) -> int:
        """Product of the constants: how often each channel occurs, where there is one group."""
        return math.prod(factor for factor in self.factors if isinstance(factor, int))

    def width(self, widths: Mapping[str, int]) -> int:
        """Return the number of entries under ``widths``."""
        return math.prod(f if isinstance(f, int) else widths[f] for f in self.factors)


GroupAxis = tuple[GroupSegment, ...]


def axis_width(axis: GroupAxis, widths: Mapping[str, int]) -> int:
    """Return the number of entries of ``axis`` under ``widths``."""
    return sum(segment.width(widths) for segment in axis)


def channel_places(
    axis: GroupAxis, widths: Mapping[str, int]
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield each group that ``axis`` is made of, with the places of its channels.

    A group that stands in several segments, or twice in one, is yielded as often.

    Args:
        axis: Any axis of a node's value.
        widths: The width of every group.

    Yields:
        The group's name, and ``[width places]``: where on the axis each of its channels stands.
    """
    start = 0
    for segment in axis:
        sizes = [f if isinstance(f, int) else widths[f] for f in segment.factors]
        entries = start + np.arange(math.prod(sizes), dtype=np.int64).reshape(sizes)
        for position, factor in enumerate(segment.factors):
            if isinstance(factor, str):
                yield factor, np.moveaxis(entries, position, 0).reshape(sizes[position], -1)
        start += entries.size


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class WidthBound:
    """``lower`` may never be wider than ``upper``, because of ``node``."""

    lower: GroupAxis
    upper: GroupAxis
    node: str

    def excess(self, widths: Mapping[str, int]) -> int:
        """Return by how many channels ``lower`` is wider than ``upper`` under ``widths``."""
        return axis_width(self.lower, widths) - axis_width(self.upper, widths)


@final
@dataclass(frozen=True, kw_only=True)
class ChannelGroups:
    """All groups of a graph, in topological order.

    Args:
        groups: Free and fixed ones.
        dims: What the entries along each dimension of each node's value are made of.
        bounds: Inequalities between widths.
        stored: Fields of ops that hold a width, by node, with the axis whose width it is.
        sizes: The axes whose widths an op's field ``sizes`` holds, by node.
        channel: Dimension of each node's value that holds its channels.
    """

    groups: tuple[ChannelGroup, ...]
    dims: Mapping[str, tuple[GroupAxis, ...]]
    bounds: tuple[WidthBound, ...]
    stored: Mapping[str, Mapping[str, GroupAxis]]
    sizes: Mapping[str, tuple[GroupAxis, ...]]
    channel: Mapping[str, int]

    def __reduce__(self) -> Remade:
        return remade(self)

    def __iter__(self) -> Iterator[ChannelGroup]:
        return iter(self.groups)

    @cached_property
    def _by_name(self) -> Mapping[str, ChannelGroup]:
        return {group.name: group for group in self.groups}

    def __getitem__(self, name: str) -> ChannelGroup:
        """Return the group called ``name``.

        Raises:
            GraphError: There is none.
        """
        try:
            return self._by_name[name]
        except KeyError:
            raise GraphError(f"the graph has no group {name!r}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    @cached_property
    def axes(self) -> Mapping[str, GroupAxis]:
        """What the channels of each node's value are made of; of a single number, nothing."""
        channels = {}
        for name, dims in self.dims.items():
            position = self.channel[name]
            # A trained row of numbers has no batch before it.
            last = dims[-1] if dims else (GroupSegment(),)
            channels[name] = dims[position] if -len(dims) <= position < len(dims) else last
        return MappingProxyType(channels)

    def read(self, node: Node, position: int = 0) -> GroupAxis:
        """Return what the channels are made of that ``node`` reads from one of its inputs."""
        return self.dims[node.inputs[position]][self.channel[node.name]]

    @cached_property
    def free(self) -> tuple[ChannelGroup, ...]:
        """The groups whose width may vary."""
        return tuple(group for group in self.groups if group.fixed is None)

    @property
    def widths(self) -> dict[str, int]:
        """The width of every group by name, fixed ones too."""
        return {group.name: group.width for group in self.groups}


@once
def couple(graph: Graph) -> ChannelGroups:
    """Return the groups of ``graph``: which widths vary together, which are fixed and why."""
    unifier = Unifier()
    axes: dict[str, Axes] = {}
    shapes = graph.shapes
    for node in graph.nodes:
        sources = [axes[name] for name in node.inputs]
        read = [shapes[name] for name in node.inputs]
        axes[node.name] = node.op.axes(sources, read, shapes[node.name], unifier, node.name)
        if isinstance(getattr(node.op, "sparsity", None), ExactMask):
            for axis in (sources[0][node.op.channel], axes[node.name][node.op.channel]):
                unifier.fix(axis, f"{node.name} has an exact mask")
        if node.weights is not None:
            owner = graph[node.weights]
            pairs = [*zip(owner.inputs, node.inputs, strict=True), (owner.name, node.name)]
            for own, mine in pairs:
                for dim in own_dims(node, len(axes[node.name])):
                    unifier.unify(axes[own][dim], axes[mine][dim], node=node.name)
    for axis in axes[graph.output]:
        unifier.fix(axis, "network output")
    return _Naming(graph, unifier, axes).groups()


def own_dims(node: Node, rank: int) -> range:
    """Return the dimensions of a node's value, of ``rank`` many, that its tensors are laid on."""
    if not node.inputs:
        return range(rank)  # a tensor that is stored
    if isinstance(node.op, LayerNorm):
        return range(-node.op.dims, 0)
    return range(node.op.channel, node.op.channel + 1)


def resized(
    graph: Graph, widths: Mapping[str, int], part_counts: Mapping[str, int] | None = None
) -> tuple[Node, ...]:
    """Return the nodes of ``graph`` with the widths of groups replaced; selections stay.

    Groups that are not named keep their width, convolutions that are not named their number of
    parts; layers that share weights follow the owner. Whether the numbers are legal is not checked.
    """
    groups = couple(graph)
    every = groups.widths | dict(widths)
    counts = part_counts or {}
    nodes = []
    for node in graph.nodes:
        fields: dict[str, Any] = {
            field: axis_width(axis, every)
            for field, axis in groups.stored.get(node.name, {}).items()
        }
        if node.name in groups.sizes:
            fields["sizes"] = tuple(axis_width(axis, every) for axis in groups.sizes[node.name])
        if in_parts(node) and (owner := node.weights or node.name) in counts:
            fields["groups"] = counts[owner]
        same = all(getattr(node.op, field) == value for field, value in fields.items())
        nodes.append(node if same else replace(node, op=replace(node.op, **fields)))
    return tuple(nodes)


def in_parts(node: Node) -> bool:
    """Return whether ``node`` is a grouped convolution, whose number of parts can be replaced."""
    return isinstance(node.op, Conv2d) and node.op.groups > 1


def recut(graph: Graph, part_counts: Mapping[str, int]) -> ChannelGroups:
    """Return the groups of ``graph`` with the divisors that other numbers of parts ask for.

    Args:
        graph: The reference; its groups, their names and widths stay.
        part_counts: New number of parts by grouped convolution; other names mean nothing.
    """
    groups = couple(graph)
    cut = [n for n in graph.nodes if in_parts(n) and (n.weights or n.name) in part_counts]
    if not cut:
        return groups
    whole = {
        node.name: replace(node, op=replace(node.op, groups=1, sparsity=None))
        for node in cut
        if isinstance(node.op, Conv2d)
    }
    # What others ask for is what is asked when these convolutions are dense.
    others = couple(replace(graph, nodes=tuple(whole.get(n.name, n) for n in graph.nodes)))
    divisors = {g.name: g.divisor for g in groups}
    divisors |= {g.name: g.divisor for g in others if g.name in groups}
    for node in cut:
        assert isinstance(node.op, Conv2d)
        count = part_counts[node.weights or node.name]
        for segment in (*groups.read(node), *groups.axes[node.name]):
            before = node.op.groups // math.gcd(node.op.groups, segment.repeat)
            after = count // math.gcd(count, segment.repeat) if count > 0 else 1
            for name in reversed(segment.groups):
                if groups[name].width % before == 0:
                    divisors[name] = math.lcm(divisors[name], after)
                    break
    return replace(groups, groups=tuple(replace(g, divisor=divisors[g.name]) for g in groups))


@final
class _Naming:
    """Turns solved variables into named groups; it lives while one graph is being coupled."""

    def __init__(self, graph: Graph, unifier: Unifier, axes: Mapping[str, Axes]) -> None:
        self.graph = graph
        self.unifier = unifier
        self.axes = axes
        self.names: dict[int, str] = {}
        self.taken: set[str] = set()
        self.segments: dict[Segment, GroupSegment] = {}
        self.whole: dict[Axis, GroupAxis] = {}

    def groups(self) -> ChannelGroups:
        position = {node.name: i for i, node in enumerate(self.graph.nodes)}
        # A stored tensor's sizes follow what it meets; where it meets nothing they stay.
        decided = [v for v in self.unifier.solved() if not v.weak]
        first = {id(v): min(position[node] for node, _ in v.members) for v in decided}
        groups = []
        for variable in sorted(decided, key=lambda v: first[id(v)]):
            members = sorted({*variable.members}, key=lambda m: (position[m[0]], m[1]))
            self.names[id(variable)] = self._unique(".".join(filter(None, members[0])))
            groups.append(
                ChannelGroup(
                    name=self.names[id(variable)],
                    members=tuple(dict.fromkeys(node for node, _ in members)),
                    width=variable.width,
                    divisor=variable.divisor,
                    fixed=variable.fixed,
                    ordered=variable.ordered,
                    select=variable.solid,
                )
            )
        return ChannelGroups(
            groups=tuple(groups),
            dims=MappingProxyType(
                {name: tuple(map(self.named, axes)) for name, axes in self.axes.items()}
            ),
            bounds=tuple(
                WidthBound(lower=self.named(b.lower), upper=self.named(b.upper), node=b.node)
                for b in self.unifier.bounds
            ),
            stored={
                node: {field: self.named(axis) for field, axis in fields.items()}
                for node, fields in self.unifier.stored.items()
            },
            sizes={node: tuple(map(self.named, axes)) for node, axes in self.unifier.sizes.items()},
            channel={node.name: node.op.channel for node in self.graph.nodes},
        )

    def named(self, axis: Axis) -> GroupAxis:
        if axis not in self.whole:
            self.whole[axis] = tuple(map(self._segment, self.unifier.resolve(axis)))
        return self.whole[axis]

    def _segment(self, segment: Segment) -> GroupSegment:
        if segment not in self.segments:
            self.segments[segment] = GroupSegment(
                tuple(f if isinstance(f, int) else self._factor(f) for f in segment)
            )
        return self.segments[segment]

    def _factor(self, variable: Variable) -> int | str:
        return self.names.get(id(variable), variable.width)

    def _unique(self, name: str) -> str:
        numbered = (f"{name}{number}" for number in itertools.count(2))
        unique = (
            name if name not in self.taken else next(n for n in numbered if n not in self.taken)
        )
        self.taken.add(unique)
        return unique
