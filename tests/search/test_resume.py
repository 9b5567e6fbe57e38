"""A search that is killed, wherever that is, goes on as if it had not been."""

import json
from collections import Counter

import pytest
from optuna.storages.journal import JournalFileBackend

from prunenas.errors import RunFolderError
from prunenas.search.study import mend_journal, search
from prunenas.training.keeping.run_folder import claim
from tests.search.fakes import RECIPE, FakeTraining, profile, space, tiny_data

TRIALS = 11
"""More than the samplers' random first trials, so that what they remember counts."""

TRANSFERRED = profile(0.9, 0.3, 0.5)


class Killed(BaseException):
    """Ends a search at once: nothing catches it."""


def run(out, strategy="tpe", objectives=("accuracy",), trials=TRIALS, seed=0, **options):
    return search(
        space(transferred=TRANSFERRED),
        tiny_data(),
        recipe=RECIPE,
        strategy=strategy,
        objectives=objectives,
        trials=trials,
        confirm_seeds=1,
        front_size=3,
        seed=seed,
        out=out,
        **options,
    )


def kill_at_write(patch, number):
    """End the search instead of its ``number``-th write to the journal."""
    writes = 0
    append = JournalFileBackend.append_logs

    def killing(self, logs):
        nonlocal writes
        writes += 1
        if writes == number:
            raise Killed
        append(self, logs)

    patch.setattr(JournalFileBackend, "append_logs", killing)


def told(front):
    return [(r.role, r.spec.name, r.spec.digest, r.validation, r.spec.metrics) for r in front.rows]


@pytest.mark.parametrize(
    ("strategy", "objectives", "trials", "places"),
    [
        # Write by write through the starts, the first sampled trial and the end of the trials.
        ("tpe", ("accuracy",), 4, range(1, 100)),
        ("tpe", ("accuracy",), TRIALS, range(30, 100, 16)),
        ("random", ("accuracy",), TRIALS, range(2, 100, 27)),
        ("nsga2", ("accuracy", "macs"), TRIALS, range(3, 100, 27)),
    ],
)
def test_wherever_it_is_killed_the_same_command_ends_at_the_same_front(
    tmp_path, training, strategy, objectives, trials, places
):
    unbroken = run(tmp_path / "unbroken", strategy, objectives, trials)
    killed = 0
    for place in places:
        training.calls.clear()
        out = tmp_path / str(place)
        with pytest.MonkeyPatch.context() as patch:
            kill_at_write(patch, place)
            try:
                run(out, strategy, objectives, trials)
                break  # It has fewer writes.
            except Killed:
                killed += 1
        assert told(run(out, strategy, objectives, trials)) == told(unbroken), f"at write {place}"
        assert {*Counter(training.calls).values()} == {1}, f"at write {place}"
    assert killed >= 3


@pytest.mark.parametrize("held_out", [True, False])
def test_a_search_killed_in_every_training_still_ends_at_the_same_front(
    tmp_path, training, held_out
):
    unbroken = run(tmp_path / "unbroken", trials=5)
    training.calls.clear()
    tried = set()

    def kill_once(graph, part):
        key = training.calls[-1]
        if part is held_out and key not in tried:
            tried.add(key)
            raise Killed
        return False

    training.diverges = kill_once
    for _ in range(50):
        try:
            front = run(tmp_path / "broken", trials=5)
            break
        except Killed:
            continue
    assert told(front) == told(unbroken)
    assert front.trials == 5
    assert len(tried) >= 4
    # Once in vain, once to the end.
    assert all(n == (2 if key in tried else 1) for key, n in Counter(training.calls).items())


def test_a_finished_search_trains_nothing_when_it_is_called_again(tmp_path, training):
    first = run(tmp_path / "run")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run" / "results").rglob("*.json")}
    training.calls.clear()
    assert told(run(tmp_path / "run")) == told(first)
    assert training.calls == []
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "run" / "results").rglob("*.json")}
    assert after == before != {}


@pytest.mark.parametrize("strategy", ["tpe", "random", "nsga2"])
def test_more_trials_continue_and_end_where_they_would_have_at_once(tmp_path, training, strategy):
    at_once = run(tmp_path / "at once", strategy)
    short = run(tmp_path / "in two", strategy, trials=4)
    assert short.trials == 4
    longer = run(tmp_path / "in two", strategy)
    assert longer.trials == TRIALS
    assert told(longer) == told(at_once)


def test_fewer_trials_than_are_finished_run_none_and_lose_none(tmp_path, training):
    run(tmp_path / "run", trials=5)
    training.calls.clear()
    assert run(tmp_path / "run", trials=2).trials == 5
    assert training.trainings(held_out=True) == []


def test_a_trial_that_diverged_before_the_kill_is_not_run_again(tmp_path, training):
    training.diverges = lambda graph, held_out: len(training.calls) == 4
    append = JournalFileBackend.append_logs
    with pytest.MonkeyPatch.context() as patch:

        def killing(self, logs):
            append(self, logs)
            if any("diverged" in str(log) for log in logs):
                raise Killed

        patch.setattr(JournalFileBackend, "append_logs", killing)
        with pytest.raises(Killed):
            run(tmp_path / "run", trials=6)
    diverged = training.calls[-1]
    training.diverges = lambda graph, held_out: False
    front = run(tmp_path / "run", trials=6)
    assert front.trials == 6
    assert training.calls.count(diverged) == 1


def test_what_a_killed_write_left_behind_is_no_hindrance(tmp_path, training):
    """A lock that nobody holds, and a line cut short."""
    unbroken = run(tmp_path / "unbroken", trials=5)
    run(tmp_path / "run", trials=4)
    journal = tmp_path / "run" / "study.journal"
    (tmp_path / "run" / "study.journal.lock").symlink_to("nowhere")
    with journal.open("ab") as file:
        file.write(b'{"op_code":4,"worker')
    assert told(run(tmp_path / "run", trials=5)) == told(unbroken)


def test_a_process_killed_while_it_marked_the_folder_leaves_it_usable(tmp_path, training):
    out = tmp_path / "run"
    out.mkdir()
    (out / ".run.json.123.part").write_text('{"data":')
    assert run(out, trials=1).trials == 1


def test_a_second_process_is_refused_and_changes_nothing(tmp_path, training):
    run(tmp_path / "run", trials=2)
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    training.calls.clear()
    with claim(tmp_path / "run", facts, work="search"):
        before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
        with pytest.raises(RunFolderError, match="another process is working"):
            run(tmp_path / "run", trials=3)
        assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before
    assert training.calls == []
    assert run(tmp_path / "run", trials=3).trials == 3


def test_the_fake_is_a_function_of_graph_seed_and_part(training):
    """What makes the comparisons above mean something."""
    graph = space().target
    again = [
        FakeTraining()(graph, tiny_data(), RECIPE, seeds=[s], device="cpu", held_out=h).accuracy
        for s, h in ((0, True), (0, True), (1, True), (0, False))
    ]
    assert again[0] == again[1]
    assert len({*again}) == 3


@pytest.mark.parametrize("cut", ["", '{"op', '{"op_code":1}'])
def test_mending_keeps_whole_lines_and_drops_the_rest(tmp_path, cut):
    journal = tmp_path / "study.journal"
    whole = '{"a":1}\n{"b":2}\n'
    journal.write_text(whole + cut)
    (tmp_path / "study.journal.lock").symlink_to("study.journal")
    mend_journal(journal)
    assert journal.read_text() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["study.journal"]


def test_there_is_nothing_to_mend_before_the_first_write(tmp_path):
    mend_journal(tmp_path / "study.journal")
    assert [*tmp_path.iterdir()] == []
