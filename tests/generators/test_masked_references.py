"""References that are under masks already, and weights that lie in another order in memory."""

import numpy as np
import pytest
import torch

from prunenas.arch.descriptor import apply
from prunenas.arch.profile import StageProfile
from prunenas.build.inherit import inherit
from prunenas.errors import MethodError
from prunenas.generators.base import GENERATORS, generate, make_generator, prune
from prunenas.generators.base.weights import kept_masks, present, prunable
from prunenas.ir.cost import effective_macs, macs, nonzero_params
from prunenas.ir.coupling import couple
from prunenas.ir.ops import KernelSparsity
from prunenas.training.recipe import Recipe
from tests.generators.networks import GRAPHS, attending, trained
from tests.generators.pictures import pictures

RECIPE = Recipe(epochs=2, batch=24, lr=0.01, schedule="constant")
METHODS = [name for name in GENERATORS.names() if make_generator(name).counts == "weights"]
CASES = [(name, {}) for name in METHODS] + [
    ("random_weights", {"independent": True}),
    ("magnitude", {"rule": "quantile"}),
    ("magnitude", {"rule": "count", "layers": "all"}),
    ("magnitude", {"scope": "layer"}),
    ("magnitude", {"schedule": "geometric", "rounds": 2}),
    ("magnitude", {"schedule": "polynomial", "rounds": 2}),
    ("snip", {"scope": "layer"}),
    ("gradient_magnitude", {"scope": "layer"}),
    ("obd", {"curvature": "fisher"}),
]
NAMES = [" ".join([name, *(f"{k}={v}" for k, v in told.items())]) for name, told in CASES]


def masks(descriptor):
    return {name: mask.array() for name, mask in descriptor.masks.items()}


def total(found):
    return sum(int(mask.sum()) for mask in found.values())


def look(method, network, **options):
    graph = network.graph
    return prune(method, graph, pictures(graph), recipe=RECIPE, network=network, **options)


@pytest.mark.parametrize(("method", "options"), CASES, ids=NAMES)
@pytest.mark.parametrize("make", [GRAPHS["resnet20"], GRAPHS["grouped"]])
def test_half_of_a_half_is_a_quarter_and_no_weight_comes_back(make, method, options):
    network = trained(make())
    first = look(method, network, keep=0.5, **options).descriptor
    again = look(method, inherit(network, first), keep=0.5, **options).descriptor
    before, after = masks(first), masks(again)
    assert before.keys() == after.keys()
    assert not any((after[name] & ~before[name]).any() for name in before)
    size = sum(mask.size for mask in before.values())
    assert total(after) / size == pytest.approx(0.25, abs=0.02)
    assert again.origin.reached == total(after) / total(before)
    assert again.origin.reached == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(("method", "options"), CASES, ids=NAMES)
def test_of_a_drawn_pattern_only_weights_that_are_there_may_stay(method, options):
    full = GRAPHS["resnet20"]()
    graph = apply(full, StageProfile.uniform(full, 1.0, density=0.4).descriptor(full, seed=3))
    network = trained(graph)
    found = look(method, network, keep=0.5, **options).descriptor
    kept = masks(found)
    there = {name: (network.weight(name) != 0).numpy() for name in kept}
    assert any(isinstance(graph[name].op.sparsity, KernelSparsity) for name in kept)
    assert not any((kept[name] & ~there[name]).any() for name in kept)
    assert found.origin.reached == total(kept) / total(there)
    assert found.origin.reached == pytest.approx(0.5, abs=0.03)


def test_the_deviation_is_that_of_the_weights_that_are_there():
    full = GRAPHS["grouped"]()
    network = trained(full)
    graph = apply(full, generate("magnitude", full, keep=0.3, network=network))
    network = trained(graph)
    kept = masks(generate("magnitude", graph, network=network, std_quality=0.7))
    for name, mask in kept.items():
        weight = network.weight(name).double().numpy()
        left = weight[weight != 0]
        deviation = np.sqrt(np.mean((left - left.mean()) ** 2))
        np.testing.assert_array_equal(mask, np.abs(weight) > 0.7 * deviation)


def test_draws_under_a_mask_are_not_those_that_made_it():
    graph = GRAPHS["resnet20"]()
    narrow = apply(graph, generate("random_weights", graph, keep=0.5, independent=True))
    found = generate("random_weights", narrow, keep=0.5, independent=True)
    assert 0.45 < found.origin.reached < 0.55


def test_a_layer_of_few_weights_left_keeps_one_of_them():
    graph = GRAPHS["grouped"]()
    for _ in range(8):
        descriptor = generate("uniform_weights", graph, keep=0.1)
        there = present(graph, prunable(graph, "conv"))
        assert all(not (mask & ~there[n]).any() for n, mask in masks(descriptor).items())
        graph = apply(graph, descriptor)
    assert {mask.kept for mask in descriptor.masks.values()} == {1}
    assert {*descriptor.origin.kept_best} == {*descriptor.masks}
    assert descriptor.origin.reached == 1.0


def test_no_pattern_is_drawn_over_a_mask():
    full = GRAPHS["grouped"]()
    for found in (
        generate("uniform_weights", full, keep=0.5),
        generate("uniform_weights", full, keep=0.5, form="pattern"),
    ):
        graph = apply(full, found)
        with pytest.raises(MethodError, match=r"pattern.* draws anew.* stem"):
            generate("uniform_weights", graph, keep=0.5, form="pattern")


def test_what_is_present_is_what_a_fresh_network_has():
    for make in (attending, GRAPHS["grouped"]):
        full = make()
        dense = present(full, prunable(full, "all"))
        assert all(mask.all() for mask in dense.values())
        for form in ("masks", "pattern"):
            found = generate("uniform_weights", full, keep=0.4, form=form, layers="all", seed=2)
            graph = apply(full, found)
            network = trained(graph)
            for name, mask in present(graph, prunable(graph, "all")).items():
                np.testing.assert_array_equal(mask, network.weight(name).numpy() != 0)


@pytest.mark.parametrize("rule", ["strict", "quantile", "count"])
def test_thresholds_count_those_that_are_left(rule):
    scores = {"a": np.array([0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0])}
    among = {"a": np.arange(9) >= 4}
    found, _ = kept_masks(scores, 0.6, rule=rule, among=among)
    # int(5 * 0.4) = 2 is the place of the 3; the 0.4-quantile of 1 .. 5 is 2.6.
    assert found["a"].sum() == {"strict": 2, "quantile": 3, "count": 3}[rule]
    assert not found["a"][:6].any()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("make", [GRAPHS["resnet20"], GRAPHS["grouped"]])
def test_the_order_of_weights_in_memory_makes_no_difference(make, name):
    graph = make()
    last = trained(graph).to(memory_format=torch.channels_last)
    layer = max(couple(graph).free[0].members)
    assert not last.weight(layer).is_contiguous()
    assert look(name, last, keep=0.3).descriptor == look(name, trained(graph), keep=0.3).descriptor


@pytest.mark.parametrize("options", [{"std_quality": 1000.0}, {"keep": 0.001, "scope": "layer"}])
def test_layers_that_would_be_emptied_keep_their_largest_weight_in_any_order(options):
    graph = GRAPHS["grouped"]()
    last = trained(graph).to(memory_format=torch.channels_last)
    found = look("magnitude", last, **options).descriptor
    plain = look("magnitude", trained(graph), **options).descriptor
    assert found == plain
    assert {*found.origin.kept_best} <= {*found.masks}
    for name, mask in masks(found).items():
        size = last.weight(name).abs().numpy()
        assert mask.any()
        assert mask[np.unravel_index(size.argmax(), size.shape)]


@pytest.mark.parametrize("budget", ["macs", "params"])
def test_morphnet_stays_within_its_budget_of_weights_that_masks_leave(budget):
    full = GRAPHS["resnet20"]()
    graph = apply(full, StageProfile.uniform(full, 1.0, density=0.25).descriptor(full))
    cost = effective_macs if budget == "macs" else nonzero_params
    found = generate(
        "morphnet", graph, pictures(graph), keep=0.5, budget=budget, rounds=1, recipe=RECIPE
    )
    small = apply(graph, found)
    limit = found.origin.found["budget"]
    assert limit < 0.4 * cost(graph)
    assert 0.8 * limit < cost(small) <= limit
    assert macs(small) < 0.6 * macs(graph)
