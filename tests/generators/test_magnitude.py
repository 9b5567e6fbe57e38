"""Magnitude pruning: thresholds by hand, and schedules by hand arithmetic."""

import copy
import math

import numpy as np
import pytest
import torch

from prunenas.arch.descriptor import apply
from prunenas.build.initialise import build
from prunenas.errors import KeepError, MethodError
from prunenas.generators.base import generate, prune
from prunenas.generators.magnitude import Magnitude, polynomial_keep
from prunenas.ir.writer import GraphWriter
from prunenas.training.recipe import Recipe
from tests.generators.networks import GRAPHS, trained
from tests.generators.pictures import pictures, subject_of

STILL = 1e-30
"""A learning rate that moves no weight."""


def line(*widths, side=8):
    """Return convolutions of these widths, one after another, and a linear layer."""
    net = GraphWriter((3, side, side))
    x = net.input
    for i, width in enumerate(widths):
        x = net.relu(f"relu{i}", net.conv(f"conv{i}", x, width, kernel=3))
    return net.finish(net.linear("fc", net.global_pool("pool", x), 5))


def weights(network, *names):
    return {name: network.weight(name).numpy().astype(np.float64) for name in names}


def masks(descriptor):
    return {name: mask.array() for name, mask in descriptor.masks.items()}


def same(found, expected):
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in found)


def largest(scores, count):
    """Return masks of the ``count`` largest of all layers together; there are no ties."""
    every = np.sort(np.concatenate([score.ravel() for score in scores.values()]))
    return {name: score >= every[len(every) - count] for name, score in scores.items()}


def test_the_default_is_one_strict_threshold_over_all_convolutions():
    graph = line(8, 12, 6)
    network = trained(graph)
    sizes = {n: np.abs(w) for n, w in weights(network, "conv0", "conv1", "conv2").items()}
    total = sum(size.size for size in sizes.values())
    found = generate("magnitude", graph, keep=0.3, network=network)
    same(masks(found), largest(sizes, total - int(total * 0.7) - 1))
    assert found.origin.reached == (total - int(total * 0.7) - 1) / total
    assert found.origin.kept_best == ()
    assert not found.widths


def test_layers_can_keep_the_same_each():
    graph = line(8, 12)
    network = trained(graph)
    found = masks(
        generate("magnitude", graph, keep=0.5, network=network, scope="layer", layers="all")
    )
    for name, size in weights(network, "conv0", "conv1", "fc").items():
        count = size.size - size.size // 2 - 1
        same({name: found[name]}, largest({name: np.abs(size)}, count))


def test_the_original_threshold_is_a_part_of_each_layers_deviation():
    graph = line(8, 12)
    network = trained(graph)
    with torch.no_grad():
        network.node("conv1").weight.mul_(100).add_(3)
    found = generate("magnitude", graph, network=network, std_quality=0.8)
    expected = {
        name: np.abs(w) > 0.8 * math.sqrt(np.mean((w - np.mean(w)) ** 2))
        for name, w in weights(network, "conv0", "conv1").items()
    }
    same(masks(found), expected)
    kept = sum(int(mask.sum()) for mask in expected.values())
    assert found.origin.reached == kept / sum(mask.size for mask in expected.values())
    assert found.origin.keep is None


def test_the_original_threshold_says_how_much():
    graph = line(4)
    with pytest.raises(KeepError, match="std_quality says how much"):
        generate("magnitude", graph, keep=0.5, network=build(graph), std_quality=1.0)


def test_a_layer_of_small_weights_keeps_its_largest_and_is_told():
    graph = line(8, 12)
    network = trained(graph)
    with torch.no_grad():
        network.node("conv0").weight.mul_(1e-6)
    for options in ({"keep": 0.2}, {"std_quality": 50.0}):
        found = generate("magnitude", graph, network=network, **options)
        assert found.origin.kept_best[0] == "conv0"
        mask = found.masks["conv0"].array()
        assert mask.sum() == 1
        assert mask.ravel()[np.abs(weights(network, "conv0")["conv0"]).argmax()]


@pytest.mark.parametrize("name", GRAPHS)
def test_on_every_graph_the_count_is_the_sources_and_only_prunable_layers_are_masked(name):
    graph = GRAPHS[name]()
    network = trained(graph)
    for layers in ("conv", "hidden", "all"):
        found = generate("magnitude", graph, keep=0.4, network=network, layers=layers)
        total = sum(mask.array().size for mask in found.masks.values())
        kept = sum(mask.kept for mask in found.masks.values())
        assert kept - len(found.origin.kept_best) <= total - int(total * 0.6) - 1 <= kept
        small = build(apply(graph, found)).eval()
        assert small(torch.zeros(2, *graph.input_size)).shape == (2, graph.classes)
        norms = {n.name for n in graph.nodes if type(n.op).__name__ == "BatchNorm"}
        assert not norms & found.masks.keys()


@pytest.mark.parametrize(
    ("done", "gone"),
    [(0.0, 0.0), (0.25, 0.8 - 0.8 * 27 / 64), (0.5, 0.7), (0.75, 0.7875), (1.0, 0.8)],
)
def test_the_polynomial_follows_its_equation(done, gone):
    """What is gone is ``0.8 - 0.8 * (1 - done) ** 3``."""
    assert polynomial_keep(done, 0.2) == pytest.approx(1 - gone, abs=1e-12)


def test_a_polynomial_may_start_sparse():
    assert polynomial_keep(0.0, 0.2, 0.6) == pytest.approx(0.6)
    assert polynomial_keep(0.5, 0.2, 0.6) == pytest.approx(0.2 + 0.4 / 8)


def trained_in_steps(graph, network, data, *, keep, seed=0, recipe=None, **options):
    return prune(
        "magnitude",
        graph,
        data,
        keep=keep,
        network=network,
        seed=seed,
        recipe=recipe or Recipe(epochs=1, batch=8, lr=0.05, augment=False),
        **options,
    )


def test_geometric_rounds_remove_a_share_of_what_is_left():
    """The released index is (N - nonzero) + int(nonzero * percent), and strictly above it stays."""
    graph = line(6, 8)
    network, data = trained(graph), pictures(graph)
    total = sum(w.size for w in weights(network, "conv0", "conv1").values())
    left, by_hand = total, []
    for _ in range(4):
        place = (total - left) + int(left * (1 - 0.2**0.25))
        left = total - (place + 1)
        by_hand.append(left)
    found = trained_in_steps(graph, network, data, keep=0.2, schedule="geometric", rounds=4)
    assert found.descriptor.origin.found == {"weights left after each round": by_hand}
    assert sum(mask.kept for mask in found.descriptor.masks.values()) == by_hand[-1]
    assert abs(by_hand[-1] - 0.2 * total) < 5


def test_rounds_without_movement_find_what_one_shot_finds():
    graph = line(6, 8)
    network, data = trained(graph), pictures(graph)
    found = trained_in_steps(
        graph, network, data, keep=0.2, schedule="geometric", rounds=3, lr=STILL
    ).descriptor
    sizes = {n: np.abs(w) for n, w in weights(network, "conv0", "conv1").items()}
    same(masks(found), largest(sizes, sum(mask.kept for mask in found.masks.values())))


def test_removed_weights_stay_removed_and_zero_while_the_others_train():
    graph = line(6, 8)
    network, data = trained(graph), pictures(graph)
    for options in (
        {"schedule": "geometric", "rounds": 3},
        {"schedule": "polynomial", "rounds": 3, "end": 0.5},
    ):
        found = trained_in_steps(graph, network, data, keep=0.4, **options)
        pruned = found.network()
        for name, mask in masks(found.descriptor).items():
            weight = pruned.weight(name).numpy()
            assert not weight[~mask].any()
            moved = weight[mask] != network.weight(name).numpy()[mask]
            assert moved.mean() > 0.9
        assert not found.refit.training


def test_lottery_tickets_are_rewound_to_what_the_seed_gives():
    """Nothing moves: the second round ranks the first round's survivors as they were at first."""
    graph = line(6, 8)
    data = pictures(graph)
    found = trained_in_steps(
        graph,
        None,
        data,
        keep=0.25,
        seed=3,
        schedule="geometric",
        rounds=2,
        rewind=True,
        lr=STILL,
    )
    # Its own training moves the reference; only what follows stands still.
    reference = weights(found.reference, "conv0", "conv1")
    sizes = {n: np.abs(w) for n, w in reference.items()}
    first, second = found.descriptor.origin.found["weights left after each round"]
    alive = largest(sizes, first)
    start = weights(build(graph, seed=3), "conv0", "conv1")
    expected = largest({n: np.where(alive[n], np.abs(start[n]), -1) for n in alive}, second)
    same(masks(found.descriptor), expected)
    same(
        weights(found.refit, "conv0", "conv1"), {n: np.where(alive[n], start[n], 0) for n in alive}
    )


def test_gradual_pruning_keeps_what_the_polynomial_says_when_it_says_it():
    graph = line(6, 8)
    network, data = trained(graph), pictures(graph)
    steps = 2 * (len(data.part("fit")) // 8 + (len(data.part("fit")) % 8 > 1))
    first, every = int(0.25 * steps), int(0.5 * steps / 3)
    total = sum(w.size for w in weights(network, "conv0", "conv1").values())
    by_hand = {}
    for update in range(1, 4):
        gone = 0.7 - 0.7 * (1 - update / 3) ** 3
        by_hand[str(first + update * every)] = total - int(total * round(gone, 12)) - 1
    found = trained_in_steps(
        graph,
        network,
        data,
        keep=0.3,
        schedule="polynomial",
        rounds=3,
        epochs=2,
        begin=0.25,
        end=0.75,
    ).descriptor
    assert every >= 1
    assert found.origin.found == {"weights left after step": by_hand}
    assert sum(mask.kept for mask in found.masks.values()) == by_hand[str(first + 3 * every)]


def test_gradual_pruning_can_fill_the_whole_training_and_start_sparse():
    graph = line(6, 8)
    network, data = trained(graph), pictures(graph)
    found = trained_in_steps(
        graph,
        network,
        data,
        keep=0.3,
        schedule="polynomial",
        rounds=2,
        end=1.0,
        keep_at_start=0.6,
        lr=STILL,
    ).descriptor
    total = sum(w.size for w in weights(network, "conv0", "conv1").values())
    left = found.origin.found["weights left after step"]
    assert left["0"] == total - int(total * 0.4) - 1
    assert [*left.values()][-1] == total - int(total * 0.7) - 1
    sizes = {n: np.abs(w) for n, w in weights(network, "conv0", "conv1").items()}
    same(masks(found), largest(sizes, total - int(total * 0.7) - 1))


def test_more_updates_than_steps_are_refused():
    graph = line(4)
    with pytest.raises(MethodError, match=r"500 updates do not fit .* of 7 steps"):
        trained_in_steps(
            graph, trained(graph), pictures(graph), keep=0.5, schedule="polynomial", rounds=500
        )


@pytest.mark.parametrize("schedule", ["geometric", "polynomial"])
def test_schedules_with_training_ask_for_data_and_leave_the_network_alone(schedule):
    graph = line(4, 6)
    network = trained(graph)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(MethodError, match="give it data"):
        generate("magnitude", graph, keep=0.5, network=network, schedule=schedule, rounds=2)
    state = torch.get_rng_state()
    first, again = (
        trained_in_steps(
            graph, network, pictures(graph), keep=0.5, schedule=schedule, rounds=2, seed=5
        ).descriptor
        for _ in range(2)
    )
    assert first == again
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert not network.training


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": "fc"}, "layers is one of conv, hidden, all"),
        ({"scope": "group"}, "scope is one of"),
        ({"rule": "loose"}, "rule is one of strict, quantile, count"),
        ({"schedule": "linear"}, "schedule is one of one_shot, geometric, polynomial"),
        ({"std_quality": 0.0}, "std_quality is positive"),
        ({"std_quality": 1.0, "schedule": "geometric"}, "goes with schedule='one_shot'"),
        ({"rounds": 0}, "rounds is at least 1"),
        ({"epochs": 0}, "epochs is at least 1"),
        ({"lr": 0.0}, "lr is positive"),
        ({"rewind": True}, "rewind goes with schedule='geometric'"),
        ({"begin": 0.8}, r"begin is in \[0, end\)"),
        ({"end": 1.5}, "end is a fraction"),
        ({"keep_at_start": 0.0}, "keep_at_start is a fraction"),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(MethodError, match=words):
        Magnitude(**options)


def test_a_graph_without_convolutions_is_refused_before_anything_is_trained():
    net = GraphWriter((3, 8, 8))
    graph = net.finish(net.linear("fc", net.global_pool("pool", net.input), 5))
    with pytest.raises(MethodError, match="no layer of layers='conv'"):
        generate("magnitude", graph, keep=0.5, network=build(graph))
    assert generate("magnitude", graph, keep=0.5, network=build(graph), layers="all").masks


def test_called_by_hand_it_needs_no_data():
    graph = line(4)
    assert Magnitude().propose(subject_of(trained(graph))).masks.keys() == {"conv0"}
