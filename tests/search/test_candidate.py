import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from prunenas.arch.descriptor import apply
from prunenas.arch.profile import StageProfile
from prunenas.arch.spec import spec_from_json
from prunenas.families.base import reference
from prunenas.ir.canonical import digest
from prunenas.ir.cost import macs, params
from prunenas.ir.coupling import couple
from prunenas.search.candidate import candidate, controls
from tests.search.fakes import profile, space, target

TARGET = target()
keeps = st.fixed_dictionaries({name: st.floats(0.05, 1) for name in ("stage1", "stage2", "head")})


def one_step_wider(graph, found, step=1):
    """Every graph that has one more step in one group than ``found``."""
    full = couple(graph).widths
    for group in couple(graph).free:
        width = found.descriptor.widths.get(group.name, group.width)
        if width < full[group.name]:
            widths = dict(found.descriptor.widths) | {group.name: min(group.width, width + step)}
            widths = {name: w for name, w in widths.items() if w != full[name]}
            yield apply(graph, type(found.descriptor)(reference=digest(graph), widths=widths))


@given(keeps, st.integers(5_000, 150_000))
def test_a_candidate_never_exceeds_the_budget_and_lands_on_it_when_scaled(wished, budget):
    within = space(max_macs=budget, guide=profile(0.5, 0.5, 0.5))
    found = candidate(within, wished, name="c")
    assert found.macs <= budget
    plain = StageProfile(keeps=wished).descriptor(TARGET)
    assert found.scaled == (macs(apply(TARGET, plain)) > budget)
    if found.scaled:
        assert all(macs(wider) > budget for wider in one_step_wider(TARGET, found))
    else:
        assert found.graph == apply(TARGET, plain)


@given(keeps, st.integers(600, 20_000))
@settings(max_examples=20)
def test_a_budget_of_params_holds_likewise(wished, budget):
    within = space(max_macs=None, max_params=budget)
    found = candidate(within, wished, name="c")
    assert found.params <= budget
    if found.scaled:
        assert all(params(wider) > budget for wider in one_step_wider(TARGET, found))


def test_both_budgets_hold_together():
    found = candidate(space(max_macs=25_000, max_params=2_000), dict(space().guide.keeps), name="c")
    assert found.scaled
    assert found.macs <= 25_000
    assert found.params <= 2_000


def test_widths_are_multiples_of_round_to():
    graph = reference("vgg11", (1, 16, 16), 10, width=0.5)
    within = space(
        target=graph, guide=StageProfile.uniform(graph, 0.5), round_to=8, max_macs=900_000
    )
    found = candidate(within, dict.fromkeys(within.guide.keeps, 0.7), name="c")
    assert found.scaled
    assert found.descriptor.widths
    assert all(width % 8 == 0 for width in found.descriptor.widths.values())


def test_keeps_that_round_to_one_network_have_one_digest():
    one = candidate(space(max_macs=None), {"stage1": 0.5, "stage2": 0.5, "head": 0.5}, name="a")
    two = candidate(space(max_macs=None), {"stage1": 0.52, "stage2": 0.49, "head": 0.5}, name="b")
    other = candidate(space(max_macs=None), {"stage1": 0.7, "stage2": 0.5, "head": 0.5}, name="c")
    assert one.digest == two.digest == digest(one.graph)
    assert other.digest != one.digest


def test_a_candidate_has_the_kernel_patterns_of_the_guide():
    graph = reference("vgg11", (1, 16, 16), 10, width=0.1)
    pattern = (0.5,) * 9
    guide = StageProfile(
        keeps=dict.fromkeys(StageProfile.uniform(graph, 1.0).keeps, 0.5),
        densities={"stage2": pattern},
    )
    within = space(target=graph, guide=guide, max_macs=None)
    assert {*candidate(within, guide.keeps, name="c").descriptor.densities.values()} == {pattern}


def test_the_spec_of_a_candidate_tells_where_it_comes_from():
    found = candidate(space(), {"stage1": 0.5, "stage2": 0.4, "head": 0.3}, name="mine")
    spec = found.spec(TARGET, role="best")
    assert (spec.name, spec.graph, spec.reference) == ("mine", found.graph, TARGET)
    assert spec.provenance == {"role": "best"}
    assert spec_from_json(spec.to_json()) == spec


@given(keeps)
@settings(max_examples=30)
def test_uniform_controls_are_the_largest_that_do_not_exceed_the_best(wished):
    within = space(max_macs=60_000)
    best = candidate(within, wished, name="best")
    by_macs, by_params, *_ = controls(within, best)
    assert (by_macs.name, by_params.name) == ("uniform, equal MACs", "uniform, equal params")
    assert by_macs.macs <= best.macs
    assert by_params.params <= best.params
    for keep in np.linspace(0.01, 1, 300):
        uniform = apply(TARGET, StageProfile.uniform(TARGET, keep).descriptor(TARGET))
        assert not by_macs.macs < macs(uniform) <= best.macs
        assert not by_params.params < params(uniform) <= best.params


def test_uniform_controls_keep_about_the_same_of_every_stage():
    graph = reference("vgg11", (1, 16, 16), 10, width=0.5)
    within = space(target=graph, guide=StageProfile.uniform(graph, 0.5), max_macs=None)
    best = candidate(within, {**within.guide.keeps, "stage1": 0.8, "stage5": 0.2}, name="best")
    for control in controls(within, best)[:2]:
        found = StageProfile.of(graph, control.descriptor).keeps.values()
        # Each width is rounded to whole channels, and nothing else moves it.
        assert max(found) - min(found) < 0.02


def test_the_guides_themselves_are_controls_and_a_transferred_one_only_where_given():
    best = candidate(space(), space().guide.keeps, name="best")
    assert [c.name for c in controls(space(), best)[2:]] == ["guided"]
    given_one = space(transferred=profile(0.9, 0.2, 0.2), radius=0.1)
    *_, guided, transferred = controls(given_one, best)
    assert guided.digest == best.digest
    assert transferred.name == "transferred"
    assert transferred.digest == candidate(given_one, profile(0.9, 0.2, 0.2).keeps, name="").digest
    assert transferred.macs <= 25_000


def test_a_transferred_control_has_its_own_kernel_patterns():
    graph = reference("vgg11", (1, 16, 16), 10, width=0.1)
    half = dict.fromkeys(StageProfile.uniform(graph, 1.0).keeps, 0.5)
    within = space(
        target=graph,
        max_macs=None,
        guide=StageProfile(keeps=half, densities={"stage1": (0.5,) * 9}),
        transferred=StageProfile(keeps=half, densities={"stage2": (0.25,) * 9}),
    )
    *_, guided, transferred = controls(within, candidate(within, half, name="best"))
    assert {*guided.descriptor.densities.values()} == {(0.5,) * 9}
    assert {*transferred.descriptor.densities.values()} == {(0.25,) * 9}


def test_a_control_over_the_budget_of_the_space_is_allowed():
    """Uniform widths of equal params may need more MACs than the space allows."""
    within = space(max_macs=30_000)
    best = candidate(within, {"stage1": 0.3, "stage2": 0.9, "head": 0.9}, name="best")
    _, by_params, *_ = controls(within, best)
    assert best.macs <= 30_000 < by_params.macs
