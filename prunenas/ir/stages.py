"""Stages: groups whose feature maps have one spatial size. Derived, never declared."""

from dataclasses import dataclass
from typing import final

from prunenas.ir.coupling import ChannelGroup, couple
from prunenas.ir.graph import Graph

HEAD = "head"
"""Name of the stage of all layers without spatial size."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Free groups whose first member's map has one size.

    Args:
        name: ``stage1``, ``stage2``, ... in topological order, or ``head``.
        spatial: Height and width; empty for the head.
        groups: The free groups that stand here.
    """

    name: str
    spatial: tuple[int, ...]
    groups: tuple[ChannelGroup, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the producing layers of all groups."""
        return tuple(member for group in self.groups for member in group.members)


def stages(graph: Graph) -> tuple[Stage, ...]:
    """Return the stages of ``graph`` that have a free group, the head last.

    Source: Liu et al. 2019, arXiv:1810.05270, section 5 (layers of one feature-map size).
    """
    by_size: dict[tuple[int, ...], list[ChannelGroup]] = {}
    for group in couple(graph).free:
        by_size.setdefault(graph.shapes[group.name].spatial, []).append(group)
    head = by_size.pop((), [])
    found = [
        Stage(name=f"stage{i}", spatial=size, groups=tuple(groups))
        for i, (size, groups) in enumerate(by_size.items(), start=1)
    ]
    if head:
        found.append(Stage(name=HEAD, spatial=(), groups=tuple(head)))
    return tuple(found)
