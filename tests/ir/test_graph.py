"""A graph is checked when it is made: each fault is named, all of one kind at once."""

import re
from dataclasses import FrozenInstanceError, replace

import networkx
import pytest
from hypothesis import given

from prunenas.errors import GraphError
from prunenas.ir.graph import Graph, Node, live
from prunenas.ir.ops import Activation, Add, AnyOp, BatchNorm, Conv2d, Flatten, Input, Linear, Split
from prunenas.ir.shape import Shape
from tests.graphs import graphs

INPUT = Node(name="input", op=Input(width=3, spatial=(4, 4)))


def conv(name: str, source: str, *, width: int = 3, weights: str | None = None) -> Node:
    op = Conv2d(width=width, kernel=(1, 1))
    return Node(name=name, op=op, inputs=(source,), weights=weights)


def relu(name: str, *sources: str, weights: str | None = None) -> Node:
    return Node(name=name, op=Activation(), inputs=sources, weights=weights)


def add(name: str, *sources: str) -> Node:
    return Node(name=name, op=Add(), inputs=sources)


def refusal(*nodes: Node, output: str) -> str:
    with pytest.raises(GraphError) as told:
        Graph(nodes=nodes, output=output)
    return str(told.value)


def test_all_duplicate_and_ill_formed_names_are_told_at_once() -> None:
    message = refusal(
        INPUT,
        relu("a", "input"),
        relu("a", "a"),
        relu("a", "a"),
        relu("b..c", "a"),
        relu("d-e", "b..c"),
        relu("", "d-e"),
        output="",
    )
    assert "'a' occurs 3 times" in message
    for name in ("b..c", "d-e", ""):
        assert f"{name!r} is not a dotted name" in message


def test_a_name_below_a_node_is_told() -> None:
    nodes = INPUT, relu("layer", "input"), relu("layer.0.relu", "layer")
    message = refusal(*nodes, output="layer.0.relu")
    assert "'layer.0.relu' stands below 'layer', which is a node itself" in message


def test_names_may_share_a_beginning() -> None:
    Graph(nodes=(INPUT, relu("layer", "input"), relu("layer1.x", "layer")), output="layer1.x")


def test_all_dangling_inputs_and_wrong_arities_are_told_at_once() -> None:
    message = refusal(
        INPUT,
        relu("a", "ghost", "input"),
        add("b", "a"),
        relu("c"),
        add("d", "b", "c", "spirit"),
        output="nowhere",
    )
    assert "'a' reads 'ghost', which does not exist" in message
    assert "'d' reads 'spirit', which does not exist" in message
    assert "'a': Activation reads 1 values, got 2" in message
    assert "'b': Add reads 2 or more values, got 1" in message
    assert "'c': Activation reads 1 values, got 0" in message
    assert "the output 'nowhere' does not exist" in message


def test_a_cycle_is_told() -> None:
    message = refusal(INPUT, add("a", "input", "b"), relu("b", "a"), output="b")
    assert "'a' reads 'b', which stands after it" in message
    assert "cycle" in message


def test_a_node_that_reads_itself_is_told() -> None:
    assert "'a' reads 'a', which stands after it" in refusal(INPUT, relu("a", "a"), output="a")


def test_a_wrong_order_is_told() -> None:
    message = refusal(INPUT, relu("b", "a"), relu("a", "input"), output="b")
    assert "wrong order" in message


def test_an_input_that_is_second_or_late_or_missing_is_told() -> None:
    second = Node(name="again", op=Input(width=3, spatial=(4, 4)))
    one_input = "the one Input stands first"
    message = refusal(INPUT, second, add("sum", "input", "again"), output="sum")
    assert f"'again': {one_input}" in message
    message = refusal(relu("a", "input"), INPUT, output="a")
    assert f"'a': {one_input}" in message
    assert f"'input': {one_input}" in message
    assert "does not exist" in refusal(output="a")


def test_all_nodes_that_the_output_does_not_need_are_told() -> None:
    message = refusal(
        INPUT, relu("a", "input"), relu("dead", "a"), relu("deader", "dead"), output="a"
    )
    assert "the output does not depend on dead, deader" in message


def test_a_node_whose_weights_are_used_is_not_dead() -> None:
    nodes = INPUT, conv("owner", "input"), conv("user", "input", weights="owner")
    assert Graph(nodes=nodes, output="user").parameters() == {"owner.weight": (3, 3, 1, 1)}


def test_all_faults_of_shared_weights_are_told_at_once() -> None:
    message = refusal(
        INPUT,
        conv("own", "input"),
        conv("a", "own", weights="ghost"),
        conv("b", "a", weights="own"),
        conv("c", "b", weights="b"),
        conv("d", "c", weights="d"),
        conv("e", "d", weights="late"),
        conv("late", "e"),
        conv("f", "late", width=5, weights="own"),
        output="f",
    )
    told = "'{}' uses the weights of '{}', which {}"
    assert told.format("a", "ghost", "does not exist") in message
    assert told.format("c", "b", "has none of its own") in message
    assert told.format("d", "d", "has none of its own") in message
    assert told.format("e", "late", "stands after it") in message
    assert told.format("f", "own", "is another op") in message
    assert "'b' uses" not in message


def test_weights_are_shared_only_where_the_tensors_fit() -> None:
    message = refusal(
        INPUT,
        conv("narrow", "input", width=5),
        conv("wide", "narrow", width=5, weights="narrow"),
        relu("relu", "wide"),
        relu("again", "relu", weights="relu"),
        output="again",
    )
    assert "'wide' needs tensors {'weight': (5, 5, 1, 1)}" in message
    assert "'narrow' has {'weight': (5, 3, 1, 1)}" in message
    assert "'again' uses the weights of 'relu', but Activation has none" in message


def test_a_shape_that_does_not_fit_is_told_with_its_node() -> None:
    message = refusal(
        INPUT,
        Node(name="head.part", op=Split(parts=2, index=0), inputs=("input",)),
        output="head.part",
    )
    assert message.startswith("at head.part: 3 channels do not split into 2")


def small() -> Graph:
    ops: list[tuple[str, AnyOp, tuple[str, ...]]] = [
        ("conv", Conv2d(width=3, kernel=(3, 3), padding=(1, 1), bias=True), ("input",)),
        ("bn", BatchNorm(), ("conv",)),
        ("add", Add(), ("bn", "input")),
        ("twice", Add(), ("add", "add")),
        ("flatten", Flatten(), ("twice",)),
        ("fc", Linear(width=2), ("flatten",)),
    ]
    nodes = tuple(Node(name=name, op=op, inputs=inputs) for name, op, inputs in ops)
    return Graph(nodes=(INPUT, *nodes), output="fc")


def test_a_graph_knows_its_shapes_input_and_classes() -> None:
    graph = small()
    assert graph.input_size == (3, 4, 4)
    assert graph.classes == 2
    assert graph.shapes["flatten"] == Shape.of(3 * 4 * 4)
    assert graph.input_shapes(graph["add"]) == [Shape.of(3, (4, 4))] * 2


def test_parameters_are_named_as_in_the_state_dict() -> None:
    assert small().parameters() == {
        "conv.weight": (3, 3, 3, 3),
        "conv.bias": (3,),
        "bn.weight": (3,),
        "bn.bias": (3,),
        "fc.weight": (2, 48),
        "fc.bias": (2,),
    }


def test_readers_are_told_once_each_in_order() -> None:
    readers = {name: [n.name for n in nodes] for name, nodes in small().readers.items()}
    assert readers["input"] == ["conv", "add"]
    assert readers["add"] == ["twice"]
    assert readers["fc"] == []


def test_nodes_are_found_by_name() -> None:
    graph = small()
    assert graph["bn"].op == BatchNorm()
    assert "bn" in graph
    assert "relu" not in graph
    with pytest.raises(GraphError, match="the graph has no node 'relu'"):
        graph["relu"]


def test_a_graph_is_a_value() -> None:
    graph = small()
    assert graph == small()
    assert hash(graph) == hash(small())
    assert graph != replace(graph, init=replace(graph.init, scale=0.5))
    with pytest.raises(FrozenInstanceError):
        graph.output = "add"  # type: ignore[misc]
    with pytest.raises(TypeError):
        graph.shapes["fc"] = Shape.of(1)  # type: ignore[index]


def test_the_networkx_view_keeps_ops_and_positions() -> None:
    graph = small()
    view = graph.networkx()
    assert list(view) == [node.name for node in graph.nodes]
    assert view.nodes["bn"]["op"] == BatchNorm()
    assert sorted(d["position"] for *_, d in view.in_edges("twice", data=True)) == [0, 1]


@given(graphs())
def test_the_networkx_view_is_acyclic_and_has_every_input_as_an_edge(graph: Graph) -> None:
    view = graph.networkx()
    assert networkx.is_directed_acyclic_graph(view)
    for node in graph.nodes:
        edges = view.in_edges(node.name, data="position")
        by_position = {position: source for source, _, position in edges}
        assert tuple(by_position[i] for i in range(len(by_position))) == node.inputs


@given(graphs())
def test_every_node_is_live_and_each_prefix_needs_only_what_stands_before(graph: Graph) -> None:
    assert live(graph.nodes, graph.output) == graph.nodes
    for i, node in enumerate(graph.nodes):
        assert {*live(graph.nodes, node.name)} <= {*graph.nodes[: i + 1]}


@given(graphs())
def test_every_node_but_the_output_is_read_or_lends_its_weights(graph: Graph) -> None:
    lenders = {node.weights for node in graph.nodes}
    unread = [node.name for node in graph.nodes if not graph.readers[node.name]]
    assert {*unread} - lenders == {graph.output}


def test_the_message_says_what_a_graph_is_not() -> None:
    assert re.match("not a network: .*; .*", refusal(INPUT, relu("a"), output="b"))
