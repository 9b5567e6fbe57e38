"""SNIP: sensitivities against autograd, of weights and of whole channels."""

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
from prunenas.generators.base.weights import present
from prunenas.generators.snip import Snip
from prunenas.ir.coupling import couple
from tests.generators.networks import GRAPHS, attending, trained
from tests.generators.pictures import pictures, seen, subject_of
from tests.graphs import graphs


def sensitivities(network, layers, images, labels):
    """Return the derivative of the loss by an indicator of each weight, at one."""
    indicators = {name: torch.ones_like(network.weight(name)) for name in layers}
    for indicator in indicators.values():
        indicator.requires_grad_(True)
    masked = {f"{n}.weight": network.weight(n) * c for n, c in indicators.items()}
    scores = torch.func.functional_call(network, masked, (images,))
    loss = functional.cross_entropy(scores, labels)
    found = torch.autograd.grad(loss, [*indicators.values()])
    return {name: g.double().numpy() for name, g in zip(indicators, found, strict=True)}


def kernels(graph):
    kinds = ("Conv2d", "Depthwise2d", "Linear")
    return [node.name for node in graph.nodes if type(node.op).__name__ in kinds]


@pytest.mark.parametrize("name", ["vgg11", "gated", "mobilenet_v2"])
def test_the_most_sensitive_weights_of_a_fresh_network_stay(name):
    graph = GRAPHS[name]()
    data = pictures(graph)
    found = generate("snip", graph, data, keep=0.1, seed=4)
    network = build(graph, seed=4).eval()
    scores = {n: abs(g) for n, g in sensitivities(network, kernels(graph), *seen(data)).items()}
    every = np.concatenate([scores[name].ravel() for name in found.masks])
    count = round(len(every) * 0.1)
    threshold = np.sort(every)[len(every) - count]
    assert found.masks.keys() == scores.keys()
    kept = np.concatenate([mask.array().ravel() for mask in found.masks.values()])
    assert kept.sum() == count + len(found.origin.kept_best)
    assert (kept != (every >= threshold)).sum() <= 2 + len(found.origin.kept_best)


def test_the_network_is_fresh_unless_one_is_given():
    graph = GRAPHS["gated"]()
    data = pictures(graph)
    fresh = generate("snip", graph, data, keep=0.3, seed=2)
    assert fresh == generate("snip", graph, data, keep=0.3, seed=2, network=build(graph, seed=2))
    assert fresh != generate("snip", graph, data, keep=0.3, seed=2, network=trained(graph))


@pytest.mark.parametrize("joint", [False, True])
def test_a_channel_is_scored_by_its_filter(joint):
    graph = GRAPHS["resnet20"]()
    network, data = trained(graph), pictures(graph)
    subject = subject_of(network, data)
    found = Snip(form="widths", joint=joint).propose(subject)
    products = sensitivities(network, kernels(graph), *seen(data))
    groups = couple(graph)
    scored = {m for group in groups.free for m in group.members}
    total = sum(abs(products[name]).sum() for name in scored)
    for group in groups.free:
        by_hand = 0.0
        for member in group.members:
            rows = products[member].reshape(group.width, -1) / total
            by_hand = by_hand + (abs(rows.sum(1)) if joint else abs(rows).sum(1))
        np.testing.assert_allclose(found.scores[group.name], by_hand, rtol=2e-3, atol=1e-8)


def test_the_joint_score_vanishes_behind_a_batch_norm_in_training_mode():
    """Why it is no default: the loss does not change with the scale of such a filter."""
    graph = GRAPHS["resnet20"]()
    subject = subject_of(trained(graph), pictures(graph))
    alone, joint = (
        Snip(form="widths", joint=joint, training=True).propose(subject).scores["conv1"]
        for joint in (False, True)
    )
    assert joint.max() < 1e-2 * alone.min()


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("name", [*GRAPHS, "attending"])
def test_channels_of_every_graph_can_go(name, scope):
    graph = attending() if name == "attending" else GRAPHS[name]()
    found = generate(
        "snip", graph, pictures(graph), keep=0.5, form="widths", scope=scope, reduction="max"
    )
    assert 0.35 < found.origin.reached < 0.65
    small = build(apply(graph, found)).eval()
    assert small(torch.zeros(2, *graph.input_size)).shape == (2, graph.classes)


@settings(max_examples=25, deadline=None)
@given(graph=graphs(), keep=st.sampled_from([0.2, 0.6]), form=st.sampled_from(["masks", "widths"]))
def test_any_graph_loses_weights_or_channels(graph, keep, form):
    data = pictures(graph, train=20)
    if form == "widths" and not couple(graph).free:
        return
    found = generate("snip", graph, data, keep=keep, form=form, network=trained(graph))
    small = build(apply(graph, found)).eval()
    assert small(torch.zeros(1, *graph.input_size)).shape == (1, graph.classes)
    if form == "masks":
        # Some of these graphs are under masks already.
        total = sum(int(mask.sum()) for mask in present(graph, found.masks).values())
        kept = sum(mask.kept for mask in found.masks.values())
        assert max(1, round(total * keep)) == kept - len(found.origin.kept_best)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"form": "channels"}, "form is one of masks, widths"),
        ({"joint": True}, "joint goes with form='widths'"),
        ({"reduction": "median"}, "reduction is one of"),
        ({"images": 0}, "images is at least 1"),
        ({"layers": "fc", "scope": "one", "rule": "no"}, "layers is one of .*; scope .*; rule"),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(MethodError, match=words):
        Snip(**options)


def test_the_form_says_what_is_counted():
    assert Snip().counts == "weights"
    assert Snip(form="widths").counts == "channels"
