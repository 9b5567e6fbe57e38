"""The log that a search keeps in its folder."""

import pytest

from prunenas.errors import RunError, StoppedError
from prunenas.ir.canonical import encode
from prunenas.search.study import search
from prunenas.training.keeping.journal import Tail
from tests.search.fakes import RECIPE, space, tiny_data


def run(folder, **options):
    given = {"recipe": RECIPE, "trials": 3, "confirm_seeds": 1, "front_size": 1} | options
    return search(space(), tiny_data(), out=folder, **given)


def events(folder):
    return Tail(folder / "log.jsonl").new()


def test_it_tells_every_event_that_is_told_to_the_caller(training, tmp_path):
    told = []
    front = run(tmp_path / "run", on_event=told.append, provenance={"command": "mine"})
    begun, *middle, finished = events(tmp_path / "run")
    assert (begun["event"], begun["work"], begun["trials"]) == ("begun", "search", 3)
    assert begun["provenance"] == {"command": "mine"}
    assert begun["facts"]["seed"] == 0
    assert [(e["event"], e["phase"], e["of"], e["done"], e["total"]) for e in middle] == [
        ("epoch" if e.epoch else "trained", e.phase, e.name, e.done, e.total) for e in told
    ]
    judged = [e.metrics.accuracy for e in told if e.metrics]
    assert [e["accuracy"] for e in middle if e["event"] == "trained"] == judged
    assert [(row["name"], row["accuracy"]) for row in finished["rows"]] == [
        (row.spec.name, row.confirmed.accuracy) for row in front.rows
    ]


def test_a_search_that_goes_on_adds_to_it(training, tmp_path):
    run(tmp_path / "run")
    run(tmp_path / "run", trials=4)
    names = [entry["event"] for entry in events(tmp_path / "run")]
    assert names.count("begun") == names.count("finished") == 2


def test_it_tells_that_a_search_was_stopped_or_failed(training, tmp_path):
    with pytest.raises(StoppedError):
        run(tmp_path / "stopped", stop=lambda: True)
    assert events(tmp_path / "stopped")[-1]["event"] == "stopped"
    training.diverges = lambda graph, held_out: True
    with pytest.raises(RunError):
        run(tmp_path / "failed")
    last = events(tmp_path / "failed")[-1]
    assert last["event"] == "failed"
    assert "every training diverged" in last["message"]


def test_without_a_folder_there_is_none(training, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(None)
    assert [*tmp_path.iterdir()] == []


class Noted:
    """A log in memory."""

    def __init__(self):
        self.entries = []

    def write(self, event, **facts):
        self.entries.append({"event": event} | encode(facts))


def test_other_logs_are_told_the_same(training, tmp_path):
    one, other, alone = Noted(), Noted(), Noted()
    run(tmp_path / "run", logs=[one, other])
    kept = [{k: v for k, v in entry.items() if k != "time"} for entry in events(tmp_path / "run")]
    assert one.entries == other.entries == kept
    training.diverges = lambda graph, held_out: True
    with pytest.raises(RunError):
        run(None, logs=[alone])
    assert [alone.entries[0]["event"], alone.entries[-1]["event"]] == ["begun", "failed"]
