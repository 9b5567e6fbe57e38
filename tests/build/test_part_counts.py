"""Whole parts of grouped convolutions: removing them is silencing them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from prunenas.arch.descriptor import Descriptor, apply
from prunenas.build.inherit import inherit
from prunenas.errors import DescriptorError
from prunenas.ir.canonical import digest
from prunenas.ir.coupling import couple
from prunenas.testing.networks import grouped
from tests.build.networks import images, lively
from tests.export.source import assert_same_function
from tests.parted import chained, resnext, shared

CASES = {
    # graph; parts; (group, channels of a part, values to silence), inputs first; convolutions
    "first block": (resnext, 4, [("a.low", 2, ["a.relu1"]), ("a.mid", 3, ["a.relu2"])], ["a.mid"]),
    "second block": (resnext, 2, [("b.low", 3, ["b.relu1"]), ("b.mid", 3, ["b.relu2"])], ["b.mid"]),
    "grouped": (grouped, 4, [("mixed", 3, ["relu3"]), ("grouped", 4, ["relu4"])], ["grouped"]),
    "chained": (
        chained,
        3,
        [("low", 2, ["relu"]), ("one", 3, ["relu1"]), ("two", 2, ["bn2"])],
        ["one", "two"],
    ),
    "shared": (
        shared,
        4,
        [("low0", 2, ["relu0", "relu1"]), ("mid0", 3, ["end0", "end1"])],
        ["mid0"],
    ),
}


def told(graph, **fields):
    return Descriptor(reference=digest(graph), **fields)


def channels(parts, each):
    return tuple(part * each + i for part in parts for i in range(each))


def muted(network, gone):
    """Let each named value be zero in some of its channels."""
    for name, places in gone.items():
        network.node(name).register_forward_hook(
            lambda module, read, out, places=[*places]: out.index_fill(
                1, torch.tensor(places, dtype=torch.long), 0
            )
        )
    return network


def check(graph, kept, gone, counts):
    small = inherit(lively(graph).float(), told(graph, selections=kept, part_counts=counts))
    assert small.graph == apply(graph, told(graph, selections=kept, part_counts=counts))
    x = images(graph)
    with torch.no_grad():
        expected = muted(lively(graph).float().double(), gone)(x)
        assert_close(small.double().eval()(x), expected, rtol=1e-9, atol=1e-9)
        whole = lively(graph)(x)
    return expected, whole


@settings(max_examples=12)
@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
def test_parts_that_are_removed_equal_parts_that_are_silenced(name, data):
    make, parts, sides, convolutions = CASES[name]
    stay = sorted(data.draw(st.sets(st.sampled_from(range(parts)), min_size=1)))
    lost = sorted({*range(parts)} - {*stay})
    kept, gone = {}, {}
    for group, each, values in sides:
        kept[group] = channels(stay, each)
        # A depthwise convolution makes two of each channel.
        rows = channels(lost, 2 * each if values == ["bn2"] else each)
        gone |= dict.fromkeys(values, rows)
    expected, whole = check(make(), kept, gone, dict.fromkeys(convolutions, len(stay)))
    # Some part computes next to nothing here, but never all but one of them.
    if len(stay) == 1 or not lost:
        assert torch.allclose(expected, whole, rtol=1e-6, atol=1e-6) == (not lost)


def test_the_parts_that_stay_may_be_narrowed_alike():
    graph = resnext()
    kept = {"a.low": (1, 6), "a.mid": (0, 2, 10, 11)}
    gone = {"a.relu1": {*range(8)} - {1, 6}, "a.relu2": {*range(12)} - {0, 2, 10, 11}}
    check(graph, kept, gone, {"a.mid": 2})


@pytest.mark.parametrize(
    ("low", "mid", "count"),
    [
        ((0, 1, 2, 3), (0, 1, 2, 6, 7, 8), 2),
        ((0, 1, 2), (0, 1, 2, 3, 4, 5, 6, 7, 8), 3),
        ((0, 1, 2, 3), (0, 1, 3, 6), 2),
        ((0, 1, 2, 3, 4, 5, 6, 7), (0, 1, 2, 3, 4, 5), 2),
        ((0, 2, 4, 6), (0, 3, 6, 9), 2),
    ],
    ids=["other parts", "one narrower", "uneven outputs", "inputs stay", "all stay"],
)
def test_parts_that_do_not_match_are_refused(low, mid, count):
    graph = resnext()
    found = told(graph, selections={"a.low": low, "a.mid": mid}, part_counts={"a.mid": count})
    apply(graph, found)
    with pytest.raises(DescriptorError, match=f"a.mid: {count} of its 4 groups must keep equally"):
        inherit(lively(graph), found)


def test_without_a_count_no_part_vanishes():
    graph = resnext()
    found = told(graph, selections={"a.low": channels((0, 1), 2), "a.mid": channels((0, 3), 2)})
    with pytest.raises(DescriptorError, match=r"a\.mid: the 4 groups must keep equally many"):
        inherit(lively(graph), found)


def test_the_exported_file_computes_the_same():
    graph = resnext()
    kept = {"a.low": channels((1, 3), 2), "a.mid": channels((1, 3), 3)}
    small = apply(graph, told(graph, selections=kept, part_counts={"a.mid": 2}))
    assert_same_function(small)


def test_the_groups_of_the_cases_are_those_of_the_graphs():
    for make, parts, sides, _ in CASES.values():
        widths = couple(make()).widths
        assert all(widths[group] == parts * each for group, each, _ in sides)
