"""Searches that really train: what they read, and what the table says."""

from dataclasses import replace

import pytest
import torch

from prunenas.data.base import ImageData, dataset
from prunenas.families.base import reference
from prunenas.search.study import search
from prunenas.training.recipe import Recipe
from tests.search.fakes import profile, space, tiny_data

RECIPE = Recipe(epochs=1, batch=32, lr=0.05)


@pytest.fixture
def reads(monkeypatch):
    """Every part of a data set that is asked for, in order."""
    asked = []
    part = ImageData.part

    def watched(self, name):
        asked.append(name)
        return part(self, name)

    monkeypatch.setattr(ImageData, "part", watched)
    return asked


def run(data, **options):
    fields = {"recipe": RECIPE, "trials": 3, "front_size": 2, "confirm_seeds": 2} | options
    return search(space(), data, **fields)


def test_trials_and_controls_never_ask_for_the_test_part(reads):
    front = run(dataset("digits").small(60, 30), confirm_seeds=0)
    assert "test" not in reads
    assert "train" not in reads
    assert {*reads} == {"fit", "validation"}
    assert {row.validation.part for row in front.rows} == {"validation"}


def test_a_poisoned_test_part_changes_no_choice():
    data = dataset("digits").small(60, 30)
    poisoned = replace(
        data,
        test_images=torch.zeros_like(data.test_images),
        test_labels=torch.zeros_like(data.test_labels),
    )
    assert poisoned.digest != data.digest
    clean, other = run(data, confirm_seeds=1), run(poisoned, confirm_seeds=1)
    assert [row.spec.digest for row in clean.rows] == [row.spec.digest for row in other.rows]
    seen = [[r.validation.accuracy for r in front.rows] for front in (clean, other)]
    assert seen[0] == seen[1]
    # The poison is read in the end: zeros all have one answer, so it is all right or all wrong.
    assert {row.confirmed.accuracy for row in other.rows} <= {0.0, 1.0}
    assert not {row.confirmed.accuracy for row in clean.rows} <= {0.0, 1.0}


def test_each_confirmed_training_reads_the_test_part_once_after_all_trials(reads):
    front = run(dataset("digits").small(60, 30))
    networks = {row.spec.digest for row in front.rows}
    assert reads.count("test") == 2 * len(networks)
    assert reads.count("train") == 2 * len(networks)
    first = reads.index("train")
    assert {*reads[:first]} == {"fit", "validation"}
    assert {*reads[first:]} == {"train", "test"}
    for row in front.rows:
        assert (row.confirmed.part, row.confirmed.n) == ("test", 2)
        assert all(result.best_accuracy is None for result in row.confirmed.results)
        assert all(result.epochs == RECIPE.epochs for result in row.confirmed.results)


def test_from_a_hundred_classes_the_front_has_top_5():
    labels = torch.arange(200) % 100
    draws = torch.Generator().manual_seed(1)
    data = tiny_data(
        train_images=torch.randint(0, 256, (200, 1, 16, 16), generator=draws).byte(),
        train_labels=labels,
        test_images=torch.randint(0, 256, (100, 1, 16, 16), generator=draws).byte(),
        test_labels=labels[:100],
        classes=100,
        validation=torch.arange(100),
    )
    within = space(target=reference("lenet5", (1, 16, 16), 100), guide=profile(0.5, 0.5, 0.5))
    front = search(within, data, recipe=RECIPE, trials=1, confirm_seeds=1)
    for row in front.rows:
        top5 = row.confirmed.top5
        assert top5 is not None
        assert row.confirmed.accuracy <= top5 <= 1


def test_below_a_hundred_classes_it_has_none():
    front = run(dataset("digits").small(60, 30), trials=1, confirm_seeds=1)
    assert {row.confirmed.top5 for row in front.rows} == {None}
