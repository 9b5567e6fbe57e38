"""Budgets of networks under masks: they speak of what masks leave."""

import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from prunenas.arch.allocate import allocate, allocate_keeps
from prunenas.arch.descriptor import apply
from prunenas.arch.profile import StageProfile
from prunenas.errors import BudgetError
from prunenas.families.base import reference
from prunenas.ir.cost import effective_macs, macs, nonzero_params, params
from prunenas.ir.coupling import couple
from prunenas.ir.masks import mask_of, sparsity_of
from prunenas.ir.stages import stages
from tests.arch.networks import chain, descriptor, residual
from tests.graphs import graphs, with_exact_masks

COSTS = {"max_macs": effective_macs, "max_params": nonzero_params}
PATTERN = (0.1, 0.3, 0.1, 0.3, 0.9, 0.3, 0.1, 0.3, 0.1)


def guide(graph, keep=0.8, density=0.4):
    return StageProfile.uniform(graph, keep, density=density)


def counted(graph):
    """Weights that the masks of ``graph`` keep, and everything else, one by one."""
    kept = 0
    for name, shape in graph.parameters().items():
        node = graph[name.rpartition(".")[0]]
        sparsity = sparsity_of(node.op)
        if name.endswith("weight") and sparsity is not None:
            kept += int(mask_of(sparsity, shape, node.name).sum())
        else:
            kept += int(np.prod(shape))
    return kept


@settings(max_examples=60)
@given(st.data(), graphs(), st.sampled_from([*COSTS]), st.booleans())
def test_the_masks_that_are_drawn_never_exceed_the_budget(data, graph, name, fill):
    assume(stages(graph))
    profile = guide(graph, data.draw(st.floats(0.1, 1)), data.draw(st.floats(0.05, 1)))
    seed = data.draw(st.integers(0, 5))
    full = COSTS[name](apply(graph, guide(graph, 1.0, 1.0).descriptor(graph, seed=seed)))
    budget = data.draw(st.floats(0.1, 1.0)) * full
    try:
        told = allocate(graph, profile, seed=seed, fill=fill, **{name: budget})
    except BudgetError as error:
        kind = {"max_macs": "effective macs", "max_params": "nonzero params"}[name]
        smallest = int(re.search(rf"(\d+) {kind}", str(error))[1])
        assert smallest > budget
        return
    narrow = apply(graph, told)
    assert COSTS[name](narrow) <= budget
    assert nonzero_params(narrow) == counted(narrow)


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_a_sparse_budget_is_used_but_for_the_draws_noise(name, share):
    graph = reference("resnet20")
    profile = StageProfile(
        keeps=dict.fromkeys(StageProfile.uniform(graph, 1.0).keeps, 0.9),
        densities=dict.fromkeys(StageProfile.uniform(graph, 1.0).keeps, PATTERN),
    )
    budget = share * COSTS[name](apply(graph, profile.descriptor(graph)))
    found = COSTS[name](apply(graph, allocate(graph, profile, **{name: budget})))
    assert 0.97 * budget < found <= budget


def test_masks_leave_room_for_width():
    graph = reference("resnet20")
    budget = 0.3 * macs(graph)
    dense = apply(graph, allocate(graph, StageProfile.uniform(graph, 0.5), max_macs=budget))
    sparse = apply(graph, allocate(graph, guide(graph, 0.5, 0.5), max_macs=budget))
    assert effective_macs(dense) == macs(dense) <= budget < macs(sparse)
    assert sum(couple(sparse).widths.values()) > 1.2 * sum(couple(dense).widths.values())


def test_a_smallest_network_whose_draw_is_cheaper_than_expected_is_taken():
    graph = chain()
    profile = guide(graph, 0.5, 0.5)
    for seed in range(20):
        smallest = apply(graph, guide(graph, 1e-6, 0.5).descriptor(graph, seed=seed))
        cost = effective_macs(smallest)
        told = allocate(graph, profile, max_macs=cost, seed=seed)
        assert effective_macs(apply(graph, told)) <= cost
        with pytest.raises(BudgetError, match=f"has {cost} effective macs"):
            allocate(graph, profile, max_macs=cost - 1, seed=seed)


def test_a_density_that_no_filter_can_have_is_paid_for_as_drawn():
    """Each filter keeps a weight, so next to nothing costs more than it is expected to."""
    graph = residual()
    profile = guide(graph, 1.0, 1e-4)
    full = apply(graph, profile.descriptor(graph))
    budget = 0.6 * nonzero_params(full)
    told = apply(graph, allocate(graph, profile, max_params=budget))
    assert nonzero_params(told) <= budget
    assert nonzero_params(full) > params(full) * 0.01


def test_both_budgets_hold_and_channels_are_counted_as_ever():
    graph = reference("resnet20")
    limits = {"keep": 0.6, "max_macs": 5e6, "max_params": 4e4}
    told = allocate(graph, guide(graph), **limits)
    narrow = apply(graph, told)
    assert told.origin.reached <= 0.6
    assert effective_macs(narrow) <= 5e6
    assert nonzero_params(narrow) <= 4e4


def test_an_exact_mask_of_the_reference_counts_as_it_is():
    mask = np.zeros((6, 8, 3, 3), dtype=bool)
    mask[:, :, 1, 1] = True
    graph = with_exact_masks(chain(), {"conv2": mask})
    narrow = apply(graph, allocate(graph, StageProfile.uniform(graph, 0.5), max_params=10_000))
    assert narrow == graph
    # Only the hidden layer is free: it loses 6 + 1 + 5 parameters a channel.
    less = nonzero_params(graph) - 13
    told = allocate(graph, StageProfile.uniform(graph, 1.0), max_params=less)
    assert dict(told.widths) == {"hidden": 2}


def test_widths_of_groups_can_be_asked_for_under_densities():
    graph = residual()
    keeps = {group.name: 1.0 for group in couple(graph).free}
    densities = dict.fromkeys(("block.conv1", "block.conv2"), (0.5,) * 9)
    budget = 0.7 * macs(graph)
    widths = allocate_keeps(graph, keeps, max_macs=budget, densities=densities, seed=3)
    narrow = apply(graph, descriptor(graph, widths=widths, densities=densities, seed=3))
    dense = allocate_keeps(graph, keeps, max_macs=budget)
    assert effective_macs(narrow) <= budget
    assert sum(widths.values()) > sum(dense.values())
