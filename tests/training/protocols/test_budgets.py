"""Budgets: fair training from scratch, in the paper's numbers, and what each protocol makes."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prunenas.arch.descriptor import Descriptor, apply
from prunenas.errors import RecipeError
from prunenas.families.base import reference
from prunenas.ir.canonical import digest
from prunenas.ir.ops import Conv2d, ExactMask
from prunenas.training.protocols.budgets import (
    PROTOCOLS,
    StepSeconds,
    fine_tune,
    protocol_recipe,
    scratch_b,
    scratch_e,
)
from prunenas.training.recipe import RECIPES, Recipe
from tests.training.networks import KERNELS, every_kernel, linear

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "architectures.json").read_text())
FACTS = {fact["id"]: fact for fact in GOLDEN["architectures"]}


def narrowed(graph, names, widths):
    told = Descriptor(reference=digest(graph), widths=dict(zip(names, widths, strict=True)))
    return apply(graph, told)


def pair(family, fact):
    """Return the large network and the small one of the facts."""
    large = reference(
        family, **({"detach": True} if "cifar" in fact["id"] and "resnet" in family else {})
    )
    convolutions = [n.name for n in large.nodes if isinstance(n.op, Conv2d)]
    inner = [n for n in convolutions if n.startswith("layer") and n.endswith(".conv1")]
    if "cfg" in fact:
        return large, narrowed(large, convolutions, [w for w in fact["cfg"] if w != "M"])
    if "block_inner_widths" in fact:
        return large, narrowed(large, inner, fact["block_inner_widths"])
    kept = fact["bottleneck_inner_width_per_stage"]
    both = [name.removesuffix("1") + i for name in inner for i in "12"]
    return large, narrowed(large, both, [kept[int(name[len("layer")]) - 1] for name in both])


@pytest.mark.parametrize(
    ("family", "small", "recipe", "cap", "epochs", "milestones"),
    [
        ("vgg16_l1", "vgg16A_cifar10", "paper", None, 243, (121, 182)),
        ("resnet56", "resnet56A_cifar10", "paper", None, 178, (89, 133)),
        ("resnet56", "resnet56B_cifar10", "paper", None, 220, (110, 165)),
        ("resnet110", "resnet110B_cifar10", "paper", None, 260, (130, 195)),
        ("vgg16_imagenet", "thinet_conv", "paper_imagenet", 2, 180, (60, 120)),
        ("resnet34", "resnet34A_imagenet", "paper_imagenet", 2, 106, (35, 70, 105)),
        ("resnet50_port", "thinet_resnet50_70", "paper_imagenet", 2, 141, (47, 94)),
        ("resnet50_port", "thinet_resnet50_30", "paper_imagenet", 2, 180, (60, 120)),
    ],
)
def test_scratch_b_trains_as_long_as_the_paper_did(family, small, recipe, cap, epochs, milestones):
    large, candidate = pair(family, FACTS[small])
    assert FACTS[small]["scratch_B"]["epochs"] == epochs
    found = scratch_b(RECIPES[recipe], reference=large, candidate=candidate, cap=cap)
    assert (found.epochs, found.milestones) == (epochs, milestones)
    assert replace(found, epochs=RECIPES[recipe].epochs) == RECIPES[recipe]


def test_a_third_decay_falls_into_the_last_epoch_where_three_does_not_divide_the_epochs():
    """ResNet-34-B: 118 epochs, a step of int(118 / 3) = 39 (methods.md 0.4)."""
    widths = [64, 32, 32, 128, 51, 51, 128, 256, 153, 153, 153, 153, 256, 512, 512, 512]
    large, small = pair("resnet34", {"id": "", "block_inner_widths": widths})
    found = scratch_b(RECIPES["paper_imagenet"], reference=large, candidate=small, cap=2)
    assert (found.epochs, found.milestones) == (118, (39, 78, 117))


def test_resnet_110_a_is_trained_for_190_epochs():
    """Of its first stage, all but the last block are half as wide inside (methods.md 1.1)."""
    widths = [8] * 17 + [16] + [32] * 18 + [64] * 18
    large, small = pair("resnet110", {"id": "cifar", "block_inner_widths": widths})
    assert scratch_b(RECIPES["paper"], reference=large, candidate=small).epochs == 190


@pytest.mark.parametrize(
    ("family", "cfg"),
    [
        ("vgg16_gap", [32, 32, 64, 64, 128, 128, 128, 256, 256, 256, 512, 512, 512]),
        ("vgg16_gap", [16, 16, 32, 32, 64, 64, 64, 128, 128, 128, 128, 128, 256]),
        ("vgg16_imagenet", [24, 22, 41, 51, 108, 89, 111, 184, 276, 228, 512, 512, 512]),
    ],
    ids=["ThiNet-GAP", "ThiNet-Tiny", "VGG-16-5x"],
)
def test_from_a_ratio_of_two_on_a_cap_of_two_is_exactly_twice(family, cfg):
    _, small = pair(family, {"id": "", "cfg": cfg})
    large = reference("vgg16_imagenet")
    found = scratch_b(RECIPES["paper_imagenet"], reference=large, candidate=small, cap=2)
    assert (found.epochs, found.milestones) == (180, (60, 120))
    assert scratch_b(RECIPES["paper_imagenet"], reference=large, candidate=small).epochs > 180


@pytest.mark.parametrize(
    ("gone", "epochs", "milestones"),
    [
        (("1.0", "1.1", "1.2"), 117, (35, 70, 105)),
        (("1.0", "1.1", "3.4", "3.5", "4.1", "4.2"), 145, (43, 86, 129)),
        (("1.0", "1.1", "1.2", "2.0", "2.3", "3.0", "4.1", "4.2"), 179, (53, 106, 159)),
    ],
    ids=["ResNet-41", "ResNet-32", "ResNet-26"],
)
def test_scratch_b_by_multiply_accumulates(gone, epochs, milestones):
    """The README of sparse structure selection."""
    large = reference("preresnet50_imagenet")
    dropped = tuple(f"layer{block}.add" for block in gone)
    small = apply(large, Descriptor(reference=digest(large), dropped=dropped))
    base = RECIPES["paper_sss"]
    found = scratch_b(base, reference=large, candidate=small, cost="macs")
    assert (found.epochs, found.milestones) == (epochs, milestones)


def test_the_two_costs_differ():
    """1.11565 against 1.11606: floor(10,000 x ratio) tells them apart."""
    large, small = pair("resnet56", FACTS["resnet56A_cifar10"])
    base = Recipe(epochs=10_000)
    by = {
        cost: scratch_b(base, reference=large, candidate=small, cost=cost).epochs
        for cost in ("repo_flops", "macs")
    }
    assert by == {"repo_flops": 11156, "macs": 11160}


def masked(graph, masks):
    exact = {name: ExactMask.of(mask) for name, mask in masks.items()}
    return apply(graph, Descriptor(reference=digest(graph), masks=exact))


@pytest.mark.parametrize(("cost", "epochs"), [("repo_flops", 38), ("macs", 40)])
def test_scratch_b_counts_the_weights_that_a_mask_leaves(cost, epochs):
    """16 x 4 weights and 4 biases: 2 * 64 + 4 = 132 against 2 * 32 + 4 = 68; or 64 against 32."""
    large = linear()
    half = masked(large, {"fc": np.arange(64).reshape(4, 16) % 2 == 0})
    found = scratch_b(Recipe(epochs=20), reference=large, candidate=half, cost=cost)
    assert found.epochs == epochs == int(20 * {"repo_flops": 132 / 68, "macs": 2}[cost])


def test_scratch_b_counts_each_kind_of_kernel_by_its_own_weights():
    """Macs of a 4x4 map: 16 * 8*2*9, 16 * 8*9, 16 * 6*8*3, 4 * 96; half of each is left."""
    large = every_kernel()
    halves = {
        name: (np.arange(math.prod(shape)) % 2 == 0).reshape(shape)
        for name in KERNELS
        for shape in [large.parameters()[f"{name}.weight"]]
    }
    macs = 16 * 8 * 2 * 9 + 16 * 8 * 9 + 16 * 6 * 8 * 3 + 4 * 96
    # Biases of fc, two for each element of the norm, one for each activation.
    others = 4 + 2 * 8 * 16 + 8 * 16 + 6 * 16
    ratio = (2 * macs + others) / (macs + others)
    found = scratch_b(Recipe(epochs=1000), reference=large, candidate=masked(large, halves))
    assert found.epochs == int(1000 * ratio)


def test_the_cap_limits_the_stretch():
    large = reference("vgg16", width=0.5)
    small = reference("vgg16", width=0.125)
    free = scratch_b(Recipe(), reference=large, candidate=small)
    assert free.epochs > 320
    assert scratch_b(Recipe(), reference=large, candidate=small, cap=2).epochs == 320
    assert scratch_b(Recipe(), reference=large, candidate=small, cap=100) == free


def test_the_same_network_is_trained_as_long():
    graph = reference("resnet20")
    assert scratch_b(Recipe(), reference=graph, candidate=graph) == Recipe()
    assert scratch_e(Recipe(epochs=7)) == Recipe(epochs=7)


def took(reference, candidate):
    return StepSeconds(
        reference=reference, candidate=candidate, device="a clock", execution="fp32", steps=1
    )


def test_scratch_b_by_seconds_is_that_of_what_was_measured():
    graph = linear()
    alike = {"reference": graph, "candidate": graph, "cost": "seconds"}
    assert scratch_b(Recipe(), **alike, seconds=took(0.5, 0.2)).epochs == 400
    assert scratch_b(Recipe(), **alike, seconds=took(0.5, 0.2), cap=2).epochs == 320
    assert scratch_b(Recipe(), **alike, seconds=took(0.1, 0.11)).epochs == int(160 / 1.1)


def test_seconds_are_needed_where_they_count_and_refused_elsewhere():
    graph = linear()
    with pytest.raises(RecipeError, match="needs what was measured: seconds=step_seconds"):
        scratch_b(Recipe(), reference=graph, candidate=graph, cost="seconds")
    with pytest.raises(RecipeError, match="measured seconds are given, but cost='macs'"):
        scratch_b(Recipe(), reference=graph, candidate=graph, cost="macs", seconds=took(1.0, 1.0))
    with pytest.raises(RecipeError, match=r"unknown cost 'time'; known: repo_flops, macs, seconds"):
        scratch_b(Recipe(), reference=graph, candidate=graph, cost="time", seconds=took(1.0, 1.0))


@pytest.mark.parametrize("reference", [0.0, -1.0, math.nan, math.inf])
def test_no_step_takes_no_time(reference):
    with pytest.raises(RecipeError, match="takes some time"):
        took(reference, 1.0)


def test_fine_tuning_that_is_counted_adds_its_epochs():
    """160 and 40 against 200; those of Scratch-B are the candidate's own."""
    assert scratch_e(RECIPES["paper"], count_fine_tuning=40) == Recipe(epochs=200)
    assert Recipe(epochs=200).milestones == (100, 150)
    large, small = pair("vgg16_l1", FACTS["vgg16A_cifar10"])
    both = {"reference": large, "candidate": small}
    assert scratch_b(Recipe(), **both, count_fine_tuning=40) == Recipe(epochs=243 + 40)
    assert scratch_b(Recipe(), **both, cap=1.5, count_fine_tuning=40).epochs == 240 + 40
    assert scratch_e(Recipe()) == scratch_e(Recipe(), count_fine_tuning=0) == Recipe()


def test_counting_fine_tuning_changes_only_the_training_from_scratch():
    graph = linear()
    changed = {
        protocol: protocol_recipe(
            protocol, Recipe(), reference=graph, candidate=graph, count_fine_tuning=7
        ).epochs
        for protocol in PROTOCOLS
    }
    assert changed == {"scratch-e": 167, "scratch-b": 167, "fine-tune": 40, "rewind": 160}


def test_fewer_epochs_of_fine_tuning_than_none_are_refused():
    graph = linear()
    for protocol in ("scratch-e", "scratch-b"):
        with pytest.raises(RecipeError, match="counted from 0, got -1"):
            protocol_recipe(
                protocol, Recipe(), reference=graph, candidate=graph, count_fine_tuning=-1
            )


def test_an_impossible_stretch_is_refused():
    small, large = reference("vgg16", width=0.125), reference("vgg16", width=0.5)
    with pytest.raises(RecipeError, match=r"cap=0\.5"):
        scratch_b(Recipe(), reference=large, candidate=small, cap=0.5)
    with pytest.raises(RecipeError, match="epochs=0"):
        scratch_b(Recipe(epochs=3), reference=small, candidate=large)


def test_fine_tuning_has_neither_warm_up_nor_sparse_phase():
    tuned = fine_tune(replace(RECIPES["dsd"], warmup_epochs=3))
    assert (tuned.warmup_epochs, tuned.sparse) == (0, None)
    assert [tuned.lr * tuned.rate(epoch) for epoch in range(tuned.epochs)] == [0.001] * 40


def test_the_protocols_make_recipes_of_the_references():
    large = linear()
    half = masked(large, {"fc": np.arange(64).reshape(4, 16) % 2 == 0})
    base = Recipe(epochs=20)
    made = {p: protocol_recipe(p, base, reference=large, candidate=half) for p in PROTOCOLS}
    assert made == {
        "scratch-e": base,
        "scratch-b": replace(base, epochs=38),
        "fine-tune": replace(base, epochs=40, lr=0.001, schedule="constant"),
        "rewind": base,
    }
    with pytest.raises(RecipeError, match="unknown protocol 'scratch'; known: scratch-e, scratch"):
        protocol_recipe("scratch", base, reference=large, candidate=half)


def test_fine_tuning_is_short_and_constant():
    base = Recipe(batch=32, weight_decay=5e-4)
    expected = replace(base, epochs=40, lr=0.001, schedule="constant")
    assert fine_tune(base) == expected
    assert fine_tune(base, epochs=20, lr=0.01) == replace(expected, epochs=20, lr=0.01)
