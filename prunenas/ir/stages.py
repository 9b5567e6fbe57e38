"""Stages: groups whose feature maps have one spatial size. Derived, never declared."""

import math
from dataclasses import dataclass
from typing import final

from prunenas.ir.coupling import ChannelGroup, couple
from prunenas.ir.graph import Graph, once

HEAD = "head"
"""Name of the stage of all layers without spatial size."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Free groups whose first member's map has one size; of tokens, their number counts.

    Args:
        name: ``stage1``, ``stage2``, ... in topological order, or ``head``.
        spatial: Height and width, or the number of tokens; empty for the head.
        groups: The free groups that stand here.
    """

    name: str
    spatial: tuple[int, ...]
    groups: tuple[ChannelGroup, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the producing layers of all groups."""
        return tuple(member for group in self.groups for member in group.members)


@once
def stages(graph: Graph) -> tuple[Stage, ...]:
    """Return the stages of ``graph`` that have a free group, the head last.

    Source: Liu et al. 2019, arXiv:1810.05270, section 5 (layers of one feature-map size).
    """
    by_size: dict[tuple[int, ...], list[ChannelGroup]] = {}
    # Tokens of a map of 7x7 stand in its stage, however they are laid out.
    maps: dict[int, tuple[int, ...]] = {}
    for group in couple(graph).free:
        size = _positions(graph, group.members[0])
        size = maps.setdefault(math.prod(size), size) if size else ()
        by_size.setdefault(size, []).append(group)
    head = by_size.pop((), [])
    found = [
        Stage(name=f"stage{i}", spatial=size, groups=tuple(groups))
        for i, (size, groups) in enumerate(by_size.items(), start=1)
    ]
    if head:
        found.append(Stage(name=HEAD, spatial=(), groups=tuple(head)))
    return tuple(found)


def _positions(graph: Graph, name: str) -> tuple[int, ...]:
    """Return the sizes of a node's value beside its channels; () of a vector."""
    shape, channel = graph.shapes[name], graph[name].op.channel
    sizes = [*shape.sizes]
    del sizes[channel]
    others = tuple(sizes[1:] if shape.lead is not None and sizes[0] == 1 else sizes)
    if len(others) == 2 and channel == 1:
        return others
    count = math.prod(others)
    return (count,) if others and (count > 1 or channel == 1) else ()
