"""ThiNet, against the same sums written as loops, and the laws of what it gives."""

import copy
import itertools
import random
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from prunenas.build.inherit import inherit
from prunenas.build.initialise import build
from prunenas.errors import MethodError
from prunenas.generators.base import generate, prune
from prunenas.generators.thinet import discard_order
from prunenas.ir.coupling import couple
from prunenas.ir.draw import uniform
from prunenas.ir.ops import Conv2d
from prunenas.ir.writer import GraphWriter
from prunenas.training.batches.augment import normalise
from prunenas.training.recipe import Recipe
from tests.generators.networks import GRAPHS, attending, random_images, silenced, trained
from tests.graphs import graphs

EVERY = {**GRAPHS, "attending": attending}
FEW = {"images": 24, "locations": 4}


def plain():
    """Two convolutions and a linear layer: every group has one reader."""
    net = GraphWriter((2, 7, 7))
    x = net.relu("relu1", net.conv("first", net.input, 8, kernel=3))
    op = Conv2d(width=6, kernel=(3, 3), stride=(2, 2), padding=(1, 1), bias=True)
    x = net.relu("relu2", net.add("second", op, x))
    return net.finish(net.linear("fc", net.global_pool("pool", x), 3))


def greedy(rows, discards):
    """Return the order of discards, every choice tried out."""
    gone = []
    for _ in range(discards):
        tried = {
            c: float(np.square(rows[:, [*gone, c]].sum(axis=1)).sum())
            for c in range(rows.shape[1])
            if c not in gone
        }
        gone.append(min(tried, key=tried.get))
    return gone


def rows_of_second(network, images, data, seed, each):
    """Return every sample's contributions to ``second``, position by position."""
    with torch.no_grad():
        x = torch.relu(network.node("first")(normalise(images, data))).numpy().astype(np.float64)
    weight = network.weight("second").numpy().astype(np.float64)
    x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    count = len(x) * each
    where = (uniform(count, seed=seed, stream="locations of second") * 16).astype(int)
    outputs = (uniform(count, seed=seed, stream="outputs of second") * 6).astype(int)
    rows = np.zeros((count, 8))
    for i, channel, u, v in itertools.product(range(count), range(8), range(3), range(3)):
        top, left = 2 * (where[i] // 4), 2 * (where[i] % 4)
        rows[i, channel] += (
            weight[outputs[i], channel, u, v] * (x[i // each, channel, top + u, left + v])
        )
    return rows


def rows_of_fc(network, images, data, seed, each):
    with torch.no_grad():
        x = torch.relu(network.node("first")(normalise(images, data)))
        x = torch.relu(network.node("second")(x)).mean(dim=(2, 3)).numpy().astype(np.float64)
    weight = network.weight("fc").numpy().astype(np.float64)
    outputs = (uniform(len(x) * each, seed=seed, stream="outputs of fc") * 3).astype(int)
    return np.array([weight[o] * x[i // each] for i, o in enumerate(outputs)])


def test_selections_and_factors_are_those_of_brute_force_layer_by_layer():
    graph = plain()
    network, data = build(graph, seed=5).eval(), random_images(graph)
    images = data.part("fit").images
    found = prune("thinet", graph, data, keep=0.5, network=network, seed=3, locations=4)
    rows = rows_of_second(network, images, data, 3, 4)
    first = sorted({*range(8)} - {*greedy(rows, 4)})
    assert found.descriptor.selections["first"] == tuple(first)
    factors = np.linalg.lstsq(rows[:, first], rows.sum(axis=1), rcond=None)[0]
    own = network.weight("second")[:, first] * torch.tensor(factors)[:, None, None]
    refitted = found.refit.weight("second")
    torch.testing.assert_close(
        refitted[found_rows(found, "second")][:, first].double(),
        own[found_rows(found, "second")],
        rtol=1e-4,
        atol=1e-6,
    )
    missed = np.square(rows.sum(axis=1) - rows[:, first] @ factors).sum()
    whole = np.square(rows.sum(axis=1)).sum()
    errors = found.descriptor.origin.found["errors"]["first"]
    assert errors["refit"] == pytest.approx(missed / whole, abs=2e-6)
    gone = [c for c in range(8) if c not in first]
    cut = np.square(rows[:, gone].sum(axis=1)).sum()
    assert errors["cut"] == pytest.approx(cut / whole, abs=2e-6)
    # The next layer sees what the pruned and rescaled network gives it.
    pruned = copy.deepcopy(network)
    with torch.no_grad():
        pruned.weight("second").zero_()
        pruned.weight("second")[:, first] = own.float()
    rows = rows_of_fc(pruned, images, data, 3, 4)
    second = sorted({*range(6)} - {*greedy(rows, 3)})
    assert found.descriptor.selections["second"] == tuple(second)
    unpruned = rows_of_fc(network, images, data, 3, 4)
    assert not np.allclose(unpruned, rows, rtol=0.05)


def found_rows(found, name):
    """Return the outputs that were kept: the filters of the others are zero by now."""
    return list(found.descriptor.selections[name])


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_discards_is_that_of_brute_force(seed):
    rows = np.random.default_rng(seed).normal(size=(40, 9))
    rows[:, 3] = -rows[:, 1] + 0.01 * rows[:, 3]  # two that cancel
    assert list(discard_order(rows.T @ rows, 6)[:6]) == greedy(rows, 6)


def test_channels_that_cancel_go_before_smaller_ones_that_do_not():
    rows = np.array([[3.0, -3.0, 1.0, 1.1]] * 5)
    # One alone: the smallest. Then the best sum, not the next smallest.
    assert discard_order(rows.T @ rows, 3)[:1] == (2,)
    assert discard_order(rows.T @ rows, 3)[:3] == tuple(greedy(rows, 3))


def test_the_first_of_equal_channels_goes():
    assert discard_order(np.zeros((5, 5)), 3) == (0, 1, 2, 3, 4)
    assert discard_order(np.eye(4), 2) == (0, 1, 2, 3)


def test_parts_lose_equally_many_and_ties_are_obeyed():
    small = np.diag([1.0, 2.0, 3.0, 10.0, 20.0, 30.0])
    assert {*discard_order(small, 4, parts=2)[:4]} == {0, 1, 3, 4}
    assert discard_order(small, 3, go=[5])[0] == 5
    assert {*discard_order(small, 3, stay=[0, 1])[-2:]} == {0, 1}
    assert sorted(discard_order(small, 4, parts=2, go=[0, 1, 2], stay=[3])) == [*range(6)]


def test_channels_that_contribute_nothing_go_first_and_cost_nothing():
    graph = plain()
    network, data = build(graph, seed=1).eval(), random_images(graph)
    with torch.no_grad():
        network.node("first").weight[[1, 4, 6]] = 0.0
    found = prune("thinet", graph, data, keep=0.625, network=network)
    assert found.descriptor.selections["first"] == (0, 2, 3, 5, 7)
    assert found.descriptor.origin.found["errors"]["first"] == {"cut": 0, "refit": 0}


def test_refit_takes_over_what_a_twin_contributed():
    """Of two equal channels one is enough if its factor is 2."""
    graph = plain()
    network, data = build(graph, seed=1).eval(), random_images(graph)
    with torch.no_grad():
        for i in range(4):
            network.node("first").weight[2 * i + 1] = network.node("first").weight[2 * i]
            network.node("second").weight[:, 2 * i + 1] = network.node("second").weight[:, 2 * i]
    found = prune("thinet", graph, data, keep=0.75, network=network)
    errors = found.descriptor.origin.found["errors"]["first"]
    assert errors["refit"] < 1e-6 < errors["cut"]
    kept = found.descriptor.selections["first"]
    alone = [i for i in kept if i ^ 1 not in kept]
    assert len(alone) == 2
    ratio = found.refit.weight("second") / network.weight("second")
    rows = found_rows(found, "second")
    assert torch.allclose(ratio[rows][:, alone], torch.tensor(2.0), rtol=1e-4)


def outputs(*networks):
    images = torch.randn(
        4, *networks[0].graph.input_size, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        return [network.eval()(images) for network in networks]


@pytest.mark.parametrize(
    ("name", "whole"),
    [*((name, "selected") for name in EVERY), ("preresnet", "none"), ("resnet20", "joined")],
)
def test_what_is_inherited_from_the_refit_computes_what_the_refit_does(name, whole):
    graph = EVERY[name]()
    network = trained(graph)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no shortcut joins other channels than it did
        found = prune(
            "thinet", graph, random_images(graph), keep=0.4, network=network, whole=whole, **FEW
        )
        small, refit, whole_net = outputs(found.network(), found.refit, network)
    assert (small - refit).abs().max() < 1e-5 * refit.abs().max()
    assert (small - whole_net).abs().max() > 1e-4 * whole_net.abs().max()


@pytest.mark.parametrize("name", GRAPHS)
def test_removed_equals_silenced_before_any_refit(name):
    graph = GRAPHS[name]()
    network = trained(graph)
    found = prune(
        "thinet", graph, random_images(graph), keep=0.4, network=network, refit=False, **FEW
    )
    assert found.refit is None
    small, zeroed = outputs(
        inherit(network, found.descriptor), silenced(network, found.descriptor, filters=True)
    )
    assert (small - zeroed).abs().max() < 1e-5 * zeroed.abs().max()


@pytest.mark.parametrize(
    ("name", "keep"), [*zip(EVERY, itertools.cycle((0.3, 0.5, 0.8)), strict=False)]
)
def test_every_group_is_at_its_keep_or_told_to_be_left_alone(name, keep):
    graph = EVERY[name]()
    found = generate(
        "thinet", graph, random_images(graph), keep=keep, network=trained(graph), **FEW
    )
    left_alone = found.origin.found["left_alone"]
    for group in couple(graph).free:
        width = len(found.selections.get(group.name, range(group.width)))
        wanted = max(int(group.width * keep + 1e-9) // group.divisor, 1) * group.divisor
        assert width == (group.width if group.name in left_alone else wanted)


@settings(max_examples=15)
@given(graphs())
def test_random_graphs_are_pruned_or_refused_with_reasons(graph):
    network, data = build(graph, seed=0), random_images(graph)
    try:
        found = prune("thinet", graph, data, keep=0.5, network=network, images=6, locations=2)
    except MethodError as refusal:
        assert "nothing to prune" in str(refusal)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (scores,) = outputs(found.network())
    assert scores.isfinite().all()


def test_the_callers_network_modes_and_random_states_stay():
    graph = GRAPHS["gated"]()
    network, data = trained(graph).train(), random_images(graph)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    states = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
    first, again = (
        generate("thinet", graph, data, keep=0.5, network=network, seed=2, **FEW) for _ in range(2)
    )
    assert first == again
    assert first.origin == again.origin
    assert first != generate("thinet", graph, data, keep=0.5, network=network, seed=7, **FEW)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert random.getstate() == states[0]
    assert str(np.random.get_state()) == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert all(parameter.grad is None for parameter in network.parameters())


def test_training_between_layers_moves_what_is_left_and_nothing_else():
    graph = GRAPHS["gated"]()
    network, data = trained(graph), random_images(graph)
    options = {"keep": 0.5, "network": network, "recipe": Recipe(batch=8), **FEW}
    reports = []
    still = prune("thinet", graph, data, **options)
    tuned = prune("thinet", graph, data, **options, tune_epochs=1, on_epoch=reports.append)
    assert [report.epochs for report in reports] == [1] * 2
    assert not torch.equal(still.refit.weight("stem"), tuned.refit.weight("stem"))
    small, refit = outputs(tuned.network(), tuned.refit)
    assert (small - refit).abs().max() < 1e-5 * refit.abs().max()


@pytest.mark.parametrize(
    "options",
    [
        {"images": 0},
        {"locations": 0},
        {"whole": "some"},
        {"tune_epochs": -1},
        {"tune_lr": 0.0},
        {"tune_lr": float("nan")},
    ],
)
def test_impossible_options_are_refused(options):
    graph = plain()
    with pytest.raises(MethodError, match=next(iter(options))):
        generate("thinet", graph, random_images(graph), keep=0.5, network=build(graph), **options)
