import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunenas.arch.descriptor import apply
from prunenas.arch.profile import StageProfile
from prunenas.errors import BudgetError, ProfileError, SpaceError
from prunenas.families.base import reference
from prunenas.ir.cost import macs, params
from prunenas.search.space import SearchSpace
from tests.search.fakes import STAGES, profile, space, target

TARGET = target()

keeps = st.floats(0.02, 1)


@st.composite
def spaces(draw):
    return SearchSpace.around(
        profile(*draw(st.tuples(keeps, keeps, keeps))),
        target=TARGET,
        radius=draw(st.floats(0, 1)),
        floor=draw(st.floats(0.01, 1)),
        step=draw(st.floats(0.001, 2)),
    )


def test_intervals_reach_the_radius_but_not_below_the_floor_nor_above_one():
    found = space(guide=profile(0.2, 0.5, 0.95), radius=0.15, floor=0.1)
    assert dict(found.intervals) == {
        "stage1": (0.1, 0.35),
        "stage2": (0.35, 0.65),
        "head": (0.8, 1.0),
    }


def test_a_guide_below_the_floor_is_the_lower_end_itself():
    assert space(guide=profile(0.05, 0.5, 0.5), floor=0.1).intervals["stage1"][0] == 0.05


@given(spaces())
def test_the_guide_lies_in_every_space_and_is_its_first_start(found):
    assert all(0 < low <= high <= 1 for low, high in found.intervals.values())
    assert found.contains(found.guide.keeps)
    assert next(iter(found.starts().items())) == ("guided", found.guide)


@given(spaces(), st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)))
def test_snapped_keeps_lie_in_the_intervals_and_on_the_grid_through_the_guide(found, places):
    drawn = {
        stage: low + place * (high - low)
        for (stage, (low, high)), place in zip(found.intervals.items(), places, strict=True)
    }
    for stage, keep in found.snapped(drawn).items():
        low, high = found.intervals[stage]
        assert low - 1e-9 <= keep <= high + 1e-9
        assert 0 < keep <= 1
        steps = (keep - found.guide.keeps[stage]) / found.step
        assert abs(steps - round(steps)) * found.step < 1e-8
        # To the nearest grid point that is inside: never further than a step.
        assert abs(keep - drawn[stage]) <= found.step * (1 + 1e-9)


@given(spaces())
def test_snapping_leaves_the_guide_and_what_is_snapped_already(found):
    assert found.snapped(found.guide.keeps) == pytest.approx(dict(found.guide.keeps), abs=1e-9)
    once = found.snapped({stage: high for stage, (_, high) in found.intervals.items()})
    assert found.snapped(once) == once


def test_keeps_within_half_a_step_become_one_network():
    found = space(guide=profile(0.6, 0.5, 0.4), step=0.1)
    assert found.snapped(dict.fromkeys(STAGES, 0.52)) == {"stage1": 0.5, "stage2": 0.5, "head": 0.5}
    near = found.snapped({"stage1": 0.46, "stage2": 0.54, "head": 0.549})
    assert near == {"stage1": 0.5, "stage2": 0.5, "head": 0.5}


def test_starts_are_the_guide_the_widest_uniform_one_and_a_transferred_one_that_lies_inside():
    found = space(guide=profile(0.6, 0.5, 0.4), radius=0.2, transferred=profile(0.8, 0.3, 0.6))
    assert [*found.starts()] == ["guided", "uniform", "transferred"]
    assert {*found.starts()["uniform"].keeps.values()} == {0.6}
    assert found.starts()["transferred"] is found.transferred


@pytest.mark.parametrize("outside", [(0.81, 0.5, 0.4), (0.6, 0.29, 0.4), (0.6, 0.5, 0.61)])
def test_a_transferred_guide_outside_the_intervals_is_no_start(outside):
    found = space(guide=profile(0.6, 0.5, 0.4), radius=0.2, transferred=profile(*outside))
    assert "transferred" not in found.starts()


def test_a_transferred_guide_with_other_kernel_patterns_is_no_start():
    """All of a space has the guide's patterns; the control is judged with its own."""
    other = StageProfile(
        keeps={"stage1": 0.6, "stage2": 0.5, "head": 0.4}, densities={"stage1": (0.5,) * 9}
    )
    assert "transferred" not in space(transferred=other).starts()


def test_uniform_keeps_are_no_start_where_the_intervals_do_not_overlap():
    assert [*space(guide=profile(0.9, 0.3, 0.5), radius=0.1).starts()] == ["guided"]


@pytest.mark.parametrize(
    ("budget", "cost"), [("max_macs", macs(TARGET)), ("max_params", params(TARGET))]
)
def test_a_budget_is_met_up_to_and_including_it(budget, cost):
    assert space(**{"max_macs": None, budget: cost}).within_budget(TARGET)
    assert not space(**{"max_macs": None, budget: cost - 1}).within_budget(TARGET)


def test_a_space_without_budget_takes_everything():
    free = space(max_macs=None)
    assert not free.budgeted
    assert free.within_budget(TARGET)


@pytest.mark.parametrize("budget", ["max_macs", "max_params"])
def test_a_budget_no_network_can_meet_is_refused_with_what_can_be(budget):
    smallest = apply(TARGET, StageProfile.uniform(TARGET, 1e-6).descriptor(TARGET))
    cost = {"max_macs": macs, "max_params": params}[budget](smallest)
    with pytest.raises(BudgetError, match=f"{cost} {budget[4:]}"):
        space(**{"max_macs": None, budget: cost - 1})
    assert space(**{"max_macs": None, budget: cost}).within_budget(smallest)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"radius": -0.1}, "radius"),
        ({"radius": 1.1}, "radius"),
        ({"radius": math.nan}, "radius"),
        ({"floor": 0}, "floor"),
        ({"floor": 1.1}, "floor"),
        ({"step": 0}, "step"),
        ({"step": -0.1}, "step"),
        ({"step": math.nan}, "step"),
        ({"step": math.inf}, "step"),
        ({"round_to": 0}, "round_to"),
        ({"max_macs": 0}, "max_macs"),
        ({"max_macs": math.inf}, "max_macs"),
        ({"max_params": -1}, "max_params"),
        ({"max_params": math.nan}, "max_params"),
    ],
)
def test_numbers_that_make_no_space_are_refused_by_name(changes, told):
    with pytest.raises(SpaceError, match=told):
        space(**changes)


def test_all_faults_are_told_at_once():
    with pytest.raises(SpaceError, match=r"radius.*floor.*max_macs"):
        space(radius=2, floor=0, max_macs=-1)
    with pytest.raises(SpaceError, match=r"stage1.*no stage9.*step.*round_to"):
        SearchSpace(
            target=TARGET,
            guide=profile(0.6, 0.5, 0.4),
            intervals={
                "stage1": (0.7, 0.8),
                "stage2": (0.1, 0.9),
                "head": (0.4, 0.4),
                "stage9": (0.1, 1.0),
            },
            step=0,
            round_to=0,
        )


@pytest.mark.parametrize("interval", [(0.0, 0.9), (0.5, 1.1), (0.7, 0.9), (0.3, 0.5), (0.9, 0.3)])
def test_an_interval_must_hold_the_guide_and_lie_in_zero_to_one(interval):
    with pytest.raises(SpaceError, match=r"stage1: the guide 0\.6 is not in"):
        SearchSpace(
            target=TARGET,
            guide=profile(0.6, 0.5, 0.4),
            intervals={"stage1": interval, "stage2": (0.5, 0.5), "head": (0.4, 0.4)},
        )


@pytest.mark.parametrize("role", ["guide", "transferred"])
def test_a_guide_for_other_stages_is_refused(role):
    vgg = StageProfile.uniform(reference("vgg11", (1, 16, 16), 10, width=0.1), 0.5)
    with pytest.raises(ProfileError, match="resample"):
        space(**{role: vgg})


@pytest.mark.parametrize(
    "changes",
    [
        {"target": target(0.5)},
        {"guide": profile(0.6, 0.5, 0.5)},
        {
            "guide": StageProfile(
                keeps={"stage1": 0.6, "stage2": 0.5, "head": 0.4}, densities={"stage1": (0.5,) * 9}
            )
        },
        {"radius": 0.29},
        {"floor": 0.5},
        {"step": 0.05},
        {"round_to": 2},
        {"max_macs": 24_999},
        {"max_macs": None},
        {"max_params": 20_000},
        {"transferred": profile(0.5, 0.5, 0.5)},
    ],
)
def test_whatever_changes_a_space_changes_its_facts(changes):
    assert space(**changes).facts() != space().facts()
    assert space(**changes).facts() == space(**changes).facts()


def test_where_a_guide_comes_from_is_no_part_of_the_facts():
    assert space(guide=profile(0.6, 0.5, 0.4, source="elsewhere")).facts() == space().facts()
