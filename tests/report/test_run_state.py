"""What is told of a run follows from its log and its lock alone."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from prunenas.errors import RunFolderError, SpecError
from prunenas.report.run_state import RunWatch
from prunenas.training.keeping.journal import Tail
from prunenas.training.keeping.run_folder import claim, holder

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


class Run:
    """A log that is written by hand, an event a second by default."""

    def __init__(self, folder):
        self.folder = folder
        self.now = BEGAN
        folder.mkdir(parents=True)
        (folder / "run.json").write_text("{}\n")

    def tell(self, event, *, after=0.0, **facts):
        self.now += timedelta(seconds=after)
        with (self.folder / "log.jsonl").open("a") as file:
            entry = {"time": self.now.isoformat(), "event": event} | facts
            file.write(json.dumps(entry) + "\n")
        return self

    def begun(self, **facts):
        training = {"work": "training", "seeds": [0, 1], "epochs": 4}
        return self.tell("begun", **(training | facts))

    def epoch(self, epoch, *, seed=0, after=10.0, **facts):
        told = {"of": f"seed {seed}", "seed": seed, "epoch": epoch, "epochs": 4, "loss": 1.0}
        return self.tell("epoch", after=after, **(told | {"accuracy": None} | facts))

    def trained(self, done, *, phase="trials", accuracy=0.5, after=10.0, part="validation"):
        place = {"of": f"trial {done}", "phase": phase, "done": done, "total": 5}
        return self.tell("trained", after=after, **place, accuracy=accuracy, part=part)

    def state(self, *, later=0.0):
        return RunWatch(self.folder).look(self.now + timedelta(seconds=later))[0]

    def held_state(self, *, later=0.0):
        with claim(self.folder, {}, work="search"):
            return self.state(later=later)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run")


def test_while_its_lock_is_held_it_runs(run):
    import os

    state = run.begun().epoch(1).held_state()
    assert (state.standing, state.pid) == ("running", os.getpid())


def test_without_lock_and_without_last_word_it_was_killed(run):
    state = run.begun().epoch(1).state(later=500)
    assert (state.standing, state.pid, state.seconds, state.seconds_left) == (
        "killed",
        None,
        10,
        None,
    )


@pytest.mark.parametrize("end", ["stopped", "diverged", "failed"])
def test_an_end_is_told_with_its_reason(run, end):
    state = run.begun().tell(end, message="at epoch 1").state()
    assert (state.standing, state.message) == (end, "at epoch 1")


def test_a_new_beginning_takes_an_end_back(run):
    run.begun().tell("stopped", message="at epoch 1").begun()
    assert run.held_state().standing == "running"
    assert run.state().standing == "killed"


def test_epochs_of_all_seeds_are_counted_whichever_process_trained_them(run):
    run.begun().epoch(1).epoch(2).begun().epoch(2).epoch(3).epoch(4).epoch(1, seed=1)
    state = run.held_state()
    assert (state.phase, state.done, state.total) == ("epochs", 5, 8)
    assert (state.training, state.epoch, state.epochs) == ("seed 1", 1, 4)


def test_time_left_goes_by_what_this_process_did(run):
    """The one before was slower; of the 20 seconds of the next epoch 5 are over."""
    run.begun().epoch(1, after=1000).begun().epoch(2, after=20).epoch(3, after=20)
    assert run.held_state(later=5).seconds_left == pytest.approx(5 * 20 - 5)
    assert run.held_state(later=5).seconds == 45
    assert run.begun().held_state().seconds_left is None


def test_the_best_of_a_search_is_what_it_chose_by_until_it_is_confirmed(run):
    run.tell("begun", work="search", trials=5)
    assert run.held_state().total == 5
    run.trained(1, accuracy=0.6).trained(2, accuracy=0.7).trained(3, accuracy=0.65)
    state = run.held_state()
    assert (state.phase, state.done, state.total) == ("trials", 3, 5)
    assert (state.best, state.best_of, state.part) == (0.7, "trial 2", "validation")
    assert state.seconds_left == pytest.approx(20)
    run.trained(1, phase="confirm", accuracy=0.9, part="test")
    assert run.held_state().best == 0.7
    rows = [
        {"role": "control", "name": "uniform", "accuracy": 0.95, "part": "test"},
        {"role": "best", "name": "trial 2", "accuracy": 0.68, "part": "test"},
    ]
    state = run.tell("finished", rows=rows).state()
    assert (state.standing, state.best, state.best_of, state.part) == (
        "finished",
        0.68,
        "trial 2",
        "test",
    )


def test_the_best_of_a_finished_training_is_its_mean(run):
    results = [{"accuracy": 0.5}, {"accuracy": 0.7}]
    run.begun().epoch(4).tell("finished", metrics={"results": results, "part": "test"})
    state = run.state()
    assert (state.best, state.best_of, state.part) == (
        pytest.approx(0.6),
        "mean of 2 seeds",
        "test",
    )


def test_events_are_handed_out_once(run):
    run.begun().epoch(1)
    watch = RunWatch(run.folder)
    assert [entry["event"] for entry in watch.look(run.now)[1]] == ["begun", "epoch"]
    assert watch.look(run.now)[1] == []
    run.epoch(2)
    assert [entry["epoch"] for entry in watch.look(run.now)[1]] == [2]


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match="is no run: it is not there"):
        RunWatch(tmp_path / "nowhere")
    with pytest.raises(RunFolderError, match=r"is no run: it has no run\.json"):
        RunWatch(tmp_path)


def test_a_run_without_log_is_told_or_waited_for(run):
    with pytest.raises(RunFolderError, match="has no log"):
        run.state()
    assert run.held_state() is None


def test_a_damaged_log_is_told(run):
    run.begun().tell("epoch", of="seed 0")
    with pytest.raises(SpecError, match=r"log\.jsonl is damaged: an event lacks"):
        run.state()


def test_only_a_held_folder_has_a_holder(run, tmp_path):
    import os

    assert holder(run.folder) is None
    with claim(run.folder, {}, work="search"):
        assert holder(run.folder) == os.getpid()
    assert (run.folder / "lock").read_text() == str(os.getpid())
    assert holder(run.folder) is None


def test_to_ask_who_holds_a_folder_does_not_keep_another_from_it(run):
    import fcntl
    import threading
    import time

    (run.folder / "lock").touch()
    with (run.folder / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        timer = threading.Timer(0.03, lambda: fcntl.flock(lock, fcntl.LOCK_UN))
        timer.start()
        with claim(run.folder, {}, work="search"):
            time.sleep(0)
        timer.join()
    assert Tail(run.folder / "log.jsonl").new() == []
