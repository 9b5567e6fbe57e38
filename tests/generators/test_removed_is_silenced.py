"""Taking channels out computes what setting their batch norms to zero computes."""

import copy
import warnings

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from prunenas.build.inherit import inherit
from prunenas.build.silence import silence
from prunenas.errors import DescriptorError
from prunenas.families.base import reference
from prunenas.generators.base import GENERATORS, generate, make_generator
from prunenas.ir.coupling import couple
from prunenas.ir.ops import BatchNorm, PadChannels
from prunenas.testing.looking import Looking
from tests.generators.networks import GRAPHS, attending, silenced, trained
from tests.generators.silent_graphs import cut_by_chance, silent_graphs


def outputs(*networks):
    images = torch.randn(
        4, *networks[0].graph.input_size, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        return [network.eval()(images) for network in networks]


def relative(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


def cut(network, descriptor):
    """Return the cut network; None where it is told not to be the reference less channels."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return inherit(network, descriptor)
        except UserWarning as told:
            assert "is not the reference with channels removed" in str(told)
            return None


def without(network, descriptor):
    """Return a copy that is silenced by what methods use."""
    groups, twin = couple(network.graph), copy.deepcopy(network)
    gone = {
        name: {*range(groups[name].width)} - {*kept} for name, kept in descriptor.selections.items()
    }
    silence(twin, groups, gone)
    return twin


def same(found, expected, tolerance=1e-4):
    """Within float noise; what is zero everywhere has none."""
    return float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())


@settings(max_examples=100)
@given(graph=silent_graphs(), seed=st.integers(0, 9))
def test_any_legal_selection_on_any_graph_equals_silence(graph, seed):
    network, found = trained(graph, seed=seed), cut_by_chance(graph, seed)
    assume(found.selections and {*found.widths} == {*found.selections})
    try:
        small = cut(network, found)
    except DescriptorError as refusal:
        assert "lost some of its source's channels" in str(refusal)
        small = None
    assume(small is not None)
    cut_out, zeroed, silent = outputs(
        small, silenced(network, found, filters=True), without(network, found)
    )
    assert same(cut_out, zeroed)
    assert same(silent, zeroed)


def test_the_random_graphs_are_of_every_kind_and_lose_something_that_counts():
    """A law on graphs that are all alike, or on cuts that change nothing, says little."""
    kinds = {"Add", "Concat", "Depthwise2d", "Select", "Gate", "Shuffle", "Split"}
    seen, told = [], []

    @settings(max_examples=60, database=None)
    @given(graph=silent_graphs(), seed=st.integers(0, 9))
    def look(graph, seed):
        seen.extend(type(node.op).__name__ for node in graph.nodes)
        network, found = trained(graph, seed=seed), cut_by_chance(graph, seed)
        if found.selections and {*found.widths} == {*found.selections}:
            whole, silent = outputs(network, without(network, found))
            told.append(not same(whole, silent, 1e-2))

    look()
    assert kinds <= {*seen}
    assert sum(told) > 0.5 * len(told) > 20


STRUCTURED = [name for name in GENERATORS.names() if make_generator(name).counts == "channels"]
TELLING = [name for name in STRUCTURED if GENERATORS[name].looks_at in ("initial", "trained")]


def looking(name):
    return type(name, (Looking,), {"method": name})


@pytest.mark.parametrize("method", STRUCTURED)
def test_what_every_method_selects_equals_silence(method):
    """Before any refit: the weights are those that the method was given."""
    heard, looker = [], looking(method)
    few = ("densenet", "grouped", "inverted")
    for name in few if looker.needs_images() else looker.graph_names():
        graph, network = looker.subject(name)
        found = looker.found(name, looker.middle())
        if {*found.widths} != {*found.selections}:
            with pytest.raises(DescriptorError, match="the kept channels are told"):
                inherit(network, found)
            assert method not in TELLING
            continue
        small = cut(network, found)
        if small is None:
            assert any(isinstance(node.op, PadChannels) for node in graph.nodes)
            continue
        cut_out, zeroed, silent = outputs(
            small, silenced(network, found, filters=True), without(network, found)
        )
        assert same(cut_out, zeroed), name
        assert same(silent, zeroed), name
        heard.append(name)
    assert len(heard) >= 3 or method not in TELLING


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
