"""Uniform sparsifying: the same share of every layer, exactly or by a pattern."""

import math

import numpy as np
import pytest

from prunenas.arch.descriptor import apply
from prunenas.build.initialise import build
from prunenas.errors import MethodError
from prunenas.generators.base import generate
from prunenas.generators.uniform_weights import UniformWeights
from prunenas.ir.ops import KernelSparsity
from prunenas.ir.writer import GraphWriter
from tests.generators.networks import GRAPHS, attending


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("keep", [0.1, 0.25, 0.7])
def test_every_layer_keeps_its_own_rounded_count(name, keep):
    graph = GRAPHS[name]()
    found = generate("uniform_weights", graph, keep=keep, layers="all")
    shapes = graph.parameters()
    for layer, mask in found.masks.items():
        assert mask.shape == shapes[f"{layer}.weight"]
        assert mask.kept == max(1, round(keep * math.prod(mask.shape)))
    kept = sum(mask.kept for mask in found.masks.values())
    assert found.origin.reached == kept / sum(math.prod(m.shape) for m in found.masks.values())


def test_a_layer_of_few_weights_keeps_one_and_is_told():
    net = GraphWriter((1, 8, 8))
    x = net.conv("wide", net.conv("tiny", net.input, 2, kernel=1), 6, kernel=3)
    graph = net.finish(net.linear("fc", net.global_pool("pool", x), 5))
    found = generate("uniform_weights", graph, keep=0.2)
    assert found.origin.kept_best == ("tiny",)
    assert found.masks["tiny"].kept == 1


def test_the_seed_decides_and_layers_of_one_shape_are_drawn_apart():
    graph = GRAPHS["resnet20"]()
    first, again, other = (
        generate("uniform_weights", graph, keep=0.5, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
    same_shape = [m.digest for m in first.masks.values() if m.shape == (8, 8, 3, 3)]
    assert len({*same_shape}) == len(same_shape) > 2


def test_a_pattern_is_one_density_for_every_position():
    graph = attending()
    found = generate("uniform_weights", graph, keep=0.4, seed=3, layers="all", form="pattern")
    assert not found.masks
    assert found.densities["embed"] == (0.4,) * 16
    assert found.densities["fc1"] == (0.4,)
    sparse = apply(graph, found)
    assert sparse["embed"].op.sparsity == KernelSparsity(density=(0.4,) * 16, seed=3)
    network = build(sparse)
    kept = {name: network.node(name).mask.numpy() for name in found.densities}
    share = sum(int(m.sum()) for m in kept.values()) / sum(m.size for m in kept.values())
    assert found.origin.reached == share
    assert abs(share - 0.4) < 0.1
    assert all(m.reshape(len(m), -1).any(axis=1).all() for m in kept.values())


def test_both_forms_of_a_vgg_have_about_the_same_share():
    graph = GRAPHS["vgg11"]()
    exact, pattern = (
        generate("uniform_weights", graph, keep=0.3, form=form).origin.reached
        for form in ("masks", "pattern")
    )
    assert exact == pytest.approx(0.3, abs=1e-4)
    assert pattern == pytest.approx(0.3, abs=0.01)
    assert exact != pattern


def test_masks_are_drawn_evenly_over_kernel_positions():
    graph = GRAPHS["vgg11"]()
    found = generate("uniform_weights", graph, keep=0.5)
    every = np.concatenate([m.array().reshape(-1, 9) for m in found.masks.values()])
    deviation = math.sqrt(0.25 / len(every))
    assert (abs(every.mean(axis=0) - 0.5) < 5 * deviation).all()


def test_impossible_options_are_refused():
    with pytest.raises(MethodError, match=r"layers is one of .*; form is one of masks, pattern"):
        UniformWeights(layers="none", form="widths")
