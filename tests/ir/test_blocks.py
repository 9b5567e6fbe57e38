"""Removable residual blocks, and the graphs that remain."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunenas.errors import GraphError
from prunenas.ir.blocks import Block, blocks, drop_blocks
from prunenas.ir.cost import macs, params
from prunenas.ir.graph import Graph
from prunenas.ir.writer import GraphWriter
from tests.graphs import graphs


def stem() -> tuple[GraphWriter, str]:
    net = GraphWriter((3, 8, 8))
    return net, net.conv("stem", net.input, 4, kernel=3)


def classified(net: GraphWriter, x: str) -> Graph:
    return net.finish(net.linear("fc", net.global_pool("pool", x), 2))


def branch(net: GraphWriter, x: str, width: int = 4, *, stride: int = 1) -> str:
    x = net.relu("relu", net.conv("conv1", x, width, kernel=3, stride=stride))
    return net.conv("conv2", x, width, kernel=3)


def identity(net: GraphWriter, x: str, name: str) -> str:
    with net.scope(name):
        return net.relu("out", net.join("add", branch(net, x), x))


def test_an_identity_block_is_found_with_its_branch_and_shortcut() -> None:
    net, x = stem()
    graph = classified(net, identity(net, x, "block"))
    assert blocks(graph) == (
        Block(
            name="block.add",
            entry="stem",
            branch=("block.conv1", "block.relu", "block.conv2"),
            shortcut="stem",
        ),
    )


def test_a_projection_block_keeps_its_projection() -> None:
    net, x = stem()
    with net.scope("block"):
        short = net.batch_norm("bn", net.conv("shortcut", x, 6, kernel=1, stride=2))
        x = net.join("add", branch(net, x, 6, stride=2), short)
    graph = classified(net, x)
    (block,) = blocks(graph)
    assert block.entry == "stem"
    assert block.shortcut == "block.bn"
    left = drop_blocks(graph, ["block.add"])
    assert [n.name for n in left.nodes] == [
        "input",
        "stem",
        "block.shortcut",
        "block.bn",
        "pool",
        "fc_flatten",
        "fc",
    ]
    assert left["pool"].inputs == ("block.bn",)


def test_a_block_whose_shortcut_is_padded_to_its_branch_is_not_removable() -> None:
    net, x = stem()
    with net.scope("block"):
        wide = branch(net, x, 6, stride=2)
        x = net.join("add", wide, net.pad_channels("pad", x, wide, stride=2, detach=False))
    assert blocks(classified(net, x)) == ()


def test_an_addition_whose_sides_weigh_the_same_is_not_removable() -> None:
    net, x = stem()
    sides = (net.conv(name, x, 4, kernel=3) for name in "ab")
    assert blocks(classified(net, net.join("add", *sides))) == ()


def test_an_addition_of_three_values_is_not_removable() -> None:
    net, x = stem()
    y = net.conv("conv", x, 4, kernel=3)
    assert blocks(classified(net, net.join("add", x, y, y))) == ()


def test_a_branch_that_is_read_elsewhere_is_not_removable() -> None:
    net, x = stem()
    y = net.conv("conv1", x, 4, kernel=3)
    z = net.join("add", net.conv("conv2", y, 4, kernel=3), x)
    assert blocks(classified(net, net.concat("concat", z, y))) == ()


def test_a_branch_whose_weights_are_used_elsewhere_is_not_removable() -> None:
    net, x = stem()
    graph = classified(net, net.conv("user", identity(net, x, "block"), 4, kernel=3))
    assert len(blocks(graph)) == 1
    nodes = tuple(replace(n, weights="block.conv2") if n.name == "user" else n for n in graph.nodes)
    assert blocks(replace(graph, nodes=nodes)) == ()


def test_dropping_rewires_the_readers_to_the_shortcut() -> None:
    net, x = stem()
    graph = classified(net, identity(net, identity(net, x, "block1"), "block2"))
    left = drop_blocks(graph, ["block1.add"])
    assert left["block1.out"].inputs == ("stem",)
    assert left["block2.conv1"].inputs == ("block1.out",)
    assert "block1.conv1" not in left
    both = drop_blocks(graph, {"block2.add", "block1.add"})
    assert [n.name for n in both.nodes] == [
        "input",
        "stem",
        "block1.out",
        "block2.out",
        "pool",
        "fc_flatten",
        "fc",
    ]


def test_blocks_that_follow_each_other_without_a_node_between_are_dropped_together() -> None:
    net, x = stem()
    for name in ("block1", "block2"):
        with net.scope(name):
            x = net.join("add", branch(net, x), x)
    left = drop_blocks(classified(net, x), ["block1.add", "block2.add"])
    assert left["pool"].inputs == ("stem",)


def test_a_block_in_a_block_goes_with_it() -> None:
    net, x = stem()
    with net.scope("outer"):
        y = identity(net, net.conv("before", x, 4, kernel=3), "inner")
        x = net.join("add", net.conv("after", y, 4, kernel=3), x)
    graph = classified(net, x)
    assert [block.name for block in blocks(graph)] == ["outer.inner.add", "outer.add"]
    alone, together = (
        drop_blocks(graph, names) for names in (["outer.add"], ["outer.add", "outer.inner.add"])
    )
    assert alone == together
    assert [n.name for n in alone.nodes] == ["input", "stem", "pool", "fc_flatten", "fc"]


def test_a_network_that_ends_in_a_block_returns_the_shortcut_after_it() -> None:
    net, x = stem()
    x = net.linear("fc1", net.global_pool("pool", x), 2)
    graph = net.finish(net.join("add", net.linear("fc2", x, 2), x))
    assert drop_blocks(graph, ["add"]).output == "fc1"


def test_all_unknown_names_are_told_with_the_known_ones() -> None:
    net, x = stem()
    graph = classified(net, identity(net, x, "block"))
    with pytest.raises(GraphError, match=re.escape("block.x, stem; removable: block.add")):
        drop_blocks(graph, ["stem", "block.add", "block.x"])
    with pytest.raises(GraphError, match="removable: none"):
        drop_blocks(drop_blocks(graph, ["block.add"]), ["block.add"])


@given(graphs())
def test_dropping_nothing_changes_nothing(graph: Graph) -> None:
    assert drop_blocks(graph, []) == graph


@given(graphs())
def test_exactly_the_branch_and_its_addition_go(graph: Graph) -> None:
    for block in blocks(graph):
        left = drop_blocks(graph, [block.name])
        gone = {n.name for n in graph.nodes} - {n.name for n in left.nodes}
        assert gone == {*block.branch, block.name}
        assert graph.shapes[block.shortcut] == graph.shapes[block.name]


@given(st.data(), graphs())
def test_any_blocks_may_go_together_and_the_rest_costs_less(
    data: st.DataObject, graph: Graph
) -> None:
    known = [block.name for block in blocks(graph)]
    names = data.draw(st.sets(st.sampled_from(known)) if known else st.just(set()))
    left = drop_blocks(graph, names)
    assert left.shapes == {node.name: graph.shapes[node.name] for node in left.nodes}
    assert left.classes == graph.classes
    if names:
        assert params(left) < params(graph)
        assert macs(left) < macs(graph)
    assert {block.name for block in blocks(left)} >= {*known} - names - {
        n.name for n in graph.nodes if n.name not in left
    }
