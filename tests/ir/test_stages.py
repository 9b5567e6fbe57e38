"""Stages: free groups by the size of their first member's map."""

import math

from hypothesis import given

from prunenas.ir.coupling import couple
from prunenas.ir.graph import Graph
from prunenas.ir.ops import BatchNorm, Linear, Permute, Reduce, Reshape
from prunenas.ir.stages import HEAD, stages
from prunenas.ir.writer import GraphWriter
from tests.graphs import graphs


def test_stages_follow_the_sizes_in_order_and_the_head_comes_last() -> None:
    net = GraphWriter((3, 8, 8))
    x = net.conv("conv1", net.input, 4, kernel=3)
    x = net.join("add", x, net.conv("conv2", x, 4, kernel=3))
    x = net.max_pool("pool", net.conv("conv3", x, 5, kernel=3), kernel=2)
    x = net.conv("conv4", x, 6, kernel=3)
    x = net.add("bn", BatchNorm(), net.linear("fc1", x, 7))
    graph = net.finish(net.linear("fc2", x, 2))
    found = stages(graph)
    assert [(stage.name, stage.spatial) for stage in found] == [
        ("stage1", (8, 8)),
        ("stage2", (4, 4)),
        (HEAD, ()),
    ]
    assert [stage.layers for stage in found] == [("conv1", "conv2", "conv3"), ("conv4",), ("fc1",)]


def test_a_graph_without_free_groups_has_no_stages() -> None:
    net = GraphWriter((3, 8, 8))
    assert stages(net.finish(net.linear("fc", net.input, 2))) == ()


def test_a_size_without_free_groups_is_no_stage() -> None:
    net = GraphWriter((3, 8, 8))
    x = net.max_pool("pool", net.input, kernel=2)
    graph = net.finish(net.linear("fc", net.conv("conv", x, 4, kernel=3), 2))
    assert [(stage.name, stage.spatial) for stage in stages(graph)] == [("stage1", (4, 4))]


def test_tokens_stand_in_the_stage_of_the_map_that_they_were() -> None:
    net = GraphWriter((3, 8, 8))
    x = net.conv("patches", net.input, 6, kernel=2, stride=2, padding=0)
    x = net.add("turned", Permute(order=(0, 2, 1)), net.add("row", Reshape(sizes=(6, 16)), x))
    x = net.add("fc1", Linear(width=5), x)
    x = net.add("windows", Reshape(sizes=(4, 5)), x)
    x = net.add("fc2", Linear(width=7), x)
    x = net.add("whole", Reshape(sizes=(16, 7)), x)
    x = net.add("fc3", Linear(width=8), net.add("mean", Reduce(dims=(1,)), x))
    found = stages(net.finish(net.add("fc4", Linear(width=2), x)))
    assert [(stage.name, stage.spatial, stage.layers) for stage in found] == [
        ("stage1", (4, 4), ("patches", "fc1", "fc2")),
        (HEAD, (), ("fc3",)),
    ]


@given(graphs())
def test_stages_part_the_free_groups(graph: Graph) -> None:
    found = stages(graph)
    groups = [group for stage in found for group in stage.groups]
    assert sorted(g.name for g in groups) == sorted(g.name for g in couple(graph).free)
    assert len({stage.spatial for stage in found}) == len(found)
    for stage in found:
        assert stage.groups
        for member in (group.members[0] for group in stage.groups):
            shape = graph.shapes[member]
            channels = shape.sizes[graph[member].op.channel]
            assert shape.numel == channels * math.prod(stage.spatial)


@given(graphs())
def test_stages_are_numbered_in_topological_order(graph: Graph) -> None:
    names = [stage.name for stage in stages(graph)]
    numbered = [name for name in names if name != HEAD]
    assert numbered == [f"stage{i}" for i in range(1, len(numbered) + 1)]
    assert HEAD not in names[:-1]
    position = {node.name: i for i, node in enumerate(graph.nodes)}
    firsts = [position[stage.groups[0].members[0]] for stage in stages(graph) if stage.name != HEAD]
    assert firsts == sorted(firsts)
