"""A search that is stopped or killed in the middle of a training goes on in the middle of it."""

import pytest

from prunenas.errors import StoppedError
from prunenas.search.study import search
from prunenas.training.recipe import Recipe
from tests.search.fakes import space, tiny_data

RECIPE = Recipe(epochs=2, batch=8, lr=0.05)


class Killed(BaseException):
    """Ends a search at once: nothing catches it."""


def run(out, **options):
    return search(
        space(),
        tiny_data(),
        recipe=RECIPE,
        trials=3,
        confirm_seeds=1,
        front_size=2,
        out=out,
        **options,
    )


def told(front):
    return [
        (row.role, row.spec.digest, row.validation.accuracy, row.confirmed.accuracy)
        for row in front.rows
    ]


class Steps:
    """Counts the steps that are done, and stops or kills at one."""

    def __init__(self, stop_at=0, kill_at=0):
        self.done, self.stop_at, self.kill_at = 0, stop_at, kill_at

    def __call__(self):
        self.done += 1
        if self.done == self.kill_at:
            raise Killed
        return self.done == self.stop_at


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    steps = Steps()
    return told(run(tmp_path_factory.mktemp("unbroken") / "run", stop=steps)), steps.done


@pytest.mark.parametrize("at", [3, 14, 30, 60])
def test_stopped_in_a_training_no_step_is_done_twice(tmp_path, unbroken, at):
    """In a trial, a control, a confirming training."""
    front, steps = unbroken
    first, second = Steps(stop_at=at), Steps()
    with pytest.raises(StoppedError):
        run(tmp_path / "run", stop=first)
    assert told(run(tmp_path / "run", stop=second)) == front
    # Between trials it is asked too, and once more for each that is finished already.
    assert first.done + second.done <= steps + 4
    assert [*(tmp_path / "run" / "checkpoints").iterdir()] == []


def test_killed_in_a_training_it_goes_on_from_the_last_epoch(tmp_path, unbroken):
    front, steps = unbroken
    first, second = Steps(kill_at=7), Steps()
    with pytest.raises(Killed):
        run(tmp_path / "run", stop=first)
    assert len([*(tmp_path / "run" / "checkpoints").iterdir()]) == 1
    assert told(run(tmp_path / "run", stop=second)) == front
    assert steps - second.done >= 4


def test_asked_to_stop_between_trainings_it_trains_nothing(tmp_path):
    with pytest.raises(StoppedError, match="stopped after 0 of 3 trials; the same call goes on"):
        run(tmp_path / "run", stop=lambda: True)
