"""Descriptors that change how many parts a grouped convolution has."""

from dataclasses import replace

import numpy as np
import pytest

from prunenas.arch.descriptor import Descriptor, apply
from prunenas.arch.profile import StageProfile
from prunenas.arch.spec import ArchSpec, load
from prunenas.errors import DescriptorError
from prunenas.ir.canonical import canonical_json, digest, encode
from prunenas.ir.cost import macs, params
from prunenas.ir.coupling import couple, recut
from prunenas.ir.ops import Conv2d, ExactMask
from prunenas.report.layers import layer_rows
from prunenas.testing.networks import grouped, inverted
from tests.parted import chained, resnext, shared


def told(graph, **fields):
    return Descriptor(reference=digest(graph), **fields)


def faults(graph, **fields):
    with pytest.raises(DescriptorError, match="breaks the graph's rules") as refusal:
        apply(graph, told(graph, **fields))
    return str(refusal.value).split("\n  ")[1:]


def test_width_and_parts_change_together():
    graph = resnext()
    small = apply(graph, told(graph, widths={"a.low": 6, "a.mid": 9}, part_counts={"a.mid": 3}))
    op = small["a.mid"].op
    assert (op.width, op.groups) == (9, 3)
    assert small.parameters()["a.mid.weight"] == (9, 2, 3, 3)
    assert small["b.mid"] == graph["b.mid"]
    # 1x1 to 6, its norm, the parts of 2 inputs and 3 outputs each, their norm, 1x1 from 9.
    gone = 2 * 8 + 2 * 2 + 2 * 3 * 9 + 2 * 3 + 3 * 8
    assert params(graph) - params(small) == gone
    assert macs(graph) - macs(small) == 64 * (2 * 8 + 2 * 3 * 9 + 3 * 8)


def test_a_convolution_of_one_part_is_a_dense_one():
    graph = resnext()
    small = apply(graph, told(graph, widths={"b.low": 3, "b.mid": 3}, part_counts={"b.mid": 1}))
    assert small["b.mid"].op == replace(graph["b.mid"].op, width=3, groups=1)


def test_the_old_divisor_no_longer_holds_and_the_new_one_does():
    graph = resnext()
    assert {g.name: g.divisor for g in couple(graph)} | {"a.low": 4, "a.mid": 4} == {
        g.name: g.divisor for g in couple(graph)
    }
    new = recut(graph, {"a.mid": 3})
    assert (new["a.low"].divisor, new["a.mid"].divisor) == (3, 3)
    assert (new["b.low"].divisor, new["b.mid"].divisor) == (2, 2)
    assert recut(graph, {}) is couple(graph)
    assert faults(graph, widths={"a.low": 4, "a.mid": 8, "b.low": 3}, part_counts={"a.mid": 3}) == [
        "a.low: must be a multiple of 3, asked for 4",
        "a.mid: must be a multiple of 3, asked for 8",
        "b.low: must be a multiple of 2, asked for 3",
    ]


def test_what_others_ask_of_the_same_channels_goes_on():
    """Outputs of ``one`` are inputs of ``two``: both must come down."""
    graph = chained()
    widths = {"low": 4, "one": 6, "two": 4}
    assert faults(graph, widths=widths, part_counts={"one": 2}) == [
        "two: must be a multiple of 3, asked for 4"
    ]
    assert faults(graph, widths=widths | {"one": 8, "two": 6}, part_counts={"one": 2}) == [
        "one: must be a multiple of 6, asked for 8"
    ]
    small = apply(graph, told(graph, widths=widths, part_counts={"one": 2, "two": 2}))
    assert [small[name].op.groups for name in ("one", "two")] == [2, 2]
    assert small.shapes["deep"].channels == 8


def test_layers_that_share_weights_follow_the_owner():
    graph = shared()
    mid, low = (couple(graph).axes[name][0].group for name in ("mid1", "low1"))
    small = apply(graph, told(graph, widths={low: 4, mid: 6}, part_counts={"mid0": 2}))
    assert [(small[n].op.width, small[n].op.groups) for n in ("mid0", "mid1")] == [(6, 2), (6, 2)]
    assert faults(graph, widths={low: 4, mid: 8}, part_counts={"mid1": 2}) == [
        "mid1: it has the weights of mid0, say its parts there"
    ]


def test_all_faults_are_told_at_once():
    graph = resnext()
    counts = {"nowhere": 1, "a.low": 2, "bn": 1, "a.mid": 5, "b.mid": 0}
    assert faults(graph, part_counts=counts, widths={"stem": 0}) == [
        "nowhere: only a grouped convolution has a number of parts",
        "a.low: only a grouped convolution has a number of parts",
        "bn: only a grouped convolution has a number of parts",
        "a.mid: has 4 parts and can have 1 to 4, asked for 5",
        "b.mid: has 2 parts and can have 1 to 2, asked for 0",
        "stem: the smallest width is 1, asked for 0",
    ]


def test_a_depthwise_convolution_has_no_number_of_parts():
    graph = inverted()
    assert faults(graph, widths={"expand0": 6}, part_counts={"depth0": 6}) == [
        "depth0: only a grouped convolution has a number of parts"
    ]


def test_fewer_parts_need_a_word_on_both_widths():
    graph = resnext()
    assert faults(graph, part_counts={"a.mid": 2}) == [
        "a.mid: the channels it reads need a new width for 2 parts: a.low",
        "a.mid: the channels it makes need a new width for 2 parts: a.mid",
    ]
    assert faults(graph, widths={"a.mid": 6}, part_counts={"a.mid": 2}) == [
        "a.mid: the channels it reads need a new width for 2 parts: a.low"
    ]
    # Who says the full width means it: fewer parts, each of them wider.
    wider = apply(graph, told(graph, widths={"a.low": 8, "a.mid": 6}, part_counts={"a.mid": 2}))
    assert wider.parameters()["a.mid.weight"] == (6, 4, 3, 3)


def test_as_many_parts_as_before_change_nothing():
    graph = resnext()
    assert apply(graph, told(graph, part_counts={"a.mid": 4})) == graph
    narrow = {"a.low": 4, "a.mid": 8}
    assert apply(graph, told(graph, widths=narrow, part_counts={"a.mid": 4})) == apply(
        graph, told(graph, widths=narrow)
    )


def test_the_parts_of_an_exactly_masked_layer_stay():
    graph = resnext()
    mask = ExactMask.of(np.ones((12, 2, 3, 3), dtype=np.bool_))
    nodes = tuple(
        replace(n, op=replace(n.op, sparsity=mask)) if n.name == "a.mid" else n for n in graph.nodes
    )
    masked = replace(graph, nodes=nodes)
    assert faults(masked, widths={"a.low": 8, "a.mid": 12}, part_counts={"a.mid": 2}) == [
        "a.mid: has an exact mask, so its 4 parts stay"
    ]


def test_masks_are_of_the_kernels_that_counts_leave():
    graph = resnext()
    fields = {"widths": {"a.low": 4, "a.mid": 6}, "part_counts": {"a.mid": 2}}
    mask = ExactMask.of(np.ones((6, 2, 3, 3), dtype=np.bool_))
    assert apply(graph, told(graph, masks={"a.mid": mask}, **fields))["a.mid"].op.sparsity == mask
    wrong = ExactMask.of(np.ones((6, 1, 3, 3), dtype=np.bool_))
    assert faults(graph, masks={"a.mid": wrong}, **fields) == [
        "a.mid: the kernel is [6, 2, 3, 3], its mask [6, 1, 3, 3]"
    ]


def test_a_descriptor_without_counts_is_written_as_ever():
    graph = resnext()
    assert "part_counts" not in encode(told(graph, widths={"stem": 4}))
    counted = told(graph, part_counts={"a.mid": 2})
    assert encode(counted)["part_counts"] == {"a.mid": 2}
    assert counted != told(graph)
    with pytest.raises(TypeError):
        counted.part_counts["a.mid"] = 3


def test_a_spec_with_counts_comes_back_from_disk(tmp_path):
    graph = resnext()
    found = told(graph, selections={"a.low": (2, 3), "a.mid": (3, 4, 5)}, part_counts={"a.mid": 1})
    spec = ArchSpec.of(graph, found, name="fewer")
    again = load(spec.save(tmp_path / "fewer.json"))
    assert again == spec
    assert again.descriptor.part_counts == {"a.mid": 1}
    assert canonical_json(encode(again)) == canonical_json(encode(spec))
    rows = {row.name: (row.full, row.kept, row.params) for row in layer_rows(again)}
    assert rows["a.mid"] == (12, 3, 3 * 2 * 9)
    assert rows["a.low"] == (8, 2, 16)
    assert rows["b.mid"] == (6, 6, 6 * 3 * 9)


def test_a_profile_tells_the_widths():
    """Of one spatial size are stem, a.low, a.mid, high twice, b.low and b.mid."""
    graph = resnext()
    found = told(graph, widths={"a.low": 2, "a.mid": 3}, part_counts={"a.mid": 1})
    profile = StageProfile.of(graph, found)
    assert [*profile.keeps.values()] == pytest.approx([(5 + 2 * 0.25) / 7])


def test_other_parts_of_a_graph_keep_their_divisors():
    graph = grouped()
    small = apply(
        graph, told(graph, widths={"mixed": 9, "grouped": 12}, part_counts={"grouped": 3})
    )
    assert isinstance(small["grouped"].op, Conv2d)
    assert (small["grouped"].op.groups, small["right"].op.groups) == (3, 2)
    assert faults(
        graph, widths={"mixed": 9, "grouped": 12, "right": 3}, part_counts={"grouped": 3}
    ) == ["right: must be a multiple of 2, asked for 3"]
