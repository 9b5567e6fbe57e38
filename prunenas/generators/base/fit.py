"""Proposals fitted to the rules of a graph: divisors, bounds, what selections can still read."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from prunenas.arch.allocate import best
from prunenas.arch.descriptor import Descriptor, kept_positions, within_bounds
from prunenas.generators.base.method import Proposal
from prunenas.ir.canonical import digest
from prunenas.ir.coupling import ChannelGroup, ChannelGroups, recut
from prunenas.ir.graph import Graph
from prunenas.ir.ops import Conv2d, Select


def fitted(
    graph: Graph, groups: ChannelGroups, proposal: Proposal
) -> tuple[dict[str, int], dict[str, tuple[int, ...]]]:
    """Return the proposal fitted to divisors and bounds: widths alone, and kept channels.

    Groups that a convolution with another number of parts reads or makes keep what is proposed:
    which of their parts go is the method's to say, as is what bounds ask of them.
    """
    groups = recut(graph, proposal.part_counts)
    parted = _parted(graph, groups, proposal)
    asked = dict(proposal.widths) | {name: len(kept) for name, kept in proposal.selections.items()}
    bounded = within_bounds(groups, asked)
    alone = proposal.widths.keys() - proposal.selections
    told = Descriptor(reference=digest(graph), widths={name: bounded[name] for name in alone})
    # What a selection reads is known only when its source's channels are, so sources go first.
    kept: tuple[int, ...] | None
    for group in sorted(groups.free, key=lambda group: group.select):
        if group.name in alone:
            continue
        if group.name in parted:
            kept = proposal.selections.get(group.name, tuple(range(group.width)))
        elif group.select:
            kept = _readable(graph, groups, group, told, proposal)
        else:
            kept = _resized(group, bounded[group.name], proposal)
        if kept is not None:
            told = replace(told, selections={**told.selections, group.name: kept})
        else:
            width = len(proposal.selections.get(group.name, range(group.width)))
            width = within_bounds(groups, {**told.widths, group.name: width})[group.name]
            told = replace(told, widths={**told.widths, group.name: width})
    full = groups.widths
    return (
        {n: w for n, w in told.widths.items() if w != full[n] and n not in told.selections},
        {name: kept for name, kept in told.selections.items() if len(kept) != full[name]},
    )


def _parted(graph: Graph, groups: ChannelGroups, proposal: Proposal) -> frozenset[str]:
    """Return the groups on both sides of the convolutions whose number of parts changes."""
    changed = [
        node
        for node in graph.nodes
        if isinstance(node.op, Conv2d)
        and proposal.part_counts.get(node.name, node.op.groups) != node.op.groups
    ]
    axes = [axis for n in changed for axis in (groups.read(n), groups.axes[n.name])]
    return frozenset(name for axis in axes for segment in axis for name in segment.groups)


def _resized(group: ChannelGroup, width: int, proposal: Proposal) -> tuple[int, ...] | None:
    """Return the proposed channels of a group, or its ``width`` best."""
    everything = tuple(range(group.width))
    wanted = proposal.selections.get(group.name, everything)
    if len(wanted) == width and group.divisor == 1:
        return wanted
    scores = proposal.scores.get(group.name, np.zeros(group.width))
    return _evenly(scores, everything, width // group.divisor, group.divisor)


def _readable(
    graph: Graph,
    groups: ChannelGroups,
    group: ChannelGroup,
    told: Descriptor,
    proposal: Proposal,
) -> tuple[int, ...] | None:
    """Return which of a selection's proposed channels its sources still have.

    Where they have none of them, the best that they have; None where that cannot be told.
    """
    there = {*range(group.width)}
    for member in group.members:
        node = graph[member]
        left = kept_positions(groups.read(node), groups, told)
        if not isinstance(node.op, Select) or left is None:
            return None
        remaining = {*left}
        there &= {i for i, channel in enumerate(node.op.indices) if channel in remaining}
    both = [i for i in proposal.selections.get(group.name, range(group.width)) if i in there]
    size = group.width // group.divisor
    each = min(sum(i // size == part for i in both) for part in range(group.divisor))
    scores = proposal.scores.get(group.name, np.zeros(group.width))
    return _evenly(scores, both if each else sorted(there), max(each, 1), group.divisor)


def _evenly(
    scores: NDArray[np.float64], there: Sequence[int], each: int, parts: int
) -> tuple[int, ...] | None:
    """Return the ``each`` best of what is ``there`` in every one of ``parts`` equal parts.

    The filters of a grouped convolution cannot change their part, and parts stay equally wide.
    None where a part has too few.
    """
    size = len(scores) // parts
    kept: list[int] = []
    for part in range(parts):
        own = [i for i in there if i // size == part]
        if len(own) < each:
            return None
        kept += [own[i] for i in best(scores[own], each)]
    return tuple(kept)
