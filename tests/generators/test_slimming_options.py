"""Network Slimming beyond its source: weighted penalties, reductions, what is left alone."""

import numpy as np
import pytest
import torch

from prunenas.build.initialise import build
from prunenas.errors import MethodError
from prunenas.generators.base import generate, make_generator
from prunenas.generators.base.scales import scale_scores
from prunenas.ir.coupling import couple
from prunenas.ir.ops import BatchNorm, Select
from prunenas.ir.writer import GraphWriter
from tests.generators.networks import GRAPHS, set_scales, trained


def norms(graph):
    return [node.name for node in graph.nodes if isinstance(node.op, BatchNorm)]


def scored(graph, norm):
    """Return what a batch norm decides on: the selection that reads it, else what it reads."""
    (reader,) = graph.readers[norm]
    return reader.name if isinstance(reader.op, Select) else graph[norm].inputs[0]


def two_layers(first=6, second=4):
    net = GraphWriter((3, 8, 8))
    x = net.relu("relu1", net.batch_norm("bn1", net.conv("conv1", net.input, first, kernel=3)))
    x = net.relu("relu2", net.batch_norm("bn2", net.conv("conv2", x, second, kernel=3)))
    return net.finish(net.linear("fc", net.global_pool("pool", x), 5))


def test_groups_without_batch_norms_are_left_alone_and_told():
    graph = GRAPHS["preresnet"]()
    descriptor = generate("network_slimming", graph, keep=0.5, network=trained(graph))
    alone = descriptor.origin.found["left_alone"]
    assert {*alone} == {"conv1", "layer1.0.conv3", "layer2.0.conv3", "layer3.0.conv3"}
    assert not {*alone} & {*descriptor.widths}
    vgg = GRAPHS["vgg11"]()
    assert not generate("network_slimming", vgg, keep=0.5, network=trained(vgg)).origin.found


@pytest.mark.parametrize("option", ["weighting", "reduction"])
def test_an_unknown_word_is_refused_with_those_that_exist(option):
    with pytest.raises(MethodError, match=f"{option} is one of .*, got 'median'"):
        make_generator("network_slimming", **{option: "median"})


def pushes(graph, strength=0.5, **options):
    """Return what the penalty adds to the gradient of each scale, all of them positive."""
    network = build(graph)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    make_generator("network_slimming", strength=strength, **options).hooks(0.5).after_backward(
        network
    )
    assert all(not p.grad.any() for n, p in network.named_parameters() if n.endswith(".bias"))
    return {name: scale.grad.double().numpy() for name, scale in network.scales()}


@pytest.mark.parametrize(
    ("weighting", "first", "second"),
    [
        # A channel of conv1 is made from 3 and read by 4, at 64 places; the head reads no map.
        ("macs", 9 * 64 * (3 + 4), 9 * 64 * 6 + 5),
        ("params", 9 * 3 + 2 + 9 * 4, 9 * 6 + 2 + 5),
    ],
)
def test_the_weighted_penalty_is_the_cost_of_a_channel_over_the_mean(weighting, first, second):
    mean = (6 * first + 4 * second) / 10
    found = pushes(two_layers(), weighting=weighting)
    np.testing.assert_allclose(found["bn1"], [0.5 * first / mean] * 6, rtol=1e-6)
    np.testing.assert_allclose(found["bn2"], [0.5 * second / mean] * 4, rtol=1e-6)


def test_a_selection_costs_what_reads_it():
    graph = GRAPHS["preresnet"]()
    found = pushes(graph, weighting="macs")
    groups = couple(graph)
    widths = {norm: groups[scored_group(groups, graph, norm)].width for norm in norms(graph)}
    # Here every batch norm scores a group of its own, so that the mean push is the strength.
    total = sum(found[norm].mean() * width for norm, width in widths.items())
    assert total == pytest.approx(0.5 * sum(widths.values()))
    # Both are read by 1x1 convolutions on 8x8 maps; the second makes a map by 3x3 too.
    reads, inner = 64 * graph["layer1.0.conv1"].op.width, graph["layer1.0.conv2"].op.width
    makes = 64 * (graph.shapes["layer1.0.select"].channels + 9 * inner)
    assert found["layer1.0.bn1"][0] / found["layer1.0.bn2"][0] == pytest.approx(reads / makes)


def scored_group(groups, graph, norm):
    return groups.axes[scored(graph, norm)][0].group


def test_a_scale_that_decides_on_no_free_group_is_pushed_without_weighting_only():
    net = GraphWriter((3, 8, 8))
    x = net.batch_norm("input_bn", net.input)
    x = net.relu("relu", net.batch_norm("bn", net.conv("conv", x, 4, kernel=3)))
    graph = net.finish(net.linear("fc", net.global_pool("pool", x), 5))
    assert pushes(graph)["input_bn"].tolist() == [0.5] * 3
    assert pushes(graph, weighting="macs")["input_bn"].tolist() == [0.0] * 3
    assert pushes(graph, weighting="macs")["bn"].tolist() == [0.5] * 4


def test_the_sign_decides_where_a_weighted_penalty_pushes():
    network = build(two_layers())
    set_scales(network, {"bn1": [0.0, -0.0, 1.0, -1.0, 2.0, -2.0]})
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    make_generator("network_slimming", weighting="macs").hooks(None).after_backward(network)
    assert network.node("bn1").weight.grad.sign().tolist() == [0, 0, 1, -1, 1, -1]


@pytest.mark.parametrize("reduction", ["mean", "sum", "max", "min"])
def test_the_reduction_over_batch_norms_can_be_chosen(reduction):
    graph = GRAPHS["resnet20"]()
    network = trained(graph)
    names = ["bn1", *(f"layer1.{block}.bn2" for block in range(3))]
    rows = np.stack([network.weight(name).abs().double().numpy() for name in names])
    scores = scale_scores(network, couple(graph), reduction)
    np.testing.assert_allclose(scores["conv1"], getattr(np, reduction)(rows, axis=0), rtol=1e-12)


def test_the_chosen_reduction_decides():
    graph = GRAPHS["resnet20"]()
    network = trained(graph)
    first, least = (
        generate("network_slimming", graph, keep=0.4, network=network, reduction=reduction)
        for reduction in ("first", "min")
    )
    order = np.argsort(-network.weight("bn1").abs().numpy())
    kept = first.selections["conv1"]
    assert kept == tuple(sorted(order[: len(kept)]))
    assert len(least.selections["conv1"]) < len(kept) < len(order)
