"""Axes and the solver of their equations: small cases, told exactly."""

from prunenas.ir.axis import ONE, Axis, Variable, constant, joined, segment_width, times
from prunenas.ir.unifier import Unifier


def fresh(unifier: Unifier, *widths: int) -> list[Axis]:
    """Return one variable of each width, decided by the nodes a, b, c and so on."""
    return [unifier.fresh(w, name) for w, name in zip(widths, "abcdefgh", strict=False)]


def known(unifier: Unifier, axis: Axis) -> Variable:
    """Return the one variable that ``axis`` is."""
    (variable,) = unifier.variables(axis)
    return variable


def product(unifier: Unifier, *axes: Axis) -> Axis:
    """Return the product of axes of one segment each."""
    return (tuple(factor for axis in axes for factor in unifier.resolve(axis)[0]),)


def sizes(unifier: Unifier, axis: Axis) -> list[list[int]]:
    """Return the widths of the factors of ``axis``, constants as negative numbers."""
    return [
        [-f if isinstance(f, int) else f.width for f in segment]
        for segment in unifier.resolve(axis)
    ]


def reasons(unifier: Unifier, *axes: Axis) -> set[str | None]:
    return {v.fixed for axis in axes for v in unifier.variables(axis)}


def test_constants_side_by_side_are_multiplied_and_ones_are_left_out() -> None:
    (((v,),),) = fresh(Unifier(), 5)
    assert joined((v, 2), (3, v)) == (v, 6, v)
    assert joined((1,), (v,)) == joined((v,), (1,)) == (v,)
    assert joined((), ()) == ()
    assert segment_width((v, 6)) == 30
    assert constant(1) == ONE == ((),)
    assert times(((v,), (2,)), 3) == ((v, 3), (6,))


def test_a_fresh_variable_has_its_width_member_and_divisor() -> None:
    unifier = Unifier()
    axis = unifier.fresh(6, "conv", divisor=3)
    variable = known(unifier, axis)
    assert unifier.width(axis) == variable.width == 6
    assert (variable.members, variable.divisor, variable.fixed) == ([("conv", "")], 3, None)
    assert unifier.solved() == [variable]


def test_width_counts_every_product() -> None:
    unifier = Unifier()
    a, b = fresh(unifier, 3, 5)
    assert unifier.width(a + times(b, 4)) == 3 + 4 * 5
    assert unifier.width(product(unifier, a, b)) == 15


def test_unified_variables_share_members_and_divisors() -> None:
    unifier = Unifier()
    a, b = unifier.fresh(12, "a", divisor=4), unifier.fresh(12, "b", divisor=6)
    assert unifier.unify(b, a, node="add") == b
    assert unifier.resolve(a) == unifier.resolve(b)
    assert known(unifier, a).members == [("b", ""), ("a", "")]
    assert known(unifier, a).divisor == 12


def test_unification_is_transitive_whatever_the_order() -> None:
    unifier = Unifier()
    axes = fresh(unifier, *[2] * 6)
    for i, j in [(4, 5), (2, 3), (5, 2), (1, 0), (3, 1)]:
        unifier.unify(axes[i], axes[j], node="add")
    (variable,) = unifier.solved()
    assert {known(unifier, axis) for axis in axes} == {variable}
    assert sorted(variable.members) == [(name, "") for name in "abcdef"]


def test_unifying_twice_changes_nothing() -> None:
    unifier = Unifier()
    a, b = fresh(unifier, 2, 2)
    for _ in range(2):
        unifier.unify(a, b, node="add")
    assert known(unifier, a).members == [("a", ""), ("b", "")]


def test_long_axes_are_unified_segment_by_segment() -> None:
    unifier = Unifier()
    a, b, c, d = fresh(unifier, 2, 3, 2, 3)
    unifier.unify(a + times(b, 2), c + times(d, 2), node="add")
    assert unifier.resolve(a + b) == unifier.resolve(c + d)
    assert len(unifier.solved()) == 2


# Sums and products.


def test_a_width_that_meets_a_sum_becomes_one() -> None:
    unifier = Unifier()
    a, b, c = fresh(unifier, 2, 3, 5)
    unifier.unify(a + b, c, node="add")
    assert unifier.resolve(c) == unifier.resolve(a + b)
    assert [v.members for v in unifier.variables(c)] == [
        [("a", ""), ("c", "part")],
        [("b", ""), ("c", "part")],
    ]
    assert reasons(unifier, a, b, c) == {None}


def test_sums_that_are_cut_differently_are_cut_at_all_places() -> None:
    unifier = Unifier()
    a, b, c, d = fresh(unifier, 2, 5, 4, 3)
    unifier.unify(a + b, c + d, node="add")
    assert sizes(unifier, c) == [[2], [2]]
    assert sizes(unifier, b) == [[2], [3]]
    assert unifier.resolve(a + b) == unifier.resolve(c + d)


def test_a_width_that_meets_a_product_becomes_one() -> None:
    unifier = Unifier()
    a, b, c = fresh(unifier, 2, 3, 6)
    unifier.unify(product(unifier, a, b), c, node="add")
    assert unifier.resolve(c) == product(unifier, a, b)
    outer, inner = unifier.variables(c)
    assert outer.members == [("a", ""), ("c", "outer")]
    assert inner.members == [("b", ""), ("c", "")]
    assert (outer.nested, inner.nested) == (False, True)


def test_products_are_brought_to_their_common_factors() -> None:
    unifier = Unifier()
    a, b, c, d = fresh(unifier, 2, 6, 4, 3)
    unifier.unify(product(unifier, a, b), product(unifier, c, d), node="add")
    assert sizes(unifier, product(unifier, a, b)) == [[2, 2, 3]]
    assert product(unifier, a, b) == product(unifier, c, d)


def test_products_without_common_factors_are_fixed_on_both_sides_with_the_reason() -> None:
    unifier = Unifier()
    a, b, c, d = fresh(unifier, 4, 3, 6, 2)
    unifier.unify(product(unifier, a, b), product(unifier, c, d), node="layer1.add")
    assert reasons(unifier, a, b, c, d) == {"layer1.add joins axes that are cut differently"}
    assert len(unifier.solved()) == 4


def test_what_repeats_each_channel_makes_a_width_a_multiple_whose_part_is_fixed() -> None:
    unifier = Unifier()
    a, b = fresh(unifier, 4, 2)
    unifier.unify(a, times(b, 2), node="add")
    outer, inner = unifier.variables(a)
    assert outer is known(unifier, b)
    assert (outer.fixed, inner.width, inner.fixed) == (None, 2, "add joins it with a constant")


def test_a_sum_within_constants_is_repeated_as_a_whole() -> None:
    unifier = Unifier()
    a, b, c = fresh(unifier, 5, 2, 3)
    thrice: Axis = ((3, *a[0]),)
    unifier.unify(a, b + c, node="add")
    assert unifier.resolve(thrice) == unifier.resolve((b + c) * 3)


def test_a_factor_behind_another_cannot_become_a_sum() -> None:
    unifier = Unifier()
    a, b, c, d = fresh(unifier, 6, 1, 2, 1)
    outer, inner = unifier.apart(known(unifier, a), 2) or (0, 0)
    unifier.unify(((inner,),), b + c, node="add")
    assert reasons(unifier, ((inner,),), b, c) == {"add joins axes that are cut differently"}
    unifier.unify(((outer,),), b + d, node="other")
    assert isinstance(outer, Variable)
    assert sizes(unifier, a) == [[1, 3], [1, 3]]


def test_a_variable_that_occurs_twice_is_taken_apart_everywhere() -> None:
    unifier = Unifier()
    a, b = fresh(unifier, 2, 4)
    unifier.unify(a + b, b + a, node="add")
    # What reads the same shifted by 2 repeats after 2.
    assert sizes(unifier, b) == [[2], [2]]
    assert {v for axis in (a, b) for v in unifier.variables(axis)} == {known(unifier, a)}


def test_a_product_that_is_turned_around_is_made_of_one_variable() -> None:
    unifier = Unifier()
    a, b = fresh(unifier, 2, 4)
    unifier.unify(product(unifier, a, b), product(unifier, b, a), node="turned")
    assert unifier.resolve(b) == product(unifier, a, a)


def test_an_axis_of_width_1_cannot_follow_a_wider_one() -> None:
    unifier = Unifier()
    a, b, c = fresh(unifier, 1, 4, 4)
    unifier.unify(product(unifier, a, b), c, node="add")
    assert reasons(unifier, a) == {"add joins it with an axis of another size"}
    assert known(unifier, b) is known(unifier, c)
    assert reasons(unifier, b) == {None}


# Fixed, ordered, solid, weak.


def test_the_first_reason_is_kept() -> None:
    unifier = Unifier()
    axis = unifier.fresh(4, "a")
    unifier.fix(axis, "first")
    unifier.fix(axis, "second")
    assert reasons(unifier, axis) == {"first"}


def test_what_is_unified_with_a_fixed_variable_is_fixed() -> None:
    unifier = Unifier()
    a, b = fresh(unifier, 4, 4)
    unifier.fix(b, "network input")
    unifier.unify(a, b, node="add")
    assert reasons(unifier, a) == {"network input"}


def test_parts_and_factors_inherit_what_the_whole_was() -> None:
    unifier = Unifier()
    a, b, c, d = fresh(unifier, 6, 2, 4, 6)
    unifier.fix(a, "because")
    unifier.order(d, "in line")
    unifier.unify(a, b + c, node="add")
    assert unifier.apart(known(unifier, d), 2)
    assert reasons(unifier, b, c) == {"because"}
    assert {v.ordered for v in unifier.variables(d)} == {"in line"}
    assert reasons(unifier, d) == {None}


def test_what_is_unified_with_an_ordered_variable_is_ordered_for_the_first_reason() -> None:
    unifier = Unifier()
    a, b = fresh(unifier, 4, 4)
    unifier.order(b, "first")
    unifier.order(b, "second")
    unifier.unify(a, b, node="add")
    assert known(unifier, a).ordered == "first"
    assert known(unifier, a).fixed is None


def test_a_constant_fixes_what_it_meets() -> None:
    unifier = Unifier()
    (a,) = fresh(unifier, 4)
    unifier.unify(constant(4), a, node="plus")
    assert reasons(unifier, a) == {"plus joins it with a constant"}


def test_a_solid_variable_is_not_taken_apart() -> None:
    unifier = Unifier()
    a, b = fresh(unifier, 2, 3)
    solid = unifier.fresh(5, "select", solid=True)
    unifier.unify(a + b, solid, node="add")
    assert reasons(unifier, a, b, solid) == {"add joins axes that are cut differently"}
    assert unifier.apart(known(unifier, solid), 5) is None
    plain = unifier.fresh(5, "conv")
    unifier.unify(plain, solid, node="add2")
    assert known(unifier, plain).solid


def test_a_weak_variable_follows_what_it_meets_and_decides_nothing() -> None:
    unifier = Unifier()
    row, one = unifier.weak((4, 1), "table")
    assert one == ONE
    a, b = fresh(unifier, 4, 4)
    unifier.unify(row, a, node="times")
    assert known(unifier, row).members == [("a", "")]
    unifier.unify(b, row, node="times2")
    assert known(unifier, row).members == [("b", ""), ("a", "")]


def test_weak_variables_wait_together_for_what_decides_them() -> None:
    unifier = Unifier()
    (one,), (other,) = unifier.weak((6,), "one"), unifier.weak((6,), "other")
    unifier.unify(one, other, node="plus")
    assert known(unifier, one).weak
    a, b = fresh(unifier, 2, 3)
    unifier.unify(other, product(unifier, a, b), node="times")
    assert unifier.resolve(one) == product(unifier, a, b)


def test_a_weak_variable_that_meets_a_constant_is_one() -> None:
    unifier = Unifier()
    one, other = unifier.weak((4, 3), "table")
    unifier.unify(one, constant(4), node="plus")
    unifier.fix(other, "because")
    assert unifier.resolve(one) == ((4,),)
    assert unifier.resolve(other) == ((3,),)


# Divisors.


def test_a_divisor_is_lowered_by_the_repeats_that_already_divide() -> None:
    unifier = Unifier()
    a, b = fresh(unifier, 4, 2)
    unifier.divide(times(a, 6) + times(b, 4), 4, node="conv")
    # 6 a is a multiple of 4 where a is even; 4 b always is.
    assert [known(unifier, axis).divisor for axis in (a, b)] == [2, 1]


def test_divisors_add_up_to_their_least_common_multiple() -> None:
    unifier = Unifier()
    axis = unifier.fresh(12, "a", divisor=4)
    unifier.divide(axis, 6, node="norm")
    assert known(unifier, axis).divisor == 12


def test_the_innermost_factor_that_can_divides() -> None:
    unifier = Unifier()
    a, b = fresh(unifier, 4, 3)
    unifier.divide(product(unifier, a, b), 2, node="norm")
    assert [known(unifier, axis).divisor for axis in (a, b)] == [2, 1]


def test_segments_of_which_only_the_sum_divides_are_fixed_with_the_reason() -> None:
    unifier = Unifier()
    a, b = fresh(unifier, 3, 5)
    unifier.divide(a + b, 2, node="grouped")
    for axis in (a, b):
        assert known(unifier, axis).divisor == 1
        assert "grouped needs 2 equal parts" in str(known(unifier, axis).fixed)


def test_factors_share_the_divisor_of_their_product() -> None:
    for divisor, outer, expected in [
        (3, 2, [1, 3]),
        (2, 4, [2, 1]),
        (6, 4, [2, 3]),
        (4, 2, [2, 2]),
    ]:
        unifier = Unifier()
        axis = unifier.fresh(12, "a", divisor=divisor)
        assert unifier.apart(known(unifier, axis), outer)
        assert [v.divisor for v in unifier.variables(axis)] == expected
    assert unifier.apart(known(unifier, unifier.fresh(12, "b", divisor=12)), 2)
    assert not unifier.apart(known(unifier, unifier.fresh(12, "b")), 5)


def test_a_cut_that_breaks_a_divisor_is_refused() -> None:
    unifier = Unifier()
    a, b = fresh(unifier, 3, 3)
    unifier.unify(a + b, unifier.fresh(6, "grouped", divisor=2), node="add")
    assert reasons(unifier, a, b) == {"add joins axes that are cut differently"}
    c, d = fresh(unifier, 2, 4)
    unifier.unify(c + d, unifier.fresh(6, "grouped", divisor=2), node="add")
    assert [known(unifier, axis).divisor for axis in (c, d)] == [2, 2]


def test_labels_name_what_is_not_the_whole() -> None:
    unifier = Unifier()
    (a,) = fresh(unifier, 6)
    apart = unifier.apart(known(unifier, a), 2)
    assert apart
    unifier.label(((apart[0],),), "heads")
    unifier.label(((apart[1],),), "heads")
    assert [v.members for v in unifier.variables(a)] == [[("a", "heads")], [("a", "")]]


def test_bounds_and_stored_widths_are_collected() -> None:
    unifier = Unifier()
    a, b = fresh(unifier, 3, 5)
    unifier.bound(a, b, node="select")
    (bound,) = unifier.bounds
    assert (bound.lower, bound.upper, bound.node) == (a, b, "select")
    unifier.store("conv", width=a)
    unifier.store_sizes("reshape", (a, b))
    assert (unifier.stored, unifier.sizes) == ({"conv": {"width": a}}, {"reshape": (a, b)})
