"""Which widths vary together, which are fixed, and why."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunenas.errors import GraphError
from prunenas.ir.coupling import ChannelGroup, GroupAxis, GroupSegment, couple
from prunenas.ir.graph import Graph
from prunenas.ir.ops import Depthwise2d, Flatten, Gate, GroupNorm, Select, Shuffle, Split
from prunenas.ir.shape import Shape
from prunenas.ir.writer import GraphWriter
from tests.graphs import graphs, legal_widths, with_widths


def _shape(axis: GroupAxis, widths: Mapping[str, int], spatial: tuple[int, ...]) -> Shape:
    """The shape of a value with ``axis`` under ``widths``."""
    return Shape(sum(widths[s.group] * s.repeat for s in axis), spatial)


def writer() -> GraphWriter:
    return GraphWriter((3, 4, 4))


def convs(net: GraphWriter, x: str, **widths: int) -> list[str]:
    return [net.conv(name, x, width, kernel=1) for name, width in widths.items()]


def classified(net: GraphWriter, x: str) -> Graph:
    return net.finish(net.linear("fc", net.global_pool("pool", x), 2))


def free(graph: Graph) -> dict[str, tuple[str, ...]]:
    return {group.name: group.members for group in couple(graph).free}


def axis(graph: Graph, name: str) -> list[tuple[str, int]]:
    return [(s.group, s.repeat) for s in couple(graph).axes[name]]


def test_input_and_output_are_fixed_with_the_reason() -> None:
    net = writer()
    graph = classified(net, *convs(net, net.input, conv=6))
    assert [(g.name, g.width, g.fixed) for g in couple(graph)] == [
        ("input", 3, "network input"),
        ("conv", 6, None),
        ("fc", 2, "network output"),
    ]


def test_an_addition_makes_one_group_named_by_its_first_member() -> None:
    net = writer()
    (stem,) = convs(net, net.input, stem=6)
    inner, branch = convs(net, stem, inner=5), convs(net, stem, branch=6)
    second = net.join("add2", net.join("add1", stem, *branch), *convs(net, inner[0], last=6))
    graph = classified(net, second)
    assert free(graph) == {"stem": ("stem", "branch", "last"), "inner": ("inner",)}
    assert axis(graph, "add2") == [("stem", 1)]


def test_members_stand_in_topological_order_whatever_order_joins_them() -> None:
    net = writer()
    a, b, c = convs(net, net.input, a=4, b=4, c=4)
    graph = classified(net, net.join("outer", c, net.join("inner", b, a)))
    assert free(graph) == {"a": ("a", "b", "c")}


def test_an_addition_to_the_input_fixes_the_branch() -> None:
    net = writer()
    graph = classified(net, net.join("add", net.input, *convs(net, net.input, conv=3)))
    assert couple(graph)["input"].members == ("input", "conv")
    assert couple(graph).free == ()


def test_a_concatenation_appends_and_leaves_all_free() -> None:
    net = writer()
    a, b = convs(net, net.input, a=4, b=5)
    nested = net.concat("nested", net.concat("both", a, b), net.input, a)
    graph = classified(net, nested)
    assert axis(graph, "nested") == [("a", 1), ("b", 1), ("input", 1), ("a", 1)]
    assert free(graph) == {"a": ("a",), "b": ("b",)}


def test_concatenations_that_are_cut_alike_are_joined_part_by_part() -> None:
    net = writer()
    a, b, c, d = convs(net, net.input, a=4, b=5, c=4, d=5)
    graph = classified(net, net.join("add", net.concat("ab", a, b), net.concat("cd", c, d)))
    assert free(graph) == {"a": ("a", "c"), "b": ("b", "d")}


def test_axes_that_are_cut_differently_are_fixed_with_the_reason() -> None:
    net = writer()
    a, b, whole = convs(net, net.input, a=4, b=5, whole=9)
    graph = classified(net, net.join("layer1.add", net.concat("ab", a, b), whole))
    groups = couple(graph)
    reason = "layer1.add joins axes that are cut differently"
    assert [groups[name].fixed for name in ("a", "b", "whole")] == [reason] * 3


def test_a_depthwise_convolution_passes_its_source_on() -> None:
    net = writer()
    (conv,) = convs(net, net.input, conv=6)
    op = Depthwise2d(kernel=(3, 3), padding=(1, 1), multiplier=2)
    graph = classified(net, net.add("twice", op, net.depthwise("once", conv, kernel=3)))
    assert axis(graph, "once") == [("conv", 1)]
    assert axis(graph, "twice") == [("conv", 2)]
    assert free(graph) == {"conv": ("conv",)}


def test_flatten_repeats_each_channel_once_a_position() -> None:
    net = writer()
    (conv,) = convs(net, net.input, conv=6)
    net.linear("fc", net.add("flatten", Flatten(), net.depthwise("dw", conv, kernel=3)), 2)
    assert axis(net.finish("fc"), "flatten") == [("conv", 4 * 4)]


def test_a_grouped_convolution_asks_a_divisor_of_itself_and_its_source() -> None:
    net = writer()
    (conv,) = convs(net, net.input, conv=12)
    norm = net.add("norm", GroupNorm(groups=6), conv)
    graph = classified(net, net.conv("grouped", norm, 8, kernel=1, groups=4))
    assert {g.name: g.divisor for g in couple(graph).free} == {"conv": 12, "grouped": 4}


def test_a_divisor_on_a_concatenation_is_asked_of_every_part() -> None:
    net = writer()
    a, b = convs(net, net.input, a=4, b=6)
    graph = classified(net, net.conv("grouped", net.concat("ab", a, b), 8, kernel=1, groups=2))
    assert {g.name: g.divisor for g in couple(graph).free} == {"a": 2, "b": 2, "grouped": 2}


def test_parts_of_which_only_the_sum_divides_are_fixed_with_the_reason() -> None:
    net = writer()
    a, b = convs(net, net.input, a=3, b=5)
    graph = classified(net, net.conv("grouped", net.concat("ab", a, b), 8, kernel=1, groups=2))
    assert [*free(graph)] == ["grouped"]
    assert "grouped needs 2 equal parts" in str(couple(graph)["a"].fixed)


def test_a_selection_is_a_group_of_its_own_bounded_by_its_source() -> None:
    net = writer()
    a, b = convs(net, net.input, a=4, b=5)
    selected = net.add("select", Select(indices=(0, 4, 8)), net.concat("ab", a, b))
    graph = classified(net, selected)
    groups = couple(graph)
    assert [(g.name, g.select) for g in groups.free] == [
        ("a", False),
        ("b", False),
        ("select", True),
    ]
    (bound,) = groups.bounds
    assert bound.node == "select"
    assert bound.lower == (GroupSegment("select"),)
    assert bound.upper == (GroupSegment("a"), GroupSegment("b"))
    assert bound.excess(groups.widths) == 3 - 9
    assert bound.excess({"a": 1, "b": 1, "select": 3}) == 1


def test_padded_channels_have_the_wider_axis_which_bounds_the_narrower() -> None:
    net = writer()
    narrow, wide = convs(net, net.input, narrow=4, wide=6)
    padded = net.pad_channels("pad", narrow, wide, stride=1, detach=False)
    graph = classified(net, net.join("add", wide, padded))
    assert axis(graph, "pad") == [("wide", 1)]
    assert free(graph) == {"narrow": ("narrow",), "wide": ("wide",)}
    (bound,) = couple(graph).bounds
    assert bound.excess({"narrow": 4, "wide": 3}) == 1


def test_a_gate_couples_image_and_factors() -> None:
    net = writer()
    (image,) = convs(net, net.input, image=6)
    reduce = convs(net, net.global_pool("squeeze", image), reduce=2)
    graph = classified(net, net.add("gate", Gate(), image, *convs(net, *reduce, expand=6)))
    assert free(graph) == {"image": ("image", "expand"), "reduce": ("reduce",)}


def test_equal_parts_of_a_split_stay_equal() -> None:
    net = writer()
    whole = net.concat("whole", *convs(net, net.input, a=4, b=4))
    first, second = (net.add(f"part{i}", Split(parts=2, index=i), whole) for i in range(2))
    graph = classified(net, net.concat("out", first, *convs(net, second, c=3)))
    assert free(graph) == {"a": ("a", "b"), "c": ("c",)}
    assert axis(graph, "part1") == [("a", 1)]


def test_a_split_of_uneven_segments_couples_them_part_by_part() -> None:
    net = writer()
    whole = net.concat("whole", *convs(net, net.input, a=1, b=4, c=1, d=4))
    graph = classified(net, net.add("part", Split(parts=2, index=1), whole))
    assert free(graph) == {"a": ("a", "c"), "b": ("b", "d")}
    assert axis(graph, "part") == [("a", 1), ("b", 1)]


def test_a_split_inside_a_segment_is_fixed_with_the_reason() -> None:
    net = writer()
    whole = net.concat("whole", *convs(net, net.input, a=2, b=6))
    graph = classified(net, net.add("part", Split(parts=2, index=1), whole))
    groups = couple(graph)
    assert groups.free == ()
    assert [groups[name].width for name in ("a", "b", "part")] == [2, 6, 4]
    assert {groups[name].fixed for name in ("a", "b", "part")} == {
        "part cuts between segment borders"
    }


def test_a_shuffle_of_equal_parts_couples_them_and_stays_free() -> None:
    net = writer()
    whole = net.concat("whole", *convs(net, net.input, a=4, b=4))
    graph = classified(net, net.add("shuffle", Shuffle(groups=2), whole))
    assert free(graph) == {"a": ("a", "b")}
    assert axis(graph, "shuffle") == [("a", 2)]


def test_a_shuffle_inside_a_segment_is_fixed_with_the_reason() -> None:
    net = writer()
    whole = net.concat("whole", *convs(net, net.input, a=2, b=6))
    graph = classified(net, net.add("shuffle", Shuffle(groups=2), whole))
    assert {couple(graph)[name].fixed for name in ("a", "b")} == {
        "shuffle shuffles across segment borders"
    }


def test_a_convolution_called_twice_is_one_group_with_its_source() -> None:
    net = writer()
    (stem,) = convs(net, net.input, stem=6)
    first = convs(net, stem, first=6)
    graph = classified(net, *convs(net, net.relu("relu", *first), second=6))
    nodes = tuple(
        replace(node, weights="first") if node.name == "second" else node for node in graph.nodes
    )
    assert free(replace(graph, nodes=nodes)) == {"stem": ("stem", "first", "second")}


def test_an_unknown_group_is_told() -> None:
    net = writer()
    graph = classified(net, *convs(net, net.input, conv=6))
    with pytest.raises(GraphError, match="the graph has no group 'bn'"):
        couple(graph)["bn"]


@given(graphs())
def test_every_deciding_node_is_a_member_of_one_group(graph: Graph) -> None:
    groups = couple(graph)
    members = [member for group in groups for member in group.members]
    assert len(members) == len({*members})
    deciding = {n.name for n in graph.nodes if hasattr(n.op, "width")}
    assert deciding <= {*members}
    assert all(isinstance(graph[name].op, Split) for name in {*members} - deciding)


@given(graphs())
def test_groups_are_named_and_ordered_by_their_first_member(graph: Graph) -> None:
    position = {node.name: i for i, node in enumerate(graph.nodes)}
    groups = couple(graph)
    firsts = [position[group.name] for group in groups]
    assert firsts == sorted(firsts)
    for group in groups:
        places = [position[member] for member in group.members]
        assert places == sorted(places)
        assert group.name == group.members[0]


@given(graphs())
def test_members_have_the_width_of_their_group_and_it_divides(graph: Graph) -> None:
    for group in couple(graph):
        assert {graph.shapes[m].channels for m in group.members} == {group.width}
        assert group.width % group.divisor == 0


@given(graphs())
def test_the_reference_keeps_its_own_bounds(graph: Graph) -> None:
    groups = couple(graph)
    assert all(bound.excess(groups.widths) <= 0 for bound in groups.bounds)


@given(graphs())
def test_an_axis_is_as_wide_as_the_value(graph: Graph) -> None:
    groups = couple(graph)
    for name, shape in graph.shapes.items():
        assert _shape(groups.axes[name], groups.widths, shape.spatial) == shape


@given(graphs())
def test_input_and_output_are_always_fixed(graph: Graph) -> None:
    groups = couple(graph)
    ends = groups.axes[graph.nodes[0].name] + groups.axes[graph.output]
    assert all(groups[segment.group].fixed for segment in ends)


@given(st.data(), graphs())
def test_legal_widths_build_and_shapes_follow_from_the_axes(
    data: st.DataObject, graph: Graph
) -> None:
    groups = couple(graph)
    widths = data.draw(legal_widths(graph))
    narrow = with_widths(graph, widths)
    for name, shape in narrow.shapes.items():
        assert _shape(groups.axes[name], groups.widths | widths, shape.spatial) == shape
        assert shape.spatial == graph.shapes[name].spatial


@given(st.data(), graphs())
def test_narrowing_a_graph_leaves_its_equations_as_they_are(
    data: st.DataObject, graph: Graph
) -> None:
    before = couple(graph)
    widths = data.draw(legal_widths(graph))
    after = couple(with_widths(graph, widths))

    def renewed(group: ChannelGroup) -> ChannelGroup:
        return replace(group, width=widths.get(group.name, group.width))

    assert after.groups == tuple(renewed(group) for group in before)
    assert after.axes == before.axes
    assert after.bounds == before.bounds
