"""Which weights may go, and how many do: the published totals, and ties by hand."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunenas.errors import MethodError
from prunenas.families.base import reference
from prunenas.generators.base.weights import kept_masks, prunable
from prunenas.ir.ops import Convolve, Parameter
from prunenas.ir.writer import GraphWriter
from tests.generators.networks import GRAPHS, attending

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "architectures.json").read_text())
REMOVED = GOLDEN["unstructured_totals"]["removed"]
FAMILIES = {
    "vgg19_bn_unstructured": ("vgg19_biased", {}),
    "preresnet110": ("preresnet110", {}),
    "densenetbc100": ("densenetbc100", {}),
    "vgg16_bn": ("vgg16_bn_imagenet", {}),
    "resnet50": ("resnet50", {}),
}


def kept(scores, keep, **options):
    masks, emptied = kept_masks(scores, keep, **options)
    return {name: mask.astype(int).tolist() for name, mask in masks.items()}, emptied


def shared():
    """A convolution that is called twice, and a linear layer."""
    net = GraphWriter((2, 4, 4))
    x = net.conv("first", net.conv("stem", net.input, 4, kernel=1), 4, kernel=1)
    x = net.conv("second", net.relu("relu", x), 4, kernel=1)
    graph = net.finish(net.linear("fc", net.global_pool("pool", x), 3))
    nodes = tuple(replace(n, weights="first" if n.name == "second" else None) for n in graph.nodes)
    return replace(graph, nodes=nodes)


def test_a_strict_threshold_takes_what_ties_with_it():
    scores = {"a": np.array([3.0, 1.0, 2.0]), "b": np.array([2.0, 2.0, 5.0, 4.0])}
    # In order 1 2 2 2 3 4 5; int(7 * 0.3) = 2, the threshold is 2, and four go instead of three.
    assert kept(scores, 0.7) == ({"a": [1, 0, 0], "b": [0, 0, 1, 1]}, ())


@pytest.mark.parametrize(
    ("keep", "gone"), [(0.9, 2), (0.7, 4), (0.6, 5), (0.5, 6), (0.3, 8), (0.1, 10), (0.05, 10)]
)
def test_one_more_goes_than_the_removed_part_that_was_meant(keep, gone):
    """Of ten; in floats 10 * (1 - 0.9) is less than 1. Nothing left is guarded: the best stays."""
    masks, emptied = kept_masks({"a": np.arange(10.0)}, keep)
    left = max(1, 10 - gone)
    assert masks["a"].tolist() == [False] * (10 - left) + [True] * left
    assert emptied == (("a",) if gone == 10 else ())


def test_a_quantile_lets_ties_stay_and_interpolates():
    scores = {"a": np.array([1.0, 2.0, 3.0, 4.0, 4.0])}
    # Place 4 * 0.75 = 3 of 1 2 3 4 4 is 4: both stay. Place 4 * 0.6 = 2.4 lies between 3 and 4.
    assert kept(scores, 0.25, rule="quantile")[0] == {"a": [0, 0, 0, 1, 1]}
    assert kept(scores, 0.4, rule="quantile")[0] == {"a": [0, 0, 0, 1, 1]}
    assert kept(scores, 0.5, rule="quantile")[0] == {"a": [0, 0, 1, 1, 1]}


@given(count=st.integers(1, 60), percent=st.integers(1, 99))
def test_a_quantile_keeps_as_many_as_shrinkbench(count, percent):
    removed = (100 - percent) * (count - 1)
    masks, _ = kept_masks({"a": np.arange(float(count))}, percent / 100, rule="quantile")
    assert masks["a"].sum() == count - math.ceil(removed / 100)


def test_a_count_is_met_exactly_and_the_first_win_ties():
    scores = {"a": np.array([0.0, 7.0, 0.0]), "b": np.array([0.0, 0.0, 1.0])}
    assert kept(scores, 0.5, rule="count") == ({"a": [1, 1, 0], "b": [0, 0, 1]}, ())
    assert kept(scores, 0.2, rule="count") == ({"a": [0, 1, 0], "b": [0, 0, 1]}, ("b",))


@given(count=st.integers(1, 60), percent=st.integers(1, 99), ties=st.integers(1, 5))
def test_any_count_is_the_rounded_one(count, percent, ties):
    scores = np.arange(count) // ties
    masks, _ = kept_masks({"a": scores.astype(float)}, percent / 100, rule="count")
    assert masks["a"].sum() == max(1, round(count * percent / 100))
    assert scores[masks["a"]].min() >= scores[~masks["a"]].max(initial=-1)


def test_each_layer_can_have_its_own_threshold():
    scores = {"a": np.array([1.0, 2.0, 3.0, 4.0]), "b": np.array([[10.0, 20.0], [40.0, 30.0]])}
    assert kept(scores, 0.5, scope="layer")[0] == {"a": [0, 0, 0, 1], "b": [[0, 0], [1, 0]]}
    # All together int(8 * 0.5) + 1 = 5 go, and the first layer keeps its best alone.
    assert kept(scores, 0.5) == ({"a": [0, 0, 0, 1], "b": [[0, 1], [1, 1]]}, ("a",))


def test_an_emptied_layer_keeps_the_first_of_its_best():
    scores = {"a": np.array([1.0, 2.0, 2.0]), "b": np.array([9.0, 8.0, 7.0])}
    assert kept(scores, 0.5) == ({"a": [0, 1, 0], "b": [1, 1, 0]}, ("a",))


def test_only_some_weights_take_part_where_that_is_said():
    """The place is (N - left) + int(left * part) of all N, those that are gone first."""
    scores = {"a": np.array([9.0, 1.0, 2.0, 3.0]), "b": np.array([4.0, 5.0])}
    among = {"a": np.array([False, True, True, True]), "b": np.array([True, True])}
    # Of 1 2 3 4 5 go int(5 * 0.4) + 1 = 3, however large the one that is gone already.
    assert kept(scores, 0.6, among=among) == ({"a": [0, 0, 0, 1], "b": [1, 1]}, ("a",))
    assert kept(scores, 0.8, among=among) == ({"a": [0, 0, 0, 1], "b": [1, 1]}, ())


def test_scores_that_are_not_finite_are_refused_by_layer():
    scores = {"a": np.array([1.0]), "b": np.array([np.nan, 1.0]), "c": np.array([np.inf])}
    with pytest.raises(MethodError, match="not finite in b, c"):
        kept_masks(scores, 0.5)


@pytest.mark.parametrize("label", REMOVED)
def test_published_counts_of_removed_weights(label):
    name, options = FAMILIES[label]
    graph = reference(name, **options)
    shapes = graph.parameters()
    sizes = {layer: math.prod(shapes[f"{layer}.weight"]) for layer in prunable(graph, "conv")}
    total = sum(sizes.values())
    # Floats next to one another, in an order that mixes them: all distinct.
    golden = int(total * 0.618)
    stride = next(s for s in range(golden, total) if math.gcd(s, total) == 1)
    places = (np.arange(total, dtype=np.int64) * stride) % total
    every = (places + 0x3E000000).astype(np.int32).view(np.float32)
    ends = np.cumsum([*sizes.values()])[:-1]
    scores = dict(zip(sizes, np.split(every, ends), strict=True))
    for part, removed in REMOVED[label].items():
        masks, emptied = kept_masks(scores, 1 - float(part))
        assert total - sum(int(mask.sum()) for mask in masks.values()) == removed
        assert not emptied


def test_conv_layers_are_all_convolutions_and_no_other_layer():
    graph = GRAPHS["resnet20"]()
    found = prunable(graph, "conv")
    assert found == tuple(n.name for n in graph.nodes if type(n.op).__name__ == "Conv2d")
    assert len(found) == 19
    mobile = GRAPHS["mobilenet_v2"]()
    assert {type(mobile[name].op).__name__ for name in prunable(mobile, "conv")} == {
        "Conv2d",
        "Depthwise2d",
    }
    assert prunable(attending(), "conv") == ("embed",)


def test_hidden_layers_leave_out_what_gives_the_output():
    assert prunable(attending(), "all") == ("embed", "qkv", "proj", "fc1", "fc2", "fc")
    assert prunable(attending(), "hidden") == ("embed", "qkv", "proj", "fc1", "fc2")


def test_a_convolution_that_gives_the_classes_is_the_classifier():
    net = GraphWriter((3, 8, 8))
    x = net.conv("classes", net.conv("stem", net.input, 4, kernel=3), 5, kernel=1)
    graph = net.finish(net.global_pool("pool", x))
    assert prunable(graph, "hidden") == ("stem",)
    assert prunable(graph, "conv") == ("stem", "classes")


def test_a_shared_kernel_counts_once():
    assert prunable(shared(), "all") == ("stem", "first", "fc")


def test_computed_kernels_have_no_weights_of_their_own():
    net = GraphWriter((3, 8, 8))
    x = net.add("conv", Convolve(), net.input, net.add("kernel", Parameter(sizes=(6, 3, 3, 3))))
    graph = net.finish(net.linear("fc", net.global_pool("pool", x), 5))
    assert prunable(graph, "all") == ("fc",)
    with pytest.raises(MethodError, match="no layer of layers='conv'"):
        prunable(graph, "conv")
    with pytest.raises(MethodError, match="no layer of layers='hidden'"):
        prunable(graph, "hidden")
