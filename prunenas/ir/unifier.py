"""The solver of the equations between widths."""

import math
from collections.abc import Iterator, Sequence
from typing import final

from prunenas.ir.axis import (
    ONE,
    Axes,
    Axis,
    Bound,
    Factor,
    Segment,
    Variable,
    constant,
    factor_width,
    joined,
    segment_width,
)


@final
class Unifier:
    """Solves equations between axes. It lives only while one graph is being coupled."""

    def __init__(self) -> None:
        self._variables: list[Variable] = []
        self.bounds: list[Bound] = []
        self.stored: dict[str, dict[str, Axis]] = {}
        self.sizes: dict[str, Axes] = {}

    # Stating

    def fresh(self, width: int, member: str, *, divisor: int = 1, solid: bool = False) -> Axis:
        """Introduce a variable of ``width`` entries, decided by the node ``member``."""
        return ((self._new(width, [(member, "")], divisor=divisor, solid=solid),),)

    def weak(self, sizes: Sequence[int], member: str) -> Axes:
        """Introduce the axes of a stored tensor, whose sizes follow what they meet."""
        axes = []
        for position, size in enumerate(sizes):
            variable = self._new(size, [(member, f"dim{position}")])
            variable.weak = True
            axes.append(((variable,),) if size > 1 else ONE)
        return tuple(axes)

    def store(self, node: str, **fields: Axis) -> None:
        """State that fields of the node's op hold the widths of these axes."""
        self.stored[node] = fields

    def store_sizes(self, node: str, axes: Axes) -> None:
        """State that the field ``sizes`` of the node's op holds the widths of ``axes``."""
        self.sizes[node] = axes

    def fix(self, axis: Axis, reason: str) -> None:
        """Forbid the widths on ``axis`` to vary; the first reason given is kept."""
        for variable in [*self.variables(axis)]:
            variable.fixed = variable.fixed or reason
            if variable.weak:
                variable.meaning = constant(variable.width)

    def order(self, axis: Axis, reason: str) -> None:
        """Forbid the entries of ``axis`` to change places; the first reason given is kept."""
        for variable in self.variables(axis):
            variable.ordered = variable.ordered or reason

    def label(self, axis: Axis, word: str) -> None:
        """Name the outer factors that are decided on ``axis``, for people who read groups."""
        for variable in self.variables(axis):
            variable.members = [(node, word if of else of) for node, of in variable.members]

    def bound(self, lower: Axis, upper: Axis, *, node: str) -> None:
        """State that ``lower`` is never wider than ``upper``."""
        self.bounds.append(Bound(lower, upper, node))

    def divide(self, axis: Axis, divisor: int, *, node: str) -> None:
        """Ask that ``axis`` stays cut into ``divisor`` equal parts.

        On several segments each is asked to divide: sufficient, and the simplest to obey. Where
        only their sum divides, all are fixed.
        """
        axis = self.resolve(axis)
        if divisor == 1:
            return
        if not all(self._divide(segment, divisor) for segment in axis):
            self.fix(axis, f"{node} needs {divisor} equal parts, which cut between segment borders")

    def unify(self, first: Axis, second: Axis, *, node: str) -> Axis:
        """State that two axes are equal; variables are taken apart where the cuts differ.

        Axes whose cuts cannot be brought together have all their variables fixed.

        Returns:
            The first axis.
        """
        if first is second:
            return first
        one, other = self.resolve(first), self.resolve(second)
        if one != other and not self._align(one, other, node):
            self.fix((*one, *other), f"{node} joins axes that are cut differently")
        return first

    # Asking

    def resolve(self, axis: Axis) -> Axis:
        """Return ``axis`` in terms of variables that were not taken apart."""
        for segment in axis:
            for factor in segment:
                if isinstance(factor, Variable) and factor.meaning is not None:
                    return tuple(s for segment in axis for s in self._resolved(segment))
        return axis

    def variables(self, axis: Axis) -> Iterator[Variable]:
        """Yield the variables that ``axis`` is made of."""
        for segment in self.resolve(axis):
            for factor in segment:
                if isinstance(factor, Variable):
                    yield factor

    def width(self, axis: Axis) -> int:
        """Return the number of entries of ``axis`` at the current widths."""
        return sum(map(segment_width, axis))

    def solved(self) -> list[Variable]:
        """Return the variables that are left, in the order in which they were introduced."""
        return [variable for variable in self._variables if variable.meaning is None]

    # Taking apart

    def apart(self, factor: Factor, outer: int) -> tuple[Factor, Factor] | None:
        """Return ``factor`` as a product whose outer part is ``outer``; None where it is none."""
        if factor_width(factor) % outer:
            return None
        inner = factor_width(factor) // outer
        if isinstance(factor, int):
            return outer, inner
        if factor.solid:
            return None
        split = _shared_divisor(factor.divisor, outer, inner)
        if split is None:
            return None
        first = self._new(
            outer, [(m, of or "outer") for m, of in factor.members], divisor=split[0], like=factor
        )
        second = self._new(inner, factor.members, divisor=split[1], like=factor)
        second.nested = True
        factor.meaning = ((first, second),)
        return first, second

    def halves(self, segment: Segment, at: int) -> tuple[Segment, Segment] | None:
        """Return ``segment`` as two, of which the first has ``at`` entries; None where that fails.

        What can be cut is the outermost factor.
        """
        if not segment:
            return None
        factor, rest = segment[0], segment[1:]
        each = segment_width(rest)
        if at % each:
            return None
        first, second = at // each, factor_width(factor) - at // each
        if isinstance(factor, int):
            return joined((first,), rest), joined((second,), rest)
        if factor.solid or factor.nested or first % factor.divisor or second % factor.divisor:
            return None
        members = [(node, of or "part") for node, of in factor.members]
        one, two = (
            self._new(width, [*members], divisor=factor.divisor, like=factor)
            for width in (first, second)
        )
        factor.meaning = ((one,), (two,))
        return (one, *rest), (two, *rest)

    # Inside

    def _new(
        self,
        width: int,
        members: list[tuple[str, str]],
        *,
        divisor: int = 1,
        solid: bool = False,
        like: Variable | None = None,
    ) -> Variable:
        variable = Variable(width=width, members=members, divisor=divisor, solid=solid)
        if like is not None:
            variable.fixed, variable.ordered = like.fixed, like.ordered
            variable.nested, variable.weak = like.nested, like.weak
        self._variables.append(variable)
        return variable

    def _resolved(self, segment: Segment) -> list[Segment]:
        found: list[Segment] = [()]
        for factor in segment:
            if isinstance(factor, int) or factor.meaning is None:
                found = [joined(one, (factor,)) for one in found]
                continue
            meaning = self.resolve(factor.meaning)
            factor.meaning = meaning  # a shorter way for the next who asks
            if len(meaning) == 1:
                found = [joined(one, meaning[0]) for one in found]
            else:
                # A sum never stands behind a variable (see ``nested``), so these are constants.
                found = [*meaning] * segment_width(found[0])
        return found

    def _divide(self, segment: Segment, divisor: int) -> bool:
        fixed = math.prod(f for f in segment if isinstance(f, int))
        own = divisor // math.gcd(divisor, fixed)
        if own == 1:
            return True
        for factor in reversed(segment):
            if isinstance(factor, Variable) and factor.width % own == 0:
                factor.divisor = math.lcm(factor.divisor, own)
                return True
        return False

    def _align(self, one: Axis, other: Axis, node: str) -> bool:
        """Bring the cuts of two axes together, from the first segment on."""
        left, right = [*reversed(one)], [*reversed(other)]
        while left and right:
            for stack in (left, right):
                stack += reversed(self.resolve((stack.pop(),)))
            x, y = segment_width(left[-1]), segment_width(right[-1])
            if x == y:
                if not self._equate(left.pop(), right.pop(), node):
                    return False
                continue
            wide = left if x > y else right
            halves = self.halves(wide.pop(), min(x, y))
            if halves is None:
                return False
            wide += reversed(halves)
        return not left and not right

    def _equate(self, one: Segment, other: Segment, node: str) -> bool:
        """State that two products of one width are equal, factor by factor."""
        left, right = [*one], [*other]
        while left and right:
            for side in (left, right):
                side[:1] = self.resolve(((side[0],),))[0]
            if not left or not right:
                continue
            narrow, wide = sorted((left, right), key=lambda side: factor_width(side[0]))
            outer = factor_width(narrow[0])
            if outer == factor_width(wide[0]):
                self._merge(left.pop(0), right.pop(0), node)
            elif outer == 1:
                self.fix(((narrow.pop(0),),), f"{node} joins it with an axis of another size")
            else:
                apart = self.apart(wide[0], outer)
                if apart is None:
                    return False
                wide[:1] = apart
        self.fix(((*left, *right),), f"{node} joins it with an axis of another size")
        return True

    def _merge(self, one: Factor, other: Factor, node: str) -> None:
        if isinstance(one, int) or isinstance(other, int):
            self.fix(((one, other),), f"{node} joins it with a constant")
            return
        if one is other:
            return
        keep, drop = one, other
        # What is stored follows what decides; else the fewer members move: on a residual chain of
        # thousands of ops, one by one, all of them would move each time.
        if (one.weak, len(other.members)) > (other.weak, len(one.members)):
            keep, drop = other, one
        keep.members += drop.members if keep.weak or not drop.weak else []
        keep.divisor = math.lcm(keep.divisor, drop.divisor)
        keep.fixed = one.fixed or other.fixed
        keep.ordered = one.ordered or other.ordered
        keep.solid |= drop.solid
        keep.nested |= drop.nested
        drop.meaning = ((keep,),)


def _shared_divisor(divisor: int, outer: int, inner: int) -> tuple[int, int] | None:
    """Return a divisor for each factor of a width so that their product keeps ``divisor``."""
    if inner % divisor == 0:
        return 1, divisor
    if outer % divisor == 0:
        return divisor, 1
    part = math.gcd(divisor, inner)
    return (divisor // part, part) if outer % (divisor // part) == 0 else None
