"""Parameters and multiply-accumulates: arithmetic, and polynomials against integers."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunenas.errors import GraphError
from prunenas.ir.cost import CostModel, NodeCost, macs, node_costs, params, repo_flops
from prunenas.ir.coupling import couple
from prunenas.ir.graph import Graph
from prunenas.ir.ops import Attention, Concat, Conv2d, Convolve, Linear, MatMul, Permute, Reshape
from prunenas.ir.writer import GraphWriter
from tests.graphs import graphs, legal_widths, with_widths


def small() -> Graph:
    net = GraphWriter((3, 8, 8))
    x = net.relu("relu", net.batch_norm("bn", net.conv("conv", net.input, 5, kernel=3, bias=True)))
    x = net.depthwise("dw", net.max_pool("pool", x, kernel=2), kernel=3)
    x = net.conv("grouped", net.conv("wide", x, 8, kernel=1), 6, kernel=3, groups=2)
    x = net.linear("fc1", net.global_pool("gap", x, size=2), 7)
    return net.finish(net.linear("fc2", net.batch_norm("bn1d", x), 2, bias=False))


def test_the_cost_of_each_node_is_the_arithmetic() -> None:
    expected = {
        "conv": (5 * 3 * 9 + 5, 9 * 3 * 5 * 64),
        "bn": (5 + 5, 0),
        "dw": (5 * 9, 9 * 5 * 16),
        "wide": (8 * 5, 5 * 8 * 16),
        "grouped": (6 * (8 // 2) * 9, 9 * (8 // 2) * 6 * 16),
        "fc1": (7 * (6 * 4) + 7, 7 * (6 * 4)),
        "bn1d": (7 + 7, 0),
        "fc2": (2 * 7, 2 * 7),
    }
    graph = small()
    assert node_costs(graph) == tuple(
        NodeCost(
            name=n.name,
            params=expected.get(n.name, (0, 0))[0],
            macs=expected.get(n.name, (0, 0))[1],
            nonzero_params=expected.get(n.name, (0, 0))[0],
            effective_macs=expected.get(n.name, (0, 0))[1],
        )
        for n in graph.nodes
    )
    assert params(graph) == sum(cost for cost, _ in expected.values())
    assert macs(graph) == sum(cost for _, cost in expected.values())


def test_repo_flops_count_what_the_released_counter_counts() -> None:
    graph = small()
    bias = 5 * 64 + 7
    norm = 2 * 5 * 64
    relu = 5 * 64
    pooled = 4 * (5 * 16) + 6 * 16
    assert repo_flops(graph) == 2 * macs(graph) + bias + norm + relu + pooled


def test_the_cost_of_a_dense_connection_is_the_arithmetic() -> None:
    net = GraphWriter((3, 4, 4))
    x = net.concat("concat", net.input, net.conv("a", net.input, 5, kernel=1))
    graph = net.finish(net.linear("fc", net.conv("b", x, 2, kernel=1), 2, bias=False))
    assert params(graph) == 3 * 5 + (3 + 5) * 2 + (2 * 16) * 2
    assert macs(graph) == 16 * (3 * 5 + (3 + 5) * 2) + (2 * 16) * 2


def test_the_cost_of_attention_is_both_its_products() -> None:
    net = GraphWriter((6, 2, 2))
    x = net.add(
        "turned", Permute(order=(0, 2, 1)), net.add("row", Reshape(sizes=(6, 4)), net.input)
    )
    found = []
    for name, width in (("q", 2 * 3), ("k", 2 * 3), ("v", 2 * 5)):
        y = net.add(name, Linear(width=width, bias=False), x)
        y = net.add(f"{name}_heads", Reshape(sizes=(4, 2, width // 2)), y)
        found.append(net.add(f"{name}_first", Permute(order=(0, 2, 1, 3)), y))
    graph = net.finish(net.add("attention", Attention(), *found))
    layers = 4 * 6 * (6 + 6 + 10)
    assert macs(graph) == layers + 2 * 4 * 4 * (3 + 5)
    assert params(graph) == 6 * (6 + 6 + 10)


def test_shared_weights_are_counted_once_and_their_products_each_time() -> None:
    net = GraphWriter((3, 4, 4))
    x = net.conv(
        "b", net.conv("a", net.conv("stem", net.input, 5, kernel=1), 5, kernel=1), 5, kernel=1
    )
    graph = net.finish(net.linear("fc", net.global_pool("pool", x), 2, bias=False))
    nodes = tuple(replace(n, weights="a") if n.name == "b" else n for n in graph.nodes)
    graph = replace(graph, nodes=nodes)
    assert params(graph) == 3 * 5 + 5 * 5 + 5 * 2
    assert macs(graph) == 16 * (3 * 5 + 2 * 5 * 5) + 5 * 2


def test_the_polynomials_are_the_formula() -> None:
    net = GraphWriter((3, 4, 4))
    x = net.conv("b", net.conv("a", net.input, 4, kernel=1), 6, kernel=3, groups=2)
    model = CostModel.of(net.finish(net.linear("fc", net.global_pool("pool", x), 2)))
    assert model.groups == ("a", "b")
    # 3 a + 9 (a / 2) b + 2 b + 2
    assert model.params_terms == {(0,): 3, (0, 1): Fraction(9, 2), (1,): 2, (): 2}
    assert model.macs_terms[0, 1] == Fraction(9, 2) * 16


def test_a_model_without_free_groups_is_a_constant() -> None:
    net = GraphWriter((3, 4, 4))
    model = CostModel.of(net.finish(net.linear("fc", net.input, 2)))
    assert model.groups == ()
    nothing = np.empty((3, 0), dtype=np.int64)
    assert model.params(nothing).tolist() == [48 * 2 + 2] * 3
    assert model.macs(nothing).tolist() == [48 * 2] * 3


def test_widths_of_the_wrong_shape_are_told() -> None:
    model = CostModel.of(small())
    with pytest.raises(GraphError, match=r"with 4 groups, got \[4\]"):
        model.params(np.ones(4, dtype=np.int64))
    with pytest.raises(GraphError, match=r"with 4 groups, got \[2, 3\]"):
        model.macs(np.ones((2, 3), dtype=np.int64))


def columns(model: CostModel, *assignments: dict[str, int]) -> np.ndarray:
    rows = [[widths[name] for name in model.groups] for widths in assignments]
    return np.array(rows, dtype=np.int64).reshape(len(assignments), len(model.groups))


@given(st.data(), graphs())
def test_polynomials_equal_the_integer_costs_of_every_legal_graph(
    data: st.DataObject, graph: Graph
) -> None:
    model = CostModel.of(graph)
    candidates = [data.draw(legal_widths(graph)) for _ in range(3)]
    narrow = [with_widths(graph, widths) for widths in candidates]
    widths = columns(model, *candidates)
    assert model.params(widths).tolist() == [params(g) for g in narrow]
    assert model.macs(widths).tolist() == [macs(g) for g in narrow]


@given(graphs())
def test_polynomials_at_full_width_are_the_reference(graph: Graph) -> None:
    model = CostModel.of(graph)
    full = columns(model, couple(graph).widths)
    assert model.params(full).tolist() == [params(graph)]
    assert model.macs(full).tolist() == [macs(graph)]


@given(st.data(), graphs())
def test_costs_never_rise_when_widths_fall(data: st.DataObject, graph: Graph) -> None:
    narrow = with_widths(graph, data.draw(legal_widths(graph)))
    narrower = with_widths(narrow, data.draw(legal_widths(narrow)))
    for cost in (params, macs, repo_flops):
        assert cost(narrower) <= cost(narrow) <= cost(graph)


@given(st.data(), graphs())
def test_a_narrower_producer_saves_parameters(data: st.DataObject, graph: Graph) -> None:
    widths = data.draw(legal_widths(graph))
    full = couple(graph).widths
    narrow = with_widths(graph, widths)
    producing = {g.name for g in couple(graph).free if not g.select}
    if any(widths[name] < full[name] for name in producing):
        assert params(narrow) < params(graph)


@given(graphs())
def test_costs_are_the_sums_over_tensors_and_nodes(graph: Graph) -> None:
    tensors = graph.parameters().values()
    assert params(graph) == sum(int(np.prod(shape)) for shape in tensors)
    costs = node_costs(graph)
    assert [cost.name for cost in costs] == [node.name for node in graph.nodes]
    for cost in costs:
        op = graph[cost.name].op
        counted = hasattr(op, "bias") or isinstance(op, MatMul | Attention | Convolve)
        assert (cost.macs > 0) == counted


def test_large_networks_do_not_overflow() -> None:
    net = GraphWriter((3, 1024, 1024))
    x = net.conv("a", net.input, 4096, kernel=3)
    x = net.conv("b", net.add("concat", Concat(), x, x), 4096, kernel=7, groups=32)
    graph = net.finish(net.linear("fc", net.global_pool("pool", x), 1000))
    model = CostModel.of(graph)
    assert model.macs(columns(model, couple(graph).widths)).tolist() == [macs(graph)]
    assert macs(graph) > 2**40
    assert isinstance(graph["b"].op, Conv2d)
    assert isinstance(graph["fc"].op, Linear)
