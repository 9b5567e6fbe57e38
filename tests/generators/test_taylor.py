"""Taylor pruning: both forms against sums written with numpy, and against gates in a network."""

import copy
from dataclasses import replace

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
from prunenas.generators.taylor import Taylor, tail
from prunenas.ir.coupling import couple
from prunenas.ir.writer import GraphWriter
from tests.generators.networks import GRAPHS, attending, trained
from tests.generators.pictures import pictures, seen, subject_of
from tests.graphs import graphs


def two_layers():
    """A convolution of single pixels, its activation, the mean over positions, a linear layer."""
    net = GraphWriter((3, 4, 4))
    x = net.relu("relu", net.conv("conv", net.input, 6, kernel=1))
    return net.finish(net.linear("fc", net.global_pool("pool", x), 5))


def by_numpy(network, data):
    """Return maps ``[n c p]`` behind the activation and the derivative of each image's loss."""
    images, labels = (tensor.numpy() for tensor in seen(data))
    pixels = images.reshape(len(images), 3, 16).astype(np.float64)
    first = network.weight("conv").numpy().reshape(6, 3).astype(np.float64)
    last = network.weight("fc").numpy().astype(np.float64)
    maps = np.maximum(np.einsum("oc,ncp->nop", first, pixels), 0)
    scores = maps.mean(axis=2) @ last.T + network.node("fc").bias.detach().numpy()
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    p[np.arange(len(p)), labels] -= 1
    return pixels, maps, np.repeat((p @ last)[:, :, None] / 16, 16, axis=2)


def gated_scores(network, data, places):
    """Return scores of maps by a gate on each, whose derivative is the sum of map times gradient.

    Args:
        network: In evaluation mode.
        data: The images.
        places: By layer the values ``[n c h w]`` that share one gate for each image and channel.
    """
    images, labels = seen(data)
    names = {value: layer for layer, found in places.items() for value in found}
    gates, areas, values = {}, {}, {"input": images}
    for node in network.graph.nodes[1:]:
        value = network.node(node.name)(*[values[name] for name in node.inputs])
        if node.name in names:
            layer = names[node.name]
            if layer not in gates:
                gates[layer] = torch.ones(*value.shape[:2], 1, 1, requires_grad=True)
                areas[layer] = value.shape[2] * value.shape[3]
            value = value * gates[layer]
        values[node.name] = value
    loss = functional.cross_entropy(values[network.graph.output], labels, reduction="sum")
    scores = {}
    for layer, slope in zip(gates, torch.autograd.grad(loss, [*gates.values()]), strict=True):
        score = (slope[:, :, 0, 0].double() / areas[layer]).abs().mean(dim=0).numpy()
        scores[layer] = score / np.sqrt((score**2).sum())
    return scores


def test_maps_of_a_two_layer_network_by_numpy():
    graph = two_layers()
    network, data = trained(graph), pictures(graph)
    _, maps, slopes = by_numpy(network, data)
    expected = np.abs((maps * slopes).mean(axis=2)).mean(axis=0)
    expected /= np.sqrt((expected**2).sum())
    for batch in (7, 64):
        found = Taylor(form="activation", batch=batch).propose(subject_of(network, data))
        np.testing.assert_allclose(found.scores["conv"], expected, rtol=1e-4)


def test_weights_of_a_two_layer_network_by_numpy():
    graph = two_layers()
    network, data = trained(graph), pictures(graph)
    pixels, maps, slopes = by_numpy(network, data)
    gradient = np.einsum("nop,ncp->oc", slopes * (maps > 0), pixels) / len(pixels)
    product = network.weight("conv").numpy().reshape(6, 3) * gradient
    subject = subject_of(network, data)
    alone = Taylor(batch=1000).propose(subject).scores["conv"]
    np.testing.assert_allclose(alone, (product**2).sum(axis=1), rtol=1e-4)
    joint = Taylor(batch=1000, joint=True).propose(subject).scores["conv"]
    np.testing.assert_allclose(joint, product.sum(axis=1) ** 2, rtol=1e-4)


def test_squares_are_taken_batch_by_batch_and_averaged():
    graph = GRAPHS["resnet20"]()
    network, data = trained(graph), pictures(graph)
    subject = subject_of(network, data)
    weight, total, count = network.weight("layer1.0.conv1"), 0.0, 0
    twin = copy.deepcopy(network)
    for images, labels in subject.batches(1000, batch=20):
        loss = functional.cross_entropy(twin(images), labels)
        (gradient,) = torch.autograd.grad(loss, [twin.node("layer1.0.conv1").weight])
        total = total + (weight * gradient).double().square().flatten(1).sum(dim=1).numpy()
        count += 1
    assert count > 1
    found = Taylor(batch=20).propose(subject)
    np.testing.assert_allclose(found.scores["layer1.0.conv1"], total / count, rtol=1e-3)


def test_maps_of_a_residual_network_are_taken_behind_norm_and_activation():
    graph = GRAPHS["resnet20"]()
    network, data = trained(graph), pictures(graph)
    places = {
        "conv1": ["relu"],
        "layer1.0.conv1": ["layer1.0.relu1"],
        "layer1.0.conv2": ["layer1.0.bn2"],
        "layer1.1.conv2": ["layer1.1.bn2"],
        "layer1.2.conv2": ["layer1.2.bn2"],
        "layer3.2.conv1": ["layer3.2.relu1"],
    }
    expected = gated_scores(network, data, places)
    found = Taylor(form="activation", batch=17).propose(subject_of(network, data)).scores
    for name in ("layer1.0.conv1", "layer3.2.conv1"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-3, atol=1e-6)
    members = couple(graph)["conv1"].members
    np.testing.assert_allclose(
        found["conv1"], sum(expected[member] for member in members), rtol=1e-3, atol=1e-6
    )


def test_maps_of_a_layer_that_is_called_twice_count_together():
    net = GraphWriter((2, 4, 4))
    x = net.conv("stem", net.input, 4, kernel=1)
    x = net.relu("relu1", net.conv("first", x, 4, kernel=1))
    x = net.relu("relu2", net.conv("second", x, 4, kernel=1))
    graph = net.finish(net.linear("fc", net.global_pool("pool", x), 3))
    nodes = tuple(replace(n, weights="first" if n.name == "second" else None) for n in graph.nodes)
    graph = replace(graph, nodes=nodes)
    network, data = trained(graph), pictures(graph)
    # What both calls give is one group with what the first of them reads.
    (group,) = couple(graph).free
    expected = gated_scores(network, data, {"stem": ["stem"], "first": ["relu1", "relu2"]})
    found = Taylor(form="activation").propose(subject_of(network, data)).scores[group.name]
    np.testing.assert_allclose(found, expected["stem"] + expected["first"], rtol=1e-3)


def test_heads_and_places_within_them_score_their_own_entries():
    graph = attending()
    network, data = trained(graph), pictures(graph)
    images, labels = seen(data)
    kept = {}
    module = network.node("qkv")
    handle = module.register_forward_hook(lambda m, read, value: kept.update(value=value))
    loss = functional.cross_entropy(network(images), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, [kept["value"]])
    handle.remove()
    scores = (kept["value"].detach() * gradient).mean(dim=1).abs().mean(dim=0).double()
    scores = (scores / scores.norm()).reshape(3, 4, 6).numpy()
    found = Taylor(form="activation").propose(subject_of(network, data)).scores
    np.testing.assert_allclose(found["qkv.heads"], scores.sum(axis=(0, 2)), rtol=1e-3)
    np.testing.assert_allclose(found["qkv"], scores.sum(axis=(0, 1)), rtol=1e-3)


def test_a_map_is_the_last_value_that_is_the_layers_own():
    graph, tokens = GRAPHS["gated"](), attending()
    ends = {name: tail(graph, couple(graph), name) for name in ("stem", "body", "reduce", "expand")}
    assert ends == {"stem": "relu", "body": "relu1", "reduce": "relu2", "expand": "sigmoid"}
    assert tail(tokens, couple(tokens), "fc1") == "gelu"
    assert tail(tokens, couple(tokens), "qkv") == "qkv"


def test_a_map_that_others_read_is_taken_before_the_activation():
    net = GraphWriter((3, 4, 4))
    x = net.conv("conv", net.input, 6, kernel=1)
    graph = net.finish(
        net.linear("fc", net.global_pool("pool", net.join("add", x, net.relu("relu", x))), 5)
    )
    assert tail(graph, couple(graph), "conv") == "conv"


@pytest.mark.parametrize("form", ["weight", "activation"])
@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("name", [*GRAPHS, "attending"])
def test_channels_of_every_graph_can_go(name, scope, form):
    graph = attending() if name == "attending" else GRAPHS[name]()
    network, data = trained(graph), pictures(graph)
    found = generate(
        "taylor", graph, data, keep=0.5, form=form, scope=scope, network=network, training=True
    )
    assert 0.35 < found.origin.reached < 0.65
    small = build(apply(graph, found)).eval()
    assert small(torch.zeros(2, *graph.input_size)).shape == (2, graph.classes)


@settings(max_examples=25, deadline=None)
@given(graph=graphs(), form=st.sampled_from(["weight", "activation"]), training=st.booleans())
def test_any_graph_loses_channels(graph, form, training):
    if not couple(graph).free:
        return
    data = pictures(graph, train=20)
    network = trained(graph)
    found = generate("taylor", graph, data, keep=0.5, form=form, network=network, training=training)
    small = build(apply(graph, found)).eval()
    assert small(torch.zeros(1, *graph.input_size)).shape == (1, graph.classes)


@pytest.mark.parametrize("form", ["weight", "activation"])
def test_neither_the_network_nor_the_random_state_is_touched(form):
    graph = GRAPHS["mobilenet_v2"]()
    network, data = trained(graph), pictures(graph)
    before = copy.deepcopy(network.state_dict())
    state = torch.get_rng_state()
    options = {"keep": 0.5, "network": network, "form": form, "training": True, "seed": 3}
    assert generate("taylor", graph, data, **options) == generate("taylor", graph, data, **options)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())
    assert not network.training


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"form": "gate"}, "form is one of weight, activation"),
        ({"form": "activation", "joint": True}, "joint goes with form='weight'"),
        ({"scope": "one", "reduction": "no"}, "scope is one of .*; reduction is one of"),
        ({"images": 0}, "images is at least 1"),
        ({"batch": 1, "training": True}, "batch is at least 1, in training 2"),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(MethodError, match=words):
        Taylor(**options)
