"""The global threshold of Network Slimming, and the kept-best rule."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunenas.arch.allocate import best, strict_threshold
from prunenas.errors import KeepError
from prunenas.families.base import reference
from prunenas.ir.coupling import ChannelGroup, couple
from prunenas.ir.ops import BatchNorm

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "architectures.json").read_text())
TOTALS = GOLDEN["slimming_channel_totals"]


def group(name, width, divisor=1):
    return ChannelGroup(name=name, members=(name,), width=width, divisor=divisor)


def scores(**values):
    return {name: np.array(list_, dtype=np.float64) for name, list_ in values.items()}


def test_the_threshold_itself_goes_too():
    # int(6 * 0.5) = 3 places the threshold on 4: it goes, so four channels go, not three.
    kept, emptied = strict_threshold(
        scores(a=[1, 6, 3], b=[5, 2, 4]), [group("a", 3), group("b", 3)], 0.5
    )
    assert kept == {"a": (1,), "b": (0,)}
    assert emptied == ()


def test_ties_at_the_threshold_all_go():
    kept, _ = strict_threshold(scores(a=[1, 2, 2, 2, 2, 3]), [group("a", 6)], 0.7)
    assert kept == {"a": (5,)}


def test_a_group_that_would_be_emptied_keeps_its_best():
    kept, emptied = strict_threshold(
        scores(a=[9, 8, 7, 6], b=[1, 3, 2]), [group("a", 4), group("b", 3)], 0.5
    )
    assert kept == {"a": (0, 1, 2), "b": (1,)}
    assert emptied == ("b",)


def test_a_divisor_rounds_up_with_the_next_best():
    kept, emptied = strict_threshold(
        scores(a=[9, 1, 2, 8, 7, 3], b=[4, 0, 6, 5]),
        [group("a", 6, divisor=4), group("b", 4, divisor=2)],
        0.5,
    )
    # Above 4 lie 9, 8, 7 and 6, 5: three of a become four, two of b stay.
    assert kept == {"a": (0, 3, 4, 5), "b": (2, 3)}
    assert emptied == ()


def test_an_emptied_group_keeps_as_many_as_its_divisor():
    kept, emptied = strict_threshold(
        scores(a=[5, 6, 7, 8], b=[1, 3, 0, 2]), [group("a", 4), group("b", 4, divisor=2)], 0.5
    )
    assert kept["b"] == (1, 3)
    assert emptied == ("b",)


@pytest.mark.parametrize(("keep", "left"), [(0.9, 8), (0.8, 7), (0.7, 6), (0.4, 3), (0.1, 1)])
def test_the_share_is_the_one_meant_not_its_rounding_error(keep, left):
    """1 - 0.9 is a little less than a tenth, of which ten times would be cut to none."""
    kept, _ = strict_threshold(scores(a=range(10)), [group("a", 10)], keep)
    assert kept == {"a": tuple(range(10 - left, 10))}


def test_keep_one_keeps_everything_even_equal_scores():
    kept, emptied = strict_threshold(scores(a=[0, 0, 0]), [group("a", 3)], 1)
    assert (kept, emptied) == ({"a": (0, 1, 2)}, ())


def test_the_smallest_keep_leaves_the_best_of_each_group():
    kept, emptied = strict_threshold(
        scores(a=[1, 2], b=[4, 3]), [group("a", 2), group("b", 2)], 1e-12
    )
    assert kept == {"a": (1,), "b": (0,)}
    assert emptied == ("a", "b")


@pytest.mark.parametrize("keep", [0, -1, 1.1])
def test_a_keep_outside_its_range_is_refused(keep):
    with pytest.raises(KeepError):
        strict_threshold(scores(a=[1, 2]), [group("a", 2)], keep)


def test_scores_of_groups_that_take_no_part_do_not_count():
    kept, _ = strict_threshold(scores(a=[1, 2, 3, 4], b=[9, 9]), [group("a", 4)], 0.5)
    assert kept == {"a": (3,)}


@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=6),
    st.integers(1, 99),
    st.integers(0, 2**32 - 1),
)
def test_without_ties_one_more_than_the_share_goes(widths, percent, seed):
    total = sum(widths)
    ranks = np.random.default_rng(seed).permutation(total).astype(np.float64)
    parts = np.split(ranks, np.cumsum(widths)[:-1])
    groups = [group(f"g{i}", width) for i, width in enumerate(widths)]
    found = {g.name: part for g, part in zip(groups, parts, strict=True)}
    kept, emptied = strict_threshold(found, groups, 1 - percent / 100)
    removed = int(total * (percent / 100)) + 1
    for g in groups:
        above = {i for i, score in enumerate(found[g.name]) if score >= removed}
        assert {*kept[g.name]} == above or (g.name in emptied and not above)
        assert kept[g.name] == tuple(sorted(kept[g.name]))
    assert all(kept[name] == (int(found[name].argmax()),) for name in emptied)


FACTS = {
    "vgg19 70% (C10)": ("vgg19", 0.3),
    "vgg19 50% (C100)": ("vgg19", 0.5),
    "preresnet164 40%": ("preresnet164", 0.6),
    "preresnet164 60%": ("preresnet164", 0.4),
    "densenet40 40%": ("densenet40", 0.6),
    "densenet40 60%": ("densenet40", 0.4),
    "vgg16 60%": ("vgg16", 0.4),
    "vgg16 40%": ("vgg16", 0.6),
    "vgg11 imagenet 50%": ("vgg11_imagenet", 0.5),
}


def test_every_slimmed_network_of_the_paper_is_compared():
    assert FACTS.keys() == TOTALS["kept"].keys()


@pytest.mark.parametrize("label", FACTS)
def test_the_papers_networks_keep_as_many_channels(label):
    """Random distinct scores for the scale of every batch norm."""
    name, keep = FACTS[label]
    graph = reference(name)
    norms = [
        group(n.name, graph.shapes[n.name].channels)
        for n in graph.nodes
        if isinstance(n.op, BatchNorm)
    ]
    generator = np.random.default_rng(0)
    ranks = iter(generator.permutation(sum(g.width for g in norms)).astype(np.float64))
    found = {g.name: np.array([next(ranks) for _ in range(g.width)]) for g in norms}
    kept, emptied = strict_threshold(found, norms, keep)
    assert not emptied
    assert sum(map(len, kept.values())) == TOTALS["kept"][label]


def test_the_groups_of_a_vgg_are_its_batch_norms():
    assert sum(g.width for g in couple(reference("vgg16")).free) == TOTALS["totals"]["vgg16_slim"]


def test_the_best_are_ascending_and_the_first_wins_a_tie():
    assert best(np.array([1.0, 3.0, 2.0, 3.0, 3.0]), 2) == (1, 3)
    assert best(np.array([1.0, 3.0, 2.0]), 3) == (0, 1, 2)
