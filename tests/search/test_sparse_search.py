"""Searches of networks under masks: every cost is what masks leave."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunenas.arch.descriptor import apply
from prunenas.arch.masks_file import masks_path
from prunenas.arch.metrics import Metrics, SeedResult
from prunenas.arch.profile import StageProfile
from prunenas.arch.spec import load
from prunenas.errors import BudgetError
from prunenas.ir.cost import effective_macs, is_sparse, macs, nonzero_params, params
from prunenas.ir.masks import mask_of
from prunenas.ir.stages import stages
from prunenas.search.candidate import candidate, controls
from prunenas.search.front import Front, FrontRow, pareto
from prunenas.search.space import SearchSpace
from prunenas.search.study import search
from prunenas.search.worker import value
from tests.graphs import with_exact_masks
from tests.search.fakes import RECIPE, STAGES, profile, space, target, tiny_data

TARGET = target()


def sparse_guide(keep=0.8, density=0.3):
    return StageProfile.uniform(TARGET, keep, density=density)


def sparse_space(**changes):
    return space(**{"guide": sparse_guide(), "max_macs": 25_000} | changes)


keeps = st.fixed_dictionaries({name: st.floats(0.05, 1) for name in STAGES})


@settings(max_examples=40)
@given(keeps, st.floats(0.02, 1), st.sampled_from(["max_macs", "max_params"]), st.floats(0.2, 1))
def test_a_sparse_candidate_never_exceeds_the_budget_as_it_is_drawn(wished, density, name, share):
    cost = {"max_macs": effective_macs, "max_params": nonzero_params}[name]
    guide = sparse_guide(0.5, density)
    full = cost(apply(TARGET, replace(guide, keeps=dict.fromkeys(STAGES, 1.0)).descriptor(TARGET)))
    budget = int(share * full)
    try:
        within = space(**{"guide": guide, "max_macs": None, name: budget})
    except BudgetError:
        return
    found = candidate(within, wished, name="c")
    assert is_sparse(found.graph)
    assert cost(found.graph) <= budget
    assert within.within_budget(found.graph)
    plain = apply(TARGET, replace(guide, keeps=wished).descriptor(TARGET))
    assert found.scaled == (cost(plain) > budget)


def test_a_budget_speaks_of_what_masks_leave():
    dense = candidate(space(guide=profile(0.8, 0.8, 0.8)), sparse_guide().keeps, name="dense")
    sparse = candidate(sparse_space(), sparse_guide().keeps, name="sparse")
    assert dense.scaled
    assert sparse.effective_macs <= 25_000 < sparse.macs
    assert dense.effective_macs == dense.macs <= 25_000


def test_a_candidate_has_the_other_densities_of_the_guide():
    found = candidate(sparse_space(), sparse_guide().keeps, name="c").descriptor.densities
    assert {len(density) for density in found.values()} == {25, 1}
    assert {value for density in found.values() for value in density} == {0.3}


def test_uniform_controls_have_the_same_effective_costs_as_a_sparse_best():
    best = candidate(sparse_space(), {"stage1": 0.5, "stage2": 0.9, "head": 0.7}, name="best")
    by_macs, by_params, sparse, guided = controls(sparse_space(), best)
    assert by_macs.name == "uniform, equal effective MACs"
    assert by_params.name == "uniform, equal nonzero params"
    assert not is_sparse(by_macs.graph) and not is_sparse(by_params.graph)
    assert macs(by_macs.graph) <= best.effective_macs < best.macs
    assert params(by_params.graph) <= best.nonzero_params < best.params
    for keep in np.linspace(0.01, 1, 200):
        uniform = apply(TARGET, StageProfile.uniform(TARGET, keep).descriptor(TARGET))
        assert not macs(by_macs.graph) < macs(uniform) <= best.effective_macs
        assert not params(by_params.graph) < params(uniform) <= best.nonzero_params
    assert (sparse.name, guided.name) == ("uniformly sparse, equal effective MACs", "guided")


@pytest.mark.parametrize("share", [0.4, 0.6, 0.9])
def test_the_uniformly_sparse_control_is_the_largest_of_one_density_at_full_widths(share):
    within = sparse_space(max_macs=None)
    best = candidate(within, dict.fromkeys(STAGES, share), name="best")
    sparse = controls(within, best)[2]
    assert not sparse.descriptor.widths
    densities = {d for density in sparse.descriptor.densities.values() for d in density}
    assert len(densities) == 1
    assert {*sparse.descriptor.densities} == {m for s in stages(TARGET) for m in s.layers}
    assert 0.97 * best.effective_macs < sparse.effective_macs <= best.effective_macs
    # The independent count: masked kernels at the places they work, and what has no mask.
    kept = 0
    for node in TARGET.nodes:
        cost = node.op.macs(TARGET.input_shapes(node), TARGET.shapes[node.name])
        if node.name in sparse.descriptor.densities:
            shape = TARGET.parameters()[f"{node.name}.weight"]
            mask = mask_of(sparse.graph[node.name].op.sparsity, shape, node.name)
            cost = int(mask.sum()) * (TARGET.shapes[node.name].numel // shape[0])
        kept += cost
    assert kept == sparse.effective_macs


def test_the_uniformly_sparse_control_masks_all_layers_of_stages_whatever_the_guide_masks():
    guide = StageProfile(keeps=dict.fromkeys(STAGES, 0.8), other_densities={"stage2": 0.3})
    within = space(guide=guide, max_macs=None)
    sparse = controls(within, candidate(within, guide.keeps, name="best"))[2]
    assert {*sparse.descriptor.densities} == {m for s in stages(TARGET) for m in s.layers}


def test_a_dense_guide_has_no_sparse_control():
    best = candidate(space(), space().guide.keeps, name="best")
    assert [c.name for c in controls(space(), best)] == [
        "uniform, equal MACs",
        "uniform, equal params",
        "guided",
    ]


def test_a_control_that_cannot_be_that_small_is_left_out_aloud():
    guide = sparse_guide(0.02, 0.02)
    within = space(guide=guide, max_macs=None)
    best = candidate(within, guide.keeps, name="best")
    with pytest.warns(UserWarning, match="is left out") as caught:
        names = [control.name for control in controls(within, best)]
    # One channel everywhere without masks costs more; so does one weight a filter at full width.
    assert names == ["guided"]
    told = "\n".join(str(w.message) for w in caught)
    for name in ("uniform, equal effective MACs", "uniform, equal nonzero", "uniformly sparse"):
        assert f"the control '{name}" in told


def test_a_transferred_guide_that_no_width_brings_within_budget_is_refused_at_once():
    sparse = sparse_guide(0.02, 0.02)
    smallest = effective_macs(apply(TARGET, replace(sparse).descriptor(TARGET)))
    dense = StageProfile.uniform(TARGET, 0.5)
    with pytest.raises(BudgetError):
        space(guide=sparse, transferred=dense, max_macs=smallest)
    assert space(guide=sparse, max_macs=smallest).budgeted


def test_other_densities_are_part_of_a_space_and_of_its_starts():
    one, other = sparse_guide(0.8, 0.3), sparse_guide(0.8, 0.4)
    assert sparse_space(guide=one).facts() != sparse_space(guide=other).facts()
    assert "transferred" not in sparse_space(transferred=other).starts()
    assert "transferred" in sparse_space(transferred=replace(one, source="x")).starts()


def metrics(**changes):
    told = {"params": 100, "macs": 1000, "part": "validation", "device": "x", "data": "d"}
    seeds = (SeedResult(seed=0, accuracy=0.5, loss=1.0, epochs=1, seconds=1.0),)
    return Metrics(**{"results": seeds, **told, **changes})


def test_objectives_are_told_the_costs_after_masks():
    sparse = metrics(nonzero_params=40, effective_macs=300)
    assert (value(sparse, "macs"), value(sparse, "params")) == (300, 40)
    assert (value(metrics(), "macs"), value(metrics(), "params")) == (1000, 100)


def test_the_smallest_of_a_front_is_the_smallest_after_masks():
    rows = [
        FrontRow(
            role="front",
            spec=candidate(space(), space().guide.keeps, name=name).spec(TARGET),
            validation=judged,
        )
        for name, judged in [
            ("dense", metrics(params=50, macs=500)),
            ("sparse", metrics(nonzero_params=40, effective_macs=300)),
        ]
    ]
    front = Front(rows=tuple(rows), trials=2)
    assert front.is_sparse
    assert front.best("macs").name == front.best("params").name == "sparse"
    assert not Front(rows=tuple(rows[:1]), trials=1).is_sparse


def test_a_sparse_search_counts_after_masks_from_end_to_end(training, tmp_path):
    out = tmp_path / "run"
    front = search(
        sparse_space(), tiny_data(), recipe=RECIPE, trials=6, confirm_seeds=2, out=out, seed=1
    )
    again = search(
        sparse_space(), tiny_data(), recipe=RECIPE, trials=6, confirm_seeds=2, out=out, seed=1
    )
    assert [r.spec.digest for r in again.rows] == [r.spec.digest for r in front.rows]
    assert front.is_sparse
    found = [row for row in front.rows if row.role != "control"]
    for row in found:
        graph = row.spec.graph
        assert row.confirmed.effective_macs == effective_macs(graph) <= 25_000
        assert row.confirmed.nonzero_params == nonzero_params(graph)
        assert row.confirmed.macs == macs(graph)
    costs = [row.validation.compared_macs for row in found]
    assert costs == sorted(costs)
    points = pareto(found, lambda r: (-r.validation.accuracy, r.validation.compared_macs))
    assert len(points) == len(found)


def test_a_target_under_an_exact_mask_is_searched_and_its_specs_have_their_masks(
    training, tmp_path
):
    shape = TARGET.parameters()["conv2.weight"]
    kept = np.random.default_rng(0).random(shape) < 0.5
    masked = with_exact_masks(TARGET, {"conv2": kept})
    names = [stage.name for stage in stages(masked)]
    guide = StageProfile(keeps=dict.fromkeys(names, 0.7))
    within = SearchSpace.around(guide, target=masked, radius=0.2)
    out = tmp_path / "run"
    for seed_count in (1, 2):
        front = search(
            within, tiny_data(), recipe=RECIPE, trials=2, confirm_seeds=seed_count, out=out
        )
        paths = sorted((out / "specs").glob("*.json"))
        assert len(paths) == len(front.rows)
        beside = sorted((out / "specs").glob("*.masks.safetensors"))
        assert beside == sorted(masks_path(path) for path in paths)
        for path in paths:
            assert np.array_equal(load(path).graph["conv2"].op.sparsity.array(), kept)
