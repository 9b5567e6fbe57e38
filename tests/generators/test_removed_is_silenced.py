"""Taking channels out computes what setting their batch norms to zero computes."""

import pytest
import torch

from prunenas.build.inherit import inherit
from prunenas.families.base import reference
from prunenas.generators.base import generate
from prunenas.ir.coupling import couple
from prunenas.ir.ops import BatchNorm, PadChannels
from tests.generators.networks import GRAPHS, attending, silenced, trained


def outputs(*networks):
    images = torch.randn(
        4, *networks[0].graph.input_size, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        return [network.eval()(images) for network in networks]


def relative(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


def padded(graph):
    """Return the groups on either side of a shortcut that appends channels."""
    axes = couple(graph).axes
    pads = [node for node in graph.nodes if isinstance(node.op, PadChannels)]
    return {s.group for node in pads for name in node.inputs for s in axes[name]}


def descending(network):
    """Let earlier channels score higher wherever channels pass through a padded shortcut.

    Such a shortcut passes channel i to channel i, so both sides must lose the same places.
    """
    graph = network.graph
    groups = couple(graph)
    with torch.no_grad():
        for group in map(groups.__getitem__, padded(graph)):
            falling = torch.linspace(1.0, 0.2, group.width)
            for member in group.members:
                weight = network.node(member).weight
                sums = weight.abs().flatten(1).sum(dim=1) / falling
                weight.div_(sums.view(-1, 1, 1, 1))
            for node in graph.nodes:
                if isinstance(node.op, BatchNorm) and groups.axes[node.name][0].group == group.name:
                    network.node(node.name).weight.copy_(falling)
    return network


@pytest.mark.parametrize("keep", [0.4, 0.7])
@pytest.mark.parametrize("name", GRAPHS)
def test_slimming_equals_scales_and_shifts_of_zero(name, keep):
    graph = GRAPHS[name]()
    network = descending(trained(graph))
    found = generate("network_slimming", graph, keep=keep, network=network)
    small, zeroed, whole = outputs(
        inherit(network, found), silenced(network, found, filters=False), network
    )
    assert relative(small, zeroed) < 1e-5
    assert relative(small, whole) > 1e-2


@pytest.mark.parametrize("keep", [0.4, 0.7])
@pytest.mark.parametrize("name", GRAPHS)
def test_l1_norm_equals_filters_scales_and_shifts_of_zero(name, keep):
    graph = GRAPHS[name]()
    network = descending(trained(graph))
    found = generate("l1_norm", graph, keep=keep, network=network)
    small, zeroed, whole = outputs(
        inherit(network, found), silenced(network, found, filters=True), network
    )
    assert relative(small, zeroed) < 1e-5
    assert relative(small, whole) > 1e-2


@pytest.mark.parametrize("keep", [0.3, 0.6])
def test_heads_and_their_width_equal_rows_of_zero(keep):
    """True of attention whose scale is given; norms over channels would count what is zero."""
    graph = attending()
    network = trained(graph)
    found = generate("l1_norm", graph, keep=keep, network=network)
    assert {"embed", "qkv.heads", "qkv", "fc1"} == {*found.selections}
    small, zeroed, whole = outputs(
        inherit(network, found), silenced(network, found, filters=True), network
    )
    assert relative(small, zeroed) < 1e-5
    assert relative(small, whole) > 1e-2


def test_a_shift_that_stays_is_not_silence():
    """Scales alone would leave the shifts of removed channels behind."""
    graph = reference("vgg11", (3, 16, 16), 5, width=0.25)
    network = trained(graph)
    found = generate("network_slimming", graph, keep=0.5, network=network)
    half = silenced(network, found, filters=False)
    with torch.no_grad():
        for name, _ in network.scales():
            half.node(name).bias.copy_(network.node(name).bias)
    small, loud = outputs(inherit(network, found), half)
    assert relative(small, loud) > 1e-2
