"""Descriptors: rounding, what contradicts itself, and the bridge from a delta to a graph."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunenas.arch.descriptor import Descriptor, apply, kept_width, within_bounds
from prunenas.errors import DescriptorError, KeepError
from prunenas.ir.blocks import blocks
from prunenas.ir.canonical import digest
from prunenas.ir.coupling import couple
from prunenas.ir.ops import KernelSparsity, Select
from prunenas.ir.writer import GraphWriter
from tests.arch.networks import chain, descriptor, everything, residual, selecting
from tests.graphs import graphs, legal_widths, sizes_of, sizes_under

KEEPS = st.floats(min_value=0, max_value=1, exclude_min=True)


@pytest.mark.parametrize(
    ("full", "keep", "divisor", "expected"),
    [
        (64, 0.9, 1, 58),
        (64, 0.7, 1, 45),
        (64, 1.0, 1, 64),
        (10, 0.01, 1, 1),
        (64, 0.55, 8, 32),
        (64, 0.57, 8, 40),
        (64, 0.001, 8, 8),
        (12, 1.0, 8, 12),
        (10, 1.0, 8, 8),
        (3, 0.5, 8, 3),
    ],
)
def test_the_kept_width_is_the_nearest_multiple(full, keep, divisor, expected):
    assert kept_width(full, keep, divisor=divisor) == expected


@given(st.integers(1, 600), KEEPS, st.integers(1, 32))
def test_a_kept_width_is_legal_and_near(parts, keep, divisor):
    full = parts * divisor
    width = kept_width(full, keep, divisor=divisor)
    assert divisor <= width <= full
    assert width % divisor == 0
    assert abs(width - max(divisor, full * keep)) <= divisor / 2 + 1e-6


@given(st.integers(1, 600), KEEPS, st.integers(1, 32))
def test_a_kept_width_never_exceeds_the_full_one(full, keep, divisor):
    width = kept_width(full, keep, divisor=divisor)
    assert width == full or (1 <= width < full and width % divisor == 0)


@given(st.integers(1, 600), KEEPS, KEEPS, st.integers(1, 32))
def test_a_larger_keep_never_leaves_a_smaller_width(full, one, other, divisor):
    low, high = (kept_width(full, k, divisor=divisor) for k in sorted((one, other)))
    assert low <= high


@pytest.mark.parametrize("keep", [0, -0.1, 1.0000001, 2, math.nan, math.inf])
def test_a_keep_outside_its_range_is_refused(keep):
    with pytest.raises(KeepError, match=r"\(0, 1\]"):
        kept_width(64, keep)


@pytest.mark.parametrize("divisor", [0, -8])
def test_rounding_to_no_multiple_is_refused(divisor):
    with pytest.raises(KeepError, match=f"got {divisor}"):
        kept_width(64, 0.5, divisor=divisor)


def test_widths_that_contradict_selections_are_refused_all_at_once():
    with pytest.raises(DescriptorError) as caught:
        Descriptor(
            reference="0" * 16,
            widths={"a": 3, "b": 1, "c": 2},
            selections={"a": (0, 1), "b": (0, 4), "c": (0, 1)},
        )
    assert "a: width 3 but 2 selected" in str(caught.value)
    assert "b: width 1 but 2 selected" in str(caught.value)
    assert "c:" not in str(caught.value)


def test_a_selection_tells_the_width_too():
    assert Descriptor(reference="x", selections={"a": (1, 4)}).widths == {"a": 2}


def test_a_descriptor_cannot_be_changed_in_place():
    widths = {"a": 3}
    held = Descriptor(reference="x", widths=widths)
    widths["a"] = 4
    assert held.widths["a"] == 3
    with pytest.raises(TypeError):
        held.widths["a"] = 5


@given(graphs())
def test_the_identity_gives_an_equal_graph(graph):
    groups = couple(graph)
    everything_told = {g.name: tuple(range(g.width)) for g in groups if not g.select}
    for fields in (
        {},
        {"widths": groups.widths},
        {"selections": everything_told, "widths": groups.widths, "seed": 7},
    ):
        assert apply(graph, descriptor(graph, **fields)) == graph


@given(st.data(), graphs())
def test_any_legal_widths_give_a_graph_of_these_widths(data, graph):
    widths = data.draw(legal_widths(graph))
    groups = couple(graph)
    narrow = apply(graph, descriptor(graph, widths=widths))
    assert sizes_of(narrow) == sizes_under(graph, widths)
    assert narrow.init == graph.init
    for old, new in zip(graph.nodes, narrow.nodes, strict=True):
        assert (old.name, old.inputs, old.weights) == (new.name, new.inputs, new.weights)
        if not isinstance(old.op, Select) and old.name not in {*groups.stored, *groups.sizes}:
            assert old.op == new.op


@given(st.data(), graphs(), st.integers(0, 2**70))
def test_the_same_descriptor_draws_the_same_graph(data, graph, seed):
    told = descriptor(graph, widths=data.draw(legal_widths(graph)), seed=seed)
    assert digest(apply(graph, told)) == digest(apply(graph, told))


@given(graphs(), st.floats(0.001, 1.0), st.integers(1, 4))
def test_rounded_widths_become_legal_within_their_bounds(graph, keep, round_to):
    groups = couple(graph)
    rounded = {
        g.name: kept_width(g.width, keep, divisor=math.lcm(g.divisor, round_to))
        for g in groups.free
    }
    fitted = within_bounds(groups, rounded)
    assert all(bound.excess(fitted) <= 0 for bound in groups.bounds)
    narrow = apply(graph, descriptor(graph, widths=fitted))
    assert sizes_of(narrow) == sizes_under(graph, fitted)


def test_a_selection_gives_way_to_its_source_and_nothing_else_does():
    groups = couple(everything())
    fitted = within_bounds(groups, {"stem": 5, "pick": 8, "grouped": 8, "padded.conv": 9})
    assert (fitted["stem"], fitted["pick"]) == (5, 4)
    assert (fitted["grouped"], fitted["padded.conv"]) == (8, 9)


def test_what_pads_a_fixed_width_does_not_shrink_below_it():
    net = GraphWriter((3, 8, 8))
    y = net.conv("conv", net.input, 8, kernel=3)
    x = net.join("add", y, net.pad_channels("pad", net.input, y, stride=1, detach=False))
    graph = net.finish(net.linear("fc", net.global_pool("average", x), 2))
    assert within_bounds(couple(graph), {"conv": 1})["conv"] == 3
    assert within_bounds(couple(graph), {"conv": 4})["conv"] == 4


def test_a_descriptor_for_another_graph_is_refused():
    with pytest.raises(DescriptorError, match="carry it over as a profile") as caught:
        apply(chain(), descriptor(residual()))
    assert digest(chain()) in str(caught.value)
    assert digest(residual()) in str(caught.value)


def test_all_violations_are_told_at_once():
    graph = everything()
    with pytest.raises(DescriptorError) as caught:
        apply(
            graph,
            descriptor(
                graph,
                widths={
                    "nowhere": 3,
                    "block.conv2": 4,
                    "fc": 4,
                    "input": 2,
                    "block.conv1": 0,
                    "grouped": 6,
                    "padded.conv": 5,
                },
                selections={"pick": (0, 3, 2, 5), "stem": (0, 1, 2, 8)},
                dropped=("block.add", "padded.add", "stem"),
                densities={
                    "stem": (0.5,) * 4,
                    "fc": (1.0,) * 9,
                    "padded.conv": (0.0,) * 9,
                    "block.conv1": (2.0,) + (1.0,) * 8,
                    "gone": (1.0,),
                },
            ),
        )
    lines = str(caught.value).split("\n")[1:]
    expected = [
        "nowhere: no such group",
        "block.conv2: no such group (it is a member of 'stem')",
        "fc: fixed at 5 (network output), asked for 4",
        "input: fixed at 3 (network input), asked for 2",
        "block.conv1: the smallest width is 1, asked for 0",
        "grouped: must be a multiple of 4, asked for 6",
        "padded.pad: grouped may not be wider than padded.conv (by 1)",
        "pick: a selection is ascending indices below 8, got [0, 3, 2, 5]",
        "stem: a selection is ascending indices below 8, got [0, 1, 2, 8]",
        "no removable block padded.add, stem; removable: block.add",
        "stem: its kernel has 9 position(s), got 4 densities",
        "fc: its kernel has 1 position(s), got 9 densities",
        f"padded.conv: densities lie in [0, 1] and one is not 0, got {(0.0,) * 9}",
        f"block.conv1: densities lie in [0, 1] and one is not 0, got {(2.0,) + (1.0,) * 8}",
        "gone: sparsity belongs to a convolution or a linear layer",
    ]
    assert sorted(line.strip() for line in lines) == sorted(expected)


@pytest.mark.parametrize("kept", [(), (1, 1), (2, 1), (-1, 3), (0, 8)])
def test_a_selection_is_ascending_and_inside(kept):
    graph = chain()
    with pytest.raises(DescriptorError, match="ascending indices below 8"):
        apply(graph, descriptor(graph, selections={"conv1": kept}))


def test_a_group_may_be_named_with_its_fixed_width():
    graph = chain()
    assert apply(graph, descriptor(graph, widths={"fc": 5, "input": 3})) == graph


def test_widths_reach_every_member_of_a_group():
    graph = residual()
    narrow = apply(graph, descriptor(graph, widths={"stem": 5}))
    assert (narrow["stem"].op.width, narrow["block.conv2"].op.width) == (5, 5)
    assert narrow["block.conv1"].op.width == 10


def test_a_dropped_block_leaves_its_shortcut():
    graph = residual()
    short = apply(graph, descriptor(graph, dropped=("block.add",), widths={"stem": 6}))
    assert not any(node.name.startswith("block.") for node in short.nodes)
    assert short["pool"].inputs == ("stem",)
    assert short["stem"].op.width == 6


@given(graphs())
def test_every_removable_block_can_be_dropped(graph):
    for block in blocks(graph):
        short = apply(graph, descriptor(graph, dropped=(block.name,)))
        assert {n.name for n in graph.nodes} - {n.name for n in short.nodes} >= {
            block.name,
            *block.branch,
        }


def test_densities_become_masks_of_the_descriptors_seed():
    graph = chain()
    density = (0.5,) * 4 + (1.0,) + (0.0,) * 4
    sparse = apply(graph, descriptor(graph, densities={"conv2": density}, seed=3))
    assert sparse["conv2"].op.sparsity == KernelSparsity(density=density, seed=3)
    assert sparse["conv1"].op == graph["conv1"].op


# What a selection takes of a source that may itself be narrowed.


def picked(graph, **fields):
    return apply(graph, descriptor(graph, **fields))["pick"].op.indices


def test_selected_channels_are_taken():
    assert picked(selecting(), selections={"pick": (0, 3, 6)}) == (0, 3, 6)


def test_selected_channels_are_found_again_in_a_narrowed_source():
    told = {"stem": (1, 3, 4, 6), "pick": (3, 6)}
    assert picked(selecting(), selections=told) == (1, 3)


def test_selected_channels_are_counted_among_those_the_reference_selects():
    told = {"stem": (2, 5, 6, 7), "pick": (1, 2)}
    assert picked(selecting((0, 2, 5, 7)), selections=told) == (0, 1)


def test_a_selection_that_is_not_named_keeps_the_channels_it_has():
    assert picked(selecting((0, 2, 5)), selections={"stem": (0, 2, 3, 5, 7)}) == (0, 1, 3)


def test_a_selection_cannot_take_what_its_source_has_lost():
    with pytest.raises(DescriptorError, match=r"pick: its source has lost the channels \[0, 7\]"):
        picked(selecting(), selections={"stem": (1, 3, 4, 6), "pick": (0, 3, 7)})


def test_exact_channels_of_a_source_narrowed_by_a_count_are_refused():
    with pytest.raises(DescriptorError, match="not which channels it keeps"):
        picked(selecting(), widths={"stem": 5}, selections={"pick": (0, 3)})


def test_selections_behind_a_concatenation_count_across_it():
    net = GraphWriter((3, 8, 8))
    both = net.concat("both", *(net.conv(f"conv{i}", net.input, 4, kernel=1) for i in range(2)))
    x = net.conv("body", net.select_all("pick", both), 3, kernel=1)
    graph = net.finish(net.linear("fc", net.global_pool("average", x), 2))
    told = {"conv0": (1, 3), "conv1": (0, 2, 3), "pick": (1, 4, 7)}
    assert picked(graph, selections=told) == (0, 2, 4)


@pytest.mark.parametrize(
    ("seed", "expected"), [(0, (0, 1, 3, 7)), (1, (1, 2, 5, 6)), (2, (0, 2, 4, 5))]
)
def test_channels_that_only_a_count_tells_are_drawn_from_the_stated_stream(seed, expected):
    """Philox keyed by the seed and the CRC-32 of the node's name: the same for ever."""
    assert picked(selecting(), widths={"pick": 4}, seed=seed) == expected


def test_channels_are_drawn_among_those_the_source_has_left():
    assert picked(selecting(), widths={"stem": 6, "pick": 3}) == (0, 1, 3)
    assert picked(selecting(), widths={"pick": 3}, selections={"stem": (2, 3, 4, 5, 6, 7)}) == (
        0,
        1,
        3,
    )


def test_a_selection_may_not_be_wider_than_its_source():
    graph = selecting()
    with pytest.raises(DescriptorError, match="pick: pick may not be wider than stem \\(by 2\\)"):
        apply(graph, descriptor(graph, widths={"stem": 6}))
