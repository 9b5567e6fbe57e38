"""Axes and the solver of their equations."""

from prunenas.ir.axis import Axis, Segment, Unifier


def repeated(axis: Axis, times: int) -> Axis:
    return tuple(Segment(s.variable, s.repeat * times) for s in axis)


def test_a_fresh_variable_has_its_width_member_and_divisor() -> None:
    unifier = Unifier()
    axis = unifier.fresh(6, "conv", divisor=3)
    assert unifier.width(axis) == 6
    assert unifier.variable(0).members == ["conv"]
    assert unifier.variable(0).divisor == 3
    assert unifier.variable(0).fixed is None


def test_width_counts_every_segment_as_often_as_it_repeats() -> None:
    unifier = Unifier()
    a, b = unifier.fresh(3, "a"), unifier.fresh(5, "b")
    assert unifier.width(a + repeated(b, 4)) == 3 + 4 * 5


def test_unified_variables_share_members_and_divisors() -> None:
    unifier = Unifier()
    a, b = unifier.fresh(12, "a", divisor=4), unifier.fresh(12, "b", divisor=6)
    assert unifier.unify(b, a, node="add") == b
    assert unifier.find(1) == unifier.find(0) == 0
    assert unifier.variable(1).members == ["a", "b"]
    assert unifier.variable(1).divisor == 12
    assert [*unifier.roots()] == [0]
    assert unifier.canonical(b) == a


def test_unification_is_transitive_whatever_the_order() -> None:
    unifier = Unifier()
    axes = [unifier.fresh(2, name) for name in "abcdef"]
    for i, j in [(4, 5), (2, 3), (5, 2), (1, 0), (3, 1)]:
        unifier.unify(axes[i], axes[j], node="add")
    assert {unifier.find(i) for i in range(6)} == {0}
    assert sorted(unifier.variable(5).members) == [*"abcdef"]


def test_unifying_twice_changes_nothing() -> None:
    unifier = Unifier()
    a, b = unifier.fresh(2, "a"), unifier.fresh(2, "b")
    for _ in range(2):
        unifier.unify(a, b, node="add")
    assert unifier.variable(0).members == ["a", "b"]


def test_long_axes_are_unified_segment_by_segment() -> None:
    unifier = Unifier()
    a, b, c, d = (unifier.fresh(width, "x") for width in (2, 3, 2, 3))
    unifier.unify(a + repeated(b, 2), c + repeated(d, 2), node="add")
    assert [unifier.find(i) for i in range(4)] == [0, 1, 0, 1]


def test_axes_that_are_cut_differently_are_fixed_on_both_sides_with_the_reason() -> None:
    unifier = Unifier()
    a, b, c = (unifier.fresh(width, "x") for width in (2, 3, 5))
    unifier.unify(a + b, c, node="layer1.add")
    reasons = {unifier.variable(i).fixed for i in range(3)}
    assert reasons == {"layer1.add joins axes that are cut differently"}
    assert [*unifier.roots()] == [0, 1, 2]


def test_equal_widths_with_other_repeats_are_cut_differently() -> None:
    unifier = Unifier()
    a, b = unifier.fresh(4, "a"), unifier.fresh(2, "b")
    unifier.unify(a, repeated(b, 2), node="add")
    assert unifier.variable(0).fixed is not None
    assert unifier.variable(1).fixed is not None


def test_the_first_reason_is_kept() -> None:
    unifier = Unifier()
    axis = unifier.fresh(4, "a")
    unifier.fix(axis, "first")
    unifier.fix(axis, "second")
    assert unifier.variable(0).fixed == "first"


def test_what_is_unified_with_a_fixed_variable_is_fixed() -> None:
    unifier = Unifier()
    a, b = unifier.fresh(4, "a"), unifier.fresh(4, "b")
    unifier.fix(b, "network input")
    unifier.unify(a, b, node="add")
    assert unifier.variable(0).fixed == "network input"


def test_a_divisor_is_lowered_by_the_repeats_that_already_divide() -> None:
    unifier = Unifier()
    a, b = unifier.fresh(4, "a"), unifier.fresh(2, "b")
    unifier.divide(repeated(a, 6) + repeated(b, 4), 4, node="conv")
    # 6 a is a multiple of 4 where a is even; 4 b always is.
    assert [unifier.variable(i).divisor for i in range(2)] == [2, 1]


def test_divisors_add_up_to_their_least_common_multiple() -> None:
    unifier = Unifier()
    axis = unifier.fresh(12, "a", divisor=4)
    unifier.divide(axis, 6, node="norm")
    assert unifier.variable(0).divisor == 12


def test_segments_of_which_only_the_sum_divides_are_fixed_with_the_reason() -> None:
    unifier = Unifier()
    a, b = unifier.fresh(3, "a"), unifier.fresh(5, "b")
    unifier.divide(a + b, 2, node="grouped")
    for i in range(2):
        assert unifier.variable(i).divisor == 1
        assert "grouped needs 2 equal parts" in str(unifier.variable(i).fixed)


def test_bounds_are_collected() -> None:
    unifier = Unifier()
    a, b = unifier.fresh(3, "a"), unifier.fresh(5, "b")
    unifier.bound(a, b, node="select")
    (bound,) = unifier.bounds
    assert (bound.lower, bound.upper, bound.node) == (a, b, "select")
