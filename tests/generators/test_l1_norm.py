"""L1-norm pruning, against the same sums written with numpy."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from prunenas.build.inherit import inherit
from prunenas.build.initialise import build
from prunenas.errors import ShapeError
from prunenas.families.base import reference
from prunenas.generators.base import generate
from prunenas.generators.base.norms import filter_norms
from prunenas.ir.coupling import couple
from prunenas.ir.ops import Convolve, Parameter, Power, Slice
from prunenas.ir.writer import GraphWriter
from tests.generators.networks import GRAPHS, attending, removed, trained


def sums(network, *names):
    """Return the absolute sums of the filters of ``names`` together, added one by one."""
    total = 0.0
    for name in names:
        weight = network.weight(name).numpy().astype(np.float64)
        total = total + np.array([np.abs(kernel).sum() for kernel in weight])
    return total


def largest(scores, count):
    return tuple(sorted(np.argsort(-scores, kind="stable")[:count].tolist()))


def line(*widths):
    """Return convolutions of these widths, one after another."""
    net = GraphWriter((3, 8, 8))
    x = net.input
    for i, width in enumerate(widths):
        x = net.relu(f"relu{i}", net.conv(f"conv{i}", x, width, kernel=3))
    return net.finish(net.linear("fc", net.global_pool("pool", x), 5))


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (6, 1, 5, 2), (7, 9)])
def test_a_filter_scores_the_sum_of_its_absolute_weights(shape):
    weight = np.random.default_rng(0).normal(size=shape)
    scores = filter_norms(torch.from_numpy(weight), 1)
    assert scores.dtype == torch.float64
    expected = [sum(abs(w) for w in kernel.ravel()) for kernel in weight]
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-12)


def test_a_vector_is_no_filter():
    with pytest.raises(ShapeError, match="2 dimensions"):
        filter_norms(torch.zeros(4), 1)


@pytest.mark.parametrize(
    ("width", "keep", "count"),
    [
        (64, 0.9, 57),
        (32, 0.9, 28),
        (16, 0.9, 14),
        (32, 0.6, 19),
        (64, 0.7, 44),
        (16, 0.4, 6),
        (32, 0.7, 22),
        (256, 0.7, 179),
        (10, 0.3, 3),
        (10, 0.7, 7),
    ],
)
def test_counts_are_cut_off_as_the_source_cuts_them(width, keep, count):
    graph = line(width)
    assert generate("l1_norm", graph, keep=keep, network=build(graph)).widths == {"conv0": count}


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.4, 0.5, 0.6])
@pytest.mark.parametrize("width", [16, 32, 64, 128, 256, 512])
def test_counts_are_those_of_the_same_float_arithmetic(width, rate):
    graph = line(width)
    found = generate("l1_norm", graph, keep=1 - rate, network=build(graph))
    assert found.widths["conv0"] == int(width * (1 - rate))


def test_every_layer_is_ranked_by_itself():
    graph = line(8, 12, 6)
    network = build(graph, seed=1)
    with torch.no_grad():
        network.node("conv1").weight.mul_(1e-3)
    found = generate("l1_norm", graph, keep=0.5, network=network)
    assert found.selections == {
        name: largest(sums(network, name), count)
        for name, count in (("conv0", 4), ("conv1", 6), ("conv2", 3))
    }


def test_the_first_filters_win_a_tie():
    graph = line(8)
    network = build(graph)
    with torch.no_grad():
        network.node("conv0").weight.fill_(0.5)
        network.node("conv0").weight[5].fill_(-1.0)
    found = generate("l1_norm", graph, keep=0.5, network=network)
    assert found.selections == {"conv0": (0, 1, 2, 5)}


def test_a_coupled_group_scores_the_sum_over_its_layers():
    graph = GRAPHS["resnet20"]()
    network = trained(graph)
    groups = couple(graph)
    coupled = [group for group in groups.free if len(group.members) > 1]
    assert len(coupled) == 3
    found = generate("l1_norm", graph, keep=0.5, network=network)
    for group in coupled:
        scores = sums(network, *group.members)
        assert found.selections[group.name] == largest(scores, group.width // 2)
        alone = {largest(sums(network, member), group.width // 2) for member in group.members}
        assert len(alone) > 1


def test_heads_score_the_sum_over_their_rows_and_so_do_places_within_a_head():
    graph = attending()
    network = trained(graph)
    weight = network.weight("qkv").abs().sum(dim=1).double().reshape(3, 4, 6)
    found = generate("l1_norm", graph, keep=0.5, network=network)
    assert found.selections["qkv.heads"] == largest(weight.sum((0, 2)).numpy(), 2)
    assert found.selections["qkv"] == largest(weight.sum((0, 1)).numpy(), 3)
    assert {*found.widths} == {"embed", "qkv.heads", "qkv", "fc1"}


def test_parts_of_a_layer_are_ranked_by_their_own_filters():
    net = GraphWriter((3, 8, 8))
    x = net.conv("conv", net.input, 10, kernel=3)
    parts = [net.add(f"part{i}", Slice(dim=1, start=4 * i, stop=4 + 6 * i), x) for i in range(2)]
    joined = net.concat("turned", *reversed(parts))
    graph = net.finish(net.linear("fc", net.global_pool("pool", joined), 5))
    network = build(graph)
    scores = sums(network, "conv")
    found = generate("l1_norm", graph, keep=0.5, network=network)
    assert found.selections == {
        "conv.part": largest(scores[:4], 2),
        "conv.part2": largest(scores[4:], 3),
    }


def test_a_layer_that_is_called_twice_counts_once():
    net = GraphWriter((2, 4, 4))
    once = net.conv("once", net.input, 4, kernel=1)
    first = net.conv("first", once, 4, kernel=1)
    second = net.conv("second", net.relu("relu", first), 4, kernel=1)
    x = net.join("add", net.join("sum", once, first), second)
    graph = net.finish(net.linear("fc", net.global_pool("pool", x), 3))
    nodes = tuple(replace(n, weights="first" if n.name == "second" else None) for n in graph.nodes)
    graph = replace(graph, nodes=nodes)
    network = build(graph)
    with torch.no_grad():
        network.node("once").weight.copy_(torch.tensor([1.0, 5, 1, 5]).view(4, 1, 1, 1) / 2)
        network.node("first").weight.copy_(torch.tensor([4.0, 1, 4, 1]).view(4, 1, 1, 1) / 4)
    # 1 + 4 is less than 5 + 1; counted twice, 1 + 8 would be more than 5 + 2.
    found = generate("l1_norm", graph, keep=0.5, network=network)
    assert found.selections["once"] == (1, 3)


@pytest.mark.parametrize("name", GRAPHS)
def test_every_group_keeps_its_own_best_count(name):
    """Within a divisor below the target, unless that is no channel at all or a bound cuts."""
    graph = GRAPHS[name]()
    groups = couple(graph)
    bounded = {s.group for bound in groups.bounds for s in bound.lower}
    for keep in (0.3, 0.5, 0.75):
        found = generate("l1_norm", graph, keep=keep, network=trained(graph))
        free = [g for g in groups.free if not g.select and g.name not in bounded]
        assert free
        for group in free:
            count = int(group.width * keep) // group.divisor * group.divisor
            assert found.widths[group.name] == max(count, group.divisor)


@pytest.mark.parametrize("name", ["preresnet", "densenet"])
def test_selections_follow_their_source(name):
    graph = GRAPHS[name]()
    groups = couple(graph)
    found = generate("l1_norm", graph, keep=0.5, network=trained(graph))
    selects = [group for group in groups.free if group.select]
    assert selects
    for group in selects:
        gone = removed(groups, found, groups.read(graph[group.name]))
        assert 0 < len(gone) < group.width
        assert {*found.selections[group.name]} == {*range(group.width)} - {*gone}


def test_emptied_groups_keep_their_best_and_are_told():
    graph = line(4, 30)
    network = build(graph)
    found = generate("l1_norm", graph, keep=0.2, network=network)
    assert found.origin.kept_best == ("conv0",)
    assert found.selections["conv0"] == largest(sums(network, "conv0"), 1)
    assert found.widths["conv1"] == 6


def test_half_of_vgg16_has_the_published_widths_where_the_source_halves():
    """The source halves the first and the last six convolutions; the keep is the same for all."""
    graph = reference("vgg16_l1")
    found = generate("l1_norm", graph, keep=0.5, network=build(graph))
    widths = [w for name, w in found.widths.items() if name.startswith("features.")]
    assert len(widths) == 13
    assert [widths[0], *widths[7:]] == [32, 256, 256, 256, 256, 256, 256]


def test_a_kernel_that_is_computed_is_scored_as_it_is_used():
    net = GraphWriter((3, 8, 8))
    kernel = net.add("kernel", Parameter(sizes=(6, 3, 3, 3)))
    kernel = net.add("bent", Power(exponent=2.0), kernel)
    x = net.add("conv", Convolve(padding=(1, 1)), net.input, kernel)
    graph = net.finish(net.linear("fc", net.global_pool("pool", x), 5))
    network = build(graph)
    scores = network.node("kernel").value.detach().square().flatten(1).sum(dim=1).numpy()
    found = generate("l1_norm", graph, keep=0.5, network=network)
    assert found.selections == {"conv": largest(scores, 3)}
    assert inherit(network, found).node("kernel").value.shape == (3, 3, 3, 3)
