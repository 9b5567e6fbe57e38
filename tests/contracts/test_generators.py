"""Every registered method keeps these promises; none is named here."""

import random
from dataclasses import fields
from functools import cache

import numpy as np
import pytest
import torch

from prunenas.arch.descriptor import apply
from prunenas.arch.profile import StageProfile
from prunenas.arch.spec import ArchSpec, load
from prunenas.build.inherit import inherit
from prunenas.build.initialise import build
from prunenas.data.shapes import shapes
from prunenas.errors import BudgetError, DataError, KeepError, MethodError, UnknownNameError
from prunenas.generators.base import GENERATORS, generate
from prunenas.ir.canonical import digest
from prunenas.ir.coupling import couple
from prunenas.ir.writer import GraphWriter
from prunenas.training.recipe import Recipe
from tests.generators.networks import GRAPHS, trained

METHODS = GENERATORS.names()
TRAINING = [name for name in METHODS if GENERATORS[name].looks_at == "trained"]
KEEPS = (0.3, 0.5, 0.8)

every_method = pytest.mark.parametrize("method", METHODS)
every_graph = pytest.mark.parametrize("name", GRAPHS)
every_keep = pytest.mark.parametrize("keep", KEEPS)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks this small lose more than they gain by a second one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def subject(name):
    graph = GRAPHS[name]()
    return graph, trained(graph)


@cache
def pruned(method, name, keep):
    graph, network = subject(name)
    return generate(method, graph, keep=keep, network=network)


def every_width(graph, descriptor):
    return couple(graph).widths | dict(descriptor.widths)


def random_states():
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def same_states(first, second):
    assert first[0] == second[0]
    assert all(np.array_equal(a, b) for a, b in zip(first[1], second[1], strict=True))
    assert torch.equal(first[2], second[2])


@every_graph
@every_method
def test_the_descriptor_applies_and_the_network_runs(method, name):
    graph, _ = subject(name)
    descriptor = pruned(method, name, 0.5)
    network = build(apply(graph, descriptor)).eval()
    assert network(torch.zeros(2, *graph.input_size)).shape == (2, graph.classes)


@every_keep
@every_graph
@every_method
def test_widths_obey_divisors_and_bounds_and_fixed_groups_stay(method, name, keep):
    graph, _ = subject(name)
    groups = couple(graph)
    widths = every_width(graph, pruned(method, name, keep))
    assert widths.keys() == groups.widths.keys()
    for group in groups:
        if group.fixed is not None:
            assert widths[group.name] == group.width
        assert 1 <= widths[group.name] <= group.width
        assert widths[group.name] % group.divisor == 0
    assert all(bound.excess(widths) <= 0 for bound in groups.bounds)


@every_keep
@every_graph
@every_method
def test_the_reached_keep_counts_each_free_group_once(method, name, keep):
    graph, _ = subject(name)
    descriptor = pruned(method, name, keep)
    widths = every_width(graph, descriptor)
    free = [group for group in couple(graph) if group.fixed is None]
    kept, full = sum(widths[g.name] for g in free), sum(g.width for g in free)
    assert kept < full
    assert descriptor.origin.reached == pytest.approx(kept / full, rel=1e-12)
    assert (descriptor.origin.method, descriptor.origin.keep) == (method, keep)


@every_graph
@every_method
def test_a_larger_keep_keeps_more(method, name):
    reached = [pruned(method, name, keep).origin.reached for keep in KEEPS]
    assert reached == sorted(set(reached))


@every_graph
@every_method
def test_the_same_seed_gives_the_same_descriptor(method, name):
    graph, network = subject(name)
    first, again = (generate(method, graph, keep=0.5, network=network, seed=3) for _ in range(2))
    assert first == again
    assert first.origin == again.origin
    assert first.seed == first.origin.options["seed"] == 3


@pytest.mark.filterwarnings("ignore:the inherited network is not the reference")
@every_graph
@pytest.mark.parametrize("method", TRAINING)
def test_what_a_trained_network_told_is_told_well_enough_to_inherit_it(method, name):
    graph, network = subject(name)
    descriptor = pruned(method, name, 0.5)
    small = inherit(network, descriptor)
    assert digest(small.graph) == digest(apply(graph, descriptor))


@every_graph
@every_method
def test_looking_changes_neither_the_network_nor_the_random_states(method, name):
    graph = GRAPHS[name]()
    network = trained(graph)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    states = random_states()
    generate(method, graph, keep=0.5, network=network, seed=1)
    same_states(states, random_states())
    assert not network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


@every_graph
@every_method
def test_keeping_all_is_the_identity_and_needs_neither_network_nor_data(method, name):
    graph, _ = subject(name)
    descriptor = generate(method, graph, keep=1)
    assert apply(graph, descriptor) == graph
    assert not descriptor.widths
    assert not descriptor.selections
    assert descriptor.origin.reached == 1


@every_graph
@every_method
def test_a_tiny_keep_leaves_a_channel_everywhere_or_is_refused_with_the_least(method, name):
    graph, network = subject(name)
    try:
        descriptor = generate(method, graph, keep=1e-4, network=network)
    except BudgetError as refusal:
        assert "the smallest network keeps" in str(refusal)
        return
    widths = every_width(graph, descriptor)
    assert all(width >= 1 for width in widths.values())
    assert {*descriptor.origin.kept_best} <= {group.name for group in couple(graph).free}
    build(apply(graph, descriptor)).eval()(torch.zeros(1, *graph.input_size))


@every_graph
@every_method
def test_the_result_amounts_to_a_profile_of_the_graph(method, name):
    graph, _ = subject(name)
    profile = StageProfile.of(graph, pruned(method, name, 0.5))
    profile.check(graph)
    assert all(0 < keep <= 1 for keep in profile.keeps.values())
    assert min(profile.keeps.values()) < 1
    assert method in profile.source


@every_graph
@every_method
def test_the_result_survives_a_spec(method, name, tmp_path):
    graph, _ = subject(name)
    descriptor = pruned(method, name, 0.5)
    spec = ArchSpec.of(graph, descriptor, name="pruned")
    again = load(spec.save(tmp_path / "pruned.json"))
    assert again == spec
    assert again.descriptor.origin == descriptor.origin
    assert again.graph == apply(graph, descriptor)


@every_method
def test_an_unknown_option_is_refused_with_those_that_exist(method):
    graph, network = subject("vgg11")
    with pytest.raises(MethodError, match="has no option colour") as refusal:
        generate(method, graph, keep=0.5, network=network, colour="red")
    known = [field.name for field in fields(GENERATORS[method])] or ["none"]
    assert all(option in str(refusal.value) for option in known)


@pytest.mark.parametrize("keep", [0, -1, 1.5, float("nan"), float("inf")])
@every_method
def test_a_keep_that_is_no_fraction_is_refused(method, keep):
    graph, network = subject("vgg11")
    with pytest.raises(KeepError, match="fraction in"):
        generate(method, graph, keep=keep, network=network)


@every_method
def test_a_network_of_another_graph_is_refused_with_both_digests(method):
    graph, _ = subject("vgg11")
    other, network = subject("resnet20")
    with pytest.raises(MethodError) as refusal:
        generate(method, graph, keep=0.5, network=network)
    assert digest(graph) in str(refusal.value)
    assert digest(other) in str(refusal.value)


@every_method
def test_a_graph_without_free_groups_is_refused(method):
    net = GraphWriter((3, 8, 8))
    graph = net.finish(net.linear("fc", net.global_pool("pool", net.input), 5))
    with pytest.raises(MethodError, match="network output"):
        generate(method, graph, keep=0.5, network=build(graph))


@pytest.mark.parametrize("method", TRAINING)
def test_a_method_that_trains_asks_for_data_or_a_network(method):
    graph, _ = subject("vgg11")
    with pytest.raises(MethodError, match="give it data, or a trained network"):
        generate(method, graph, keep=0.5)


@pytest.mark.parametrize("method", TRAINING)
def test_data_of_another_size_or_number_of_classes_is_refused(method):
    graph, _ = subject("resnet20")
    data = shapes(train=40, test=10, side=16)
    with pytest.raises(DataError) as refusal:
        generate(method, graph, data, keep=0.5, recipe=Recipe(epochs=1))
    assert "[3, 16, 16]" in str(refusal.value)
    assert "10 classes, it has 5" in str(refusal.value)


@pytest.mark.parametrize("method", sorted({*METHODS} - {*TRAINING}))
def test_a_method_that_does_not_train_needs_the_graph_alone(method):
    graph, network = subject("vgg11")
    alone = generate(method, graph, keep=0.5, seed=2)
    assert alone == generate(method, graph, keep=0.5, seed=2, network=network)


def test_an_unknown_method_is_refused_with_those_that_exist():
    graph, network = subject("vgg11")
    with pytest.raises(UnknownNameError, match="unknown method 'magic'") as refusal:
        generate("magic", graph, keep=0.5, network=network)
    assert all(method in str(refusal.value) for method in METHODS)
