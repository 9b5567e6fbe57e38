"""Which layers read the channels of a group linearly, and what may be pruned by looking at them.

ThiNet and the regression judge a channel by what the layers behind it make of it. Those are the
dense and grouped convolutions and linear layers on whose input axis the group stands. Depthwise
convolutions pass channels on, flattening repeats a channel once a position, concatenation sets
several groups side by side, and a channel that a selection reads stands behind the selection too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final, get_args

import numpy as np
from numpy.typing import NDArray

from prunenas.arch.allocate import whole_count
from prunenas.arch.descriptor import within_bounds
from prunenas.ir.coupling import (
    ChannelGroup,
    ChannelGroups,
    GroupAxis,
    axis_width,
    channel_places,
)
from prunenas.ir.graph import Graph, Node
from prunenas.ir.ops import Add, Arithmetic, Conv1d, Conv2d, Linear, PadChannels, Select

Whole = Literal["none", "selected", "joined"]
"""Groups that stay whole: none; what selections choose from; also what additions join."""

WHOLE = get_args(Whole)

NOBODY = -1
"""Owner of a place that belongs to no channel of the group."""


@final
@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Reader:
    """One call of a layer that reads channels of a group linearly.

    Args:
        node: The call.
        layer: The node whose kernel is used; another one where weights are shared.
        owners: Which of the group's channels stands at each place of the axis that is read
            ``[in]``; ``NOBODY`` where another group's does.
    """

    node: str
    layer: str
    owners: NDArray[np.int64]


@final
@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be pruned, and by looking at whom.

    Args:
        readers: The readers of each group that is pruned.
        counts: How many channels each of them keeps.
        kept_best: Those of which none would be left.
        left_alone: Why each other free group is not pruned.
    """

    readers: Mapping[str, tuple[Reader, ...]]
    counts: Mapping[str, int]
    kept_best: tuple[str, ...]
    left_alone: Mapping[str, str]

    def calls(self, layer: str) -> tuple[str, ...]:
        """Return the calls of a layer that reads pruned groups."""
        every = (reader for readers in self.readers.values() for reader in readers)
        return tuple(dict.fromkeys(r.node for r in every if r.layer == layer))

    def turns(self, graph: Graph) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Return every layer that reads a pruned group, in forward order, and what it decides.

        A group is decided on with the first layer that reads it.
        """
        decided: set[str] = set()
        turns = []
        layers = {reader.layer for readers in self.readers.values() for reader in readers}
        for node in graph.nodes:
            if node.name in layers:
                new = tuple(
                    name
                    for name, readers in self.readers.items()
                    if name not in decided and any(r.layer == node.name for r in readers)
                )
                decided |= {*new}
                turns.append((node.name, new))
        return tuple(turns)


def plan(graph: Graph, groups: ChannelGroups, keep: float, whole: Whole) -> Plan:
    """Return what a method that looks at readers prunes.

    A group of ``w`` keeps ``int(w * keep)``, cut to a multiple of its divisor, at least its
    divisor; fewer where a bound of the graph asks for it.
    """
    found: dict[str, tuple[Reader, ...]] = {}
    left_alone: dict[str, str] = {}
    spared = _spared(graph, groups, whole)
    for group in groups.free:
        readers = linear_readers(graph, groups, group)
        if group.name in spared:
            left_alone[group.name] = spared[group.name]
        elif isinstance(readers, str):
            left_alone[group.name] = readers
        else:
            found[group.name] = readers
    counts, kept_best = {}, []
    for name in found:
        group = groups[name]
        # A product such as 0.29 * 100 falls short of the whole number that is meant.
        count = whole_count(group.width, keep) // group.divisor * group.divisor
        if not count:
            kept_best.append(name)
        counts[name] = max(count, group.divisor)
    bounded = within_bounds(groups, groups.widths | counts)
    return Plan(
        readers=found,
        counts={name: bounded[name] for name in counts},
        kept_best=tuple(kept_best),
        left_alone=left_alone,
    )


def _spared(graph: Graph, groups: ChannelGroups, whole: Whole) -> dict[str, str]:
    """Return the groups that an option leaves whole, and why."""
    spared: dict[str, str] = {}

    def spare(axis: GroupAxis, reason: str) -> None:
        spared.update({name: reason for segment in axis for name in segment.groups})

    for node in graph.nodes:
        adds = isinstance(node.op, Add | PadChannels) or (
            isinstance(node.op, Arithmetic) and node.op.function == "add"
        )
        if whole == "joined" and adds:
            spare(groups.axes[node.name], f"{node.name} adds to it, and additions stay whole")
    for node in graph.nodes:
        if whole != "none" and isinstance(node.op, Select):
            spare(groups.read(node), f"{node.name} selects among its channels, and is cut instead")
    return spared


def linear_readers(
    graph: Graph, groups: ChannelGroups, group: ChannelGroup
) -> tuple[Reader, ...] | str:
    """Return the readers of a group in forward order, or why it cannot be judged by them."""
    readers = []
    for node in graph.nodes:
        if not _reads_images(graph, node):
            continue
        owners = _owners(graph, groups, groups.read(node), group.name)
        if owners is None:
            return f"{node.name} reads products of its channels with one another"
        if (owners != NOBODY).any():
            readers.append(Reader(node=node.name, layer=node.weights or node.name, owners=owners))
    return tuple(readers) or "no convolution or linear layer reads its channels"


def _reads_images(graph: Graph, node: Node) -> bool:
    """Return whether a node is a dense layer on what differs from image to image."""
    dense = isinstance(node.op, Conv2d | Conv1d | Linear)
    return dense and graph.shapes[node.inputs[0]].lead is not None


def _owners(
    graph: Graph, groups: ChannelGroups, axis: GroupAxis, name: str
) -> NDArray[np.int64] | None:
    """Return the channel of a group at each place of an axis; None where two share a place."""
    owners = np.full(axis_width(axis, groups.widths), NOBODY, dtype=np.int64)
    for other, places in channel_places(axis, groups.widths):
        if other == name:
            channels = np.arange(len(places))
        elif groups[other].select:
            behind = _behind_selection(graph, groups, groups[other], name)
            if behind is None:
                return None
            channels = behind
        else:
            continue
        mine = channels != NOBODY
        if (owners[places[mine]] != NOBODY).any():
            return None
        owners[places[mine]] = channels[mine][:, None]
    return owners


def _behind_selection(
    graph: Graph, groups: ChannelGroups, select: ChannelGroup, name: str
) -> NDArray[np.int64] | None:
    """Return the channel of a group that each of a selection's channels is read from."""
    channels = np.full(select.width, NOBODY, dtype=np.int64)
    for member in select.members:
        node = graph[member]
        if not isinstance(node.op, Select):
            continue
        source = _owners(graph, groups, groups.read(node), name)
        if source is None:
            return None
        read = source[[*node.op.indices]]
        channels = np.where(read == NOBODY, channels, read)
    return channels


def lost(
    graph: Graph, groups: ChannelGroups, gone: Mapping[str, Sequence[int]]
) -> dict[str, tuple[int, ...]]:
    """Return the channels in ``gone``, and those of selections whose source is among them."""
    every = {name: {*channels} for name, channels in gone.items()}
    for node in graph.nodes:
        if isinstance(node.op, Select):
            dead = lost_places(groups, groups.read(node), every)
            mine = {i for i, place in enumerate(node.op.indices) if place in dead}
            every.setdefault(groups.axes[node.name][0].group, set()).update(mine)
    return {name: tuple(sorted(channels)) for name, channels in every.items() if channels}


def tied_by_place(
    graph: Graph, groups: ChannelGroups, name: str, gone: Mapping[str, Sequence[int]]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the channels of a group that must go, and those that must stay.

    Those that are gone already must go. A shortcut that appends channels joins its input's to the
    first of the wider group, place by place: there the wider group must keep what the narrower one
    keeps, or the pruned network would add other channels to one another than this one does.
    """
    go, stay = {*gone.get(name, ())}, set[int]()
    for node in graph.nodes:
        if isinstance(node.op, PadChannels):
            short, long = groups.read(node, 0), groups.read(node, 1)
            single = all(len(axis) == 1 and len(axis[0].factors) == 1 for axis in (short, long))
            if single and long[0].groups == (name,) and short[0].groups not in ((), (name,)):
                lost_there = {*gone.get(short[0].group, ())}
                go |= lost_there
                stay |= {*range(groups[short[0].group].width)} - lost_there
    return tuple(sorted(go)), tuple(sorted(stay - go))


def lost_places(
    groups: ChannelGroups, axis: GroupAxis, gone: Mapping[str, set[int] | Sequence[int]]
) -> set[int]:
    """Return the places on ``axis`` of the channels in ``gone``."""
    return {
        int(place)
        for name, places in channel_places(axis, groups.widths)
        for channel in gone.get(name, ())
        for place in places[channel]
    }
