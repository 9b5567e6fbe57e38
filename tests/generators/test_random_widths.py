"""Random widths: each seed its own, all on the same keep."""

import pytest

from prunenas.errors import BudgetError, MethodError
from prunenas.generators.base import generate
from prunenas.ir.coupling import couple
from tests.generators.networks import GRAPHS


def test_another_seed_gives_other_widths():
    graph = GRAPHS["vgg11"]()
    found = [generate("random", graph, keep=0.5, seed=seed).widths for seed in range(5)]
    assert all(a != b for i, a in enumerate(found) for b in found[:i])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("keep", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("name", GRAPHS)
def test_no_group_can_grow_by_a_step_without_exceeding_the_keep(name, keep, seed):
    graph = GRAPHS[name]()
    groups = couple(graph)
    free = groups.free
    widths = groups.widths | dict(generate("random", graph, keep=keep, seed=seed).widths)
    budget = keep * sum(group.width for group in free) + 1e-9
    kept = sum(widths[group.name] for group in free)
    assert kept <= budget
    for group in free:
        wider = widths | {group.name: widths[group.name] + group.divisor}
        if wider[group.name] <= group.width and kept + group.divisor <= budget:
            assert any(bound.excess(wider) > 0 for bound in groups.bounds)


def test_the_keeps_of_groups_differ():
    graph = GRAPHS["vgg11"]()
    groups = couple(graph)
    found = generate("random", graph, keep=0.5).widths
    keeps = [found.get(group.name, group.width) / group.width for group in groups.free]
    assert max(keeps) > 1.5 * min(keeps)


def test_with_least_one_all_groups_are_alike():
    graph = GRAPHS["vgg11"]()
    groups = couple(graph)
    found = generate("random", graph, keep=0.5, least=1).widths
    assert all(abs(found[group.name] - group.width / 2) <= 1 for group in groups.free)


@pytest.mark.parametrize("least", [0, -0.1, 1.1, float("nan")])
def test_an_impossible_least_is_refused(least):
    with pytest.raises(MethodError, match="least is a fraction"):
        generate("random", GRAPHS["vgg11"](), keep=0.5, least=least)


def test_a_keep_below_one_channel_a_group_is_refused_with_the_least_there_is():
    graph = GRAPHS["grouped"]()
    groups = couple(graph)
    least = sum(g.divisor for g in groups.free) / sum(g.width for g in groups.free)
    assert generate("random", graph, keep=least).origin.reached == pytest.approx(least)
    with pytest.raises(BudgetError, match=r"smallest network keeps 0\.232"):
        generate("random", graph, keep=0.99 * least)
