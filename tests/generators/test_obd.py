"""Optimal Brain Damage: exact where scores are linear, and an estimate of it elsewhere."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from prunenas.arch.descriptor import apply
from prunenas.build.initialise import build
from prunenas.errors import MethodError
from prunenas.generators.base import generate
from prunenas.generators.obd import OptimalBrainDamage, second_derivatives
from prunenas.ir.coupling import couple
from prunenas.ir.ops import Flatten
from prunenas.ir.writer import GraphWriter
from tests.generators.networks import GRAPHS, attending, trained
from tests.generators.pictures import pictures, seen, subject_of
from tests.graphs import graphs


def regression():
    """One linear layer on pixels: softmax regression."""
    net = GraphWriter((1, 3, 3))
    return net.finish(net.linear("fc", net.add("flatten", Flatten(), net.input), 4))


def hessian_diagonal(network, images, labels):
    bias = network.node("fc").bias.detach()

    def loss(weight):
        scores = functional.linear(images.flatten(1), weight.reshape(4, 9), bias)
        return functional.cross_entropy(scores, labels)

    whole = torch.autograd.functional.hessian(loss, network.weight("fc").reshape(-1))
    return whole.diagonal().reshape(4, 9).double()


def each_image(network, images, labels, layer):
    """Return the gradient of each image's own cross-entropy ``[n ...]``."""
    weight = network.node(layer).weight
    return torch.stack(
        [
            torch.autograd.grad(
                functional.cross_entropy(network(images[i : i + 1]), labels[i : i + 1]), [weight]
            )[0]
            for i in range(len(labels))
        ]
    ).double()


def derivatives(network, data, *layers, probes=None, batch=32, curvature="gauss_newton"):
    return second_derivatives(
        subject_of(network, data),
        layers,
        curvature=curvature,
        probes=probes,
        images=1000,
        batch=batch,
    )


def test_softmax_regression_has_its_exact_second_derivatives():
    graph = regression()
    network, data = build(graph, seed=1).eval(), pictures(graph)
    expected = hessian_diagonal(network, *seen(data))
    found = derivatives(network, data, "fc")["fc"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
    # By hand: the variance of the class's indicator times the pixel squared.
    images, _ = seen(data)
    p = network(images).softmax(dim=1).detach().double()
    by_hand = (p * (1 - p)).T @ images.flatten(1).double().square() / len(images)
    torch.testing.assert_close(found, by_hand, rtol=1e-4, atol=1e-7)


def test_the_least_salient_weights_go():
    graph = regression()
    network, data = build(graph, seed=1).eval(), pictures(graph)
    data.train_images[:, :, 1] //= 8  # dark pixels: -2 and nearly so after normalisation
    data.train_images[:, :, 2] = 128 + data.train_images[:, :, 2] // 16
    weight = network.weight("fc").double()
    saliency = (hessian_diagonal(network, *seen(data)) * weight**2 / 2).numpy()
    found = generate("obd", graph, data, keep=0.5, network=network, probes=None, rule="strict")
    # int(36 * 0.5) + 1 go.
    assert found.masks["fc"].array().sum() == 17
    assert np.array_equal(found.masks["fc"].array(), saliency >= np.sort(saliency.ravel())[-17])
    by_size = generate("magnitude", graph, keep=0.5, network=network, layers="all")
    assert found.masks != by_size.masks


def test_the_gauss_newton_diagonal_is_a_sum_over_classes():
    """Of a network that is not linear: squared derivatives of scores, weighted by class pairs."""
    graph = GRAPHS["gated"]()
    network, data = trained(graph), pictures(graph, train=20)
    images, _ = seen(data)
    weight = network.node("body").weight
    expected = torch.zeros_like(weight, dtype=torch.float64)
    for i in range(len(images)):
        scores = network(images[i : i + 1])[0]
        p = scores.detach().softmax(0).double()
        rows = torch.stack(
            [torch.autograd.grad(s, [weight], retain_graph=True)[0].double() for s in scores]
        )
        middle = torch.diag(p) - torch.outer(p, p)
        expected += torch.einsum("c...,cd,d...->...", rows, middle, rows) / len(images)
    found = derivatives(network, data, "body")["body"]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-9)


def test_the_fisher_diagonal_is_the_mean_of_squared_gradients():
    graph = GRAPHS["resnet20"]()
    network, data = trained(graph), pictures(graph, train=20)
    expected = each_image(network, *seen(data), "layer1.0.conv1").square().mean(dim=0)
    found = derivatives(network, data, "layer1.0.conv1", curvature="fisher")["layer1.0.conv1"]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-10)


@pytest.mark.parametrize("curvature", ["gauss_newton", "fisher"])
def test_probes_estimate_the_same_without_bias(curvature):
    graph = regression()
    network, data = build(graph, seed=1).eval(), pictures(graph)
    exact = derivatives(network, data, "fc", curvature=curvature)["fc"]
    few, many = (
        derivatives(network, data, "fc", probes=probes, batch=10, curvature=curvature)["fc"]
        for probes in (1, 400)
    )
    # A batch's estimate has about sqrt(2) of relative deviation; there are 5 batches or more.
    error = ((many - exact) / exact).abs()
    assert error.max() < 5 * (2 / (5 * 400)) ** 0.5
    assert ((few - exact) / exact).abs().mean() > 3 * error.mean()


def test_channels_score_the_sum_of_their_filters_saliencies():
    graph = GRAPHS["resnet20"]()
    network, data = trained(graph), pictures(graph, train=20)
    method = OptimalBrainDamage(form="widths", probes=None, curvature="fisher", reduction="mean")
    found = method.propose(subject_of(network, data))
    group = couple(graph)["layer2.0.conv2"]
    by_hand = np.zeros(group.width)
    for member in group.members:
        squares = each_image(network, *seen(data), member).square().mean(dim=0)
        saliency = squares * network.weight(member).double() ** 2 / 2
        by_hand += saliency.flatten(1).sum(dim=1).numpy() / len(group.members)
    np.testing.assert_allclose(found.scores[group.name], by_hand, rtol=1e-3)


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("name", [*GRAPHS, "attending"])
def test_channels_of_every_graph_can_go(name, scope):
    graph = attending() if name == "attending" else GRAPHS[name]()
    found = generate(
        "obd",
        graph,
        pictures(graph),
        keep=0.5,
        form="widths",
        scope=scope,
        network=trained(graph),
        probes=1,
    )
    assert 0.35 < found.origin.reached < 0.65
    small = build(apply(graph, found)).eval()
    assert small(torch.zeros(2, *graph.input_size)).shape == (2, graph.classes)


@settings(max_examples=12, deadline=None)
@given(graph=graphs(), form=st.sampled_from(["masks", "widths"]), exact=st.booleans())
def test_any_graph_loses_weights_or_channels(graph, form, exact):
    if form == "widths" and not couple(graph).free:
        return
    data = pictures(graph, train=12)
    found = generate(
        "obd",
        graph,
        data,
        keep=0.5,
        form=form,
        network=trained(graph),
        probes=None if exact else 2,
        images=4,
    )
    small = build(apply(graph, found)).eval()
    assert small(torch.zeros(1, *graph.input_size)).shape == (1, graph.classes)


def test_the_seed_draws_the_probes_and_nothing_else_is_touched():
    graph = GRAPHS["gated"]()
    network, data = trained(graph), pictures(graph)
    state = torch.get_rng_state()
    first, again, other = (
        generate("obd", graph, data, keep=0.5, network=network, probes=1, seed=seed)
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first.masks != other.masks
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None and p.requires_grad for p in network.parameters())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"curvature": "hessian"}, "curvature is one of gauss_newton, fisher"),
        ({"probes": 0}, "probes is at least 1, or None"),
        ({"form": "blocks"}, "form is one of masks, widths"),
        ({"layers": "fc", "scope": "one", "rule": "no"}, "layers is one of .*; scope .*; rule"),
        ({"images": 0, "batch": 0, "reduction": "no"}, "images is .*; batch is .*; reduction"),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(MethodError, match=words):
        OptimalBrainDamage(**options)


def test_the_form_says_what_is_counted():
    assert OptimalBrainDamage().counts == "weights"
    assert OptimalBrainDamage(form="widths").counts == "channels"
