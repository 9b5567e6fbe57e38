"""Allocation: never above a budget, and nothing left over that a group could grow by."""

import itertools
import math
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from prunenas.arch.allocate import allocate
from prunenas.arch.descriptor import apply
from prunenas.arch.profile import StageProfile
from prunenas.errors import BudgetError, DescriptorError, KeepError, ProfileError
from prunenas.families.base import reference
from prunenas.ir.cost import macs, params
from prunenas.ir.coupling import couple
from prunenas.ir.stages import stages
from tests.arch.networks import chain, descriptor, everything, residual, selecting
from tests.graphs import graphs

FAMILIES = {
    "vgg16": lambda: reference("vgg16"),
    "resnet20": lambda: reference("resnet20"),
    "preresnet20": lambda: reference("preresnet", depth=20),
    "densenet13": lambda: reference("densenet", depth=13),
    "mobilenet_v2": lambda: reference("mobilenet_v2", (3, 64, 64), 10),
    "everything": everything,
}


@pytest.fixture(scope="module", params=FAMILIES)
def graph(request):
    return FAMILIES[request.param]()


def kept(graph, told):
    groups = couple(graph)
    full = sum(g.width for g in groups.free)
    return sum(told.widths.get(g.name, g.width) for g in groups.free) / full


MEASURES = {
    "keep": kept,
    "max_macs": lambda graph, told: macs(apply(graph, told)),
    "max_params": lambda graph, told: params(apply(graph, told)),
}


def meets(graph, told, budgets):
    """Return whether ``told`` is legal and within every budget, by building its graph."""
    try:
        narrow = apply(graph, told)
    except DescriptorError:
        return False
    return (
        kept(graph, told) <= budgets.get("keep", 1.0) + 1e-9
        and macs(narrow) <= budgets.get("max_macs", math.inf)
        and params(narrow) <= budgets.get("max_params", math.inf)
    )


def growable(graph, told, budgets, round_to):
    """Return the groups that could still grow by one step."""
    groups = couple(graph)
    widths = groups.widths | dict(told.widths)
    names = {g.name for g in groups.free}
    free = {name: widths[name] for name in names}
    found = []
    for g in groups.free:
        grown = min(g.width, widths[g.name] + math.lcm(g.divisor, round_to))
        larger = descriptor(graph, widths=free | {g.name: grown})
        if grown > widths[g.name] and meets(graph, larger, budgets):
            found.append(g.name)
    return found


def sloping(graph):
    """Return a profile whose keeps differ from stage to stage."""
    names = [stage.name for stage in stages(graph)]
    return StageProfile(keeps={name: 1 / (i + 1) for i, name in enumerate(names)})


def asked(graph, name, share):
    full = {"keep": 1.0, "max_macs": macs(graph), "max_params": params(graph)}[name]
    return {name: share * full}


@pytest.mark.parametrize("round_to", [1, 8])
@pytest.mark.parametrize("name", MEASURES)
def test_the_budget_is_met_and_used_up(graph, name, round_to):
    budgets = asked(graph, name, 0.8)
    told = allocate(graph, sloping(graph), round_to=round_to, **budgets)
    assert meets(graph, told, budgets)
    assert growable(graph, told, budgets, round_to) == []


def test_every_budget_counts(graph):
    budgets = asked(graph, "keep", 0.8) | asked(graph, "max_macs", 0.6)
    budgets |= asked(graph, "max_params", 0.6)
    told = allocate(graph, sloping(graph), **budgets)
    assert meets(graph, told, budgets)
    assert growable(graph, told, budgets, 1) == []


@settings(max_examples=40)
@given(st.data(), graphs(), st.sampled_from([*MEASURES]), st.integers(1, 3))
def test_on_any_graph_the_budget_is_met_and_used_up(data, graph, name, round_to):
    names = [stage.name for stage in stages(graph)]
    assume(names)
    profile = StageProfile(keeps={n: data.draw(st.floats(0.05, 1.0)) for n in names})
    budgets = asked(graph, name, data.draw(st.floats(0.05, 1.1)))
    budgets = {n: min(1.0, v) if n == "keep" else v for n, v in budgets.items()}
    try:
        told = allocate(graph, profile, round_to=round_to, **budgets)
    except BudgetError as error:
        reachable = smallest(str(error))[name]
        assert reachable > budgets[name]
        told = allocate(graph, profile, round_to=round_to, **{name: reachable})
        assert MEASURES[name](graph, told) <= reachable + 1e-9
        return
    assert meets(graph, told, budgets)
    assert growable(graph, told, budgets, round_to) == []


def smallest(error):
    found = re.search(r"keeps ([\d.]+) of its channels and has (\d+) macs and (\d+) params", error)
    return {"keep": float(found[1]), "max_macs": int(found[2]), "max_params": int(found[3])}


@pytest.mark.parametrize("make", [chain, residual, selecting, everything])
def test_an_infeasible_budget_tells_the_smallest_reachable_value(make):
    graph = make()
    with pytest.raises(BudgetError, match="max_macs=1") as caught:
        allocate(graph, sloping(graph), max_macs=1)
    told = smallest(str(caught.value))
    for name, value in told.items():
        assert meets(graph, allocate(graph, sloping(graph), **{name: value}), {name: value})
        less = value - (1e-3 if name == "keep" else 1)
        with pytest.raises(BudgetError):
            allocate(graph, sloping(graph), **{name: less})


def test_the_smallest_reachable_value_is_the_smallest_there_is():
    graph = selecting()
    found = []
    for stem, pick, body in itertools.product(range(1, 9), range(1, 9), range(1, 7)):
        if pick <= stem:
            told = descriptor(graph, widths={"stem": stem, "pick": pick, "body": body})
            found.append(macs(apply(graph, told)))
    with pytest.raises(BudgetError) as caught:
        allocate(graph, sloping(graph), max_macs=1)
    assert smallest(str(caught.value))["max_macs"] == min(found)


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("round_to", [1, 8])
def test_the_references_own_budget_gives_the_reference(graph, name, round_to):
    told = allocate(graph, sloping(graph), round_to=round_to, **asked(graph, name, 1.0))
    assert apply(graph, told) == graph


def test_a_uniform_profile_stays_uniform():
    graph = reference("vgg16")
    told = allocate(graph, StageProfile.uniform(graph, 0.9), max_macs=0.4 * macs(graph))
    keeps = {g.name: told.widths[g.name] / g.width for g in couple(graph).free}
    # The narrowest layers have 64 channels: half a step of rounding, and one to use up the budget.
    assert max(keeps.values()) - min(keeps.values()) <= 2 / 64


def test_the_profile_decides_where_channels_go():
    graph = reference("vgg16")
    keeps = {"stage1": 1.0, "stage2": 1.0, "stage3": 0.5, "stage4": 0.25, "stage5": 0.1}
    told = allocate(graph, StageProfile(keeps=keeps), max_macs=0.2 * macs(graph))
    found = StageProfile.of(graph, told).keeps
    factors = [found[name] / keep for name, keep in keeps.items()]
    assert max(factors) <= 1.1 * min(factors)
    assert max(factors) < 0.9


def test_a_profile_that_leaves_budget_over_is_scaled_up():
    graph = reference("vgg16")
    told = allocate(graph, StageProfile.uniform(graph, 0.01), keep=0.5)
    assert kept(graph, told) == pytest.approx(0.5, abs=1e-3)
    assert told.origin.reached == kept(graph, told)


def test_rounded_widths_are_multiples():
    graph = reference("vgg16")
    told = allocate(graph, StageProfile.uniform(graph, 0.5), max_macs=1e8, round_to=8)
    assert told.widths and all(width % 8 == 0 for width in told.widths.values())


def test_selections_are_drawn_from_the_seed():
    graph = everything()
    one, same, other = (
        allocate(graph, StageProfile.uniform(graph, 0.5), keep=0.7, seed=s) for s in (1, 1, 2)
    )
    assert one.widths["pick"] < one.widths["stem"]
    assert apply(graph, one) == apply(graph, same) != apply(graph, other)


def test_some_budget_is_needed():
    with pytest.raises(BudgetError, match="needs keep, max_macs or max_params"):
        allocate(chain(), StageProfile.uniform(chain(), 0.5))


def test_bad_arguments_are_refused():
    graph = chain()
    with pytest.raises(KeepError):
        allocate(graph, StageProfile.uniform(graph, 0.5), keep=1.5)
    with pytest.raises(KeepError, match="got 0"):
        allocate(graph, StageProfile.uniform(graph, 0.5), keep=0.5, round_to=0)
    with pytest.raises(ProfileError, match="resample"):
        allocate(graph, StageProfile.uniform(residual(), 0.5), keep=0.5)
