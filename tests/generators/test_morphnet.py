"""MorphNet: costs among the living by hand, shrinking by threshold, expansion to the budget."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunenas.arch.descriptor import apply
from prunenas.build.initialise import build
from prunenas.errors import MethodError
from prunenas.generators.base import Subject, generate, make_generator, prune
from prunenas.generators.base.channel_costs import channel_costs, mean_one, total_cost
from prunenas.generators.base.scales import scale_places
from prunenas.generators.morphnet import Penalty, expanded, uniform_cost
from prunenas.ir.canonical import digest
from prunenas.ir.cost import CostModel, macs, params
from prunenas.ir.coupling import couple
from prunenas.ir.writer import GraphWriter
from prunenas.training.recipe import Recipe
from tests.generators.networks import GRAPHS, attending, set_scales, trained
from tests.graphs import graphs
from tests.training.networks import made

RECIPE = Recipe(epochs=1, batch=24, lr=0.05, schedule="constant")


def chain(widths=(6, 4, 8)):
    """Three 3x3 convolutions on 8x8 maps, each with a batch norm, and a head of 5 classes."""
    net = GraphWriter((3, 8, 8))
    x = net.input
    for i, width in enumerate(widths, start=1):
        x = net.conv(f"conv{i}", x, width, kernel=3)
        x = net.relu(f"relu{i}", net.batch_norm(f"bn{i}", x))
    return net.finish(net.linear("fc", net.global_pool("pool", x), 5))


def images(graph, train=48):
    return made(train=train, size=graph.input_size, classes=5)


def test_a_channel_costs_its_making_and_its_reading_among_the_living():
    living = {"conv1": 5, "conv2": 2, "conv3": 7}
    assert channel_costs(chain(), "macs", living) == {
        "conv1": 9 * 64 * (3 + 2),
        "conv2": 9 * 64 * (5 + 7),
        "conv3": 9 * 64 * 2 + 5,
    }
    assert channel_costs(chain(), "params", living) == {
        "conv1": 9 * (3 + 2) + 2,
        "conv2": 9 * (5 + 7) + 2,
        "conv3": 9 * 2 + 2 + 5,
    }


def test_a_channel_behind_the_dead_costs_its_making_alone():
    found = channel_costs(chain(), "macs", {"conv1": 6, "conv2": 4, "conv3": 0})
    assert found["conv2"] == 9 * 64 * 6
    assert channel_costs(chain(), "macs", {"conv2": 0})["conv1"] == 9 * 64 * 3


def test_a_residual_trunk_is_paid_by_all_its_members():
    """Where a group both makes and reads, the cost is quadratic and the derivative twice it."""
    net = GraphWriter((3, 8, 8))
    x = net.relu("relu", net.batch_norm("bn", net.conv("stem", net.input, 6, kernel=3)))
    y = net.batch_norm("bn1", net.conv("body", x, 6, kernel=3))
    x = net.relu("relu1", net.join("add", x, y))
    graph = net.finish(net.linear("fc", net.global_pool("pool", x), 5))
    assert channel_costs(graph, "macs") == {"stem": 9 * 64 * 3 + 2 * 9 * 64 * 6 + 5}


@pytest.mark.parametrize("cost", ["macs", "params"])
@pytest.mark.parametrize("name", GRAPHS)
def test_costs_are_what_a_step_up_and_a_step_down_change(name, cost):
    graph = GRAPHS[name]()
    count = {"macs": macs, "params": params}[cost]
    groups = couple(graph)
    found = channel_costs(graph, cost)
    assert {*found} == {group.name for group in groups.free}
    model = CostModel.of(graph)
    of = model.macs if cost == "macs" else model.params
    full = np.array([groups[n].width for n in model.groups])
    assert of(full[None])[0] == total_cost(graph, cost, {}) == count(graph)
    for i, name in enumerate(model.groups):
        step = np.eye(len(full), dtype=np.int64)[i] * groups[name].divisor
        down, up = of(np.stack([full - step, full + step]))
        assert found[name] == pytest.approx((up - down) / (2 * groups[name].divisor))


def test_weights_have_the_mean_one_over_channels():
    graph = chain()
    weights, mean = mean_one(channel_costs(graph, "macs"), couple(graph).free)
    costs = {"conv1": 9 * 64 * 7, "conv2": 9 * 64 * 14, "conv3": 9 * 64 * 4 + 5}
    assert mean == pytest.approx(
        (6 * costs["conv1"] + 4 * costs["conv2"] + 8 * costs["conv3"]) / 18
    )
    assert weights == pytest.approx({name: cost / mean for name, cost in costs.items()})


def test_the_penalty_counts_living_channels_and_its_gradient_is_their_cost():
    graph = chain()
    network = build(graph)
    set_scales(
        network,
        {
            "bn1": [0.5, -0.25, 0.001, 0.0, 1.0, 0.125],  # 4 live
            "bn2": [0.5, 0.5, 0.002, -0.009],  # 2 live
            "bn3": [-0.5] * 8,
        },
    )
    penalty = Penalty(graph, "macs", "max", 0.01)
    mean = (6 * 7 * 576 + 4 * 14 * 576 + 8 * (4 * 576 + 5)) / 18
    costs = {"bn1": 576 * (3 + 2), "bn2": 576 * (4 + 8), "bn3": 576 * 2 + 5}
    value = penalty.value(dict(network.scales()))
    sums = {"bn1": 1.876, "bn2": 1.011, "bn3": 4.0}
    expected = sum(costs[name] * sums[name] for name in costs) / mean
    assert float(value.detach()) == pytest.approx(expected, rel=1e-6)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    penalty.hooks(0.5).after_backward(network)
    for name, scale in network.scales():
        pushed = 0.5 * costs[name] / mean * np.sign(scale.detach().numpy())
        np.testing.assert_allclose(scale.grad.numpy(), pushed, rtol=1e-6)
    moved = {n for n, p in network.named_parameters() if p.grad.any()}
    assert moved == {"bn1.weight", "bn2.weight", "bn3.weight"}


def test_costs_are_weighed_anew_when_a_channel_dies():
    graph = chain()
    network = build(graph)
    hook = Penalty(graph, "params", "max", 0.01).hooks(1.0).after_backward
    pushes = []
    for last in (0.02, 0.009):
        set_scales(network, {"bn2": [0.5, 0.5, 0.5, last]})
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        hook(network)
        pushes.append(float(network.node("bn1").weight.grad[0]))
    assert pushes[1] / pushes[0] == pytest.approx((9 * (3 + 3) + 2) / (9 * (3 + 4) + 2))


def test_only_the_largest_scale_of_a_coupled_channel_is_pushed():
    graph = GRAPHS["resnet20"]()
    network = trained(graph)
    norms = ["bn1", *(f"layer1.{block}.bn2" for block in range(3))]
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    Penalty(graph, "macs", "max", 0.01).hooks(1.0).after_backward(network)
    rows = np.stack([network.weight(name).abs().numpy() for name in norms])
    pushed = np.stack([network.node(name).weight.grad.numpy() != 0 for name in norms])
    np.testing.assert_array_equal(pushed, rows == rows.max(axis=0))


@pytest.mark.parametrize("cost", ["macs", "params"])
@pytest.mark.parametrize("living", [(6, 4, 8), (2, 4, 1), (1, 1, 1), (3, 1, 8)])
def test_expansion_is_uniform_and_lands_within_one_step_under_the_budget(living, cost):
    graph = chain()
    living = dict(zip(("conv1", "conv2", "conv3"), living, strict=True))
    full = couple(graph).widths
    budget = uniform_cost(graph, cost, 0.5)
    assert budget == total_cost(graph, cost, {"conv1": 3, "conv2": 2, "conv3": 4})
    widths = expanded(graph, cost, living, budget)
    assert total_cost(graph, cost, widths) <= budget
    for name, width in widths.items():
        if width < full[name]:
            assert total_cost(graph, cost, widths | {name: width + 1}) > budget
    # No assignment of one factor to all, clipped at the full widths, is both larger and affordable.
    for factor in np.linspace(0.05, 8, 400):
        scaled = {n: min(full[n], max(1, round(w * factor))) for n, w in living.items()}
        if all(scaled[n] >= widths[n] for n in widths) and scaled != widths:
            assert total_cost(graph, cost, scaled) > budget


def test_expansion_keeps_the_proportions_of_wide_layers():
    graph = chain((128, 128, 128))
    living = {"conv1": 8, "conv2": 16, "conv3": 32}
    widths = expanded(graph, "macs", living, uniform_cost(graph, "macs", 0.4))
    factors = [widths[name] / width for name, width in living.items()]
    assert max(factors) / min(factors) < 1.1
    assert min(factors) > 2


def still(monkeypatch, scales):
    """Let every training only set scales, one mapping a round; return what was trained."""
    seen, left = [], iter(scales)

    def train(self, network, recipe=None, hooks=None):
        seen.append(network)
        set_scales(network, next(left))

    monkeypatch.setattr(Subject, "train", train)
    return seen


def test_rounds_shrink_to_the_living_expand_and_train_fresh_networks(monkeypatch):
    graph = chain((8, 8, 8))
    first = {"bn1": [1.0, 1, 1, 1, 0, 0, 0, 0], "bn2": [1.0] * 8, "bn3": [1.0, 1] + [0.0] * 6}
    widths1 = expanded(
        graph, "macs", {"conv1": 4, "conv2": 8, "conv3": 2}, uniform_cost(graph, "macs", 0.5)
    )
    second = {f"bn{i}": [1.0] * widths1[f"conv{i}"] for i in (1, 2, 3)}
    second["bn2"] = [1.0] + [0.0] * (widths1["conv2"] - 1)
    seen = still(monkeypatch, [first, second])
    network = trained(graph)
    found = generate("morphnet", graph, images(graph), keep=0.5, network=network, rounds=2)
    living2 = {"conv1": widths1["conv1"], "conv2": 1, "conv3": widths1["conv3"]}
    budget = total_cost(graph, "macs", {"conv1": 4, "conv2": 4, "conv3": 4})
    widths2 = expanded(graph, "macs", living2, budget)
    assert {n: found.widths.get(n, 8) for n in living2} == widths2
    told = found.origin.found
    assert told["budget"] == budget
    assert [r["living"] for r in told["rounds"]] == [
        {"conv1": 4, "conv2": 8, "conv3": 2},
        living2,
    ]
    assert [r["widths"] for r in told["rounds"]] == [widths1, widths2]
    assert all(r["cost"] <= budget for r in told["rounds"])
    # The first starts from the weights that were given, the second from none.
    assert torch.equal(seen[0].weight("conv2"), network.weight("conv2"))
    assert {n: seen[1].graph[n].op.width for n in widths1} == widths1
    assert seen[0] is not network


def test_a_group_that_dies_keeps_one_channel_and_is_told(monkeypatch):
    graph = chain()
    still(monkeypatch, [{"bn1": [0.0] * 6, "bn2": [1.0] * 4, "bn3": [0.01] * 8}])
    found = generate("morphnet", graph, images(graph), keep=0.5, rounds=1)
    assert found.origin.kept_best == ("conv1", "conv3")
    assert found.origin.found["rounds"][0]["living"] == {"conv1": 1, "conv2": 4, "conv3": 1}


def test_the_living_are_brought_up_to_divisors(monkeypatch):
    graph = GRAPHS["grouped"]()
    scales = {n: np.zeros(len(s)) for n, s in build(graph).scales()}
    scales["bn4"][[0, 1, 5]] = 1.0
    still(monkeypatch, [scales])
    found = generate("morphnet", graph, images(graph), keep=0.5, rounds=1)
    assert found.origin.found["rounds"][0]["living"] == {
        "stem": 2,
        "left": 1,
        "right": 2,
        "mixed": 4,
        "grouped": 4,
    }


def test_shrink_keep_counts_strictly_over_all_scored_channels(monkeypatch):
    graph = chain()
    order = (1.0 + np.random.default_rng(0).permutation(18)) / 32
    parts = dict(zip(("bn1", "bn2", "bn3"), np.split(order, [6, 10]), strict=True))
    still(monkeypatch, [parts])
    found = generate("morphnet", graph, images(graph), keep=0.5, rounds=1, shrink_keep=0.5)
    above = {f"conv{i}": int((parts[f"bn{i}"] > np.sort(order)[9]).sum()) for i in (1, 2, 3)}
    assert found.origin.found["rounds"][0]["living"] == above
    assert sum(above.values()) == 18 - 9 - 1


@pytest.mark.parametrize("cost", ["macs", "params"])
@pytest.mark.parametrize("keep", [0.3, 0.7])
@pytest.mark.parametrize("name", GRAPHS)
def test_every_graph_ends_no_dearer_than_its_uniform_control(name, keep, cost):
    graph = GRAPHS[name]()
    count = {"macs": macs, "params": params}[cost]
    options = {"strength": 0.1, "shrink_keep": 0.6, "budget": cost}
    found = generate("morphnet", graph, images(graph), keep=keep, recipe=RECIPE, **options)
    control = count(apply(graph, generate("uniform", graph, keep=keep)))
    assert found.origin.found["budget"] == control
    assert count(apply(graph, found)) == found.origin.found["rounds"][-1]["cost"] <= control
    assert not found.selections
    unscored = {g.name for g in couple(graph).free} - {*found.origin.found["rounds"][0]["living"]}
    assert not unscored
    for group in couple(graph).free:
        assert found.widths.get(group.name, group.width) % group.divisor == 0


def as_if_trained(self, network, recipe=None, hooks=None):
    """Make one backward pass with the hooks."""
    network.eval()(torch.zeros(2, *network.graph.input_size)).sum().backward()
    hooks.after_backward(network)


@settings(max_examples=30, deadline=None)
@given(graphs(), st.sampled_from(["macs", "params"]))
def test_random_graphs_shrink_to_next_to_nothing_and_grow_again(graph, cost):
    """At a width of 1 groups can come or go: what met a 1 meets anything."""
    groups = couple(graph)
    if not groups.free or not scale_places(graph, groups):
        return
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Subject, "train", as_if_trained)
        options = {"shrink_keep": 0.05, "budget": cost, "rounds": 3}
        data = made(train=2 * graph.classes, size=graph.input_size, classes=graph.classes)
        found = generate("morphnet", graph, data, keep=0.4, **options)
    told = found.origin.found
    assert all(r["cost"] <= told["budget"] for r in told["rounds"])
    small = apply(graph, found)
    assert {"macs": macs, "params": params}[cost](small) == told["rounds"][-1]["cost"]
    assert {*found.origin.kept_best} <= {group.name for group in groups.free}


def test_groups_without_batch_norms_are_told():
    graph = GRAPHS["gated"]()
    found = generate("morphnet", graph, images(graph), keep=0.5, recipe=RECIPE, rounds=1)
    assert {*found.origin.found["left_alone"]} == {"reduce"}


def test_a_strong_penalty_kills_channels_that_none_leaves():
    graph = chain()
    recipe = Recipe(epochs=6, batch=24, lr=0.1, momentum=0.0, schedule="constant")
    living = []
    for strength in (0.0, 1.0):
        found = generate(
            "morphnet", graph, images(graph, 96), keep=0.5, recipe=recipe, strength=strength,
            rounds=1, alive=0.11,
        )  # fmt: skip
        living.append(sum(found.origin.found["rounds"][0]["living"].values()))
    assert living[0] == 18
    assert living[1] < 18


def test_the_cost_decides_where_channels_go():
    """A channel that is cheap to compute may be dear to store."""
    graph = GRAPHS["vgg11"]()
    recipe = Recipe(epochs=2, batch=24, lr=0.05, momentum=0.0, schedule="constant")
    living = [
        generate(
            "morphnet", graph, images(graph), keep=0.5, recipe=recipe, strength=1.0, rounds=1,
            shrink_keep=0.5, budget=cost,
        ).origin.found["rounds"][0]["living"]
        for cost in ("macs", "params")
    ]  # fmt: skip
    early, late = (sum(each[n] for n in ("features.0", "features.4")) for each in living)
    assert early < late


def test_the_same_seed_finds_the_same_and_nothing_else_is_touched():
    graph = GRAPHS["vgg11_l1"]()
    network = trained(graph)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    options = {"keep": 0.5, "recipe": RECIPE, "strength": 0.1, "shrink_keep": 0.5, "seed": 3}
    one, two = (
        prune("morphnet", graph, images(graph), network=network, **options) for _ in range(2)
    )
    assert one.descriptor == two.descriptor
    assert one.descriptor.origin == two.descriptor.origin
    assert one.reference is network
    assert one.descriptor.reference == digest(graph)
    assert all(torch.equal(network.state_dict()[key], value) for key, value in before.items())
    assert not network.training
    assert all(p.grad is None for p in network.parameters())
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_every_round_is_a_training_of_the_given_recipe():
    graph, reports = chain(), []
    generate(
        "morphnet", graph, images(graph), keep=0.5, recipe=RECIPE, rounds=3,
        on_epoch=reports.append,
    )  # fmt: skip
    assert [report.epoch for report in reports] == [1, 1, 1]


def test_without_batch_norms_it_is_refused_before_training():
    with pytest.raises(MethodError, match="morphnet needs batch norms on free groups"):
        generate("morphnet", attending(), images(attending()), keep=0.5)


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("strength", -1.0, "is finite and not negative"),
        ("budget", "seconds", "is one of macs, params"),
        ("rounds", 0, "is at least 1"),
        ("alive", float("nan"), "is finite and not negative"),
        ("shrink_keep", 1.5, "is a fraction in"),
        ("reduction", "median", "is one of sum, mean"),
    ],
)
def test_impossible_options_are_refused(option, value, rule):
    with pytest.raises(MethodError, match=f"morphnet: {option} {rule}"):
        make_generator("morphnet", **{option: value})
