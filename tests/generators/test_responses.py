"""What layers read, who reads a group, and least squares, against plain computations."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from prunenas.build.initialise import build
from prunenas.generators.base.least_squares import LeastSquares, nearest_solution
from prunenas.generators.base.readers import NOBODY, linear_readers, lost, plan, tied_by_place
from prunenas.generators.base.responses import (
    bias,
    contributions,
    dense_kernel,
    every_contribution,
    locations,
    patches,
    positions,
    scale_inputs,
)
from prunenas.ir.coupling import couple
from prunenas.ir.ops import (
    Conv1d,
    Conv2d,
    Depthwise2d,
    Flatten,
    KernelSparsity,
    Linear,
    MatMul,
    Permute,
    Reshape,
    Select,
)
from prunenas.ir.writer import GraphWriter
from tests.generators.networks import GRAPHS, attending
from tests.graphs import graphs


def flattened():
    """A channel is repeated at each of 9 positions."""
    net = GraphWriter((2, 3, 3))
    x = net.relu("relu", net.conv("first", net.input, 5, kernel=3))
    return net.finish(net.linear("fc", net.add("flat", Flatten(), x), 4))


def behind_depthwise():
    """Two outputs of a depthwise convolution for each channel."""
    net = GraphWriter((2, 5, 5))
    x = net.relu("relu", net.conv("first", net.input, 4, kernel=1))
    x = net.add("deep", Depthwise2d(kernel=(3, 3), padding=(1, 1), multiplier=2), x)
    x = net.add("next", Conv2d(width=6, kernel=(3, 2), stride=(2, 1), padding=(0, 1)), x)
    return net.finish(net.linear("fc", net.global_pool("pool", x), 3))


def joined():
    """Two groups on one axis, one of them twice, and a grouped dilated convolution behind."""
    net = GraphWriter((2, 6, 6))
    left = net.relu("relu1", net.conv("first", net.input, 3, kernel=3))
    right = net.relu("relu2", net.conv("other", net.input, 2, kernel=1, bias=True))
    x = net.concat("concat", left, right, left)
    op = Conv2d(width=6, kernel=(3, 3), dilation=(2, 2), padding=(2, 2), groups=2, bias=True)
    x = net.add("next", op, net.concat("twice", x, x))
    return net.finish(net.linear("fc", net.global_pool("pool", x), 3))


def selecting():
    net = GraphWriter((2, 4, 4))
    x = net.relu("relu", net.conv("first", net.input, 6, kernel=3))
    x = net.add("select", Select(indices=(1, 2, 5)), x)
    return net.finish(
        net.linear("fc", net.global_pool("pool", net.conv("next", x, 4, kernel=1)), 3)
    )


def along():
    """A convolution along one dimension, and a linear layer on tokens."""
    net = GraphWriter((2, 4, 4))
    x = net.relu("relu", net.conv("first", net.input, 5, kernel=1))
    x = net.add("row", Reshape(sizes=(5, 16)), x)
    x = net.relu("relu2", net.add("next", Conv1d(width=4, kernel=3, stride=2, padding=1), x))
    x = net.add("tokens", Permute(order=(0, 2, 1)), x)
    x = net.add("flat", Reshape(sizes=(24,)), net.add("mixed", Linear(width=3), x))
    return net.finish(net.add("fc", Linear(width=3), x))


SMALL = {
    "flattened": flattened,
    "behind_depthwise": behind_depthwise,
    "joined": joined,
    "selecting": selecting,
    "along": along,
}
EVERY = {**SMALL, **GRAPHS, "attending": attending}


def seen(network, images):
    """Return the value read and the value computed by every call, by one run with hooks."""
    graph = network.graph
    calls = {}
    for node in graph.nodes[1:]:
        calls.setdefault(node.weights or node.name, []).append(node.name)
    found = {}

    def note(name, args, result):
        found[calls[name][sum(call in found for call in calls[name])]] = (args, result)

    handles = [
        network.get_submodule(name).register_forward_hook(
            lambda _, args, result, name=name: note(name, args, result)
        )
        for name in calls
    ]
    with torch.no_grad():
        network(images)
    for handle in handles:
        handle.remove()
    return found


def by_location(graph, name, result, images):
    """Return the outputs of a layer ``[images locations out]``."""
    if isinstance(graph[name].op, Linear):
        return result.reshape(images, -1, result.shape[-1])
    return result.reshape(images, -1, *result.shape[1:]).flatten(3).transpose(2, 3).flatten(1, 2)


def check_sums(graph):
    network = build(graph, seed=1).eval()
    images = torch.randn(3, *graph.input_size, generator=torch.Generator().manual_seed(0))
    values = seen(network, images)
    groups = couple(graph)
    for group in groups:
        readers = linear_readers(graph, groups, group)
        for reader in () if isinstance(readers, str) else readers:
            (value, *_), result = values[reader.node]
            where = torch.arange(positions(graph, reader.node)).expand(3, -1)
            read = patches(graph, reader.node, value, where).flatten(0, 1)
            kernel = dense_kernel(network, reader.layer)
            expected = by_location(graph, reader.node, result, 3).flatten(0, 1).double()
            expected = expected - bias(network, reader.layer)
            for some, every in every_contribution(read, kernel, reader.owners, group.width):
                torch.testing.assert_close(every.sum(dim=2), expected[some], rtol=1e-4, atol=1e-4)
            outputs = torch.arange(len(read)) % len(kernel)
            one = contributions(read, kernel, outputs, reader.owners, group.width)
            torch.testing.assert_close(
                one.sum(dim=1),
                expected[torch.arange(len(read)), outputs],
                rtol=1e-4,
                atol=1e-4,
            )


@pytest.mark.parametrize("name", EVERY)
def test_contributions_add_up_to_the_response_less_the_bias(name):
    check_sums(EVERY[name]())


@settings(max_examples=12)
@given(graphs())
def test_contributions_add_up_on_random_graphs(graph):
    check_sums(graph)


@pytest.mark.parametrize("name", SMALL)
def test_a_contribution_is_what_the_response_loses_without_the_channel(name):
    graph = SMALL[name]()
    network = build(graph, seed=2).eval()
    with torch.no_grad():  # biases would not go with the channel's values
        for key, value in network.named_parameters():
            if key.endswith("bias"):
                value.zero_()
    images = torch.randn(2, *graph.input_size, generator=torch.Generator().manual_seed(0))
    whole = seen(network, images)
    groups = couple(graph)
    group = groups["first"]
    (reader,) = (r for r in linear_readers(graph, groups, group) if r.node != "mixed")
    (value, *_), result = whole[reader.node]
    where = torch.arange(positions(graph, reader.node)).expand(2, -1)
    read = patches(graph, reader.node, value, where).flatten(0, 1)
    kernel = dense_kernel(network, reader.layer)
    found = torch.cat(
        [every for _, every in every_contribution(read, kernel, reader.owners, group.width)]
    )
    for channel in range(group.width):
        without = build(graph, seed=2).eval()
        without.load_state_dict(network.state_dict())
        with torch.no_grad():
            without.node("first").weight[channel] = 0.0
        lost_there = result - seen(without, images)[reader.node][1]
        expected = by_location(graph, reader.node, lost_there, 2).flatten(0, 1).double()
        torch.testing.assert_close(found[..., channel], expected, rtol=1e-4, atol=1e-5)
        assert expected.abs().max() > 1e-4 or (name == "selecting" and channel in (0, 3, 4))


def test_owners_are_the_places_of_flattened_joined_and_selected_channels():
    def owners(graph, name):
        (reader, *_) = linear_readers(graph, couple(graph), couple(graph)[name])
        return reader.owners.tolist()

    assert owners(flattened(), "first") == [c for c in range(5) for _ in range(9)]
    assert owners(behind_depthwise(), "first") == [0, 0, 1, 1, 2, 2, 3, 3]
    assert owners(joined(), "first") == [0, 1, 2, NOBODY, NOBODY, 0, 1, 2] * 2
    assert owners(joined(), "other") == [*[NOBODY] * 3, 0, 1, *[NOBODY] * 3] * 2
    assert owners(selecting(), "first") == [1, 2, 5]
    assert owners(selecting(), "select") == [0, 1, 2]


def test_groups_without_linear_readers_are_told_and_why():
    net = GraphWriter((2, 4, 4))
    x = net.conv("first", net.input, 4, kernel=3)
    x = net.add("row", Reshape(sizes=(4, 16)), x)
    x = net.add("square", MatMul(), x, net.add("turned", Permute(order=(0, 2, 1)), x))
    graph = net.finish(net.add("fc", Linear(width=3), net.add("flat", Reshape(sizes=(16,)), x)))
    planned = plan(graph, couple(graph), 0.5, "none")
    assert "first" not in planned.readers
    free = {group.name for group in couple(graph).free}
    assert free == {*planned.left_alone} | {*planned.readers}
    assert all(planned.left_alone.values())


@pytest.mark.parametrize(
    ("name", "whole", "spared"),
    [
        ("preresnet", "none", set()),
        ("preresnet", "selected", {"conv1", "layer1.0.conv3", "layer2.0.conv3", "layer3.0.conv3"}),
        ("resnet20", "selected", set()),
        ("resnet20", "joined", {"conv1", "layer2.0.conv2", "layer3.0.conv2"}),
        ("gated", "joined", {"stem"}),
        ("vgg11", "joined", set()),
    ],
)
def test_groups_that_stay_whole_are_those_that_were_asked_for(name, whole, spared):
    graph = GRAPHS[name]()
    planned = plan(graph, couple(graph), 0.5, whole)
    assert {*planned.left_alone} == spared
    assert {*planned.left_alone} | {*planned.readers} == {g.name for g in couple(graph).free}


@pytest.mark.parametrize("keep", [1e-4, 0.29, 0.3, 0.57, 0.9])
@pytest.mark.parametrize("name", EVERY)
def test_counts_are_the_whole_part_cut_to_the_divisor(name, keep):
    graph = EVERY[name]()
    groups = couple(graph)
    planned = plan(graph, groups, keep, "selected")
    for found, count in planned.counts.items():
        width, divisor = groups[found].width, groups[found].divisor
        exact = round(width * keep * 10_000) // 10_000
        assert count == max(exact // divisor, 1) * divisor
        assert (found in planned.kept_best) == (exact < divisor)


def test_turns_take_layers_in_forward_order_and_decide_each_group_once():
    graph = GRAPHS["densenet_plain"]()
    planned = plan(graph, couple(graph), 0.5, "none")
    order = {node.name: i for i, node in enumerate(graph.nodes)}
    turns = planned.turns(graph)
    assert [order[layer] for layer, _ in turns] == sorted(order[layer] for layer, _ in turns)
    decided = [name for _, names in turns for name in names]
    assert sorted(decided) == sorted(planned.readers)
    assert {layer for layer, _ in turns} == {
        reader.layer for readers in planned.readers.values() for reader in readers
    }


def test_what_a_source_loses_its_selections_lose():
    graph = selecting()
    assert lost(graph, couple(graph), {"first": [0, 2]}) == {"first": (0, 2), "select": (1,)}
    assert lost(graph, couple(graph), {"select": [0]}) == {"select": (0,)}


def test_a_padded_shortcut_ties_the_first_channels_of_the_wider_group():
    graph = GRAPHS["resnet20"]()
    groups = couple(graph)
    gone = {"conv1": (0, 3, 4, 7)}
    assert tied_by_place(graph, groups, "layer2.0.conv2", gone) == ((0, 3, 4, 7), (1, 2, 5, 6))
    assert tied_by_place(graph, groups, "layer1.0.conv1", gone) == ((), ())
    assert tied_by_place(graph, groups, "conv1", {"conv1": (2,)}) == ((2,), ())


def test_locations_are_drawn_by_seed_and_layer_from_all_there_are():
    graph = GRAPHS["vgg11"]()
    drawn = locations(graph, "features.4", 2000, 10, seed=0)
    assert drawn.shape == (2000, 10)
    counts = np.bincount(drawn.flatten().numpy(), minlength=64)
    assert len(counts) == positions(graph, "features.4") == 64
    # 20,000 draws of 64: each about 312 times, with a deviation of 18.
    assert 312 - 90 < counts.min() <= counts.max() < 312 + 90
    assert torch.equal(drawn, locations(graph, "features.4", 2000, 10, seed=0))
    assert not torch.equal(drawn, locations(graph, "features.4", 2000, 10, seed=1))
    same_size = locations(graph, "features.8", 2000, 10, seed=0)
    assert not torch.equal(drawn % 16, same_size % 16)


def test_distinct_locations_are_all_where_there_are_few():
    graph = GRAPHS["vgg11"]()
    last = locations(graph, "classifier", 3, 10, seed=0, distinct=True)
    assert last.tolist() == [[0]] * 3
    few = locations(graph, "features.18", 2, 4, seed=0, distinct=True)
    assert few.tolist() == [[0, 1, 2, 3]] * 2 or positions(graph, "features.18") != 4
    assert locations(graph, "features.0", 2, 4, seed=0, distinct=True).shape == (2, 4)


def test_reads_yields_inputs_in_order_and_runs_nothing_behind_the_last():
    graph = GRAPHS["grouped"]()
    network = build(graph).eval()
    images = torch.randn(2, 3, 8, 8)
    expected = seen(network, images)
    ran = []
    for node in graph.nodes[1:]:
        network.node(node.name).register_forward_hook(lambda *_, name=node.name: ran.append(name))
    with torch.no_grad():
        found = dict(network.reads(images, ["concat", "right"]))
    assert [*found] == ["right", "concat"]
    for name, values in found.items():
        for mine, theirs in itertools.zip_longest(values, expected[name][0]):
            assert torch.equal(mine, theirs)
    names = [node.name for node in graph.nodes[1:]]
    assert ran == names[: names.index("concat")]


def test_a_masked_kernel_counts_what_the_mask_leaves():
    net = GraphWriter((3, 6, 6))
    x = net.relu("relu", net.conv("first", net.input, 4, kernel=3))
    sparse = KernelSparsity(density=(0.5,) * 9, seed=3)
    x = net.add("next", Conv2d(width=5, kernel=(3, 3), sparsity=sparse), x)
    graph = net.finish(net.linear("fc", net.global_pool("pool", x), 3))
    network = build(graph)
    with torch.no_grad():
        network.node("next").weight.fill_(1.0)  # hidden weights too
    kernel = dense_kernel(network, "next")
    assert torch.equal(kernel.flatten(1), network.node("next").mask.flatten(1).double())
    check_sums(graph)


def test_factors_reach_the_places_they_are_for_in_grouped_kernels():
    graph = joined()
    network = build(graph, seed=0)
    before = dense_kernel(network, "next")
    factors = torch.arange(1.0, 17.0, dtype=torch.float64)
    scale_inputs(network, "next", factors)
    torch.testing.assert_close(
        dense_kernel(network, "next"), before * factors[:, None], rtol=1e-6, atol=0
    )


@pytest.mark.parametrize(("rows", "columns"), [(40, 7), (7, 7), (5, 12)])
def test_least_squares_is_numpys(rows, columns):
    random = np.random.default_rng(0)
    design, response = random.normal(size=(rows, columns)), random.normal(size=(rows, 3))
    fit = LeastSquares(rows=rows, columns=columns)
    for part in np.array_split(np.arange(rows), 3):
        fit.add(torch.from_numpy(design[part]), torch.from_numpy(response[part]))
    found, error = fit.solve()
    expected = np.linalg.lstsq(design, response, rcond=None)[0]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-7, atol=1e-9)
    missed = ((response - design @ expected) ** 2).sum()
    assert error == pytest.approx(missed, rel=1e-7, abs=1e-9)


def test_what_least_squares_leaves_open_stays_at_zero():
    random = np.random.default_rng(1)
    design = random.normal(size=(30, 4))
    design = np.column_stack([design, design[:, 0], np.zeros(30)])
    gram = torch.from_numpy(design.T @ design)
    response = random.normal(size=30)
    found = nearest_solution(gram, torch.from_numpy(design.T @ response)).numpy()
    np.testing.assert_allclose(found, np.linalg.pinv(design) @ response, atol=1e-9)
    assert found[5] == 0
    assert found[0] == pytest.approx(found[4])
    assert nearest_solution(torch.zeros(2, 2), torch.zeros(2)).tolist() == [0, 0]
