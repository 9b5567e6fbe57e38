"""The options that L1- and L2-norm pruning share: plans, reductions, the greedy variant."""

import numpy as np
import pytest
import torch

from prunenas.build.initialise import build
from prunenas.errors import KeepError, MethodError
from prunenas.families.base import reference
from prunenas.generators.base import generate, make_generator
from prunenas.generators.base.norms import added, projections
from prunenas.ir.coupling import couple
from prunenas.ir.writer import GraphWriter
from tests.generators.networks import GRAPHS, gated, trained


def largest(scores, count):
    return tuple(sorted(np.argsort(-np.asarray(scores), kind="stable")[:count].tolist()))


def line(*widths):
    """Return convolutions of these widths, each batch-normalised, one after another."""
    net = GraphWriter((3, 8, 8))
    x = net.input
    for i, width in enumerate(widths):
        x = net.batch_norm(f"bn{i}", net.conv(f"conv{i}", x, width, kernel=3))
        x = net.relu(f"relu{i}", x)
    return net.finish(net.linear("fc", net.global_pool("pool", x), 5))


def projected():
    """Return a residual block with a projection, and one without."""
    net = GraphWriter((3, 8, 8))
    x = net.relu("relu", net.batch_norm("bn", net.conv("stem", net.input, 8, kernel=3)))
    y = net.relu("relu1", net.conv("first", x, 6, kernel=3))
    y = net.conv("second", y, 12, kernel=3)
    x = net.relu("out1", net.join("add1", y, net.conv("down", x, 12, kernel=1)))
    y = net.conv("fourth", net.relu("relu2", net.conv("third", x, 6, kernel=3)), 12, kernel=3)
    x = net.relu("out2", net.join("add2", y, x))
    return net.finish(net.linear("fc", net.global_pool("pool", x), 5))


def kernels(network, *names):
    return [network.weight(name).numpy().astype(np.float64) for name in names]


def test_the_l2_norm_is_the_root_of_the_sum_of_squares():
    graph = line(8, 12)
    network = build(graph, seed=3)
    found = generate("l2_norm", graph, keep=0.5, network=network)
    for name, count in (("conv0", 4), ("conv1", 6)):
        (weight,) = kernels(network, name)
        assert found.selections[name] == largest([np.sqrt((f**2).sum()) for f in weight], count)


def test_the_two_norms_disagree_on_one_large_weight():
    graph = line(2)
    network = build(graph)
    with torch.no_grad():
        network.node("conv0").weight.zero_()
        network.node("conv0").weight[0, 0, 0, 0] = 3.0
        network.node("conv0").weight[1, 0] = 0.5
    kept = {
        m: generate(m, graph, keep=0.5, network=network).selections for m in ("l1_norm", "l2_norm")
    }
    assert kept == {"l1_norm": {"conv0": (1,)}, "l2_norm": {"conv0": (0,)}}


@pytest.mark.parametrize("method", ["l1_norm", "l2_norm"])
def test_greedy_scores_leave_out_what_reads_removed_channels(method):
    graph = line(8, 12, 10)
    network = trained(graph, seed=5)
    power = {"l1_norm": 1, "l2_norm": 2}[method]
    kept, expected = range(3), {}
    for name, count in (("conv0", 4), ("conv1", 6), ("conv2", 5)):
        (weight,) = kernels(network, name)
        read = weight[:, [*kept]]
        kept = expected[name] = largest((np.abs(read) ** power).sum((1, 2, 3)), count)
    found = generate(method, graph, keep=0.5, network=network, variant="greedy")
    alone = generate(method, graph, keep=0.5, network=network)
    assert found.selections == expected
    assert alone.selections["conv0"] == expected["conv0"]
    assert alone.selections != found.selections


def test_greedy_follows_channels_through_selections():
    """What a selection no longer has is left out of what reads the selection."""
    graph = GRAPHS["preresnet"]()
    network = trained(graph)
    found = generate("l1_norm", graph, keep=0.5, network=network, variant="greedy")
    (stem,) = kernels(network, "conv1")
    kept = largest(np.abs(stem).sum((1, 2, 3)), 4)
    assert found.selections["conv1"] == found.selections["layer1.0.select"] == kept
    (weight,) = kernels(network, "layer1.0.conv1")
    scores = np.abs(weight[:, [*kept]]).sum((1, 2, 3))
    assert found.selections["layer1.0.conv1"] == largest(scores, 4)


def test_greedy_decides_a_trunk_where_its_first_layer_stands():
    graph = projected()
    network = trained(graph)
    found = generate("l1_norm", graph, keep=0.5, network=network, variant="greedy")
    stem, first, down, second, fourth, third = kernels(
        network, "stem", "first", "down", "second", "fourth", "third"
    )
    size = lambda weight: np.abs(weight).sum((1, 2, 3))  # noqa: E731
    at_stem = largest(size(stem), 4)
    at_first = largest(size(first[:, [*at_stem]]), 3)
    # third is decided later, so fourth scores with all it reads.
    trunk = size(second[:, [*at_first]]) + size(down[:, [*at_stem]]) + size(fourth)
    at_trunk = largest(trunk, 6)
    assert found.selections == {
        "stem": at_stem,
        "first": at_first,
        "second": at_trunk,
        "third": largest(size(third[:, [*at_trunk]]), 3),
    }


@pytest.mark.parametrize(
    ("reduction", "how"),
    [
        ("sum", lambda rows: rows.sum(0)),
        ("mean", lambda rows: rows.mean(0)),
        ("max", lambda rows: rows.max(0)),
        ("min", lambda rows: rows.min(0)),
        ("first", lambda rows: rows[0]),
        ("projection", lambda rows: rows[1]),
    ],
)
def test_a_trunk_is_scored_by_the_reduction_that_is_asked_for(reduction, how):
    graph = projected()
    assert projections(graph) == ("down",)
    network = trained(graph, seed=2)
    rows = np.stack(
        [np.abs(w).sum((1, 2, 3)) for w in kernels(network, "second", "down", "fourth")]
    )
    found = generate("l1_norm", graph, keep=0.5, network=network, reduction=reduction)
    assert found.selections["second"] == largest(how(rows), 6)
    told = found.origin.found.get("projections")
    assert told == ({"second": ["down"]} if reduction == "projection" else None)


def test_a_trunk_without_projection_is_scored_by_the_sum():
    graph = GRAPHS["resnet20"]()
    network = trained(graph)
    found = generate("l1_norm", graph, keep=0.5, network=network, reduction="projection")
    assert found == generate("l1_norm", graph, keep=0.5, network=network, reduction="sum")
    assert found.origin.found["projections"] == {}


def test_projections_of_the_large_networks_are_their_downsamplings():
    for name, stages in (("resnet34", (2, 3, 4)), ("resnet50", (1, 2, 3, 4))):
        expected = tuple(f"layer{stage}.0.downsample.0" for stage in stages)
        assert projections(reference(name)) == expected


def test_uncoupled_groups_shrink_and_trunks_are_told():
    graph = GRAPHS["resnet20"]()
    found = generate("l1_norm", graph, keep=0.5, network=trained(graph), coupled=False)
    inner = {f"layer{stage}.{block}.conv1" for stage in (1, 2, 3) for block in range(3)}
    assert {*found.widths} == inner
    assert found.origin.found["left_alone"] == dict.fromkeys(
        ("conv1", "layer2.0.conv2", "layer3.0.conv2"), "an addition couples it"
    )


def test_a_gate_couples_no_trunk_but_an_addition_behind_it_does():
    assert added(gated(), couple(gated())) == {"stem"}
    net = GraphWriter((3, 8, 8))
    x = net.conv("conv", net.input, 4, kernel=3)
    graph = net.finish(net.linear("fc", net.global_pool("pool", x), 5))
    assert added(graph, couple(graph)) == set()


def test_keeps_go_by_stage_and_names_go_before_patterns_before_stages():
    graph = reference("vgg11", (3, 16, 16), 5, width=0.25)
    groups = [group.name for group in couple(graph).free]
    keeps = {"features.0": 0.75, "features.1*": 0.25, "stage3": 0.5, "stage2": 1.0}
    found = generate("l1_norm", graph, network=trained(graph), keeps=keeps)
    # 16x16: features.0; 8x8: 4; 4x4: 8, 11; 2x2: 15, 18; 1x1: 22, 25.
    assert groups == [f"features.{i}" for i in (0, 4, 8, 11, 15, 18, 22, 25)]
    assert found.widths == {
        "features.0": 12,
        "features.8": 32,
        "features.11": 16,
        "features.15": 32,
        "features.18": 32,
    }
    assert found.origin.found["left_alone"] == dict.fromkeys(
        ("features.22", "features.25"), "keeps does not name it"
    )
    assert found.origin.keep is None


def test_layers_of_a_trunk_name_it_and_skip_goes_by_pattern():
    graph = projected()
    network = trained(graph)
    by_layer = generate("l1_norm", graph, network=network, keeps={"down": 0.5})
    assert by_layer.widths == {"second": 6}
    skipped = generate("l1_norm", graph, keep=0.5, network=network, skip=("f*", "stem"))
    # first; fourth, which is of the trunk; stem.
    assert skipped.widths == {"third": 3}
    assert skipped.origin.found["left_alone"] == {
        "stem": "skip names it: stem",
        "first": "skip names it: f*",
        "second": "skip names it: f*",
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"skip": ("layer9.*", "stem")}, ["skip", "layer9.*", "stem, first, second, third"]),
        ({"keeps": {"stage1": 0.5, "layer9": 0.5}}, ["keeps", "layer9", "stages are stage1"]),
        ({"skip": ("*",)}, ["every group is left alone", "stem: skip names it"]),
    ],
)
def test_plans_that_name_nothing_are_refused_before_training(options, words):
    with pytest.raises(MethodError) as refusal:
        make_generator("l1_norm", **options).check(projected())
    assert all(word in str(refusal.value) for word in words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keeps": {}}, "keeps names stages"),
        ({"keeps": {"stage1": 0.0}}, "keeps names stages"),
        ({"skip": "conv*"}, "skip is a list"),
        ({"reduction": "median"}, "reduction is sum/mean/max/min/first/projection"),
        ({"variant": "greedily"}, "variant is independent/greedy"),
    ],
)
@pytest.mark.parametrize("method", ["l1_norm", "l2_norm"])
def test_impossible_options_are_refused(method, options, words):
    with pytest.raises(MethodError, match=f"{method}: {words}"):
        make_generator(method, **options)


def test_keeps_say_how_much_is_kept():
    graph = line(8)
    with pytest.raises(KeepError, match="keeps says how much"):
        generate("l1_norm", graph, keep=0.5, network=build(graph), keeps={"stage1": 0.5})
