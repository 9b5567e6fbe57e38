"""Random weights: exact counts, and nothing but the seed decides which."""

import math
from itertools import pairwise

import numpy as np
import pytest

from prunenas.errors import MethodError
from prunenas.generators.base import generate
from prunenas.generators.random_weights import RandomWeights
from prunenas.ir.writer import GraphWriter
from tests.generators.networks import GRAPHS, trained


def masks(descriptor):
    return {name: mask.array() for name, mask in descriptor.masks.items()}


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9])
def test_as_many_are_kept_as_magnitude_keeps(name, keep):
    graph = GRAPHS[name]()
    found = masks(generate("random_weights", graph, keep=keep, seed=1))
    total = sum(mask.size for mask in found.values())
    kept = sum(int(mask.sum()) for mask in found.values())
    assert kept == total - int(total * round(1 - keep, 12)) - 1
    by_size = generate("magnitude", graph, keep=keep, network=trained(graph))
    assert found.keys() == by_size.masks.keys()
    assert abs(kept - sum(mask.kept for mask in by_size.masks.values())) <= 2


def test_the_count_can_be_the_rounded_one():
    graph = GRAPHS["gated"]()
    found = masks(generate("random_weights", graph, keep=0.37, rule="count", layers="all"))
    total = sum(mask.size for mask in found.values())
    assert sum(int(mask.sum()) for mask in found.values()) == round(total * 0.37)


def test_the_seed_decides_and_layers_are_drawn_apart():
    graph = GRAPHS["resnet20"]()
    first, again, other = (
        masks(generate("random_weights", graph, keep=0.5, seed=seed)) for seed in (1, 1, 2)
    )
    twins = [mask for name, mask in first.items() if mask.shape == (8, 8, 3, 3)]
    assert len(twins) > 2
    assert not any(np.array_equal(a, b) for a, b in pairwise(twins))
    for name in first:
        assert np.array_equal(first[name], again[name])
        assert first[name].size < 20 or not np.array_equal(first[name], other[name])


def test_every_weight_is_equally_likely():
    graph = GRAPHS["vgg11"]()
    found = masks(generate("random_weights", graph, keep=0.3))
    for mask in found.values():
        # Five standard deviations of a share of so many draws.
        assert abs(mask.mean() - 0.3) < 5 * math.sqrt(0.21 / mask.size)


def test_independent_draws_vary_in_number():
    graph = GRAPHS["vgg11"]()
    counts = {
        sum(
            m.kept
            for m in generate(
                "random_weights", graph, keep=0.3, seed=seed, independent=True
            ).masks.values()
        )
        for seed in range(4)
    }
    found = generate("random_weights", graph, keep=0.3, independent=True)
    total = sum(mask.size for mask in masks(found).values())
    assert len(counts) > 1
    assert all(abs(count / total - 0.3) < 5 * math.sqrt(0.21 / total) for count in counts)


@pytest.mark.parametrize("independent", [True, False])
def test_an_emptied_layer_keeps_one_and_is_told(independent):
    net = GraphWriter((1, 8, 8))
    x = net.conv("wide", net.conv("tiny", net.input, 1, kernel=1), 64, kernel=3)
    graph = net.finish(net.linear("fc", net.global_pool("pool", x), 5))
    found = [
        generate("random_weights", graph, keep=0.05, seed=seed, independent=independent)
        for seed in range(6)
    ]
    assert any(descriptor.origin.kept_best == ("tiny",) for descriptor in found)
    assert all(descriptor.masks["tiny"].kept == 1 for descriptor in found)


def test_impossible_options_are_refused():
    with pytest.raises(MethodError, match=r"layers is one of .*; rule is one of"):
        RandomWeights(layers="some", rule="any")
