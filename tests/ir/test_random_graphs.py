"""The strategy itself: laws on random graphs say little if the graphs are all alike."""

from collections.abc import Callable
from random import Random
from typing import get_args

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from prunenas.ir.blocks import blocks
from prunenas.ir.coupling import couple
from prunenas.ir.graph import Graph
from prunenas.ir.ops import AnyOp, Concat, Flatten
from tests.graphs import graphs, legal_widths

OCCURS = settings(max_examples=2000, phases=[Phase.generate], database=None)


def found(holds: Callable[[Graph], bool]) -> Graph:
    return find(graphs(), holds, settings=OCCURS, random=Random(0))


@pytest.mark.parametrize("op", get_args(AnyOp))
def test_every_op_occurs(op: type) -> None:
    find(
        graphs(),
        lambda graph: any(type(n.op) is op for n in graph.nodes),
        settings=OCCURS,
        random=Random(0),
    )


def _is_fixed_because(graph: Graph, reason: str) -> bool:
    return any(group.fixed and reason in group.fixed for group in couple(graph))


@pytest.mark.parametrize(
    "holds",
    [
        lambda g: any(n.weights for n in g.nodes),
        lambda g: any(group.divisor > 1 for group in couple(g).free),
        lambda g: any(len(group.members) > 2 for group in couple(g).free),
        lambda g: any(len(axis) > 2 for axis in couple(g).axes.values()),
        lambda g: any(s.repeat > 1 for axis in couple(g).axes.values() for s in axis),
        lambda g: any(len(s.groups) > 1 for axis in couple(g).axes.values() for s in axis),
        lambda g: any(group.name.endswith(".heads") for group in couple(g).free),
        lambda g: any(group.name.endswith(".part") for group in couple(g).free),
        lambda g: any(group.ordered for group in couple(g).free),
        lambda g: any(shape.lead is not None and shape.lead > 1 for shape in g.shapes.values()),
        lambda g: any(s.groups for axes in couple(g).sizes.values() for a in axes for s in a),
        lambda g: bool(couple(g).bounds),
        lambda g: bool(blocks(g)),
        lambda g: _is_fixed_because(g, "cut differently"),
        lambda g: _is_fixed_because(g, "cuts between segment borders"),
        lambda g: _is_fixed_because(g, "shuffles across segment borders"),
        lambda g: _is_fixed_because(g, "equal parts"),
        lambda g: any(
            isinstance(n.op, Flatten) and g.input_shapes(n)[0].positions > 1 for n in g.nodes
        ),
        lambda g: any(
            isinstance(n.op, Concat) and any(isinstance(g[x].op, Concat) for x in n.inputs)
            for n in g.nodes
        ),
    ],
    ids=[
        "shared weights",
        "divisors",
        "residual groups",
        "long axes",
        "repeats",
        "products",
        "heads",
        "parts",
        "ordered",
        "several in the batch",
        "sizes that follow",
        "bounds",
        "removable blocks",
        "cut differently",
        "split inside",
        "shuffle inside",
        "divisor inside",
        "flatten positions",
        "nested concat",
    ],
)
def test_every_situation_occurs(holds: Callable[[Graph], bool]) -> None:
    found(holds)


@given(st.data(), graphs())
def test_legal_widths_respect_divisors_bounds_and_the_reference(
    data: st.DataObject, graph: Graph
) -> None:
    groups = couple(graph)
    widths = data.draw(legal_widths(graph))
    assert [*widths] == [group.name for group in groups.free]
    for group in groups.free:
        assert 1 <= widths[group.name] <= group.width
        assert widths[group.name] % group.divisor == 0
    assert all(bound.excess(groups.widths | widths) <= 0 for bound in groups.bounds)


@given(st.data(), graphs())
def test_no_legal_width_falls_below_the_least(data: st.DataObject, graph: Graph) -> None:
    widths = data.draw(legal_widths(graph, least=2))
    assert all(widths[group.name] >= min(2, group.width) for group in couple(graph).free)
