"""Factors beside a network: where they stand, and that folding them changes nothing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunenas.build.initialise import build
from prunenas.generators.base.factors import BlockFactors, ChannelFactors
from tests.generators.networks import GRAPHS, attending, trained
from tests.generators.residuals import postact, preact, some
from tests.graphs import graphs

EVERY = {**GRAPHS, "attending": attending}
KINDS = {"blocks": BlockFactors, "neurons": ChannelFactors}


def drawn(factors, seed=0):
    """Return factors in [0, 2), some of them 0."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, size in factors.sizes.items():
        values = torch.rand(size, generator=generator) * 2
        found[name] = values * (torch.rand(size, generator=generator) > 0.2)
    return found


def test_a_block_s_factor_multiplies_its_branch_before_the_addition():
    graph = preact()
    network = trained(graph)
    factors = BlockFactors.of(graph)
    values = {"add1": torch.tensor([0.25]), "add2": torch.tensor([3.0])}
    seen = {}
    for name in ("branch1", "shortcut", "branch2b", "add1", "add2"):
        network.node(name).register_forward_hook(
            lambda _, __, out, name=name: seen.__setitem__(name, out)
        )
    with torch.no_grad(), factors.attached(network, values):
        network(some(graph))
    torch.testing.assert_close(seen["add1"], 0.25 * seen["branch1"] + seen["shortcut"])
    torch.testing.assert_close(seen["add2"], 3 * seen["branch2b"] + seen["add1"])


def test_a_channel_s_factor_stands_behind_its_last_batch_norm_in_every_member():
    found = {
        layer: [p.name for p in places]
        for layer, places in ChannelFactors.of(postact()).layers.items()
    }
    assert found == {"bn1": ["a"], "bn": ["stem"], "bn2": ["stem"]}
    graph = GRAPHS["mobilenet_v2"]()
    layers = ChannelFactors.of(graph).layers
    # The expanded channels pass a depthwise convolution and its batch norm, which would undo it.
    expanded = [name for name, places in layers.items() if places[0].name == "features.2.conv.0.0"]
    assert expanded == ["features.2.conv.1.1"]


def test_without_a_batch_norm_the_convolution_carries_the_factor():
    graph = preact()
    layers = ChannelFactors.of(graph).layers
    groups = {layer: [p.name for p in places] for layer, places in layers.items()}
    assert groups == {
        "bn1": ["stem"],
        "bn1b": ["branch1a"],
        "bn2": ["branch1"],
        "bn2b": ["branch2a"],
        # The head reads the trunk past no batch norm.
        "branch1": ["branch1"],
        "shortcut": ["branch1"],
        "branch2b": ["branch1"],
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", EVERY)
def test_folding_leaves_the_outputs_equal(name, kind):
    graph = EVERY[name]()
    network = trained(graph).double()
    factors = KINDS[kind].of(graph)
    values = {name: value.double() for name, value in drawn(factors).items()}
    x = some(graph).double()
    with torch.no_grad():
        whole = network(x)
        with factors.attached(network, values):
            scaled = network(x)
        torch.testing.assert_close(network(x), whole, rtol=0, atol=0)
        factors.fold(network, values)
        folded = network(x)
    torch.testing.assert_close(folded, scaled, rtol=1e-9, atol=1e-12)
    if values:
        assert not torch.allclose(folded, whole, rtol=1e-6)


@pytest.mark.parametrize("graph", [preact(), postact()], ids=["conv", "bn"])
def test_folding_a_branch_s_end_leaves_the_outputs_equal(graph):
    network = trained(graph).double()
    factors = BlockFactors.of(graph)
    assert not factors.left_alone
    values = {name: torch.tensor([0.3], dtype=torch.float64) for name in factors.sizes}
    with torch.no_grad():
        with factors.attached(network, values):
            scaled = network(some(graph).double())
        factors.fold(network, values)
        folded = network(some(graph).double())
    torch.testing.assert_close(folded, scaled, rtol=1e-10, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(graphs(), st.integers(0, 9))
def test_folding_leaves_random_graphs_as_they_were_scaled(graph, seed):
    network = build(graph, seed=seed).double().eval()
    for kind in KINDS.values():
        factors = kind.of(graph)
        assert not {*factors.sizes} & {*factors.left_alone}
        values = {name: value.double() for name, value in drawn(factors, seed).items()}
        x = some(graph, seed=seed).double()
        with torch.no_grad():
            with factors.attached(network, values):
                scaled = network(x)
            factors.fold(network, values)
            torch.testing.assert_close(network(x), scaled, rtol=1e-7, atol=1e-9)
