"""Network trimming, against zeros counted with numpy on images made by hand."""

import numpy as np
import pytest
import torch

from prunenas.build.initialise import build
from prunenas.data.base import ImageData
from prunenas.errors import KeepError, MethodError
from prunenas.generators.base import generate, make_generator
from prunenas.generators.base.method import Subject
from prunenas.ir.coupling import couple
from prunenas.ir.ops import Activation, Clamp, Flatten
from prunenas.ir.writer import GraphWriter
from tests.generators.networks import GRAPHS, attending, trained


def images(graph, count=24, seed=0):
    """Return random images whose first eight are for validation."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(
        0, 256, (count, *graph.input_size), dtype=torch.uint8, generator=generator
    )
    labels = torch.arange(count) % graph.classes
    channels = graph.input_size[0]
    return ImageData(
        name="noise",
        train_images=pixels,
        train_labels=labels,
        test_images=pixels[:5],
        test_labels=labels[:5],
        classes=graph.classes,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        flip=False,
        crop_padding=0,
        validation=torch.arange(8),
    )


def normalised(data):
    """Return the images that may be looked at as a network reads them."""
    return (data.train_images[8:].numpy() / 255 - 0.5) / 0.25


def one_by_one(function="relu"):
    """Return a 1x1 convolution of grey images and its activation."""
    net = GraphWriter((1, 2, 2))
    x = net.activation("act", net.conv("conv", net.input, 4, kernel=1, bias=True), function)
    return net.finish(net.linear("fc", net.global_pool("pool", x), 2))


def measured(graph, network, data, **options):
    """Return what the method proposes, with its scores."""
    generator = make_generator("apoz", **options)
    asked = None if options.get("rule") == "one_std" else 0.5
    subject = Subject(
        graph=graph, groups=couple(graph), asked=asked, seed=0, network=network, data=data
    )
    return generator.propose(subject)


def largest(scores, count):
    return tuple(sorted(np.argsort(-np.asarray(scores), kind="stable")[:count].tolist()))


def test_zeros_are_counted_over_all_images_and_positions():
    graph = one_by_one()
    data = images(graph)
    network = build(graph)
    biases = np.array([0.0, 1.0, -1.0, 5.0])
    with torch.no_grad():
        network.node("conv").weight.fill_(1.0)
        network.node("conv").bias.copy_(torch.from_numpy(biases))
    x = normalised(data)
    expected = [np.mean(x + bias <= 0) for bias in biases]
    assert expected[3] == 0
    assert len({*expected}) == 4
    found = measured(graph, network, data)
    np.testing.assert_allclose(1 - found.scores["conv"], expected, atol=1e-12)
    assert found.found["mean_apoz"]["conv"] == pytest.approx(np.mean(expected))
    assert found.selections == {"conv": largest([-e for e in expected], 2)} == {"conv": (1, 3)}


@pytest.mark.parametrize(
    ("function", "zero"),
    [("relu", 0.0), ("relu6", 0.0), ("hardswish", -3.0), ("hardsigmoid", -3.0)],
)
def test_every_activation_with_exact_zeros_is_counted_by_its_own_range(function, zero):
    graph = one_by_one(function)
    data = images(graph)
    network = build(graph)
    scale = np.array([1.0, 3.0, -2.0, -6.0])
    with torch.no_grad():
        network.node("conv").weight.copy_(torch.from_numpy(scale).view(4, 1, 1, 1))
        network.node("conv").bias.zero_()
    x = normalised(data)
    expected = [np.mean(s * x <= zero) for s in scale]
    np.testing.assert_allclose(
        1 - measured(graph, network, data).scores["conv"], expected, atol=1e-12
    )


def test_a_clamp_at_zero_counts():
    net = GraphWriter((1, 2, 2))
    x = net.add("clamp", Clamp(low=0.0, high=0.5), net.conv("conv", net.input, 3, kernel=1))
    graph = net.finish(net.linear("fc", net.global_pool("pool", x), 2))
    network = build(graph)
    with torch.no_grad():
        network.node("conv").weight.copy_(torch.tensor([1.0, -1.0, 0.0]).view(3, 1, 1, 1))
    data = images(graph)
    x = normalised(data)
    expected = [np.mean(x <= 0), np.mean(x >= 0), 1.0]
    np.testing.assert_allclose(
        1 - measured(graph, network, data).scores["conv"], expected, atol=1e-12
    )


def test_flattened_channels_count_all_places_of_a_channel():
    net = GraphWriter((1, 2, 2))
    x = net.add("flat", Flatten(), net.conv("conv", net.input, 3, kernel=1, bias=True))
    graph = net.finish(net.linear("fc", net.relu("relu", x), 2))
    network = build(graph)
    biases = np.array([-0.5, 0.0, 1.0])
    with torch.no_grad():
        network.node("conv").weight.fill_(1.0)
        network.node("conv").bias.copy_(torch.from_numpy(biases))
    data = images(graph)
    x = normalised(data)
    np.testing.assert_allclose(
        1 - measured(graph, network, data).scores["conv"],
        [np.mean(x + bias <= 0) for bias in biases],
        atol=1e-12,
    )


def test_hidden_vectors_count_over_images_alone():
    net = GraphWriter((1, 2, 2))
    x = net.add("flat", Flatten(), net.input)
    x = net.relu("relu", net.linear("hidden", x, 5))
    graph = net.finish(net.linear("fc", x, 2))
    network = build(graph, seed=1)
    data = images(graph)
    x = normalised(data).reshape(16, 4)
    weight, bias = (p.detach().numpy() for p in network.node("hidden").parameters())
    np.testing.assert_allclose(
        1 - measured(graph, network, data).scores["hidden"],
        np.mean(x @ weight.T + bias <= 0, axis=0),
        atol=1e-12,
    )


def two_activations():
    """Return a group that two activations read: one of it, one of its negative shift."""
    net = GraphWriter((1, 2, 2))
    x = net.conv("conv", net.input, 4, kernel=1, bias=True)
    first = net.relu("first", x)
    second = net.relu("second", net.batch_norm("bn", x))
    return net.finish(net.linear("fc", net.global_pool("pool", net.join("add", first, second)), 2))


@pytest.mark.parametrize(
    ("reduction", "how"),
    [("mean", np.mean), ("max", np.max), ("min", np.min), ("first", lambda rows, axis: rows[0])],
)
def test_several_activations_on_a_group_are_reduced(reduction, how):
    graph = two_activations()
    network = build(graph).eval()
    data = images(graph)
    x = normalised(data)
    biases, shifts = np.array([0.0, 0.5, -0.5, 1.0]), np.array([0.3, -2.0, 0.0, -1.5])
    with torch.no_grad():
        network.node("conv").weight.fill_(1.0)
        network.node("conv").bias.copy_(torch.from_numpy(biases))
        network.node("bn").bias.copy_(torch.from_numpy(shifts))
    single = [np.mean(x + b <= 0) for b in biases]
    # In evaluation a fresh batch norm divides by almost 1 and adds its shift.
    normed = [
        np.mean((x + b) / np.sqrt(1 + 1e-5) + s <= 0) for b, s in zip(biases, shifts, strict=True)
    ]
    expected = how(np.array([single, normed]), axis=0)
    # The sum of two ReLUs is read by no activation: two count.
    found = measured(graph, network, data, reduction=reduction)
    np.testing.assert_allclose(1 - found.scores["conv"], expected, atol=1e-12)


def scored(values):
    """Return a network, one 1x1 convolution a group, and images on which APoZ is as told.

    Of 16 images with one pixel each, channel c is positive on as many as wanted.
    """
    net = GraphWriter((1, 1, 1))
    x = net.input
    parts = []
    for i, zeros in enumerate(values):
        y = net.conv(f"conv{i}", x, len(zeros), kernel=1, bias=True)
        parts.append(net.relu(f"relu{i}", y))
    graph = net.finish(net.linear("fc", net.global_pool("pool", net.concat("all", *parts)), 2))
    pixels = torch.cat([torch.zeros(8), torch.arange(16) * 16]).to(torch.uint8).view(-1, 1, 1, 1)
    labels = torch.arange(24) % 2
    data = ImageData(
        name="steps",
        train_images=pixels,
        train_labels=labels,
        test_images=pixels[:4],
        test_labels=labels[:4],
        classes=2,
        mean=(0.0,),
        std=(1.0,),
        flip=False,
        crop_padding=0,
        validation=torch.arange(8),
    )
    network = build(graph)
    with torch.no_grad():
        for i, zeros in enumerate(values):
            network.node(f"conv{i}").weight.fill_(1.0)
            bias = torch.tensor([-(16 * z - 8) / 255 for z in zeros])
            network.node(f"conv{i}").bias.copy_(bias)
    return graph, network, data


def test_the_paper_rule_cuts_more_than_one_deviation_above_the_mean():
    zeros = [2, 2, 2, 3, 3, 12, 16, 4], [8, 8, 8, 8], [0, 4]
    graph, network, data = scored(zeros)
    found = measured(graph, network, data, rule="one_std")
    for i, counts in enumerate(zeros):
        apoz = np.array(counts) / 16
        np.testing.assert_allclose(1 - found.scores[f"conv{i}"], apoz, atol=1e-12)
        cut = apoz > apoz.mean() + apoz.std()
        assert found.selections[f"conv{i}"] == tuple(np.flatnonzero(~cut))
    # 12 and 16 exceed; equal ones do not; of two, the larger is one deviation above the mean.
    assert found.selections == {"conv0": (0, 1, 2, 3, 4, 7), "conv1": (0, 1, 2, 3), "conv2": (0, 1)}


def test_the_paper_rule_over_all_channels_uses_one_mean():
    zeros = [2, 2, 2, 2], [15, 16], [3, 2, 4, 14]
    graph, network, data = scored(zeros)
    every = np.concatenate(zeros) / 16
    limit = every.mean() + every.std()
    found = measured(graph, network, data, rule="one_std", scope="global")
    assert found.selections["conv0"] == (0, 1, 2, 3)
    assert found.selections["conv2"] == (0, 1, 2)
    assert (np.array([15, 16]) / 16 > limit).all()
    assert found.selections["conv1"] == (0,)
    assert found.kept_best == ("conv1",)


def test_a_keep_takes_the_fewest_zeros_of_each_layer_or_of_all():
    zeros = [1, 2, 3, 4], [9, 5, 8, 7]
    graph, network, data = scored(zeros)
    assert measured(graph, network, data).selections == {"conv0": (0, 1), "conv1": (1, 3)}
    every = measured(graph, network, data, scope="global")
    assert every.selections == {"conv0": (0, 1, 2, 3), "conv1": (1,)}
    assert every.kept_best == ("conv1",)


def test_the_first_of_equals_stays():
    graph, network, data = scored(([5, 5, 5, 5], [3, 5, 3, 3]))
    found = measured(graph, network, data)
    assert found.selections == {"conv0": (0, 1), "conv1": (0, 2)}


def test_only_images_outside_validation_and_test_are_looked_at_and_as_many_as_asked():
    graph = one_by_one()
    data = images(graph)
    network = build(graph)
    generator = make_generator("apoz", images=5)
    subject = Subject(
        graph=graph, groups=couple(graph), asked=0.5, seed=3, network=network, data=data
    )
    batches = [images for images, _ in subject.batches(5)]
    assert sum(map(len, batches)) == 5
    x = torch.cat(batches).numpy()
    allowed = {image.tobytes() for image in normalised(data).astype(np.float32)}
    close = [
        min(np.abs(image - np.frombuffer(a, np.float32).reshape(1, 2, 2)).max() for a in allowed)
        for image in x
    ]
    assert max(close) < 1e-6
    with torch.no_grad():
        network.node("conv").weight.fill_(1.0)
        network.node("conv").bias.zero_()
    found = generator.propose(subject)
    np.testing.assert_allclose(1 - found.scores["conv"], np.mean(x <= 0), atol=1e-12)


def test_groups_without_such_an_activation_are_left_alone_and_told():
    graph = GRAPHS["preresnet"]()
    found = generate("apoz", graph, images(graph), keep=0.5, network=trained(graph))
    trunk = {"conv1", "layer1.0.conv3", "layer2.0.conv3", "layer3.0.conv3"}
    assert {*found.origin.found["left_alone"]} == trunk
    assert trunk.isdisjoint(found.widths)
    assert {"layer1.0.select", "layer1.0.conv1", "layer1.0.conv2"} <= {*found.widths}


def test_a_graph_without_exact_zeros_is_refused_before_training():
    with pytest.raises(MethodError, match="activations with exact zeros"):
        make_generator("apoz").check(attending())
    graph = one_by_one("sigmoid")
    assert isinstance(graph["act"].op, Activation)
    with pytest.raises(MethodError, match="activations with exact zeros"):
        make_generator("apoz").check(graph)


def test_one_std_says_how_much_and_needs_images():
    graph = one_by_one()
    network = build(graph)
    with pytest.raises(KeepError, match="rule says how much"):
        generate("apoz", graph, images(graph), keep=0.5, network=network, rule="one_std")
    assert (
        generate("apoz", graph, images(graph), network=network, rule="one_std").origin.keep is None
    )
    with pytest.raises(MethodError, match="looks at images"):
        generate("apoz", graph, keep=0.5, network=network)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"images": 0}, "images is a number"),
        ({"rule": "two_std"}, "rule is keep/one_std"),
        ({"scope": "model"}, "scope is layer/global"),
        ({"reduction": "median"}, "reduction is sum"),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(MethodError, match=f"apoz: {words}"):
        make_generator("apoz", **options)
