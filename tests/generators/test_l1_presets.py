"""The named networks of L1-norm pruning, against the widths and costs that were published."""

import json
from pathlib import Path

import pytest

from prunenas.arch.descriptor import Descriptor, apply
from prunenas.build.initialise import build
from prunenas.errors import KeepError, MethodError
from prunenas.families.base import reference
from prunenas.generators.base import generate, make_generator
from prunenas.generators.base.presets import PRESETS, preset_keeps
from prunenas.ir.canonical import digest
from prunenas.ir.cost import macs, params, repo_flops
from prunenas.ir.coupling import couple

GOLDEN = {
    entry["id"]: entry
    for entry in json.loads(
        (Path(__file__).parents[1] / "golden" / "architectures.json").read_text()
    )["architectures"]
}

KNOWN = {
    "vgg16-A": "vgg16A_cifar10",
    "resnet56-A": "resnet56A_cifar10",
    "resnet56-B": "resnet56B_cifar10",
    "resnet110-B": "resnet110B_cifar10",
    "resnet34-A": "resnet34A_imagenet",
}


def pruned(preset):
    graph = reference(PRESETS[preset].family)
    network = build(graph)
    return graph, generate("l1_norm", graph, network=network, preset=preset)


@pytest.mark.parametrize("preset", KNOWN)
def test_a_preset_has_the_widths_and_costs_of_the_paper_to_the_unit(preset):
    graph, found = pruned(preset)
    small = apply(graph, found)
    golden = GOLDEN[KNOWN[preset]]
    assert params(small) == golden["params_without_selection_indexes"]
    assert macs(small) == golden["macs"]
    if "block_inner_widths" in golden:
        inner = [node.op.width for node in small.nodes if node.name.endswith(".conv1")]
        assert inner == golden["block_inner_widths"]
    else:
        body = [
            node.op.width
            for node in small.nodes
            if node.name.startswith("features.") and hasattr(node.op, "width")
        ]
        assert body == [width for width in golden["cfg"] if width != "M"]


@pytest.mark.parametrize(
    ("preset", "stages", "ratio"),
    [
        # Inner widths of pruned blocks by stage, and full / pruned by the released counter.
        ("resnet110-A", ({8, 16}, {32}, {64}), 1.18828),
        ("resnet34-B", ({32, 64}, {51, 128}, {153, 256}, {512}), None),
    ],
)
def test_the_other_presets_have_the_stage_widths_of_the_paper(preset, stages, ratio):
    graph, found = pruned(preset)
    small = apply(graph, found)
    for number, widths in enumerate(stages, start=1):
        inner = {
            node.op.width
            for node in small.nodes
            if node.name.startswith(f"layer{number}.") and node.name.endswith(".conv1")
        }
        assert inner == widths
    if ratio is not None:
        assert repo_flops(graph) / repo_flops(small) == pytest.approx(ratio, abs=5e-5)


def test_resnet34_b_is_stretched_to_the_published_scratch_b_epochs():
    graph = reference("resnet34")
    keeps = preset_keeps(graph, "resnet34-B")
    groups = couple(graph)
    widths = {name: int(groups[name].width * keep) for name, keep in keeps.items()}
    small = apply(graph, Descriptor(reference=digest(graph), widths=widths))
    assert int(90 * repo_flops(graph) / repo_flops(small)) == 118


@pytest.mark.parametrize("preset", ["resnet56-A", "resnet56-B"])
def test_skipped_blocks_and_all_trunks_stay_whole(preset):
    graph, found = pruned(preset)
    skip = {"resnet56-A": (16, 20, 38, 54), "resnet56-B": (16, 18, 20, 34, 38, 54)}[preset]
    blocks = [(stage, block) for stage in (1, 2, 3) for block in range(9)]
    whole = {f"layer{s}.{b}.conv1" for i, (s, b) in enumerate(blocks) if 2 + 2 * i in skip}
    pruned_layers = {f"layer{s}.{b}.conv1" for s, b in blocks} - whole
    assert {*found.widths} == pruned_layers
    assert {*found.origin.found["left_alone"]} == {
        g.name for g in couple(graph).free
    } - pruned_layers


def test_other_classes_and_images_fit_and_so_does_the_released_shortcut():
    for graph in (
        reference("resnet56", classes=100),
        reference("resnet56", (3, 64, 64)),
        reference("resnet56", detach=True),
    ):
        make_generator("l1_norm", preset="resnet56-A").check(graph)


@pytest.mark.parametrize(
    ("preset", "other", "options", "fitting"),
    [
        ("resnet56-A", "resnet110", {}, "presets that fit it: resnet110-A, resnet110-B"),
        ("resnet110-B", "resnet56", {"width": 0.5}, "presets that fit it: none"),
        ("vgg16-A", "vgg16", {}, "presets that fit it: none"),
    ],
)
def test_another_network_is_refused_with_the_family_that_fits(preset, other, options, fitting):
    graph = reference(other, **options)
    with pytest.raises(MethodError) as refusal:
        make_generator("l1_norm", preset=preset).check(graph)
    assert f"fits the reference {PRESETS[preset].family}" in str(refusal.value)
    assert fitting in str(refusal.value)


def test_a_preset_says_how_much_is_kept():
    graph = reference("resnet56")
    with pytest.raises(KeepError, match="preset says how much"):
        generate("l1_norm", graph, keep=0.5, network=build(graph), preset="resnet56-A")
    for others in ({"keeps": {"stage1": 0.5}}, {"skip": ("conv1",)}, {"preset": "resnet57"}):
        with pytest.raises(MethodError, match="preset is vgg16-A/resnet56-A"):
            make_generator("l1_norm", **({"preset": "resnet56-A"} | others))
