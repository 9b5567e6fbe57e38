"""Stages: free groups by the size of their first member's map."""

from hypothesis import given

from prunenas.ir.coupling import couple
from prunenas.ir.graph import Graph
from prunenas.ir.ops import BatchNorm
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


@given(graphs())
def test_stages_part_the_free_groups(graph: Graph) -> None:
    found = stages(graph)
    groups = [group for stage in found for group in stage.groups]
    assert sorted(g.name for g in groups) == sorted(g.name for g in couple(graph).free)
    assert len({stage.spatial for stage in found}) == len(found)
    for stage in found:
        assert stage.groups
        assert all(graph.shapes[g.name].spatial == stage.spatial for g in stage.groups)


@given(graphs())
def test_stages_are_numbered_in_topological_order(graph: Graph) -> None:
    names = [stage.name for stage in stages(graph)]
    numbered = [name for name in names if name != HEAD]
    assert numbered == [f"stage{i}" for i in range(1, len(numbered) + 1)]
    assert HEAD not in names[:-1]
    position = {node.name: i for i, node in enumerate(graph.nodes)}
    firsts = [position[stage.groups[0].name] for stage in stages(graph) if stage.name != HEAD]
    assert firsts == sorted(firsts)
