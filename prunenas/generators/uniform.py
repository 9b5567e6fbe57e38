"""Uniform pruning: the same fraction of every layer. A control."""

from dataclasses import dataclass
from typing import ClassVar, final

from prunenas.arch.descriptor import kept_width
from prunenas.generators.base import GENERATORS, Generator, LooksAt, Proposal, Subject


@GENERATORS.register("uniform")
@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform(Generator):
    """Keep the same fraction of every free group, rounded to the nearest legal width.

    A control: a method that looks at weights is worth what it does better than this. Widths alone
    are told, so that there is nothing to inherit.

    Source: Liu et al. 2019, arXiv:1810.05270, section 5 (uniform pruning).
    """

    looks_at: ClassVar[LooksAt] = "graph"

    def propose(self, subject: Subject) -> Proposal:
        """Return one width for each free group; one that rounds to nothing keeps the least."""
        free = subject.groups.free
        return Proposal(
            widths={g.name: kept_width(g.width, subject.keep, divisor=g.divisor) for g in free},
            kept_best=tuple(g.name for g in free if round(g.width * subject.keep / g.divisor) == 0),
        )
