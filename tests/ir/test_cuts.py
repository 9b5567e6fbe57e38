"""Axes cut and laid out anew: small cases, told exactly."""

from collections.abc import Sequence

from prunenas.ir.axis import ONE, Axis, constant, times
from prunenas.ir.cuts import cut, parts, reshape
from prunenas.ir.unifier import Unifier
from tests.ir.test_axis import fresh, known, product, reasons, sizes


def laid_out(unifier: Unifier, axes: Sequence[Axis], *wanted: int) -> list[Axis]:
    return [unifier.resolve(axis) for axis in reshape(unifier, axes, wanted, node="view")]


# Reshapes.


def test_dimensions_that_keep_their_size_keep_their_axis() -> None:
    unifier = Unifier()
    a, b = fresh(unifier, 4, 6)
    found = laid_out(unifier, [ONE, a, constant(5), b], 1, 4, 5, 6)
    assert found == [ONE, a, constant(5), b]


def test_merged_dimensions_are_a_product_and_taking_it_apart_undoes_it() -> None:
    unifier = Unifier()
    a, b = fresh(unifier, 4, 6)
    (merged,) = laid_out(unifier, [a, b], 24)
    assert merged == product(unifier, a, b)
    assert laid_out(unifier, [merged], 4, 6) == [a, b]
    assert known(unifier, b).nested


def test_a_width_is_taken_apart_into_queries_heads_and_their_width() -> None:
    unifier = Unifier()
    (a,) = fresh(unifier, 24)
    three, heads, width = laid_out(unifier, [a], 3, 2, 4)
    assert [known(unifier, axis).width for axis in (three, heads, width)] == [3, 2, 4]
    assert [known(unifier, axis).members for axis in (three, heads, width)] == [
        [("a", "outer")],
        [("a", "outer")],
        [("a", "")],
    ]
    assert laid_out(unifier, [a], 6, 4) == [product(unifier, three, heads), width]


def test_each_block_is_as_small_as_it_can_be() -> None:
    unifier = Unifier()
    a, b = fresh(unifier, 4, 6)
    outer, inner, second, third = laid_out(unifier, [a, b], 2, 2, 2, 3)
    assert product(unifier, outer, inner) == unifier.resolve(a)
    assert product(unifier, second, third) == unifier.resolve(b)
    assert reasons(unifier, a, b) == {None}


def test_positions_behind_each_channel_are_constants() -> None:
    unifier = Unifier()
    (a,) = fresh(unifier, 4)
    sides = constant(2), constant(3)
    assert laid_out(unifier, [ONE, a, *sides], 1, 24) == [ONE, times(a, 6)]
    assert laid_out(unifier, [ONE, times(a, 6)], 1, 4, 2, 3) == [ONE, a, *sides]


def test_sizes_of_1_come_and_go() -> None:
    unifier = Unifier()
    (a,) = fresh(unifier, 4)
    assert laid_out(unifier, [ONE, a], 1, 1, 4, 1, 1) == [ONE, ONE, a, ONE, ONE]
    assert laid_out(unifier, [ONE, ONE, a, ONE], 1, 4) == [ONE, a]
    assert reasons(unifier, a) == {None}


def test_a_variable_of_width_1_stays_where_it_is_alone_and_is_fixed_where_it_is_dropped() -> None:
    unifier = Unifier()
    a, b = fresh(unifier, 1, 1)
    assert laid_out(unifier, [a, constant(3)], 1, 3) == [a, constant(3)]
    assert reasons(unifier, a) == {None}
    laid_out(unifier, [b, constant(3)], 3)
    assert reasons(unifier, b) == {"view drops a dimension of size 1"}


def test_borders_that_do_not_meet_are_fixed_with_the_reason() -> None:
    unifier = Unifier()
    a, b = fresh(unifier, 4, 6)
    assert laid_out(unifier, [a, b], 6, 4) == [constant(6), constant(4)]
    assert reasons(unifier, a, b) == {"view regroups entries across the borders of this axis"}


def test_equal_pieces_of_a_sum_become_a_dimension() -> None:
    unifier = Unifier()
    a, b, c, d = fresh(unifier, 2, 3, 2, 3)
    count, each = laid_out(unifier, [a + b + c + d], 2, 5)
    assert count == constant(2)
    assert each == unifier.resolve(a + b) == unifier.resolve(c + d)


def test_constants_behind_every_part_of_a_sum_become_a_dimension() -> None:
    unifier = Unifier()
    a, b = fresh(unifier, 2, 3)
    assert laid_out(unifier, [times(a + b, 4)], 5, 4) == [a + b, constant(4)]


def test_a_sum_before_another_dimension_is_multiplied_part_by_part() -> None:
    unifier = Unifier()
    a, b, c = fresh(unifier, 2, 3, 4)
    (merged,) = laid_out(unifier, [a + b, c], 20)
    assert merged == product(unifier, a, c) + product(unifier, b, c)
    (repeated,) = laid_out(unifier, [constant(2), a + b], 10)
    assert repeated == a + b + a + b


def test_a_sum_behind_a_variable_is_fixed() -> None:
    unifier = Unifier()
    a, b, c = fresh(unifier, 2, 3, 4)
    assert laid_out(unifier, [c, a + b], 20) == [constant(20)]
    assert None not in reasons(unifier, a, b, c)


def test_the_batch_takes_part() -> None:
    unifier = Unifier()
    heads, width = fresh(unifier, 2, 4)
    n = constant(5)
    lead, *rest = laid_out(unifier, [constant(3), heads, n, width], 6, 5, 4)
    assert lead == ((3, *heads[0]),)
    assert rest == [n, width]
    assert laid_out(unifier, [lead, n, width], 3, 2, 5, 4) == [constant(3), heads, n, width]


def test_a_width_that_meets_itself_is_taken_apart_once() -> None:
    unifier = Unifier()
    (a,) = fresh(unifier, 6)
    pairs = laid_out(unifier, [a, a], 2, 3, 2, 3)
    assert pairs[:2] == pairs[2:]
    assert product(unifier, *pairs[:2]) == unifier.resolve(a)


# Slices.


def test_a_slice_at_a_border_is_a_part() -> None:
    unifier = Unifier()
    a, b, c = fresh(unifier, 2, 3, 4)
    whole = a + b + c
    assert cut(unifier, whole, 2, 5, node="slice") == b
    assert cut(unifier, whole, 0, 9, node="slice") == whole
    assert len(unifier.solved()) == 3


def test_a_slice_inside_a_width_makes_it_a_sum() -> None:
    unifier = Unifier()
    (a,) = fresh(unifier, 7)
    middle = cut(unifier, a, 2, 5, node="slice")
    assert sizes(unifier, a) == [[2], [3], [2]]
    assert known(unifier, middle).width == 3
    assert {m for v in unifier.variables(a) for m in v.members} == {("a", "part")}
    assert cut(unifier, a, 2, 5, node="again") == unifier.resolve(middle)


def test_a_slice_of_a_product_cuts_the_outermost_factor() -> None:
    unifier = Unifier()
    a, b = fresh(unifier, 4, 3)
    pairs = product(unifier, a, b)
    assert sizes(unifier, cut(unifier, pairs, 0, 3, node="slice")) == [[1, 3]]
    assert sizes(unifier, a) == [[1], [3]]
    third: Axis = ((3, *a[0]),)
    assert cut(unifier, third, 4, 8, node="slice") == unifier.resolve(a)


def test_a_slice_inside_an_inner_factor_is_fixed_with_the_reason() -> None:
    unifier = Unifier()
    a, b = fresh(unifier, 4, 3)
    pairs = product(unifier, a, b)
    assert cut(unifier, pairs, 1, 5, node="slice") == constant(4)
    assert reasons(unifier, a, b) == {"slice cuts between segment borders"}


def test_a_slice_through_one_width_twice_cuts_both() -> None:
    unifier = Unifier()
    (a,) = fresh(unifier, 4)
    assert sizes(unifier, cut(unifier, a + a, 1, 6, node="slice")) == [[1], [2], [1], [1]]
    assert sizes(unifier, a) == [[1], [1], [2]]


def test_a_part_of_interleaved_channels_can_be_counted_and_is_ordered() -> None:
    unifier = Unifier()
    (a,) = fresh(unifier, 6)
    assert cut(unifier, times(a, 2), 0, 6, node="slice") == a
    assert known(unifier, a).ordered == "slice takes a part of interleaved channels"
    assert known(unifier, a).fixed is None


# Equal parts.


def test_equal_parts_are_stated_to_be_equal() -> None:
    unifier = Unifier()
    a, b, c, d = fresh(unifier, 1, 4, 1, 4)
    assert parts(unifier, a + b + c + d, 2, node="split") == unifier.resolve(a + b)
    assert unifier.resolve(a + b) == unifier.resolve(c + d)


def test_equal_parts_of_one_width_are_a_factor_whose_number_is_constant() -> None:
    unifier = Unifier()
    (a,) = fresh(unifier, 6)
    part = parts(unifier, a, 2, node="split")
    assert part is not None
    assert unifier.resolve(a) == ((2, known(unifier, part)),)
    assert known(unifier, part).members == [("a", "")]


def test_a_width_in_as_many_parts_as_it_has_channels_keeps_a_variable() -> None:
    unifier = Unifier()
    (a,) = fresh(unifier, 2)
    part = parts(unifier, a, 2, node="split")
    assert part is not None
    assert (known(unifier, part).width, known(unifier, part).members) == (1, [("a", "")])
    solid = unifier.fresh(2, "select", solid=True)
    assert parts(unifier, solid, 2, node="split") is None


def test_parts_of_a_product_take_its_outer_factors() -> None:
    unifier = Unifier()
    a, b = fresh(unifier, 4, 3)
    pairs = product(unifier, a, b)
    assert sizes(unifier, parts(unifier, pairs, 2, node="split") or ONE) == [[2, 3]]
    assert sizes(unifier, a) == [[-2, 2]]
    assert parts(unifier, ((3, *b[0]),), 3, node="split") == b


def test_shuffled_halves_have_as_many_channels_as_a_part_before() -> None:
    unifier = Unifier()
    a, b = fresh(unifier, 4, 4)
    part = parts(unifier, a + b, 2, node="shuffle")
    assert part is not None
    assert parts(unifier, times(part, 2), 2, node="split") == unifier.resolve(a)
    assert known(unifier, b).ordered == "split takes a part of interleaved channels"


def test_parts_that_cut_between_borders_are_none() -> None:
    unifier = Unifier()
    a, b = fresh(unifier, 2, 6)
    assert parts(unifier, a + b, 2, node="split") is None
    assert parts(unifier, a, 3, node="split") is None
    assert parts(unifier, a, 1, node="split") == a
