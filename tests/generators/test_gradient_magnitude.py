"""Gradient magnitude, against gradients that autograd takes in the test."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional

from prunenas.errors import MethodError
from prunenas.generators.base import generate
from prunenas.generators.base.gradients import Twin, loss_gradients, mean_gradients
from prunenas.generators.gradient_magnitude import GradientMagnitude
from prunenas.ir.ops import Affine, Convolve, Parameter
from prunenas.ir.writer import GraphWriter
from tests.generators.networks import GRAPHS, attending, trained
from tests.generators.pictures import pictures, seen, subject_of


def products(network, layers, images, labels, *, training=False):
    """Return ``|w g|`` of the mean cross-entropy of these images by layer."""
    twin = copy.deepcopy(network).train(training)
    functional.cross_entropy(twin(images), labels).backward()
    found = {}
    for name in layers:
        weight = twin.node(name).weight
        found[name] = (weight.detach().double() * weight.grad.double()).abs().numpy()
    return found


def largest(scores, count):
    every = np.sort(np.concatenate([score.ravel() for score in scores.values()]))
    return {name: score >= every[len(every) - count] for name, score in scores.items()}


def differing(descriptor, expected):
    """Return how many weights the masks judge otherwise."""
    assert descriptor.masks.keys() == expected.keys()
    return sum(
        int((mask.array() != expected[name]).sum()) for name, mask in descriptor.masks.items()
    )


def hidden(graph):
    return [n.name for n in graph.nodes if type(n.op).__name__ in ("Conv2d", "Linear")][:-1]


@pytest.mark.parametrize("name", ["resnet20", "grouped", "gated"])
def test_the_largest_products_with_the_mean_gradient_stay(name):
    graph = GRAPHS[name]()
    network, data = trained(graph), pictures(graph)
    scores = products(network, hidden(graph), *seen(data))
    total = sum(score.size for score in scores.values())
    found = generate("gradient_magnitude", graph, data, keep=0.4, network=network, batch=16)
    assert sum(mask.kept for mask in found.masks.values()) == round(total * 0.4)
    # Sums in another order may turn the last of them around.
    assert differing(found, largest(scores, round(total * 0.4))) <= 2


def test_one_batch_in_training_mode_is_what_shrinkbench_takes():
    graph = GRAPHS["resnet20"]()
    network, data = trained(graph), pictures(graph, train=40)
    images, labels = seen(data)
    scores = products(network, hidden(graph), images, labels, training=True)
    thresholds = np.quantile(np.concatenate([s.ravel() for s in scores.values()]), 0.7)
    found = generate(
        "gradient_magnitude",
        graph,
        data,
        keep=0.3,
        network=network,
        training=True,
        rule="quantile",
        images=128,
    )
    assert differing(found, {n: s >= thresholds for n, s in scores.items()}) <= 2
    evaluated = products(network, hidden(graph), images, labels)
    assert differing(found, {n: s >= thresholds for n, s in evaluated.items()}) > 20


def test_layers_can_keep_the_same_each():
    graph = GRAPHS["grouped"]()
    network, data = trained(graph), pictures(graph)
    found = generate(
        "gradient_magnitude", graph, data, keep=0.5, network=network, scope="layer", layers="all"
    )
    assert "fc" in found.masks
    for mask in found.masks.values():
        assert mask.kept == round(mask.array().size / 2)


def test_only_some_images_are_looked_at_and_the_seed_says_which():
    graph = GRAPHS["gated"]()
    network, data = trained(graph), pictures(graph)
    first, again, other = (
        generate("gradient_magnitude", graph, data, keep=0.5, network=network, images=4, seed=seed)
        for seed in (0, 0, 1)
    )
    assert first == again
    assert {m.digest for m in first.masks.values()} != {m.digest for m in other.masks.values()}


def test_neither_statistics_nor_gradients_nor_random_states_are_touched():
    graph = GRAPHS["mobilenet_v2"]()
    network, data = trained(graph), pictures(graph)
    before = copy.deepcopy(network.state_dict())
    state = torch.get_rng_state()
    generate("gradient_magnitude", graph, data, keep=0.5, network=network, training=True)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert not network.training


@pytest.mark.parametrize("make", [GRAPHS["resnet20"], attending])
def test_gradients_come_batch_by_batch_and_their_mean_is_that_of_all(make):
    graph = make()
    network, data = trained(graph), pictures(graph)
    subject = subject_of(network, data)
    layers = [n.name for n in graph.nodes if type(n.op).__name__ in ("Conv2d", "Linear")]
    every = loss_gradients(subject, layers, images=40, batch=16, training=False)
    assert [count for _, count in every] == [16, 16, 8]
    twin = copy.deepcopy(network)
    images, labels = seen(data)
    loss = functional.cross_entropy(twin(images), labels)
    expected = torch.autograd.grad(loss, [twin.node(name).weight for name in layers])
    found = mean_gradients(subject, layers, images=1000, batch=16, training=False)
    for name, gradient in zip(layers, expected, strict=True):
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6)


def test_a_kernel_that_is_computed_is_differentiated_as_it_is_used():
    net = GraphWriter((2, 6, 6))
    kernel = net.add("kernel", Parameter(sizes=(4, 2, 3, 3)))
    kernel = net.add("thrice", Affine(scale=3.0), kernel)
    x = net.relu("relu", net.add("conv", Convolve(padding=(1, 1)), net.input, kernel))
    graph = net.finish(net.linear("fc", net.global_pool("pool", x), 3))
    network, data = trained(graph), pictures(graph)
    images, labels = seen(data)
    own = network.node("kernel").value.detach()
    used = (3 * own).requires_grad_(True)
    scores = functional.linear(
        functional.conv2d(images, used, padding=1).relu().mean(dim=(2, 3)),
        network.weight("fc"),
        network.node("fc").bias.detach(),
    )
    (expected,) = torch.autograd.grad(functional.cross_entropy(scores, labels), [used])
    found = mean_gradients(
        subject_of(network, data), ["conv"], images=1000, batch=100, training=False
    )
    torch.testing.assert_close(found["conv"], expected, rtol=1e-4, atol=1e-6)


def test_dropout_of_the_copy_draws_from_the_seed():
    net = GraphWriter((2, 6, 6))
    x = net.relu("relu", net.conv("conv", net.input, 6, kernel=3))
    x = net.dropout("dropout", net.global_pool("pool", x), p=0.5)
    graph = net.finish(net.linear("fc", x, 3))
    network, data = trained(graph), pictures(graph)
    images, _ = seen(data)
    first, again, other = (
        Twin(subject_of(network, data, seed=seed), ["conv"], training=True)(images)
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_single_image_has_no_batch_statistics():
    graph = GRAPHS["resnet20"]()
    subject = subject_of(trained(graph), pictures(graph))
    with pytest.raises(MethodError, match="at least two images"):
        mean_gradients(subject, ["conv1"], images=1, batch=8, training=True)
    assert mean_gradients(subject, ["conv1"], images=9, batch=8, training=True)


def test_it_asks_for_data():
    graph = GRAPHS["gated"]()
    with pytest.raises(MethodError, match="gradient_magnitude looks at images: give it data"):
        generate("gradient_magnitude", graph, keep=0.5, network=trained(graph))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": "fc"}, "layers is one of"),
        ({"scope": "group"}, "scope is one of"),
        ({"rule": "loose"}, "rule is one of"),
        ({"images": 0}, "images is at least 1"),
        ({"batch": 1, "training": True}, "batch is at least 1, in training 2"),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(MethodError, match=words):
        GradientMagnitude(**options)
