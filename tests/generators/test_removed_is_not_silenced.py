"""Where removed does not equal silenced, or not as it stands: each case, and what holds instead."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from prunenas.arch.descriptor import Descriptor
from prunenas.build.inherit import inherit
from prunenas.build.initialise import build
from prunenas.generators.base import GENERATORS, make_generator
from prunenas.ir.canonical import digest
from prunenas.ir.coupling import couple
from prunenas.ir.ops import (
    Attention,
    Flatten,
    GroupNorm,
    LayerNorm,
    Linear,
    Permute,
    Reduce,
    Reshape,
    RmsNorm,
)
from prunenas.ir.writer import GraphWriter
from prunenas.testing.looking import Looking
from tests.generators.networks import silenced, trained

KEPT = (0, 2, 3, 6, 8, 11)
"""Of 12 channels; of three parts of 4, two each."""


def outputs(*networks, seed=0):
    size = networks[0].graph.input_size
    images = torch.randn(4, *size, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return images, *(network.eval()(images) for network in networks)


def differ(found, expected):
    return float((found - expected).abs().max()) > 1e-2 * float(expected.abs().max())


def kept(graph, group, channels=KEPT):
    return Descriptor(reference=digest(graph), selections={group: channels})


def drawn(graph):
    """Return a network none of whose scales, shifts and biases is 0 or 1."""
    network = trained(graph)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.2, 1.0, generator=generator)
    return network


def test_group_norms_count_zeros_too_and_the_cut_one_norms_what_is_left():
    net = GraphWriter((3, 6, 6))
    x = net.add("norm", GroupNorm(groups=3), net.conv("conv", net.input, 12, kernel=3))
    graph = net.finish(net.linear("fc", net.global_pool("pool", net.relu("relu", x)), 5))
    network = drawn(graph)
    found = kept(graph, "conv")
    small = inherit(network, found)
    images, cut, zeroed = outputs(small, silenced(network, found, filters=True))
    assert differ(cut, zeroed)
    with torch.no_grad():
        left = network.node("conv")(images)[:, list(KEPT)]
        norm, head = network.node("norm"), network.node("fc")
        scale, shift = norm.weight[list(KEPT)], norm.bias[list(KEPT)]
        left = functional.relu(functional.group_norm(left, 3, scale, shift)).mean((2, 3))
        expected = functional.linear(left, head.weight[:, list(KEPT)], head.bias)
    torch.testing.assert_close(cut, expected)


def tokens(norm):
    """An embedding of patches, a norm over its channels, and a head."""
    net = GraphWriter((3, 8, 8))
    x = net.conv("embed", net.input, 12, kernel=4, stride=4, padding=0)
    x = net.add("tokens", Permute(order=(0, 2, 1)), net.add("row", Reshape(sizes=(12, 4)), x))
    x = net.add("mean", Reduce(dims=(1,)), net.add("norm", norm, x))
    return net.finish(net.add("fc", Linear(width=5), x))


@pytest.mark.parametrize("norm", [LayerNorm(), RmsNorm()], ids=lambda norm: norm.kind)
def test_norms_over_channels_count_zeros_too_and_the_cut_one_norms_what_is_left(norm):
    graph = tokens(norm)
    network = drawn(graph)
    found = kept(graph, "embed")
    small = inherit(network, found)
    images, cut, zeroed = outputs(small, silenced(network, found, filters=True))
    assert differ(cut, zeroed)
    with torch.no_grad():
        left = network.node("embed")(images).flatten(2).transpose(1, 2)[..., list(KEPT)]
        module, head = network.node("norm"), network.node("fc")
        if norm.kind == "LayerNorm":
            left = left - left.mean(-1, keepdim=True)
        eps = module.eps or torch.finfo(torch.float32).eps
        left = left / (left.square().mean(-1, keepdim=True) + eps).sqrt()
        left = left * module.weight[list(KEPT)]
        left = left + module.bias[list(KEPT)] if norm.kind == "LayerNorm" else left
        expected = functional.linear(left.mean(1), head.weight[:, list(KEPT)], head.bias)
    torch.testing.assert_close(cut, expected)


def attention(scale):
    """Two heads of 12 channels on four tokens."""
    net = GraphWriter((3, 8, 8))
    x = net.conv("embed", net.input, 8, kernel=4, stride=4, padding=0)
    x = net.add("tokens", Permute(order=(0, 2, 1)), net.add("row", Reshape(sizes=(8, 4)), x))
    parts = []
    for name in "qkv":
        y = net.add(f"{name}_all", Linear(width=24), x)
        y = net.add(f"{name}_heads", Reshape(sizes=(4, 2, 12)), y)
        parts.append(net.add(name, Permute(order=(0, 2, 1, 3)), y))
    y = net.add("attend", Attention(scale=scale), *parts)
    y = net.add("back", Permute(order=(0, 2, 1, 3)), y)
    y = net.add("proj", Linear(width=8), net.add("merged", Reshape(sizes=(4, 24)), y))
    x = net.add("mean", Reduce(dims=(1,)), net.join("add", x, y))
    return net.finish(net.add("fc", Linear(width=5), x))


def test_query_and_key_widths_hold_where_the_scale_of_the_products_is_given():
    graph = attention(0.5)
    network = drawn(graph)
    found = kept(graph, query_group(graph))
    _, cut, zeroed = outputs(inherit(network, found), silenced(network, found, filters=True))
    torch.testing.assert_close(cut, zeroed, rtol=1e-4, atol=1e-6)


def test_a_scale_that_follows_the_width_grows_with_it_and_holds_once_it_is_put_back():
    graph = attention(None)
    network = drawn(graph)
    with torch.no_grad():  # large products, so that a scale tells
        network.node("q_all").weight.mul_(20)
    found = kept(graph, query_group(graph))
    small = inherit(network, found)
    _, cut, zeroed = outputs(small, silenced(network, found, filters=True))
    assert float((cut - zeroed).abs().max()) > 1e-3 * float(zeroed.abs().max())
    full_scale = replace(small.graph["attend"].op, scale=12**-0.5)
    nodes = tuple(
        replace(node, op=full_scale) if node.name == "attend" else node
        for node in small.graph.nodes
    )
    put_back = build(replace(small.graph, nodes=nodes))
    put_back.load_state_dict(small.state_dict())
    _, back = outputs(put_back)
    torch.testing.assert_close(back, zeroed, rtol=1e-4, atol=1e-6)


def query_group(graph):
    """Return the group of the channels that queries and keys are multiplied over."""
    (name,) = {f for s in couple(graph).dims["q"][3] for f in s.groups}
    return name


AT_ZERO = {"sigmoid": 0.5, "hardsigmoid": 0.5, "softplus": 0.6931472, "cos": 1.0, "exp": 1.0}


@pytest.mark.parametrize("function", AT_ZERO)
def test_activations_that_make_something_of_nothing_leave_a_constant_behind(function):
    net = GraphWriter((3, 6, 6))
    x = net.batch_norm("bn", net.conv("conv", net.input, 12, kernel=3))
    x = net.global_pool("pool", net.activation("act", x, function))
    graph = net.finish(net.linear("fc", x, 5))
    network = drawn(graph)
    found = kept(graph, "conv")
    _, cut, zeroed = outputs(inherit(network, found), silenced(network, found, filters=True))
    gone = sorted({*range(12)} - {*KEPT})
    constant = AT_ZERO[function] * network.node("fc").weight.detach()[:, gone].sum(dim=1)
    assert float(constant.abs().max()) > 1e-2
    torch.testing.assert_close(zeroed - cut, constant.expand(4, 5), rtol=1e-3, atol=1e-5)


def test_a_constant_behind_a_padded_convolution_is_one_for_each_position():
    """No constant at the borders: there the kernel reads padding, which stays zero."""
    net = GraphWriter((3, 6, 6))
    x = net.batch_norm("bn", net.conv("conv", net.input, 12, kernel=3))
    x = net.conv("next", net.activation("act", x, "sigmoid"), 4, kernel=3)
    graph = net.finish(net.linear("fc", net.add("flat", Flatten(), x), 5))
    network = drawn(graph)
    found = kept(graph, "conv")
    _, cut, zeroed = outputs(inherit(network, found), silenced(network, found, filters=True))
    _, cut2, zeroed2 = outputs(
        inherit(network, found), silenced(network, found, filters=True), seed=1
    )
    torch.testing.assert_close(zeroed - cut, zeroed2 - cut2, rtol=1e-3, atol=1e-5)
    gone = sorted({*range(12)} - {*KEPT})
    half = torch.full((1, len(gone), 6, 6), 0.5)
    with torch.no_grad():
        left = functional.conv2d(half, network.node("next").weight[:, gone], padding=1)
        constant = functional.linear(left.flatten(1), network.node("fc").weight)
    torch.testing.assert_close(zeroed - cut, constant.expand(4, 5), rtol=1e-3, atol=1e-5)


def test_what_is_fitted_anew_is_silent_in_the_fitted_network_not_in_the_reference():
    fitted = []
    for method in GENERATORS.names():
        kind = make_generator(method)
        if kind.counts != "channels" or not kind.reads:
            continue
        looker = type(method, (Looking,), {"method": method})
        graph, network = looker.subject("inverted")
        pruned = looker.pruned("inverted", 0.5)
        if pruned.refit is None:
            continue
        assert digest(pruned.refit.graph) == digest(graph)
        _, cut, zeroed, before = outputs(
            pruned.network(),
            silenced(pruned.refit, pruned.descriptor, filters=True),
            silenced(network, pruned.descriptor, filters=True),
        )
        torch.testing.assert_close(cut, zeroed, rtol=1e-4, atol=1e-5)
        assert differ(cut, before), method
        fitted.append(method)
    assert len(fitted) >= 2
