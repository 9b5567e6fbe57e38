"""Soft filter pruning: what is zeroed, when, and what of it can go."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from prunenas.arch.descriptor import apply
from prunenas.build.initialise import build
from prunenas.data.shapes import shapes
from prunenas.errors import MethodError
from prunenas.families.base import reference
from prunenas.generators.base import generate, make_generator, prune
from prunenas.generators.soft_filter import SoftFilter
from prunenas.ir.coupling import couple
from prunenas.ir.ops import Conv2d
from prunenas.ir.writer import GraphWriter
from prunenas.training.loop import train
from prunenas.training.recipe import RECIPES, Recipe
from tests.generators.networks import GRAPHS, attending, grouped, trained

SFP = json.loads((Path(__file__).parents[1] / "golden" / "architectures.json").read_text())["sfp"]
RECIPE = Recipe(epochs=2, batch=16, lr=0.05, augment=False)


def line(*widths):
    net = GraphWriter((3, 16, 16))
    x = net.input
    for i, width in enumerate(widths):
        x = net.relu(f"relu{i}", net.batch_norm(f"bn{i}", net.conv(f"conv{i}", x, width, kernel=3)))
    return net.finish(net.linear("fc", net.global_pool("pool", x), 10))


def block():
    """Return a residual block: a stem and a last convolution share their width."""
    net = GraphWriter((3, 8, 8))
    x = net.relu("relu", net.conv("stem", net.input, 4, kernel=3))
    y = net.conv("last", net.relu("relu1", net.conv("inner", x, 4, kernel=3)), 4, kernel=3)
    return net.finish(net.linear("fc", net.global_pool("pool", net.join("add", x, y)), 5))


def set_norms(network, name, norms):
    """Give every filter of a layer that L2 norm."""
    with torch.no_grad():
        weight = network.node(name).weight.zero_()
        weight[:, 0, 0, 0] = torch.as_tensor(norms, dtype=weight.dtype)


def zeros(network, name):
    weight = network.weight(name).numpy()
    return tuple(i for i, kernel in enumerate(weight) if not kernel.any())


@pytest.mark.parametrize("keep", [0.9, 0.8, 0.7, 0.6])
@pytest.mark.parametrize("coupled", ["apart", "together"])
def test_zero_counts_are_the_published_ones_in_every_convolution(keep, coupled):
    graph = reference("resnet20")
    network = build(graph)
    make_generator("soft_filter", coupled=coupled).hooks(keep).after_epoch(network, 1)
    table = SFP["table"][f"20@keep{keep}"]
    expected = {int(w): count for w, count in table["zero_filters_per_width"].items()}
    assert expected == {w: int(w * (1 - keep)) for w in (16, 32, 64)}
    convolutions = [node for node in graph.nodes if isinstance(node.op, Conv2d)]
    assert len(convolutions) == 19
    for node in convolutions:
        assert len(zeros(network, node.name)) == expected[node.op.width]
    alive = sum(node.op.width - len(zeros(network, node.name)) for node in convolutions)
    assert alive == table["filters_nonzero"]


@pytest.mark.parametrize(
    ("width", "keep", "count"),
    [(10, 0.9, 1), (20, 0.9, 2), (40, 0.7, 12), (5, 0.5, 2), (4, 1e-6, 3)],
)
def test_counts_are_those_that_are_meant_and_one_filter_stays(width, keep, count):
    network = build(line(width))
    make_generator("soft_filter").hooks(keep).after_epoch(network, 1)
    assert len(zeros(network, "conv0")) == count


def test_the_smallest_l2_norms_go_and_the_first_of_equals_stays():
    network = build(line(6))
    set_norms(network, "conv0", [3, 1, 2, 1, 5, 1])
    make_generator("soft_filter").hooks(0.66).after_epoch(network, 1)
    assert zeros(network, "conv0") == (3, 5)


def test_l1_and_l2_differ_and_l2_decides():
    network = build(line(2))
    with torch.no_grad():
        weight = network.node("conv0").weight.zero_()
        weight[0, 0, 0, 0] = 3.0
        weight[1, 0] = 0.5
    make_generator("soft_filter").hooks(0.5).after_epoch(network, 1)
    assert zeros(network, "conv0") == (1,)


def test_zeroed_filters_get_gradients_and_return():
    graph = line(8)
    network = trained(graph, seed=1)
    hooks = make_generator("soft_filter").hooks(0.5)
    with torch.no_grad():
        network.node("bn0").bias.fill_(0.5)
    hooks.after_epoch(network, 1)
    gone = [*zeros(network, "conv0")]
    assert len(gone) == 4
    data = shapes(train=40, test=10, side=16)
    train(network, data, replace(RECIPE, epochs=1), held_out=True)
    assert network.weight("conv0")[gone].flatten(1).any(dim=1).all()
    set_norms(network, "conv0", [5.0 if i in gone else 1.0 for i in range(8)])
    hooks.after_epoch(network, 2)
    assert {*zeros(network, "conv0")}.isdisjoint(gone)


def test_filters_zeroed_before_a_fresh_training_never_return_behind_a_relu():
    """What the released code does at the start; the paper's algorithm does not."""
    graph = line(8)
    data = shapes(train=40, test=10, side=16)
    assert make_generator("soft_filter").hooks(0.5).before is None
    before = make_generator("soft_filter", at_start=True).hooks(0.5).before
    network = build(graph, seed=1)
    before(network)
    gone = zeros(network, "conv0")
    assert len(gone) == 4
    train(network, data, RECIPE, held_out=True)
    assert zeros(network, "conv0") == gone


@pytest.mark.parametrize(("every", "epochs"), [(1, [1, 2, 3, 4]), (2, [2, 4]), (3, [3])])
def test_zeroing_comes_after_every_so_many_epochs(every, epochs):
    hooks = make_generator("soft_filter", every=every).hooks(0.5)
    seen = []
    for epoch in range(1, 5):
        network = build(line(8))
        hooks.after_epoch(network, epoch)
        if zeros(network, "conv0"):
            seen.append(epoch)
    assert seen == epochs


def test_a_coupled_channel_goes_only_where_every_layer_zeroed_it():
    graph = block()
    network = build(graph)
    set_norms(network, "stem", [1, 2, 3, 4])
    set_norms(network, "last", [9, 1, 2, 8])
    set_norms(network, "inner", [4, 3, 1, 2])
    found = generate("soft_filter", graph, keep=0.5, network=network)
    # The stem zeroes 0 and 1, the last convolution 1 and 2.
    assert found.selections == {"stem": (0, 2, 3), "inner": (0, 1)}
    assert found.origin.nominal == {"stem": 0.5, "inner": 0.5, "last": 0.5}
    assert found.origin.found["zero_filters"] == {"stem": 2, "inner": 2, "last": 2}
    assert found.origin.reached == (3 + 2) / 8


def test_together_a_group_loses_what_all_its_layers_zeroed_as_one():
    graph = block()
    network = build(graph)
    set_norms(network, "stem", [1, 2, 3, 4])
    set_norms(network, "last", [9, 1, 2, 8])
    found = prune("soft_filter", graph, keep=0.5, network=network, coupled="together")
    assert found.descriptor.selections["stem"] == (0, 3)
    assert zeros(found.refit, "stem") == zeros(found.refit, "last") == (1, 2)
    assert found.descriptor.origin.reached == 0.5
    least = generate(
        "soft_filter", graph, keep=0.5, network=network, coupled="together", reduction="min"
    )
    # Minima 1, 1, 2, 4.
    assert least.selections["stem"] == (2, 3)


@pytest.mark.parametrize("coupled", ["apart", "together"])
@pytest.mark.parametrize("name", GRAPHS)
def test_only_zero_filters_go(name, coupled):
    graph = GRAPHS[name]()
    groups = couple(graph)
    found = prune("soft_filter", graph, keep=0.4, network=trained(graph), coupled=coupled)
    kept = found.descriptor.selections
    checked = 0
    for group in groups.free:
        if group.select or group.name not in kept:
            continue
        for member in group.members:
            gone = {*range(group.width)} - {*kept[group.name]}
            assert gone <= {*zeros(found.refit, member)}
            checked += len(gone)
    assert checked


def test_projections_and_skipped_layers_are_left_and_hold_their_groups():
    graph = reference("resnet18", (3, 32, 32), 5, width=0.125)
    network = trained(graph)
    found = generate("soft_filter", graph, keep=0.7, network=network, skip=("layer1.*",))
    told = {*found.origin.nominal}
    convolutions = {node.name for node in graph.nodes if isinstance(node.op, Conv2d)}
    spared = {name for name in convolutions if "downsample" in name or "layer1." in name}
    assert told == convolutions - spared
    # A group is called after its first layer, the trunk of layer 1 after the stem.
    assert {*found.origin.found["left_alone"]} == {
        "conv1",
        "layer1.0.conv1",
        "layer1.1.conv1",
        "layer2.0.conv2",
        "layer3.0.conv2",
        "layer4.0.conv2",
    }
    everything = generate("soft_filter", graph, keep=0.7, network=network, projections=True)
    assert {*everything.origin.nominal} == convolutions


def test_the_classifier_stays_even_as_a_convolution():
    net = GraphWriter((3, 8, 8))
    x = net.relu("relu", net.conv("conv", net.input, 8, kernel=3))
    x = net.global_pool("pool", net.conv("classes", x, 5, kernel=1))
    network = build(net.finish(x))
    make_generator("soft_filter").hooks(0.5).after_epoch(network, 1)
    assert len(zeros(network, "conv")) == 4
    assert zeros(network, "classes") == ()


def test_parts_of_grouped_convolutions_stay_equally_wide():
    graph = grouped()
    network = trained(graph)
    set_norms(network, "grouped", [1, 2, 3, 9] + [9] * 12)
    found = generate("soft_filter", graph, keep=0.75, network=network)
    # Filters 0, 1, 2 and one more: no other part is free of filters to keep.
    assert "grouped" not in found.widths
    set_norms(network, "grouped", [1, 9, 9, 9] * 4)
    found = generate("soft_filter", graph, keep=0.75, network=network)
    assert found.selections["grouped"] == (1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15)


def test_a_given_network_is_zeroed_once_on_a_copy_and_a_soft_one_is_left():
    graph = line(8, 12)
    network = trained(graph)
    first = prune("soft_filter", graph, keep=0.5, network=network)
    assert first.descriptor.origin.found["zeroed_once"] is True
    assert zeros(network, "conv0") == ()
    again = prune("soft_filter", graph, keep=0.5, network=first.refit)
    assert again.descriptor.origin.found["zeroed_once"] is False
    assert again.descriptor == first.descriptor


def test_training_zeroes_after_its_last_epoch_and_the_channels_that_went_were_zero():
    graph = line(8, 12)
    data = shapes(train=40, test=10, side=16)
    found = prune("soft_filter", graph, data, keep=0.5, recipe=RECIPE)
    assert found.descriptor.origin.found["zeroed_once"] is False
    for name in ("conv0", "conv1"):
        gone = {*range(len(found.reference.weight(name)))} - {*found.descriptor.selections[name]}
        assert {*zeros(found.reference, name)} == gone
    once = replace(RECIPE, epochs=1)
    odd = prune("soft_filter", graph, data, keep=0.5, recipe=once, every=2, at_start=False)
    assert odd.descriptor.origin.found["zeroed_once"] is True
    assert zeros(odd.reference, "conv0") == ()
    assert len(zeros(odd.refit, "conv0")) == 4


def test_a_masked_filter_is_not_a_removed_one():
    """The shift of the batch norm behind a zero filter is lost with its channel."""
    graph = line(8, 12)
    found = prune("soft_filter", graph, keep=0.5, network=trained(graph))
    small, zeroed = found.network().eval(), found.refit.eval()
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert not torch.allclose(small(images), zeroed(images), atol=1e-3)
        for i in range(2):
            dead = [*zeros(zeroed, f"conv{i}")]
            norm = zeroed.node(f"bn{i}")
            norm.bias[dead] = 0.0
            norm.running_mean[dead] = 0.0
        torch.testing.assert_close(small(images), zeroed(images), rtol=1e-5, atol=1e-5)


def test_the_recipe_is_the_sources():
    assert SoftFilter.recipe == RECIPES["paper_sfp"]
    assert (SoftFilter.recipe.epochs, SoftFilter.recipe.batch) == (200, 128)
    assert SoftFilter.recipe.nesterov
    assert SoftFilter.recipe.weight_decay == 5e-4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"every": 0}, "every is a number"),
        ({"coupled": "alone"}, "coupled is apart/together"),
        ({"reduction": "projection"}, "reduction is sum"),
        ({"skip": "conv*"}, "skip is a list"),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(MethodError, match=f"soft_filter: {words}"):
        make_generator("soft_filter", **options)


def test_unknown_layers_and_graphs_without_convolutions_to_zero_are_refused():
    with pytest.raises(MethodError, match="no convolution is called conv9; they are stem, inner"):
        make_generator("soft_filter", skip=("conv9",)).check(block())
    with pytest.raises(MethodError, match="can narrow no group: embed: proj, fc2: never zeroed"):
        make_generator("soft_filter").check(attending())
    with pytest.raises(MethodError, match="needs keep"):
        make_generator("soft_filter").hooks(None)


def test_the_narrow_network_runs():
    graph = block()
    found = generate("soft_filter", graph, keep=0.5, network=build(graph))
    small = build(apply(graph, found)).eval()
    assert np.isfinite(small(torch.zeros(1, 3, 8, 8)).detach().numpy()).all()
