"""Networks that are handed in: what methods may make of them, and what they may not assume."""

import inspect
from dataclasses import dataclass

import pytest
import torch

from prunenas.build.initialise import build
from prunenas.errors import KeepError, MethodError
from prunenas.families.base import reference
from prunenas.generators.base import GENERATORS, Generator, Proposal, make_generator, prune
from prunenas.generators.base.method import _TAKEN
from prunenas.training.recipe import Recipe, named_recipe
from tests.generators.networks import GRAPHS, trained
from tests.generators.pictures import pictures

RECIPE = Recipe(epochs=1, batch=16, lr=0.01, augment=False)


@pytest.fixture(scope="module")
def graph():
    return GRAPHS["vgg11"]()


@pytest.fixture(scope="module")
def data(graph):
    return pictures(graph)


@pytest.fixture
def network(graph):
    return trained(graph)


def test_a_given_network_is_not_rewound_to_where_it_did_not_begin(graph, data, network):
    options = {"schedule": "geometric", "rewind": True, "rounds": 2, "epochs": 1}
    with pytest.raises(MethodError, match="are not known"):
        prune("magnitude", graph, data, network=network, keep=0.5, recipe=RECIPE, **options)
    here = prune("magnitude", graph, data, keep=0.5, recipe=RECIPE, **options)
    assert here.refit is not None


@pytest.mark.parametrize("method", ["snip", "network_slimming"])
def test_states_of_devices_where_nothing_is_trained_are_not_set(graph, data, method, monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", calls.append)
    before = torch.get_rng_state()
    prune(method, graph, data, keep=0.5, recipe=RECIPE)
    assert not calls
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("thinet", {"tune_epochs": 1}),
        ("magnitude", {"schedule": "geometric", "epochs": 1, "rounds": 2}),
        ("magnitude", {"schedule": "geometric", "epochs": 1, "rounds": 2, "lr": 0.001}),
    ],
)
def test_tuning_between_steps_has_no_sparse_phase_and_no_warm_up(
    graph, data, network, method, options
):
    recipe = named_recipe("dsd", batch=16, lr=0.01)
    found = prune(method, graph, data, network=network, keep=0.5, recipe=recipe, **options)
    assert found.refit is not None


def test_weights_that_nobody_looked_at_are_not_handed_out():
    graph = reference("resnet20", (3, 8, 8), 5, width=0.5)
    data = pictures(graph)
    found = prune("morphnet", graph, data, keep=0.5, rounds=1, recipe=RECIPE)
    assert found.reference is None
    with pytest.raises(MethodError, match="no weights"):
        found.network()


def test_keeping_all_of_a_given_network_is_that_network(graph, network):
    found = prune("l1_norm", graph, network=network, keep=1)
    assert found.reference is network
    images = torch.randn(2, *graph.input_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(found.network().eval()(images), network.eval()(images))


def test_keeping_all_of_another_network_is_refused(graph):
    with pytest.raises(MethodError, match="the network is of the graph"):
        prune("l1_norm", graph, network=build(GRAPHS["resnet20"]()), keep=1)


def test_all_is_no_keep_either_where_an_option_says_how_much(graph, network):
    with pytest.raises(KeepError, match="says how much"):
        prune("l1_norm", graph, network=network, keep=1, keeps={"stage1": 0.5})


def test_a_frozen_network_is_trained_all_the_same():
    graph = reference("resnet20", (3, 8, 8), 5, width=0.5)
    network = trained(graph).requires_grad_(False)
    found = prune(
        "sparse_structure", graph, pictures(graph), network=network, keep=0.5, recipe=RECIPE
    )
    name = "layer1.0.conv1"
    assert not torch.equal(found.refit.weight(name), network.weight(name))
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_hooks_of_the_caller_see_nothing_of_what_methods_do(graph, data, network):
    seen = []
    handles = [
        network.register_forward_hook(lambda *read: seen.append(read)),
        network.register_forward_pre_hook(lambda *read: seen.append(read)),
    ]
    prune("apoz", graph, data, network=network, keep=0.5, images=16)
    assert not seen
    network(torch.zeros(1, *graph.input_size))
    assert len(seen) == len(handles)


def test_scales_that_tie_are_told(graph, network):
    found = prune("network_slimming", graph, network=build(graph), keep=0.5).descriptor
    total = sum(module.numel() for _, module in network.scales())
    assert found.origin.found["tied"] == total
    distinct = prune("network_slimming", graph, network=network, keep=0.5).descriptor
    assert "tied" not in distinct.origin.found


def test_no_argument_of_prune_can_be_an_option():
    arguments = {*inspect.signature(prune).parameters} - {"options"}
    assert arguments <= _TAKEN


@pytest.mark.parametrize("name", ["seed", "weights", "recipe", "network"])
def test_an_option_cannot_have_a_name_that_means_something_else(name, monkeypatch):
    def propose(self, subject):
        return Proposal()

    fields = {"__annotations__": {name: int}, name: 0, "propose": propose}
    kind = dataclass(frozen=True, kw_only=True)(type("Clash", (Generator,), fields))
    GENERATORS.names()
    monkeypatch.setitem(GENERATORS._entries, "clash", kind)
    with pytest.raises(MethodError, match=f"no option can be called {name}"):
        make_generator("clash")
