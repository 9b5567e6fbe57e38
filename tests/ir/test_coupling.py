"""Which widths vary together, which are fixed, and why."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunenas.errors import GraphError
from prunenas.ir.coupling import (
    ChannelGroup,
    GroupSegment,
    axis_width,
    channel_places,
    couple,
    resized,
)
from prunenas.ir.graph import Graph
from prunenas.ir.ops import (
    Arithmetic,
    Attention,
    Constant,
    Conv2d,
    Convolve,
    Depthwise2d,
    Filled,
    Flatten,
    Gate,
    GroupNorm,
    Index,
    Join,
    LayerNorm,
    Linear,
    Opaque,
    Parameter,
    Permute,
    Reshape,
    Select,
    Shuffle,
    Slice,
    Split,
    Spread,
)
from prunenas.ir.writer import GraphWriter
from tests.graphs import graphs, legal_widths, sizes_of, sizes_under, with_widths


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


def dims(graph: Graph, name: str) -> list[list[tuple[int | str, ...]]]:
    """Return the factors of each segment of each dimension."""
    return [[s.factors for s in axis] for axis in couple(graph).dims[name]]


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


@pytest.mark.parametrize("shortcut_first", [True, False])
def test_a_chain_of_thousands_of_additions_is_one_group(shortcut_first: bool) -> None:
    net = writer()
    x = net.conv("first", net.input, 4, kernel=1)
    for i in range(2_000):
        branch = net.conv(f"conv{i}", net.input, 4, kernel=1)
        x = net.join(f"add{i}", *((x, branch) if shortcut_first else (branch, x)))
    assert len(free(classified(net, x))["first"]) == 2_001


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


def test_axes_that_are_cut_differently_are_cut_at_all_places() -> None:
    net = writer()
    a, b, whole = convs(net, net.input, a=4, b=5, whole=9)
    graph = classified(net, net.join("layer1.add", net.concat("ab", a, b), whole))
    assert free(graph) == {"a": ("a", "whole"), "b": ("b", "whole")}
    assert axis(graph, "whole") == [("a", 1), ("b", 1)]


def test_axes_whose_cuts_cannot_be_brought_together_are_fixed_with_the_reason() -> None:
    net = writer()
    a, b, whole = convs(net, net.input, a=4, b=5, whole=9)
    selected = net.select_all("select", whole)
    graph = classified(net, net.join("layer1.add", net.concat("ab", a, b), selected))
    groups = couple(graph)
    reason = "layer1.add joins axes that are cut differently"
    assert [groups[name].fixed for name in ("a", "b", "select")] == [reason] * 3
    assert [*free(graph)] == ["whole"]


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
    assert bound.lower == (GroupSegment(("select",)),)
    assert bound.upper == (GroupSegment(("a",)), GroupSegment(("b",)))
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


def test_a_split_of_one_convolution_makes_its_width_a_product() -> None:
    net = writer()
    (conv,) = convs(net, net.input, conv=6)
    first, second = (net.add(f"part{i}", Split(parts=2, index=i), conv) for i in range(2))
    graph = classified(net, net.join("add", first, second))
    assert [(g.name, g.width, g.divisor) for g in couple(graph).free] == [("conv", 3, 1)]
    assert axis(graph, "conv") == [("conv", 2)]
    assert axis(graph, "part1") == [("conv", 1)]


def test_a_split_between_the_borders_of_two_is_fixed_with_the_reason() -> None:
    net = writer()
    whole = net.concat("whole", *convs(net, net.input, a=2, b=6))
    graph = classified(net, net.add("part", Split(parts=2, index=1), whole))
    groups = couple(graph)
    assert groups.free == ()
    assert {groups[name].fixed for name in ("a", "b")} == {"part cuts between segment borders"}
    assert groups.axes["part"] == (GroupSegment((4,)),)


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


def test_half_of_the_shuffled_channels_goes_by_and_is_ordered() -> None:
    net = writer()
    whole = net.concat("whole", *convs(net, net.input, a=4, b=4))
    shuffled = net.add("shuffle", Shuffle(groups=2), whole)
    first, second = (net.add(f"part{i}", Split(parts=2, index=i), shuffled) for i in range(2))
    graph = classified(net, net.concat("out", first, *convs(net, second, c=3)))
    assert free(graph) == {"a": ("a", "b"), "c": ("c",)}
    assert axis(graph, "part1") == [("a", 1)]
    ordered = {group.name: group.ordered for group in couple(graph)}
    assert ordered["a"] == "part0 takes a part of interleaved channels"
    assert ordered["c"] is None


# Tokens.


def tokens(net: GraphWriter) -> str:
    """Four tokens of six channels, from the convolution ``embed``."""
    x = net.conv("embed", net.input, 6, kernel=2, stride=2, padding=0)
    return net.add("tokens", Permute(order=(0, 2, 1)), net.add("row", Reshape(sizes=(6, 4)), x))


def attended(net: GraphWriter, x: str) -> str:
    """Two heads of three channels."""
    x = net.add("qkv", Linear(width=3 * 2 * 3), x)
    x = net.add("heads", Reshape(sizes=(4, 3, 2, 3)), x)
    x = net.add("first", Permute(order=(0, 2, 3, 1, 4)), x)
    x = net.add(
        "attention", Attention(), *(net.add(f"part{i}", Index(dim=1, index=i), x) for i in range(3))
    )
    x = net.add("back", Permute(order=(0, 2, 1, 3)), x)
    return net.add("proj", Linear(width=6), net.add("merged", Reshape(sizes=(4, 6)), x))


def test_heads_and_their_width_are_groups_of_their_own() -> None:
    net = writer()
    x = tokens(net)
    graph = net.finish(net.add("fc", Linear(width=2), net.join("add", x, attended(net, x))))
    groups = couple(graph)
    assert {g.name: (g.width, g.members) for g in groups.free} == {
        "embed": (6, ("embed", "proj")),
        "qkv.heads": (2, ("qkv",)),
        "qkv": (3, ("qkv",)),
    }
    assert groups["qkv.outer"].fixed == "part0 picks entry 0"
    assert dims(graph, "qkv") == [[()], [(4,)], [("qkv.outer", "qkv.heads", "qkv")]]
    assert dims(graph, "attention") == [[()], [("qkv.heads",)], [(4,)], [("qkv",)]]
    assert dims(graph, "merged") == [[()], [(4,)], [("qkv.heads", "qkv")]]
    assert groups.read(graph["proj"]) == (GroupSegment(("qkv.heads", "qkv")),)
    assert groups.axes["proj"] == (GroupSegment(("embed",)),)


def test_parts_of_a_width_are_numbered() -> None:
    net = writer()
    x = net.conv("conv", net.input, 9, kernel=1)
    cuts = {"one": (0, 3), "two": (3, 5), "rest": (5, 9)}
    parts = [net.add(n, Slice(dim=1, start=a, stop=b), x) for n, (a, b) in cuts.items()]
    graph = classified(net, net.concat("turned", *reversed(parts)))
    assert [(g.name, g.width) for g in couple(graph).free] == [
        ("conv.part", 3),
        ("conv.part2", 2),
        ("conv.part3", 4),
    ]
    assert axis(graph, "turned") == [("conv.part3", 1), ("conv.part2", 1), ("conv.part", 1)]


def test_what_is_stored_follows_what_it_meets() -> None:
    net = writer()
    x = tokens(net)
    token = net.add("cls", Spread(), net.add("token", Parameter(sizes=(1, 1, 6))), x)
    x = net.add("joined", Join(dim=1), token, x)
    x = net.add("placed", Arithmetic(), x, net.add("where", Parameter(sizes=(1, 5, 6))))
    x = net.add("scaled", Arithmetic(function="multiply"), x, net.add("half", Filled(sizes=(6,))))
    graph = net.finish(net.add("fc", Linear(width=2), x))
    narrow = replace(graph, nodes=resized(graph, {"embed": 4}))
    assert free(graph) == {"embed": ("embed",)}
    assert [narrow.shapes[name].dims for name in ("token", "where", "half", "row")] == [
        (1, 1, 4),
        (1, 5, 4),
        (4,),
        (4, 4),
    ]


def test_slices_move_with_the_widths_that_they_cut() -> None:
    net = writer()
    x = net.conv("conv", net.input, 7, kernel=1)
    cut = net.add("cut", Slice(dim=1, start=2, stop=6), x)
    graph = classified(net, cut)
    assert [(g.name, g.width) for g in couple(graph).free] == [
        ("conv.part", 2),
        ("conv.part2", 4),
        ("conv.part3", 1),
    ]
    nodes = {n.name: n.op for n in resized(graph, {"conv.part": 1, "conv.part2": 3})}
    assert nodes["conv"] == Conv2d(width=5, kernel=(1, 1))
    assert nodes["cut"] == Slice(dim=1, start=1, stop=4)


def test_numbers_that_are_not_trained_fix_what_they_meet() -> None:
    net = writer()
    row = Constant(sizes=(6,), data=Constant.packed(bytes(24)))
    x = net.add("plus", Arithmetic(), tokens(net), net.add("row6", row))
    graph = net.finish(net.add("fc", Linear(width=2), x))
    assert couple(graph)["embed"].fixed == "plus joins it with a constant"


def test_a_single_number_has_no_channels() -> None:
    net = writer()
    scale = net.activation("exp", net.add("scale", Parameter(sizes=())), "exp")
    x = net.add("times", Arithmetic(function="multiply"), tokens(net), scale)
    groups = couple(net.finish(net.add("fc", Linear(width=2), x)))
    assert groups.axes["scale"] == groups.axes["exp"] == (GroupSegment(),)
    assert [group.name for group in groups.free] == ["embed"]


def test_a_call_that_no_op_describes_fixes_what_it_reads() -> None:
    net = writer()
    arguments = Opaque.text([[{"tensor": 0}, 1], {}])
    op = Opaque(call="cumsum.default", arguments=arguments, sizes=(4, 6))
    graph = net.finish(net.add("fc", Linear(width=2), net.add("call", op, tokens(net))))
    assert "call calls cumsum.default" in str(couple(graph)["embed"].fixed)


def test_what_stands_for_the_side_of_an_image_is_fixed() -> None:
    net = writer()
    conv = net.conv("conv", net.input, 6, kernel=1)
    x = net.add("last", Permute(order=(0, 2, 3, 1)), conv)
    graph = net.finish(net.linear("fc", net.max_pool("pool", x, kernel=2), 2))
    assert couple(graph)["conv"].fixed == "pool takes it for the side of an image"


def test_a_stored_tensor_that_is_used_twice_has_one_size() -> None:
    net = writer()
    x = net.conv("conv", net.input, 6, kernel=1)
    other = net.conv("other", x, 6, kernel=1)
    op = Parameter(sizes=(6, 1, 1))
    scaled = [
        net.add(f"times{i}", Arithmetic(function="multiply"), y, net.add(f"scale{i}", op))
        for i, y in enumerate((x, other))
    ]
    graph = classified(net, net.concat("both", *scaled))
    assert [*free(graph)] == ["conv", "other"]
    nodes = tuple(replace(n, weights="scale0") if n.name == "scale1" else n for n in graph.nodes)
    assert free(replace(graph, nodes=nodes)) == {"conv": ("conv", "other")}


# Where the channels of groups stand.


def test_places_are_told_by_group_and_segment() -> None:
    found = channel_places(
        (GroupSegment((2, "h", "d")), GroupSegment((3,)), GroupSegment(("d", 2))), {"h": 2, "d": 3}
    )
    assert [(name, places.tolist()) for name, places in found] == [
        ("h", [[0, 1, 2, 6, 7, 8], [3, 4, 5, 9, 10, 11]]),
        ("d", [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]),
        ("d", [[15, 16], [17, 18], [19, 20]]),
    ]


@given(graphs())
def test_every_place_is_told_once_for_each_factor(graph: Graph) -> None:
    groups = couple(graph)
    for axis in {axis for axes in groups.dims.values() for axis in axes}:
        told = sorted(
            int(p) for _, places in channel_places(axis, groups.widths) for p in places.flat
        )
        start, expected = 0, []
        for segment in axis:
            width = segment.width(groups.widths)
            expected += sorted([*range(start, start + width)] * len(segment.groups))
            start += width
        assert told == expected


# Laws.


@given(graphs())
def test_every_deciding_node_is_a_member_of_what_it_decides(graph: Graph) -> None:
    groups = couple(graph)
    for node in graph.nodes:
        mine = {group.name for group in groups if node.name in group.members}
        if hasattr(node.op, "width"):
            assert axis_width(groups.axes[node.name], groups.widths) == node.op.width
        elif not isinstance(node.op, Convolve) or node.op.depthwise:
            assert mine == set()
            continue
        assert mine == {name for segment in groups.axes[node.name] for name in segment.groups}


@given(graphs())
def test_groups_are_named_and_ordered_by_their_first_member(graph: Graph) -> None:
    position = {node.name: i for i, node in enumerate(graph.nodes)}
    groups = couple(graph)
    firsts = [position[group.members[0]] for group in groups]
    assert firsts == sorted(firsts)
    assert len({group.name for group in groups}) == len(groups.groups)
    for group in groups:
        places = [position[member] for member in group.members]
        assert places == sorted({*places})
        assert f"{group.name}.".startswith(f"{group.members[0]}.")


@given(graphs())
def test_divisors_divide(graph: Graph) -> None:
    assert all(group.width % group.divisor == 0 for group in couple(graph))


@given(graphs())
def test_the_reference_keeps_its_own_bounds(graph: Graph) -> None:
    groups = couple(graph)
    assert all(bound.excess(groups.widths) <= 0 for bound in groups.bounds)


@given(graphs())
def test_input_and_output_are_always_fixed(graph: Graph) -> None:
    groups = couple(graph)
    ends = groups.axes[graph.nodes[0].name] + groups.axes[graph.output]
    assert all(groups[name].fixed for segment in ends for name in segment.groups)


@given(st.data(), graphs())
def test_legal_widths_build_and_shapes_follow_from_the_axes(
    data: st.DataObject, graph: Graph
) -> None:
    assert sizes_of(graph) == sizes_under(graph, {})
    widths = data.draw(legal_widths(graph))
    assert sizes_of(with_widths(graph, widths)) == sizes_under(graph, widths)


@given(st.data(), graphs())
def test_narrowing_a_graph_leaves_its_equations_as_they_are(
    data: st.DataObject, graph: Graph
) -> None:
    # What is narrowed to 1 is no dimension to a reshape, and is spread out where it meets more.
    before = couple(graph)
    widths = data.draw(legal_widths(graph, least=2))
    after = couple(with_widths(graph, widths))

    def renewed(group: ChannelGroup) -> ChannelGroup:
        return replace(group, width=widths.get(group.name, group.width))

    assert after.groups == tuple(renewed(group) for group in before)
    assert after.dims == before.dims
    assert after.bounds == before.bounds
    assert after.stored == before.stored
    assert after.sizes == before.sizes


@given(st.data(), graphs())
def test_a_graph_may_be_narrowed_again_and_again(data: st.DataObject, graph: Graph) -> None:
    for _ in range(3):
        graph = with_widths(graph, data.draw(legal_widths(graph)))


@given(graphs())
def test_every_fixed_group_says_why(graph: Graph) -> None:
    assert all(group.fixed is None or len(group.fixed) > 10 for group in couple(graph))


def test_a_norm_over_images_called_twice_has_its_sizes_in_common() -> None:
    net = writer()
    sides = convs(net, net.input, a=6, b=6)
    norms = [net.add(f"norm{i}", LayerNorm(dims=3), x) for i, x in enumerate(sides)]
    graph = classified(net, net.concat("both", *norms))
    nodes = tuple(replace(n, weights="norm0") if n.name == "norm1" else n for n in graph.nodes)
    assert free(replace(graph, nodes=nodes)) == {"a": ("a", "b")}


def test_flattened_maps_with_channels_last_stay_free() -> None:
    net = writer()
    (conv,) = convs(net, net.input, a=6)
    last = net.add("last", Permute(order=(0, 2, 3, 1)), conv)
    graph = net.finish(net.linear("fc", net.add("flatten", Flatten(), last), 10))
    assert free(graph) == {"a": ("a",)}
    smaller = Graph(nodes=resized(graph, {"a": 4}), output=graph.output)
    assert smaller.shapes["flatten"].channels == graph.shapes["flatten"].channels * 4 // 6
