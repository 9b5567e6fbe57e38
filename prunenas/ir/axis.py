"""Channel axes: what the channels of a tensor are made of, and the equations between widths.

An *axis* is a tuple of segments. A segment is one width *variable*, each of whose channels
occurs ``repeat`` times in a row. That is all that residuals (equal axes), concatenation (appended
segments) and flattening (repeated channels) need.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Segment:
    """One variable's channels on an axis.

    Args:
        variable: Index into the unifier's variables.
        repeat: How many times in a row each channel occurs.
    """

    variable: int
    repeat: int = 1


Axis = tuple[Segment, ...]


@final
@dataclass(slots=True)
class Variable:
    """What is known of one width while the equations are being solved."""

    width: int
    members: list[str] = field(default_factory=list)
    divisor: int = 1
    fixed: str | None = None


@final
@dataclass(frozen=True, slots=True)
class Bound:
    """``lower`` may never be wider than ``upper``.

    Args:
        lower: The axis that is bounded.
        upper: The axis that bounds it.
        node: The op that asks for it.
    """

    lower: Axis
    upper: Axis
    node: str


class Unifier:
    """Solves equations between axes by union and find.

    It lives only while one graph is being coupled.
    """

    def __init__(self) -> None:
        self._variables: list[Variable] = []
        self._parents: list[int] = []
        self.bounds: list[Bound] = []

    def fresh(self, width: int, member: str, *, divisor: int = 1) -> Axis:
        """Introduce a variable of ``width`` channels, decided by the node ``member``."""
        self._variables.append(Variable(width=width, members=[member], divisor=divisor))
        self._parents.append(len(self._parents))
        return (Segment(len(self._parents) - 1),)

    def find(self, variable: int) -> int:
        """Return the representative of ``variable``: the first of its class to be introduced."""
        root = variable
        while self._parents[root] != root:
            root = self._parents[root]
        while self._parents[variable] != root:
            self._parents[variable], variable = root, self._parents[variable]
        return root

    def variable(self, index: int) -> Variable:
        """Return what is known of the class of ``index``."""
        return self._variables[self.find(index)]

    def width(self, axis: Axis) -> int:
        """Return the number of channels of ``axis`` at the current widths."""
        return sum(self.variable(s.variable).width * s.repeat for s in axis)

    def unify(self, first: Axis, second: Axis, *, node: str) -> Axis:
        """State that two axes are equal, segment by segment.

        Axes that are cut differently have no common segments: all variables of both are fixed.

        Returns:
            The first axis.
        """
        if self._cuts(first) != self._cuts(second):
            self.fix((*first, *second), f"{node} joins axes that are cut differently")
            return first
        for one, other in zip(first, second, strict=True):
            self._merge(one.variable, other.variable)
        return first

    def fix(self, axis: Axis, reason: str) -> None:
        """Forbid the widths on ``axis`` to vary; the first reason given is kept."""
        for segment in axis:
            variable = self.variable(segment.variable)
            variable.fixed = variable.fixed or reason

    def divide(self, axis: Axis, divisor: int, *, node: str) -> None:
        """Ask that ``axis`` stays cut into ``divisor`` equal parts.

        On several segments each is asked to divide: sufficient, and the simplest to obey. Where
        only their sum divides, all are fixed.
        """
        if any(self.width((segment,)) % divisor for segment in axis):
            self.fix(axis, f"{node} needs {divisor} equal parts, which cut between segment borders")
            return
        for segment in axis:
            variable = self.variable(segment.variable)
            own = divisor // math.gcd(divisor, segment.repeat)
            variable.divisor = math.lcm(variable.divisor, own)

    def bound(self, lower: Axis, upper: Axis, *, node: str) -> None:
        """State that ``lower`` is never wider than ``upper``."""
        self.bounds.append(Bound(lower, upper, node))

    def roots(self) -> Iterable[int]:
        """Return one index for each class, in the order in which they were introduced."""
        return (i for i, parent in enumerate(self._parents) if i == parent)

    def canonical(self, axis: Axis) -> Axis:
        """Return ``axis`` with each variable named by its class."""
        return tuple(Segment(self.find(s.variable), s.repeat) for s in axis)

    def _cuts(self, axis: Axis) -> Sequence[tuple[int, int]]:
        return [(self.variable(s.variable).width, s.repeat) for s in axis]

    def _merge(self, first: int, second: int) -> None:
        keep, drop = sorted((self.find(first), self.find(second)))
        if keep == drop:
            return
        kept, dropped = self._variables[keep], self._variables[drop]
        kept.members += dropped.members
        kept.divisor = math.lcm(kept.divisor, dropped.divisor)
        kept.fixed = kept.fixed or dropped.fixed
        self._parents[drop] = keep
