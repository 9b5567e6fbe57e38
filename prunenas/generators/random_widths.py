"""Random widths at a given overall keep. A control."""

from dataclasses import dataclass
from typing import ClassVar, final

from prunenas.arch.allocate import allocate_keeps
from prunenas.errors import MethodError
from prunenas.generators.base import GENERATORS, Generator, LooksAt, Proposal, Subject
from prunenas.ir.draw import uniform


@GENERATORS.register("random")
@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RandomWidths(Generator):
    """Draw a keep for every free group, then scale all of them to land on the overall keep.

    A control: what widths are worth that nothing has chosen. A keep that not even one channel a
    group reaches is refused: there is nothing left to draw.

    Args:
        least: Smallest keep that is drawn, before scaling; the largest is 1.

    Source: none, a control.
    """

    looks_at: ClassVar[LooksAt] = "graph"
    least: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.least <= 1:
            raise MethodError(f"random: least is a fraction in (0, 1], got {self.least}")

    def propose(self, subject: Subject) -> Proposal:
        """Return widths whose sum is the overall keep, never above and within one step."""
        free = subject.groups.free
        draws = uniform(len(free), seed=subject.seed, stream="random widths")
        keeps = {
            group.name: self.least + (1 - self.least) * float(draw)
            for group, draw in zip(free, draws, strict=True)
        }
        return Proposal(widths=allocate_keeps(subject.graph, keeps, keep=subject.keep))
