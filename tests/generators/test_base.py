"""What the verb does with any proposal: divisors, bounds, channel selections."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunenas.arch.descriptor import apply, reached_keep
from prunenas.build.inherit import inherit
from prunenas.build.initialise import build
from prunenas.errors import BudgetError, DescriptorError, DivergenceError, MethodError
from prunenas.generators.base import (
    GENERATORS,
    generate,
    make_generator,
)
from prunenas.ir.coupling import couple
from prunenas.ir.ops import GroupNorm, Select, Shuffle
from prunenas.ir.writer import GraphWriter
from prunenas.training.recipe import Recipe
from tests.generators.networks import (
    GRAPHS,
    random_images,
    removed,
    set_scales,
    silenced,
    trained,
)
from tests.graphs import graphs


def unreadable(graph, groups, descriptor):
    """Return selections that nothing is left of by their source."""
    found = []
    for node in graph.nodes:
        if isinstance(node.op, Select):
            gone = {*removed(groups, descriptor, groups.read(node))}
            source_told = all(
                name in descriptor.selections or name not in descriptor.widths
                for s in groups.read(node)
                for name in s.groups
            )
            if not source_told or {*node.op.indices} <= gone:
                found.append(node.name)
    return found


def by_itself(method):
    return GENERATORS[method].looks_at == "own"


any_graph = given(
    graph=graphs(), keep=st.sampled_from([0.05, 0.2, 0.5, 0.8]), seed=st.integers(0, 3)
)


@pytest.mark.parametrize("method", [m for m in GENERATORS.names() if not by_itself(m)])
@settings(max_examples=40)
@any_graph
def test_every_legal_graph_gets_a_legal_descriptor(method, graph, keep, seed):
    gets_a_legal_descriptor(method, graph, keep, seed)


@pytest.mark.parametrize("method", [m for m in GENERATORS.names() if by_itself(m)])
@settings(max_examples=12)
@any_graph
def test_every_legal_graph_gets_a_legal_descriptor_from_methods_that_train(
    method, graph, keep, seed
):
    gets_a_legal_descriptor(method, graph, keep, seed)


def gets_a_legal_descriptor(method, graph, keep, seed):
    network = trained(graph, seed=seed)
    groups, kind = couple(graph), make_generator(method)
    data = random_images(graph) if kind.reads or kind.looks_at == "own" else None
    recipe = Recipe(epochs=1, batch=8, lr=1e-3)
    # None where an option of the method says how much.
    keep = None if kind.says_how_much else keep
    try:
        found = generate(method, graph, data, keep=keep, recipe=recipe, network=network, seed=seed)
    except MethodError as refusal:
        # Nothing there that it scores: it says what it needs, or why each group is left alone.
        assert re.search("needs|nothing to prune|left alone|narrow no group", str(refusal))
        return
    except BudgetError as refusal:
        assert "smallest network" in str(refusal)
        return
    except DivergenceError:
        return  # layers drawn by chance need not be trainable
    small = build(apply(graph, found)).eval()
    assert small(torch.zeros(1, *graph.input_size)).shape == (1, graph.classes)
    if kind.counts == "channels":
        assert found.origin.reached == reached_keep(groups, groups.widths | dict(found.widths))
    if kind.counts == "weights":
        kept = sum(mask.kept for mask in found.masks.values())
        # What a mask of the reference has removed already is none of the full weights.
        full = sum(
            int(getattr(network.node(name), "mask", torch.ones(mask.shape)).sum())
            for name, mask in found.masks.items()
        )
        assert found.origin.reached == kept / full
    if kind.looks_at in ("initial", "trained") and not unreadable(graph, groups, found):
        assert {*found.selections} == {*found.widths}


@pytest.mark.parametrize("method", ["l1_norm", "network_slimming"])
@pytest.mark.parametrize("keep", [0.3, 0.6])
def test_the_parts_of_a_grouped_convolution_keep_equally_many(method, keep):
    graph = GRAPHS["grouped"]()
    network, groups = trained(graph), couple(graph)
    found = generate(method, graph, keep=keep, network=network)
    parts = {"stem": 2, "right": 2, "mixed": 4, "grouped": 4}
    for name, count in parts.items():
        size = groups[name].width // count
        kept = np.array(found.selections.get(name, range(groups[name].width)))
        assert len({*np.bincount(kept // size, minlength=count)}) == 1
    assert inherit(network, found).graph == apply(graph, found)


def test_each_part_of_a_grouped_convolution_keeps_its_own_best():
    graph = GRAPHS["grouped"]()
    network = build(graph)
    with torch.no_grad():
        weight = network.node("mixed").weight
        sums = torch.tensor([9.0, 8, 7, 1, 2, 3, 6, 4, 5, 1, 3, 2])
        weight.copy_((sums / weight[0].numel()).view(-1, 1, 1, 1))
    found = generate("l1_norm", graph, keep=0.7, network=network)
    assert found.selections["mixed"] == (0, 1, 4, 5, 6, 8, 10, 11)


def test_the_parts_of_a_shuffle_keep_the_same_channels():
    net = GraphWriter((3, 8, 8))
    parts = [
        net.batch_norm(f"bn{i}", net.conv(f"conv{i}", net.input, 6, kernel=3)) for i in range(2)
    ]
    x = net.relu("relu", net.concat("concat", *parts))
    x = net.add("shuffle", Shuffle(groups=2), x)
    x = net.relu("relu2", net.batch_norm("bn", net.conv("after", x, 8, kernel=3)))
    graph = net.finish(net.linear("fc", net.global_pool("pool", x), 5))
    network = trained(graph)
    found = generate("network_slimming", graph, keep=0.5, network=network)
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        small = inherit(network, found).eval()(images)
        torch.testing.assert_close(small, silenced(network, found, filters=False).eval()(images))


def test_group_norms_keep_equally_wide_parts():
    net = GraphWriter((3, 8, 8))
    x = net.add("norm", GroupNorm(groups=3), net.conv("conv", net.input, 12, kernel=3))
    graph = net.finish(net.linear("fc", net.global_pool("pool", x), 5))
    found = generate("l1_norm", graph, keep=0.7, network=build(graph))
    assert [sum(i // 4 == part for i in found.selections["conv"]) for part in range(3)] == [2, 2, 2]


def padded_input():
    """A shortcut from the image itself: what it is padded to cannot be narrower."""
    net = GraphWriter((3, 8, 8))
    y = net.batch_norm("bn", net.conv("conv", net.input, 16, kernel=3))
    pad = net.pad_channels("pad", net.input, y, stride=1, detach=False)
    x = net.relu("relu", net.join("add", y, pad))
    return net.finish(net.linear("fc", net.global_pool("pool", x), 5))


@pytest.mark.parametrize("method", ["l1_norm", "network_slimming", "uniform", "random"])
def test_what_an_image_is_padded_to_stays_as_wide_as_the_image(method):
    graph = padded_input()
    found = generate(method, graph, keep=0.2, network=trained(graph))
    assert found.widths == {"conv": 3}
    assert len(apply(graph, found).nodes) == len(graph.nodes)


def test_where_a_bound_grows_a_group_its_next_best_channels_stay():
    graph = padded_input()
    network = trained(graph)
    set_scales(network, {"bn": np.arange(16) / 16})
    found = generate("network_slimming", graph, keep=0.2, network=network)
    assert found.selections == {"conv": (13, 14, 15)}


def stem_without_norm():
    """A stem without batch norm, padded to a layer that has one."""
    net = GraphWriter((3, 8, 8))
    stem = net.conv("stem", net.input, 6, kernel=3)
    y = net.batch_norm("bn", net.conv("conv", stem, 8, kernel=3))
    x = net.join("add", y, net.pad_channels("pad", stem, y, stride=1, detach=False))
    return net.finish(net.linear("fc", net.global_pool("pool", net.relu("relu", x)), 5))


def test_a_group_without_scores_loses_its_last_channels_where_a_bound_cuts_it():
    graph = stem_without_norm()
    found = generate("network_slimming", graph, keep=0.5, network=trained(graph))
    assert found.widths == {"stem": 3, "conv": 3}
    assert found.selections["stem"] == (0, 1, 2)


def test_where_a_bound_cuts_a_group_its_worst_channels_go():
    graph = GRAPHS["resnet20"]()
    network, groups = trained(graph), couple(graph)
    scales = {}
    for name, _ in network.scales():
        group = groups.axes[name][0].group
        width = groups[group].width
        high = group in ("conv1", "layer3.0.conv2") or name.endswith("bn1")
        scales[name] = (np.arange(width) + 1) / width + (2 if high else 0)
    set_scales(network, scales)
    groups_above = {"layer2.0.conv2"}
    total = sum(group.width for group in groups.free)
    gone = groups["layer2.0.conv2"].width - 1
    found = generate("network_slimming", graph, keep=1 - (gone - 0.5) / total, network=network)
    assert {*found.widths} == {"conv1", *groups_above}
    assert found.selections["layer2.0.conv2"] == (gone,)
    assert found.selections["conv1"] == (groups["conv1"].width - 1,)
    assert found.origin.reached == reached_keep(groups, groups.widths | dict(found.widths))


def two_readers(indices):
    """A convolution of 6 read through one batch norm, and through another one and a selection."""
    net = GraphWriter((3, 8, 8))
    x = net.conv("conv", net.input, 6, kernel=3)
    a = net.conv("left", net.relu("relu_a", net.batch_norm("bn_a", x)), 4, kernel=1)
    b = net.add("select", Select(indices=indices), net.batch_norm("bn_b", x))
    b = net.conv("right", net.relu("relu_b", b), 4, kernel=1)
    pooled = net.global_pool("pool", net.join("add", a, b))
    return net.finish(net.linear("fc", pooled, 5))


def test_a_selection_whose_channels_all_went_takes_the_best_that_are_left():
    graph = two_readers(tuple(range(6)))
    network = build(graph)
    set_scales(
        network,
        {"bn_a": [0.9, 1.0, 0.8, 0.1, 0.2, 0.3], "bn_b": [0.04, 0.05, 0.06, 0.99, 0.95, 0.5]},
    )
    found = generate("network_slimming", graph, keep=0.5, network=network)
    assert found.selections == {"conv": (0, 1, 2), "select": (2,)}
    assert inherit(network, found).graph["select"].op.indices == (2,)


def test_a_selection_that_reads_nothing_that_is_left_is_drawn_and_cannot_be_inherited():
    graph = two_readers((4, 5))
    network = build(graph)
    set_scales(network, {"bn_a": [0.9, 1.0, 0.8, 0.1, 0.2, 0.3], "bn_b": [0.5] * 6})
    found = generate("network_slimming", graph, keep=0.7, network=network)
    assert found.selections["conv"] == (0, 1, 2)
    assert "select" not in found.selections
    assert len(apply(graph, found)["select"].op.indices) == 2
    with pytest.raises(DescriptorError, match="select lost some of its source's channels"):
        inherit(network, found)


def test_a_selection_of_a_selection_follows_it():
    net = GraphWriter((3, 8, 8))
    x = net.conv("conv", net.input, 8, kernel=3)
    x = net.add("first", Select(indices=(1, 2, 3, 5, 6)), x)
    x = net.add("second", Select(indices=(0, 2, 3)), x)
    graph = net.finish(net.linear("fc", net.global_pool("pool", net.relu("relu", x)), 5))
    network = build(graph)
    with torch.no_grad():
        sums = torch.tensor([8.0, 7, 1, 6, 5, 4, 3, 2])
        network.node("conv").weight.copy_((sums / 27).view(-1, 1, 1, 1).expand(8, 3, 3, 3))
    found = generate("l1_norm", graph, keep=0.5, network=network)
    # Of the channels 0, 1, 3, 4 the first selection reads 1 and 3, the second of these only 1.
    assert found.selections == {"conv": (0, 1, 3, 4), "first": (0, 2), "second": (0, 1)}
    small = inherit(network, found).graph
    assert small["first"].op.indices == (1, 2)
    assert small["second"].op.indices == (0, 1)


def test_a_selection_before_a_grouped_convolution_keeps_equally_many_of_each_part():
    net = GraphWriter((3, 8, 8))
    x = net.conv("conv", net.input, 8, kernel=3)
    a = net.conv("left", net.relu("relu_a", net.batch_norm("bn_a", x)), 4, kernel=1)
    b = net.select_all("select", net.batch_norm("bn_b", x))
    b = net.conv("right", net.relu("relu_b", b), 4, kernel=1, groups=2)
    pooled = net.global_pool("pool", net.join("add", a, b))
    graph = net.finish(net.linear("fc", pooled, 5))
    network = build(graph)
    set_scales(
        network,
        {
            "bn_a": [0.9, 0.91, 0.1, 0.11, 0.92, 0.93, 0.12, 0.13],
            "bn_b": [0.8, 0.81, 0.14, 0.15, 0.16, 0.17, 0.82, 0.83],
        },
    )
    found = generate("network_slimming", graph, keep=0.55, network=network)
    # Above the threshold are 0, 1, 6, 7 of the selection; the source keeps 0, 1, 4, 5.
    assert found.selections == {"conv": (0, 1, 4, 5), "select": (1, 5)}
    assert inherit(network, found).graph["select"].op.indices == (1, 3)


def test_selections_that_are_added_keep_what_both_of_their_sources_have():
    net = GraphWriter((3, 8, 8))
    left = net.select_all("left_all", net.conv("left", net.input, 4, kernel=3))
    right = net.select_all("right_all", net.conv("right", net.input, 4, kernel=3))
    x = net.join("add", left, right)
    graph = net.finish(net.linear("fc", net.global_pool("pool", net.relu("relu", x)), 5))
    network = build(graph)
    with torch.no_grad():
        for conv, sums in (("left", [4.0, 3, 2, 1]), ("right", [1.0, 4, 3, 2])):
            kernel = torch.tensor(sums).view(-1, 1, 1, 1) / 27
            network.node(conv).weight.copy_(kernel.expand(4, 3, 3, 3))
    found = generate("l1_norm", graph, keep=0.5, network=network)
    assert found.selections == {"left": (0, 1), "right": (1, 2), "left_all": (1,)}
    small = inherit(network, found).graph
    assert small["left_all"].op.indices == (1,)
    assert small["right_all"].op.indices == (0,)


def test_a_selection_joined_with_a_convolution_is_given_by_its_width():
    net = GraphWriter((3, 8, 8))
    x = net.relu("relu", net.batch_norm("bn", net.conv("conv", net.input, 6, kernel=3)))
    chosen = net.add("select", Select(indices=(0, 1, 2, 3)), x)
    x = net.join("add", chosen, net.conv("other", x, 4, kernel=1))
    x = net.relu("relu2", net.batch_norm("bn2", x))
    graph = net.finish(net.linear("fc", net.global_pool("pool", x), 5))
    network = build(graph)
    set_scales(network, {"bn": [0.9, 0.8, 0.1, 0.2, 0.3, 0.4], "bn2": [1.0, 0.95, 0.85, 0.7]})
    found = generate("network_slimming", graph, keep=0.6, network=network)
    assert found.selections == {"conv": (0, 1)}
    assert found.widths == {"conv": 2, "select": 2}
    assert apply(graph, found).shapes["add"].channels == 2
