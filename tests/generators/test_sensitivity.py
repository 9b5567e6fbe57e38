"""Sensitivity: curves against silencing by hand, and the allocation against plain arithmetic."""

import copy

import numpy as np
import pytest
import torch

from prunenas.arch.descriptor import reached_keep
from prunenas.build.inherit import inherit
from prunenas.build.initialise import build
from prunenas.data.base import ImageData
from prunenas.errors import BudgetError, MethodError
from prunenas.generators.base import generate, make_generator
from prunenas.generators.sensitivity import Sensitivity
from prunenas.ir.coupling import couple
from prunenas.ir.writer import GraphWriter
from tests.generators.networks import GRAPHS, removed, trained

GRID = (0.75, 0.5, 0.25)


def labelled(graph, network, count=80, validation=40, seed=0, favour=None):
    """Return random images that carry the network's own answers as labels."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(
        0, 256, (count, *graph.input_size), dtype=torch.uint8, generator=generator
    )
    channels = graph.input_size[0]
    with torch.no_grad():
        answers = network((pixels.float() / 255 - 0.5) / 0.25)
        # Without its favourite a network that nobody trained answers more than one thing.
        if favour is not None:
            favour.sub_(answers.mean(dim=0))
            answers -= answers.mean(dim=0)
        labels = answers.argmax(dim=1)
    return ImageData(
        name="answers",
        train_images=pixels,
        train_labels=labels,
        test_images=pixels[:5],
        test_labels=labels[:5],
        classes=graph.classes,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        flip=False,
        crop_padding=0,
        validation=torch.arange(validation),
    )


def line(*widths):
    net = GraphWriter((3, 8, 8))
    x = net.input
    for i, width in enumerate(widths):
        x = net.relu(f"relu{i}", net.batch_norm(f"bn{i}", net.conv(f"conv{i}", x, width, kernel=3)))
    return net.finish(net.linear("fc", net.global_pool("pool", x), 5))


def accuracy(network, data):
    chosen = data.validation
    pixels = (data.train_images[chosen].float() / 255 - 0.5) / 0.25
    with torch.no_grad():
        right = network(pixels).argmax(dim=1) == data.train_labels[chosen]
    return right.double().mean().item()


def without(network, layer, norm, channels):
    """Return a copy with filters, scale and shift of a layer set to zero."""
    twin = copy.deepcopy(network)
    with torch.no_grad():
        twin.node(layer).weight[channels] = 0.0
        twin.node(norm).weight[channels] = 0.0
        twin.node(norm).bias[channels] = 0.0
    return twin


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_each_point_is_the_accuracy_with_this_group_alone_silenced(norm):
    graph = line(8, 12)
    network = trained(graph, seed=4)
    data = labelled(graph, network, favour=network.node("fc").bias)
    found = generate(
        "sensitivity", graph, data, keep=0.5, network=network, grid=GRID, norm=norm
    ).origin.found
    assert found["baseline"] == accuracy(network, data) == 1
    for i, width in enumerate((8, 12)):
        weight = network.weight(f"conv{i}").numpy().astype(np.float64)
        scores = (np.abs(weight) ** {"l1": 1, "l2": 2}[norm]).sum((1, 2, 3))
        expected = [
            accuracy(
                without(
                    network,
                    f"conv{i}",
                    f"bn{i}",
                    np.argsort(scores)[: width - int(width * keep)].tolist(),
                ),
                data,
            )
            for keep in GRID
        ]
        curve = found["curves"][f"conv{i}"]
        assert curve == {"keep": [*GRID], "accuracy": expected}
        assert min(expected) < 1


def test_a_small_group_with_equal_counts_has_equal_points():
    graph = line(4, 8)
    network = trained(graph, seed=4)
    found = generate(
        "sensitivity",
        graph,
        labelled(graph, network, favour=network.node("fc").bias),
        keep=0.5,
        network=network,
        grid=(0.6, 0.5, 0.9, 0.95),
    ).origin.found
    curve = found["curves"]["conv0"]
    assert curve["keep"] == [0.95, 0.9, 0.6, 0.5]
    # 3, 3, 2 and 2 of 4.
    assert curve["accuracy"][0] == curve["accuracy"][1]
    assert curve["accuracy"][2] == curve["accuracy"][3] < 1


def told(monkeypatch, curves, baseline=0.9):
    """Let the curves be these, whatever the network does."""
    monkeypatch.setattr(Sensitivity, "_curves", lambda self, subject, scores: (baseline, curves))


def widths(graph, keep, grid=(0.8, 0.6, 0.4, 0.2)):
    network = build(graph)
    found = generate(
        "sensitivity", graph, labelled(graph, network), keep=keep, network=network, grid=grid
    )
    return couple(graph).widths | dict(found.widths), found


def test_one_allowed_drop_holds_for_all_groups_and_what_is_left_is_given_back(monkeypatch):
    graph = line(10, 10, 10)
    told(
        monkeypatch,
        {
            "conv0": [0.85, 0.80, 0.60, 0.30],  # drops .05 .10 .30 .60
            "conv1": [0.90, 0.89, 0.88, 0.82],  # drops 0 .01 .02 .08
            "conv2": [0.90, 0.88, 0.70, 0.40],  # drops 0 .02 .20 .50
        },
    )
    found, descriptor = widths(graph, 0.6)
    # .02: 10 + 4 + 6 is too much for 18; .05: 8 + 4 + 6 is enough, to the channel.
    assert [found[f"conv{i}"] for i in range(3)] == [8, 4, 6]
    assert descriptor.origin.found["allowed_drop"] == pytest.approx(0.05)
    found, descriptor = widths(graph, 0.5)
    # .08: 8 + 2 + 6 = 16; .10: 6 + 2 + 6 = 14 fits into 15, and one channel is given back.
    assert descriptor.origin.found["allowed_drop"] == pytest.approx(0.10)
    assert sum(found[f"conv{i}"] for i in range(3)) == 15
    assert all(found[f"conv{i}"] >= least for i, least in enumerate((6, 2, 6)))


def test_a_bump_in_a_curve_does_not_hide_the_drop_before_it(monkeypatch):
    graph = line(10, 10)
    told(
        monkeypatch,
        {"conv0": [0.50, 0.90, 0.95, 0.90], "conv1": [0.90, 0.88, 0.80, 0.80]},
    )
    found, _ = widths(graph, 0.7)
    # conv0 looks harmless at 0.6 and below, yet 0.8 costs 0.4.
    assert found["conv0"] == 10
    assert found["conv1"] == 4


def test_keeps_below_what_the_grid_allows_shrink_all_alike(monkeypatch):
    graph = line(20, 20)
    told(monkeypatch, {"conv0": [0.9, 0.8], "conv1": [0.9, 0.7]})
    found, _ = widths(graph, 0.2, grid=(0.8, 0.4))
    assert found["conv0"] == found["conv1"] == 4


@pytest.mark.parametrize("keep", [0.4, 0.8])
@pytest.mark.parametrize("name", GRAPHS)
def test_the_keep_is_met_within_one_step_and_never_exceeded(name, keep):
    graph = GRAPHS[name]()
    network = trained(graph)
    groups = couple(graph)
    try:
        found = generate(
            "sensitivity",
            graph,
            labelled(graph, network, 12, 8),
            keep=keep,
            network=network,
            grid=(0.5,),
        )
    except BudgetError as refusal:
        assert "smallest network" in str(refusal)
        return
    every = groups.widths | dict(found.widths)
    full = sum(group.width for group in groups.free)
    assert reached_keep(groups, every) <= keep
    steps = [g.divisor for g in groups.free if every[g.name] < g.width]
    # A bound may hold a group back that has room.
    slack = max(steps) if not groups.bounds else 0.1 * full
    assert keep * full - reached_keep(groups, every) * full < slack


@pytest.mark.parametrize("name", ["preresnet", "densenet"])
def test_selections_keep_what_their_sources_still_have(name):
    graph = GRAPHS[name]()
    network = trained(graph)
    groups = couple(graph)
    found = generate(
        "sensitivity",
        graph,
        labelled(graph, network, 12, 8),
        keep=0.5,
        network=network,
        grid=(0.5, 0.25),
    )
    assert {*found.origin.found["curves"]} == {group.name for group in groups.free}
    for group in groups.free:
        if group.select and group.name in found.selections:
            gone = {*removed(groups, found, groups.read(graph[group.name]))}
            assert gone.isdisjoint(found.selections[group.name])
    inherit(network, found)


def test_a_working_copy_is_changed_and_the_network_is_not():
    graph = GRAPHS["resnet20"]()
    network = trained(graph).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    data = labelled(graph, copy.deepcopy(network).eval(), 12, 8)
    generate("sensitivity", graph, data, keep=0.5, network=network, grid=(0.5,))
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_images_bounds_the_validation_images_and_only_these_are_read(monkeypatch):
    graph = line(8)
    network = trained(graph)
    data = labelled(graph, network)
    seen = []
    plain = Sensitivity._part

    def watched(self, whole, seed):
        part = plain(self, whole, seed)
        seen.append((len(whole), len(part)))
        return part

    monkeypatch.setattr(Sensitivity, "_part", watched)
    for images in (7, None, 1000):
        generate("sensitivity", graph, data, keep=0.5, network=network, grid=(0.5,), images=images)
    assert seen == [(40, 7), (40, 40), (40, 40)]


def test_it_needs_images():
    graph = line(8)
    with pytest.raises(MethodError, match="looks at images"):
        generate("sensitivity", graph, keep=0.5, network=build(graph))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"grid": ()}, "grid is different keeps"),
        ({"grid": (0.5, 1.0)}, "grid is different keeps"),
        ({"grid": (0.5, 0.5)}, "grid is different keeps"),
        ({"grid": 0.5}, "grid is different keeps"),
        ({"norm": "l3"}, "norm is l1/l2"),
        ({"reduction": "median"}, "reduction is sum"),
        ({"images": 0}, "images is a number"),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(MethodError, match=f"sensitivity: {words}"):
        make_generator("sensitivity", **options)
