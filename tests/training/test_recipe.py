"""Recipes: what is refused, and where the learning rate falls."""

from dataclasses import replace
from pathlib import Path

import pytest

from prunenas.errors import RecipeError
from prunenas.ir.canonical import decode, encode
from prunenas.training.recipe import RECIPES, Recipe, SparsePhase, named_recipe


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


def test_the_papers_recipes_decay_norms_and_biases_too():
    """All columns of methods.md 0.1; to spare them is a choice, and a field."""
    named = {name: RECIPES[name] for name in RECIPES if name != "fast"}
    assert {recipe.decay_norms for recipe in named.values()} == {True}
    assert {recipe.precision for recipe in named.values()} == {"fp32"}
    assert {recipe.label_smoothing for recipe in named.values()} == {0.0}
    assert {recipe.momentum for recipe in named.values()} == {0.9}
    assert {name for name in named if named[name].nesterov} == {"paper_sfp", "paper_sss"}
    assert RECIPES["fast"].decay_norms is False


def test_the_page_says_what_fast_was_tuned_to():
    """Who changes it tunes it anew, and says so: python scripts/tune_fast.py."""
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    assert "`fast`: lr 0.4, batch 256, decay 5e-4, smoothing 0.1" in page
    assert "| `fast` | 10, 256, Nesterov | one cycle up to 0.4 | 5e-4 | do not |" in page
    assert RECIPES["fast"] == Recipe(
        epochs=10,
        batch=256,
        lr=0.4,
        nesterov=True,
        weight_decay=5e-4,
        decay_norms=False,
        schedule="one_cycle",
        label_smoothing=0.1,
        precision="auto",
    )


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


def test_one_cycle_goes_by_steps_and_the_others_by_epochs():
    cycle = Recipe(epochs=5, schedule="one_cycle")
    assert [cycle.rate(0, step, of=4) for step in (0, 2)] == [0.04, pytest.approx(0.52)]
    assert [cycle.rate(epoch, 2, of=4) for epoch in (2, 4)] == [0.625, pytest.approx(0.125)]
    assert cycle.rate(4, 4, of=4) == 0.0
    for schedule in ("steps", "constant"):
        other = Recipe(epochs=5, schedule=schedule, warmup_epochs=1)
        for epoch in range(5):
            assert other.rate(epoch, 3, of=4) == other.rate(epoch)


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
