"""Axes: what the entries along one dimension are made of, and the equations between widths.

An *axis* is a tuple of segments, one after another. A segment is a product of factors, outermost
first; a factor is a constant or a width *variable*. ``((c,), (d,))`` are the channels of a
concatenation, ``((c, 49),)`` those of a flattened 7x7 map, ``((3, heads, d),)`` those of queries,
keys and values in one layer. Residuals state that two axes are equal, splits and reshapes take
variables apart: a variable that was taken apart *means* an axis of finer ones.
"""

import math
from dataclasses import dataclass, field
from typing import final


@final
@dataclass(slots=True, eq=False)
class Variable:
    """What is known of one width while the equations are being solved; compared by identity.

    Args:
        width: The width now.
        members: Nodes that decide it, with what of theirs it is: ``""`` for the whole width (or
            the innermost factor of it), else a word such as ``heads``.
        divisor: What it must stay a multiple of.
        fixed: Why it may not vary.
        ordered: Why its channels may not change places although their number may.
        solid: It cannot be taken apart: its members choose channels one by one.
        nested: It stands behind another variable in a product, so it cannot become a sum.
        weak: A stored tensor's size: it follows the axes that it meets, be they constants.
        meaning: The finer axis that it stands for, once it was taken apart or found equal.
    """

    width: int
    members: list[tuple[str, str]] = field(default_factory=list)
    divisor: int = 1
    fixed: str | None = None
    ordered: str | None = None
    solid: bool = False
    nested: bool = False
    weak: bool = False
    meaning: "Axis | None" = None


Factor = int | Variable
Segment = tuple[Factor, ...]
Axis = tuple[Segment, ...]
Axes = tuple[Axis, ...]
"""One axis for each dimension of a tensor; the first of a batched one counts per image."""

ONE: Axis = ((),)


def constant(size: int) -> Axis:
    """Return an axis of ``size`` entries that no variable decides."""
    return ONE if size == 1 else ((size,),)


def times(axis: Axis, repeat: int) -> Axis:
    """Return ``axis`` with each entry ``repeat`` times in a row."""
    return tuple(joined(segment, (repeat,)) for segment in axis)


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


def factor_width(factor: Factor) -> int:
    """Return the number of entries of one factor."""
    return factor if isinstance(factor, int) else factor.width


def segment_width(segment: Segment) -> int:
    """Return the number of entries of a product."""
    return math.prod(map(factor_width, segment))


def joined(one: Segment, other: Segment) -> Segment:
    """Return the product of two segments, constants side by side multiplied, without ones."""
    if one and other:
        last, first = one[-1], other[0]
        if isinstance(last, int) and isinstance(first, int):
            one, other = one[:-1], (last * first, *other[1:])
    return tuple(factor for factor in (*one, *other) if factor != 1)
