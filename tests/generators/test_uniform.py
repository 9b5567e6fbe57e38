"""Uniform pruning: every group at the same keep."""

import pytest

from prunenas.arch.descriptor import kept_width
from prunenas.generators.base import generate
from prunenas.ir.coupling import couple
from tests.generators.networks import GRAPHS


@pytest.mark.parametrize("keep", [0.05, 0.3, 0.5, 0.77])
@pytest.mark.parametrize("name", GRAPHS)
def test_every_group_has_its_rounded_width_unless_a_bound_cuts_it(name, keep):
    graph = GRAPHS[name]()
    groups = couple(graph)
    found = groups.widths | dict(generate("uniform", graph, keep=keep).widths)
    wanted = {g.name: kept_width(g.width, keep, divisor=g.divisor) for g in groups.free}
    assert {n: found[n] for n in wanted if found[n] > wanted[n]} == {}
    cut = {name for name in wanted if found[name] < wanted[name]}
    assert cut <= {s.group for bound in groups.bounds for s in bound.lower}
    for bound in groups.bounds:
        if any(segment.group in cut for segment in bound.lower):
            assert bound.excess(groups.widths | wanted) > 0


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.77])
@pytest.mark.parametrize("name", GRAPHS)
def test_the_keep_is_met_within_half_a_step_a_group(name, keep):
    """Cut selections may be half a step lower for each segment of their source."""
    graph = GRAPHS[name]()
    groups = couple(graph)
    step = {group.name: group.divisor / 2 for group in groups.free}
    below = sum(step.values()) + sum(
        step.get(segment.group, 0) * segment.repeat
        for bound in groups.bounds
        for segment in bound.upper
    )
    full = sum(group.width for group in groups.free)
    off = (generate("uniform", graph, keep=keep).origin.reached - keep) * full
    assert -below - 1e-9 <= off <= sum(step.values()) + 1e-9


def test_it_says_widths_and_no_channels():
    found = generate("uniform", GRAPHS["preresnet"](), keep=0.5)
    assert found.widths
    assert not found.selections
