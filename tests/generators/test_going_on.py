"""A method whose training is cut short goes on there, and finds what it would have found."""

import itertools

import pytest

from prunenas.data.shapes import shapes
from prunenas.errors import StoppedError
from prunenas.families.base import reference
from prunenas.generators.base import GENERATORS, generate, make_generator
from prunenas.training.keeping.checkpoint import Checkpoints
from prunenas.training.recipe import named_recipe

RECIPE = named_recipe("fast", epochs=2, batch=27, lr=0.05, precision="fp32")
HOOKED = {
    "network_slimming": {"strength": 1e-2},
    "soft_filter": {},
    "morphnet": {"strength": 1e-2, "shrink_keep": 0.8},
}
"""Methods that add to the training, each in a way that remembers nothing."""


@pytest.fixture(scope="module")
def graph():
    return reference("vgg", (3, 16, 16), 10, body=[8, "M", 16, "M", 16])


@pytest.fixture(scope="module")
def data():
    return shapes(train=120, test=20, side=16)


@pytest.mark.parametrize("method", [*HOOKED, "l1_norm"])
def test_stopped_again_and_again_it_finds_the_same(method, graph, data, tmp_path):
    options = {"keep": 0.5, "recipe": RECIPE, "seed": 4} | HOOKED.get(method, {})
    unbroken = generate(method, graph, data, **options)
    epochs, stops = [], 0
    for _ in range(10):
        left = itertools.count(1)
        try:
            found = generate(
                method,
                graph,
                data,
                checkpoints=Checkpoints(tmp_path),
                stop=lambda left=left: next(left) == 7,
                on_epoch=lambda report: epochs.append(report.epoch),
                **options,
            )
            break
        except StoppedError:
            stops += 1
    trainings = 2 if method == "morphnet" else 1
    assert stops == trainings, "of ten steps in each the seventh is the last, and the fourth"
    assert epochs == [1, 2] * trainings
    assert found == unbroken and found.origin == unbroken.origin


def test_another_strength_is_another_training(graph, data, tmp_path):
    for strength in (1e-2, 1e-1):
        generate(
            "network_slimming",
            graph,
            data,
            keep=0.5,
            recipe=RECIPE,
            strength=strength,
            checkpoints=Checkpoints(tmp_path),
        )
    assert len([*tmp_path.iterdir()]) == 2


def test_what_may_remember_things_is_not_kept_and_still_runs(graph, data, tmp_path):
    found = generate(
        "magnitude",
        graph,
        data,
        keep=0.5,
        recipe=RECIPE,
        schedule="polynomial",
        rounds=3,
        checkpoints=Checkpoints(tmp_path),
    )
    # The reference's training is kept, the one that prunes on the way is not.
    assert len([*tmp_path.iterdir()]) == 1
    assert found.origin.reached == pytest.approx(0.5, abs=0.03)


def test_the_hooks_that_remember_nothing_are_these():
    """Another method that says so of its hooks belongs into ``HOOKED``."""
    saying = {
        name
        for name in GENERATORS.names()
        if make_generator(name, **HOOKED.get(name, {})).says_how_much is None
        and make_generator(name).hooks(0.5).facts is not None
    }
    assert saying == {*HOOKED} - {"morphnet"}
