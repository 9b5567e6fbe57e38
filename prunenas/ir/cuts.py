"""Axes cut and laid out anew: what splits, slices and reshapes do to them."""

from collections.abc import Sequence

from prunenas.ir.axis import (
    ONE,
    Axes,
    Axis,
    Factor,
    Segment,
    Variable,
    constant,
    factor_width,
    joined,
    segment_width,
)
from prunenas.ir.unifier import Unifier

_MOST_SEGMENTS = 512
"""A product that would become more segments than this is not followed."""


def reshape(unifier: Unifier, axes: Sequence[Axis], sizes: Sequence[int], *, node: str) -> Axes:
    """Return the axes of a tensor whose entries, in order, are laid out in ``sizes``."""
    result: list[Axis] = [ONE] * len(sizes)
    widths = [unifier.width(axis) for axis in axes]
    i, j = len(axes), len(sizes)
    while i and j:
        # A block: the fewest last dimensions of both that hold one number of entries.
        p, q = i - 1, j - 1
        left, right = widths[p], sizes[q]
        while left != right:
            if left < right:
                p -= 1
                left *= widths[p]
            else:
                q -= 1
                right *= sizes[q]
        result[q:j] = _regroup(unifier, axes[p:i], sizes[q:j], node)
        i, j = p, q
    for axis in axes[:i]:
        unifier.fix(axis, f"{node} drops a dimension of size 1")
    return tuple(result)


def cut(unifier: Unifier, axis: Axis, start: int, stop: int, *, node: str) -> Axis:
    """Return the entries of ``axis`` from ``start`` up to ``stop``.

    Variables are taken apart where the cut falls inside one. Of interleaved channels a part
    can be counted, but its channels are mixed: they are ordered then.
    """
    axis = unifier.resolve(axis)
    if start == 0 and stop == unifier.width(axis):
        return axis
    shuffled = _of_shuffled(unifier, axis, stop - start, node)
    if shuffled is not None:
        return shuffled
    behind = _in_two(unifier, axis, start)
    cut_off = behind and _in_two(unifier, behind[1], stop - start)
    if cut_off is None:
        unifier.fix(axis, f"{node} cuts between segment borders")
        return constant(stop - start)
    return cut_off[0]


def parts(unifier: Unifier, axis: Axis, count: int, *, node: str) -> Axis | None:
    """Return one of ``count`` equal parts of ``axis``, stated to be equal; None if none are."""
    axis = unifier.resolve(axis)
    if count == 1:
        return axis
    each = unifier.width(axis) // count
    if each * count != unifier.width(axis):
        return None
    pieces = _bordered(axis, count)
    if pieces is not None:
        for piece in pieces[1:]:
            unifier.unify(pieces[0], piece, node=node)
        return unifier.resolve(pieces[0])
    shuffled = _of_shuffled(unifier, axis, each, node)
    if shuffled is not None:
        return shuffled
    if len(axis) > 1:
        return None
    taken = _taken(unifier, [*axis[0]], [count, each], exact=count)
    return None if taken is None else (taken[1],)


def _in_two(unifier: Unifier, axis: Axis, at: int) -> tuple[Axis, Axis] | None:
    """Return ``axis`` as two, of which the first has ``at`` entries; None where that fails."""
    first: list[Segment] = []
    rest = [*reversed(axis)]
    while at:
        # The same variable may stand in several segments, so what is known changes on the way.
        rest += reversed(unifier.resolve((rest.pop(),)))
        width = segment_width(rest[-1])
        if width <= at:
            first.append(rest.pop())
            at -= width
            continue
        halves = unifier.halves(rest.pop(), at)
        if halves is None:
            return None
        rest += reversed(halves)
    return tuple(first), tuple(reversed(rest))


def _of_shuffled(unifier: Unifier, axis: Axis, wanted: int, node: str) -> Axis | None:
    """Return how many a part of interleaved channels has, in terms of their variables."""
    segment = axis[0]
    if len(axis) > 1 or not segment or not isinstance(segment[0], Variable):
        return None
    last = segment[-1]
    if not isinstance(last, int) or (last * wanted) % segment_width(segment):
        return None
    unifier.order(axis, f"{node} takes a part of interleaved channels")
    return (joined(segment[:-1], (last * wanted // segment_width(segment),)),)


def _regroup(unifier: Unifier, axes: Sequence[Axis], sizes: Sequence[int], node: str) -> list[Axis]:
    """Return one block of ``axes`` laid out in ``sizes``."""
    real = [axis for axis in map(unifier.resolve, axes) if axis != ONE]
    wanted = [size for size in sizes if size > 1]
    found: list[Axis] | None
    if len(real) == 1 and len(sizes) == 1:
        found = real  # whatever its size: a variable of width 1 stays one
        wanted = [*sizes]
    elif not wanted:
        found = []
        for axis in real:
            unifier.fix(axis, f"{node} drops a dimension of size 1")
    else:
        merged = _product(unifier, real)
        found = None if merged is None else _distributed(unifier, merged, wanted, node)
    if found is None:
        for axis in real:
            unifier.fix(axis, f"{node} regroups entries across the borders of this axis")
        found = [constant(size) for size in wanted]
    if len(wanted) == len(sizes):
        return found
    left = iter(found)
    return [next(left) if size > 1 else ONE for size in sizes]


def _product(unifier: Unifier, axes: Sequence[Axis]) -> Axis | None:
    """Return the axis of several dimensions merged into one, the first the outermost."""
    result = ONE
    for axis in axes:
        if len(axis) > 1:
            if len(result) > 1 or any(isinstance(f, Variable) for f in result[0]):
                return None
            if segment_width(result[0]) * len(axis) > _MOST_SEGMENTS:
                return None
            result = axis * segment_width(result[0])
            continue
        behind = any(isinstance(f, Variable) for segment in result for f in segment)
        if behind:
            for factor in axis[0]:
                if isinstance(factor, Variable):
                    factor.nested = True
        result = tuple(joined(segment, axis[0]) for segment in result)
    return result


def _distributed(
    unifier: Unifier, axis: Axis, sizes: Sequence[int], node: str
) -> list[Axis] | None:
    """Return ``axis`` laid out in several dimensions."""
    if len(sizes) == 1:
        return [axis]
    if len(axis) == 1:
        taken = _taken(unifier, [*axis[0]], sizes)
        return None if taken is None else [(segment,) for segment in taken]
    pieces = _bordered(axis, sizes[0])
    if pieces is not None:
        for piece in pieces[1:]:
            unifier.unify(pieces[0], piece, node=node)
        rest = _distributed(unifier, unifier.resolve(pieces[0]), sizes[1:], node)
        return None if rest is None else [constant(sizes[0]), *rest]
    last = sizes[-1]
    stripped = []
    for segment in axis:
        end = segment[-1] if segment else 1
        if not isinstance(end, int) or end % last:
            return None
        stripped.append(joined(segment[:-1], (end // last,)))
    rest = _distributed(unifier, tuple(stripped), sizes[:-1], node)
    return None if rest is None else [*rest, constant(last)]


def _taken(
    unifier: Unifier, factors: list[Factor], sizes: Sequence[int], *, exact: int | None = None
) -> list[Segment] | None:
    """Return a product laid out in ``sizes``; an outermost part of ``exact`` is constant."""
    result: list[Segment] = []
    for size in sizes:
        taken: Segment = ()
        need = size
        while need > 1:
            factors[:1] = unifier.resolve(((factors[0],),))[0]
            factor = factors.pop(0)
            width = factor_width(factor)
            # What becomes a constant leaves a factor of 1 behind, so that its members have a group.
            whole = exact is None or isinstance(factor, int) or bool(result)
            if need % width == 0 and (whole or need > width):
                need //= width
                taken = joined(taken, (factor,))
                continue
            apart = unifier.apart(factor, need)
            if apart is None:
                return None
            taken = joined(taken, (apart[0],))
            factors.insert(0, apart[1])
            need = 1
        result.append(taken)
    result[-1] = joined(result[-1], tuple(factors))
    if exact is not None:
        for factor in result[0]:
            if isinstance(factor, Variable):
                # The number of parts is not for anybody to choose.
                factor.meaning = constant(factor.width)
        result = [unifier.resolve((segment,))[0] for segment in result]
    return result


def _bordered(axis: Axis, count: int) -> list[Axis] | None:
    """Return ``axis`` in ``count`` equally wide pieces, None where no border falls so."""
    if len(axis) == 1:
        segment = axis[0]
        outer = segment[0] if segment else 1
        if isinstance(outer, int) and outer % count == 0:
            return [(joined((outer // count,), segment[1:]),)] * count
        return None
    each = sum(map(segment_width, axis)) // count
    pieces: list[list[Segment]] = [[]]
    filled = 0
    for segment in axis:
        if filled == each:
            pieces.append([])
            filled = 0
        pieces[-1].append(segment)
        filled += segment_width(segment)
        if filled > each:
            return None
    return [tuple(piece) for piece in pieces] if len(pieces) == count else None
