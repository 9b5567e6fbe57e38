"""Recipes: what is refused, where the learning rate falls, and the protocols of the paper."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prunenas.arch.descriptor import Descriptor, apply
from prunenas.errors import RecipeError
from prunenas.families.base import reference
from prunenas.ir.canonical import decode, digest, encode
from prunenas.ir.ops import Conv2d, ExactMask
from prunenas.training.recipe import (
    PROTOCOLS,
    RECIPES,
    Recipe,
    SparsePhase,
    fine_tune,
    named_recipe,
    protocol_recipe,
    scratch_b,
    scratch_e,
)
from tests.training.networks import KERNELS, every_kernel, linear

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "architectures.json").read_text())
FACTS = {fact["id"]: fact for fact in GOLDEN["architectures"]}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("epochs", -3),
        ("batch", 1),
        ("lr", 0.0),
        ("lr", -0.1),
        ("lr", float("nan")),
        ("momentum", 1.0),
        ("momentum", -0.1),
        ("weight_decay", -1e-4),
        ("label_smoothing", 1.0),
        ("decay_at", (0.5, 1.0)),
        ("decay_at", (0.0,)),
        ("decay_every", 0.0),
        ("decay_every", -0.3),
        ("decay_every", 1.5),
        ("schedule", "cosine"),
        ("precision", "fp16"),
        ("decay_factor", 0.0),
        ("decay_factor", 1.5),
        ("warmup_epochs", -1),
        ("warmup_factor", 0.0),
        ("warmup_factor", 2.0),
    ],
)
def test_a_value_that_cannot_be_followed_is_refused(field, value):
    with pytest.raises(RecipeError, match=f"{field}="):
        Recipe(**{field: value})


def test_nesterov_needs_momentum():
    with pytest.raises(RecipeError, match="nesterov"):
        Recipe(nesterov=True, momentum=0.0)


def test_one_cycle_has_a_warm_up_of_its_own():
    with pytest.raises(RecipeError, match=r"warmup_epochs=1 must be .* 0 with one_cycle"):
        Recipe(schedule="one_cycle", warmup_epochs=1)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"keep": 0.0}, "keep=0.0"),
        ({"keep": 1.2}, "keep=1.2"),
        ({"start": 0.8}, "start=0.8 and end=0.75"),
        ({"start": 0.75}, "start=0.75"),
        ({"start": -0.1}, "start=-0.1"),
        ({"end": 1.1}, "end=1.1"),
    ],
)
def test_an_impossible_sparse_phase_is_refused(changes, told):
    with pytest.raises(RecipeError, match=told):
        SparsePhase(**{"keep": 0.7, "start": 0.5, "end": 0.75} | changes)


def test_a_sparse_phase_without_an_epoch_is_refused_and_not_left_out():
    phase = SparsePhase(keep=0.7, start=0.5, end=0.75)
    assert [*Recipe(epochs=4, sparse=phase).sparse_epochs] == [2]
    assert [*Recipe(epochs=160, sparse=phase).sparse_epochs] == [*range(80, 120)]
    assert not Recipe().sparse_epochs
    with pytest.raises(RecipeError, match="3 epochs are too few"):
        Recipe(epochs=3, sparse=SparsePhase(keep=0.7, start=0.4, end=0.6))


def test_all_faults_are_told_at_once():
    with pytest.raises(RecipeError) as caught:
        Recipe(epochs=0, batch=1, lr=-1.0)
    assert all(name in str(caught.value) for name in ("epochs=0", "batch=1", "lr=-1.0"))


def test_the_defaults_are_the_papers_for_small_images():
    paper = RECIPES["paper"]
    assert (paper.epochs, paper.batch, paper.lr, paper.momentum) == (160, 64, 0.1, 0.9)
    assert (paper.weight_decay, paper.decay_norms, paper.nesterov) == (1e-4, True, False)
    assert paper.milestones == (80, 120)


def test_the_papers_recipe_for_large_images():
    paper = RECIPES["paper_imagenet"]
    assert (paper.epochs, paper.batch, paper.lr) == (90, 256, 0.1)
    assert paper.milestones == (30, 60)


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(160, (80, 120)), (178, (89, 133)), (243, (121, 182)), (3, (1, 2)), (2, (1,)), (1, ())],
)
def test_milestones_are_fractions_cut_to_whole_epochs(epochs, expected):
    assert Recipe(epochs=epochs).milestones == expected


@pytest.mark.parametrize(
    ("epochs", "every", "expected"),
    [
        (90, 1 / 3, (30, 60)),
        (106, 1 / 3, (35, 70, 105)),
        (180, 1 / 3, (60, 120)),
        (141, 1 / 3, (47, 94)),
        (100, 0.3, (30, 60, 90)),
        (117, 0.3, (35, 70, 105)),
        (145, 0.3, (43, 86, 129)),
        (179, 0.3, (53, 106, 159)),
        (100, 0.29, (29, 58, 87)),  # 100 * 0.29 is a little less than 29
        (2, 0.3, (1,)),
        (5, 1.0, ()),
    ],
)
def test_milestones_again_and_again(epochs, every, expected):
    """The step is cut to whole epochs, so a last decay may fall into the last epoch."""
    assert Recipe(epochs=epochs, decay_every=every).milestones == expected


def rates(recipe):
    return [round(recipe.lr * recipe.rate(epoch), 9) for epoch in range(recipe.epochs)]


def test_the_papers_recipe_for_soft_filter_pruning():
    """0.01 for an epoch, 0.1, and a fifth of it after 60, 120 and 160 of 200 (methods.md 0.1)."""
    recipe = RECIPES["paper_sfp"]
    assert (recipe.epochs, recipe.batch, recipe.momentum) == (200, 128, 0.9)
    assert (recipe.nesterov, recipe.weight_decay, recipe.decay_norms) == (True, 5e-4, True)
    assert rates(recipe) == [0.01] + [0.1] * 59 + [0.02] * 60 + [0.004] * 40 + [0.0008] * 40


@pytest.mark.parametrize(
    ("epochs", "milestones"),
    [(100, (30, 60, 90)), (117, (35, 70, 105)), (145, (43, 86, 129)), (179, (53, 106, 159))],
)
def test_the_papers_recipe_for_sparse_structures(epochs, milestones):
    """The last three are the README's of Scratch-B."""
    recipe = RECIPES["paper_sss"]
    assert (recipe.epochs, recipe.batch, recipe.nesterov) == (100, 128, True)
    assert (recipe.lr, recipe.weight_decay) == (0.1, 1e-4)
    assert replace(recipe, epochs=epochs).milestones == milestones


def test_the_parts_of_dense_sparse_dense_have_rates_of_their_own():
    recipe = RECIPES["dsd"]
    assert recipe.sparse_epochs == range(80, 120)
    assert rates(recipe) == [0.1] * 80 + [0.01] * 40 + [0.001] * 40
    assert replace(recipe, sparse=None) == RECIPES["paper"]


def test_the_warm_up_does_not_stretch():
    assert rates(Recipe(epochs=4, warmup_epochs=2, warmup_factor=0.5)) == [0.05, 0.05, 0.01, 0.001]
    assert rates(Recipe(epochs=3, schedule="constant", warmup_epochs=1)) == [0.01, 0.1, 0.1]


@pytest.mark.parametrize("name", ["paper", "paper_imagenet", "fast"])
def test_what_joined_later_is_not_written_at_its_default(name):
    """So the digests under which trainings are filed stay."""
    assert [*encode(RECIPES[name])] == [
        "epochs",
        "batch",
        "lr",
        "momentum",
        "nesterov",
        "weight_decay",
        "decay_norms",
        "schedule",
        "decay_at",
        "decay_every",
        "label_smoothing",
        "augment",
        "precision",
    ]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_json(name):
    assert decode(Recipe, encode(RECIPES[name]), "recipe") == RECIPES[name]


def test_a_named_recipe_with_changes():
    assert named_recipe("paper") == Recipe()
    assert named_recipe("fast", epochs=3, lr=None) == replace(RECIPES["fast"], epochs=3)


def test_an_unknown_recipe_or_field_is_told_with_the_known_ones():
    with pytest.raises(RecipeError, match=r"unknown recipe 'papers'; known: paper, paper_imagenet"):
        named_recipe("papers")
    with pytest.raises(RecipeError, match=r"no epoch, speed; it has .*epochs"):
        named_recipe("paper", speed=1, epoch=3)
    with pytest.raises(RecipeError, match="epochs=0"):
        named_recipe("paper", epochs=0)


# Fair training from scratch.


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


def test_scratch_b_by_multiply_accumulates():
    """Sparse structure selection's README: 117 epochs of 100, for three blocks left out."""
    large = reference("preresnet50_imagenet")
    gone = tuple(f"layer1.{block}.add" for block in range(3))
    small = apply(large, Descriptor(reference=digest(large), dropped=gone))
    base = Recipe(epochs=100, decay_every=0.3)
    found = scratch_b(base, reference=large, candidate=small, cost="macs")
    assert (found.epochs, found.milestones) == (117, (35, 70, 105))


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


def test_an_impossible_stretch_is_refused():
    small, large = reference("vgg16", width=0.125), reference("vgg16", width=0.5)
    with pytest.raises(RecipeError, match=r"cap=0\.5"):
        scratch_b(Recipe(), reference=large, candidate=small, cap=0.5)
    with pytest.raises(RecipeError, match="epochs=0"):
        scratch_b(Recipe(epochs=3), reference=small, candidate=large)


def test_fine_tuning_has_neither_warm_up_nor_sparse_phase():
    tuned = fine_tune(replace(RECIPES["dsd"], warmup_epochs=3))
    assert (tuned.warmup_epochs, tuned.sparse) == (0, None)
    assert rates(tuned) == [0.001] * 40


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
