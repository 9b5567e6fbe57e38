"""Network Slimming: one strict threshold over all scales, counted as the released code counts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from prunenas.arch.descriptor import apply
from prunenas.build.initialise import build
from prunenas.data.shapes import shapes
from prunenas.errors import MethodError
from prunenas.families.base import reference
from prunenas.generators.base import generate, make_generator
from prunenas.generators.base.scales import scale_scores
from prunenas.ir.cost import macs, params
from prunenas.ir.coupling import couple
from prunenas.ir.ops import BatchNorm, Flatten, Select
from prunenas.ir.writer import GraphWriter
from prunenas.training.hooks import Hooks
from prunenas.training.loop import train
from prunenas.training.recipe import Recipe
from tests.generators.networks import GRAPHS, set_scales, trained

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "architectures.json").read_text())
TOTALS = GOLDEN["slimming_channel_totals"]
FIXTURES = GOLDEN["slimming_fixtures_third_party"]


def norms(graph):
    return [node.name for node in graph.nodes if isinstance(node.op, BatchNorm)]


def with_scales(graph, scales):
    """Return a network with these scales, one after another, signs in turn."""
    network = build(graph)
    scales = torch.as_tensor(scales, dtype=torch.float64)
    scales = scales * (1 - 2 * (torch.arange(len(scales)) % 2))
    start = 0
    for name in norms(graph):
        end = start + graph.shapes[name].channels
        set_scales(network, {name: scales[start:end]})
        start = end
    assert start == len(scales)
    return network


def shuffled(count, *, seed=0):
    """Return ``count`` distinct positive scales that single precision tells apart."""
    return (1.0 + np.random.default_rng(seed).permutation(count)) / 16384


def channels(graph):
    return sum(graph.shapes[name].channels for name in norms(graph))


def scored(graph, norm):
    """Return what a batch norm decides on: the selection that reads it, else what it reads."""
    (reader,) = graph.readers[norm]
    return reader.name if isinstance(reader.op, Select) else graph[norm].inputs[0]


def two_layers(first=6, second=4):
    net = GraphWriter((3, 8, 8))
    x = net.relu("relu1", net.batch_norm("bn1", net.conv("conv1", net.input, first, kernel=3)))
    x = net.relu("relu2", net.batch_norm("bn2", net.conv("conv2", x, second, kernel=3)))
    return net.finish(net.linear("fc", net.global_pool("pool", x), 5))


@pytest.mark.parametrize(
    ("name", "removed", "label", "total"),
    [
        ("vgg16", 0.6, "vgg16 60%", "vgg16_slim"),
        ("vgg16", 0.4, "vgg16 40%", "vgg16_slim"),
        ("vgg19", 0.7, "vgg19 70% (C10)", "vgg19_slim"),
        ("vgg19", 0.5, "vgg19 50% (C100)", "vgg19_slim"),
        ("preresnet164", 0.4, "preresnet164 40%", "preresnet164"),
        ("preresnet164", 0.6, "preresnet164 60%", "preresnet164"),
        ("densenet40", 0.4, "densenet40 40%", "densenet40"),
        ("densenet40", 0.6, "densenet40 60%", "densenet40"),
    ],
)
def test_as_many_scales_are_kept_as_the_released_code_keeps(name, removed, label, total):
    graph = reference(name)
    count = channels(graph)
    assert count == TOTALS["totals"][total]
    scales = shuffled(count)
    network = with_scales(graph, scales)
    found = generate("network_slimming", graph, keep=1 - removed, network=network)
    assert not found.origin.kept_best
    widths = couple(graph).widths | dict(found.widths)
    kept = sum(widths[scored(graph, norm)] for norm in norms(graph))
    assert kept == TOTALS["kept"][label] == count - int(count * removed) - 1


def test_the_hidden_layers_of_the_imagenet_vgg_shrink_with_their_batch_norms():
    graph = reference("vgg11_imagenet")
    count = channels(graph)
    assert count == TOTALS["totals"]["vgg11_slim_imagenet"]
    scales = shuffled(count, seed=2)
    found = generate("network_slimming", graph, keep=0.5, network=with_scales(graph, scales))
    widths = couple(graph).widths | dict(found.widths)
    kept = sum(widths[scored(graph, norm)] for norm in norms(graph))
    assert kept == TOTALS["kept"]["vgg11 imagenet 50%"] == count - count // 2 - 1
    above = scales > np.sort(scales)[count // 2]
    last, hidden, second = (np.flatnonzero(part) for part in np.split(above[-8704:], [512, 4608]))
    assert found.selections["features.25"] == tuple(last)
    assert found.selections["classifier.0"] == tuple(hidden)
    assert found.selections["classifier.3"] == tuple(second)
    shapes_of = apply(graph, found).parameters()
    assert shapes_of["classifier.0.weight"] == (len(hidden), 49 * len(last))
    assert shapes_of["classifier.3.weight"] == (len(second), len(hidden))
    assert shapes_of["classifier.6.weight"] == (1000, len(second))


@pytest.mark.parametrize(("name", "selections"), [("preresnet164", 55), ("densenet40", 39)])
def test_selections_take_exactly_the_channels_above_the_threshold(name, selections):
    graph = reference(name)
    scales = shuffled(channels(graph), seed=1)
    found = generate("network_slimming", graph, keep=0.4, network=with_scales(graph, scales))
    above = scales > np.sort(scales)[int(len(scales) * 0.6)]
    small, start = apply(graph, found), 0
    seen = 0
    for norm in norms(graph):
        width = graph.shapes[norm].channels
        expected = np.flatnonzero(above[start : start + width])
        start += width
        name = scored(graph, norm)
        assert found.selections.get(name, tuple(range(width))) == tuple(expected)
        if isinstance(op := small[name].op, Select):
            assert op.indices == tuple(expected)
            seen += 1
        else:
            assert op.width == len(expected)
    assert seen == selections
    told = {*found.selections}
    trunk = {group.name for group in couple(graph).free} - told
    assert all(small[name].op == graph[name].op for name in trunk)


def body_of(fixture):
    """Return kept widths, those of emptied layers as 1."""
    return [max(1, width) for width in fixture["cfg"] if width != "M"]


def fixture_network(graph, widths, *, seed=0):
    """Return a network with as many large scales a layer as ``widths`` say."""
    generator = np.random.default_rng(seed)
    parts = []
    for name, kept in zip(norms(graph), widths, strict=True):
        total = graph.shapes[name].channels
        values = np.concatenate(
            [generator.uniform(0.6, 1.0, kept), generator.uniform(0.1, 0.5, total - kept)]
        )
        parts.append(generator.permutation(values))
    return with_scales(graph, np.concatenate(parts))


def test_there_are_eleven_public_runs():
    assert len(FIXTURES) == 11


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda f: f"{f['model']}-{f['percent']}")
def test_public_runs_come_out_of_their_scales(fixture):
    name = fixture["model"].removesuffix("_cifar10")
    if name == "vgg11_slim_imagenet":
        graph = reference("vgg11_imagenet", (3, 32, 32), 10)
    else:
        graph = reference(name.removesuffix("_slim"))
    widths = [width for width in fixture["cfg"] if width != "M"]
    assert sum(widths) == fixture["sum_kept"] == fixture["expected_sum"]
    network = fixture_network(graph, widths)
    found = generate("network_slimming", graph, keep=1 - fixture["percent"], network=network)
    producers = [graph[norm].inputs[0] for norm in norms(graph)]
    small = apply(graph, found)
    assert [small[producer].op.width for producer in producers] == body_of(fixture)
    emptied = [name for name, width in zip(producers, widths, strict=True) if width == 0]
    assert list(found.origin.kept_best) == emptied
    for producer in emptied:
        scale = network.weight(norms(graph)[producers.index(producer)]).abs()
        assert found.selections[producer] == (int(scale.argmax()),)


@pytest.mark.parametrize(
    "fixture",
    [f for f in FIXTURES if "measured_params" in f or "stated_params_M" in f],
    ids=lambda f: f"{f['model']}-{f['percent']}",
)
def test_public_runs_have_their_public_costs(fixture):
    graph = reference(fixture["model"].removesuffix("_slim_cifar10"))
    widths = [width for width in fixture["cfg"] if width != "M"]
    network = fixture_network(graph, widths)
    small = apply(
        graph, generate("network_slimming", graph, keep=1 - fixture["percent"], network=network)
    )
    sources = [3, *widths]
    weights = sum(9 * a * b + 2 * b for a, b in zip(sources, widths, strict=False))
    assert params(small) == weights + 10 * widths[-1] + 10
    if "measured_params" in fixture:
        assert params(small) == fixture["measured_params"]
        assert macs(small) == fixture["measured_macs"]
    else:
        # Two of the stated numbers are off by 1 and 2 % from their own widths.
        assert params(small) / 1e6 == pytest.approx(fixture["stated_params_M"], rel=0.025)
        assert macs(small) / 1e6 == pytest.approx(fixture["stated_macc_M"], rel=0.025)


def test_one_threshold_holds_for_all_layers():
    graph = two_layers()
    # Half of ten go, and one more: 0.1 to 0.6, all but one of the second layer.
    scales = [0.9, 0.1, 1.0, 0.7, 0.8, 0.2, 0.3, 0.4, 0.5, 0.6]
    found = generate("network_slimming", graph, keep=0.5, network=with_scales(graph, scales))
    assert found.selections == {"conv1": (0, 2, 3, 4), "conv2": (3,)}
    assert found.origin.kept_best == ("conv2",)


def test_the_channel_at_the_threshold_goes():
    graph = two_layers()
    scales = [1.0, 0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.4, 0.6, 0.5]
    found = generate("network_slimming", graph, keep=0.7, network=with_scales(graph, scales))
    # int(10 * 0.3) = 3 is the place of 0.4: four go.
    assert found.selections == {"conv1": (0, 2, 4), "conv2": (0, 2, 3)}


def test_all_that_are_tied_with_the_threshold_go():
    graph = two_layers()
    scales = [1.0, 0.5, 0.9, 0.5, 0.5, 0.1, 0.5, 0.8, 0.5, 0.5]
    found = generate("network_slimming", graph, keep=0.7, network=with_scales(graph, scales))
    assert found.selections == {"conv1": (0, 2), "conv2": (1,)}
    assert found.origin.reached == 0.3


def test_equal_scales_everywhere_leave_the_first_channel_of_each_layer():
    graph = two_layers()
    found = generate("network_slimming", graph, keep=0.7, network=build(graph))
    assert found.selections == {"conv1": (0,), "conv2": (0,)}
    assert found.origin.kept_best == ("conv1", "conv2")


@pytest.mark.parametrize("keep", [round(0.05 * i, 2) for i in range(1, 20)])
def test_keep_and_its_removed_part_count_alike(keep):
    """1 - keep in floats is not always the decimal fraction that was meant; 0.7 is one such."""
    graph = two_layers(60, 40)
    found = generate(
        "network_slimming", graph, keep=keep, network=with_scales(graph, shuffled(100))
    )
    assert not found.origin.kept_best
    removed = 100 - round(100 * keep)
    assert round(found.origin.reached * 100) == 100 - removed - 1


def test_the_batch_norm_of_a_vector_takes_part():
    graph = GRAPHS["vgg11_l1"]()
    network = trained(graph)
    with torch.no_grad():
        for name, scale in network.scales():
            if name != "classifier.1":
                scale.fill_(1.0).add_(torch.arange(len(scale)) * 1e-4)
    width = graph.shapes["classifier.1"].channels
    set_scales(network, {"classifier.1": torch.linspace(0.1, 0.5, width)})
    total = sum(group.width for group in couple(graph).free)
    # Half of the head's channels are among those that go, so nothing else does.
    keep = 1 - (width // 2 - 0.5) / total
    found = generate("network_slimming", graph, keep=keep, network=network)
    assert found.selections == {"classifier.0": tuple(range(width // 2, width))}


def test_a_coupled_group_scores_the_mean_of_its_batch_norms():
    graph = GRAPHS["resnet20"]()
    network, groups = trained(graph), couple(graph)
    scores = scale_scores(network, groups)
    group = groups["conv1"]
    on_it = [n for n in norms(graph) if groups.axes[n] == groups.axes["conv1"]]
    assert on_it == ["bn1", *(f"layer1.{block}.bn2" for block in range(3))]
    every = [np.abs(network.weight(name).numpy().astype(np.float64)) for name in on_it]
    assert len(group.members) == 4
    np.testing.assert_allclose(scores["conv1"], sum(every) / 4, rtol=1e-12)


def test_a_batch_norm_on_a_concatenation_scores_each_part_by_its_segment():
    net = GraphWriter((3, 8, 8))
    left = net.conv("left", net.input, 3, kernel=1)
    right = net.conv("right", net.input, 4, kernel=1)
    x = net.batch_norm("bn", net.concat("concat", left, right))
    graph = net.finish(net.linear("fc", net.global_pool("pool", net.relu("relu", x)), 5))
    network = with_scales(graph, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    scores = scale_scores(network, couple(graph))
    np.testing.assert_allclose(scores["left"], [0.1, 0.2, 0.3], rtol=1e-6)
    np.testing.assert_allclose(scores["right"], [0.4, 0.5, 0.6, 0.7], rtol=1e-6)


def test_a_flattened_channel_scores_the_mean_of_its_positions():
    net = GraphWriter((3, 2, 2))
    x = net.add("flatten", Flatten(), net.conv("conv", net.input, 3, kernel=1))
    x = net.batch_norm("bn", x)
    graph = net.finish(net.linear("fc", x, 5))
    network = with_scales(graph, np.arange(1, 13) / 16)
    scores = scale_scores(network, couple(graph))
    np.testing.assert_allclose(scores["conv"], np.array([2.5, 6.5, 10.5]) / 16)


def test_densenet_without_selections_scores_each_layer_by_every_batch_norm_that_reads_it():
    graph = GRAPHS["densenet_plain"]()
    network, groups = trained(graph), couple(graph)
    found = scale_scores(network, groups)
    assert {*found} == {group.name for group in groups.free}
    # Within a dense block every later batch norm reads what a layer appended.
    growth = groups["dense1.0.conv1"].width
    stem = groups["conv1"].width
    rows = [
        network.weight(name).abs()[stem : stem + growth].double().numpy()
        for name in ("dense1.1.bn1", "dense1.2.bn1", "trans1.bn1")
    ]
    np.testing.assert_allclose(found["dense1.0.conv1"], np.mean(rows, axis=0), rtol=1e-12)


def test_a_batch_norm_before_a_selection_scores_the_selection_alone():
    graph = GRAPHS["preresnet"]()
    network, groups = trained(graph), couple(graph)
    found = scale_scores(network, groups)
    for node in graph.nodes:
        if node.name.endswith("select"):
            expected = network.weight(node.inputs[0]).abs().double().numpy()
            np.testing.assert_array_equal(found[node.name], expected)
    trunk = {g.name for g in groups.free} - {*found}
    assert {m for name in trunk for m in groups[name].members} == {
        "conv1",
        *(f"layer{stage}.0.{part}" for stage in (1, 2, 3) for part in ("conv3", "downsample.0")),
    }


def test_without_batch_norms_there_is_nothing_to_look_at():
    net = GraphWriter((3, 8, 8))
    x = net.relu("relu", net.conv("conv", net.input, 4, kernel=3))
    graph = net.finish(net.linear("fc", net.global_pool("pool", x), 5))
    with pytest.raises(MethodError, match="needs batch norms on free groups"):
        generate("network_slimming", graph, keep=0.5, network=build(graph))


@pytest.mark.parametrize("strength", [-1e-9, float("nan"), float("inf")])
def test_an_impossible_strength_is_refused(strength):
    with pytest.raises(MethodError, match="strength is finite and not negative"):
        make_generator("network_slimming", strength=strength)


def test_the_penalty_is_a_subgradient_and_passes_through_momentum_and_decay():
    graph = two_layers()
    network = build(graph).double()
    set_scales(network, {"bn1": [0.5, -0.25, 0.0, 1.0, -1.0, 2.0]})
    hook = make_generator("network_slimming", strength=0.125).hooks(0.5).after_backward
    weight = network.node("bn1").weight
    velocity, expected = np.zeros(6), weight.detach().numpy().copy()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(8, 3, 8, 8, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        network(images).square().sum().backward()
        of_the_loss = weight.grad.numpy().copy()
        others = {n: p.grad.clone() for n, p in network.named_parameters() if p.dim() != 1}
        hook(network)
        optimizer.step()
        gradient = of_the_loss + 0.125 * np.sign(expected) + 0.01 * expected
        velocity = 0.9 * velocity + gradient
        expected = expected - 0.1 * velocity
        np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-12)
        parameters = dict(network.named_parameters())
        assert all(torch.equal(parameters[name].grad, grad) for name, grad in others.items())


def test_a_scale_of_zero_gets_no_push():
    network = build(two_layers())
    set_scales(network, {"bn1": [0.0, -0.0, 1.0, -1.0, 1e-30, -1e-30]})
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    make_generator("network_slimming", strength=0.5).hooks(0.5).after_backward(network)
    assert network.node("bn1").weight.grad.tolist() == [0, 0, 0.5, -0.5, 0.5, -0.5]
    assert network.node("bn2").weight.grad.tolist() == [0.5] * 4
    pushed = {"bn1.weight", "bn2.weight"}
    assert {n for n, p in network.named_parameters() if p.grad.any()} == pushed


def test_the_loop_pushes_before_the_step():
    data = shapes(train=40, test=10, side=16)
    net = GraphWriter((3, 16, 16))
    x = net.relu("relu", net.batch_norm("bn", net.conv("conv", net.input, 4, kernel=3)))
    graph = net.finish(net.linear("fc", net.global_pool("pool", x), 10))
    recipe = Recipe(epochs=1, batch=40, lr=0.5, schedule="constant")
    after = []
    for hooks in (Hooks(), make_generator("network_slimming", strength=0.25).hooks(0.5)):
        network = build(graph)
        set_scales(network, {"bn": [1.0, -1.0, 0.0, 0.5]})
        train(network, data, recipe, hooks=hooks)
        after.append(network.weight("bn").numpy())
    np.testing.assert_allclose(after[0] - after[1], [0.125, -0.125, 0.0, 0.125], atol=1e-6)
