import json
import resource
from datetime import UTC, datetime

import pytest

from prunenas.errors import DivergenceError, RunError, SpecError, StoppedError
from prunenas.training.keeping.journal import Journal, Tail, logged


def events(path):
    return [entry["event"] for entry in Tail(path).new()]


def test_each_event_is_a_line_of_json_with_its_moment_in_utc(tmp_path):
    before = datetime.now(UTC)
    journal = Journal(tmp_path / "log.jsonl")
    journal.write("epoch", epoch=1, loss=0.25, accuracy=None, seeds=(0, 1))
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    entry = json.loads(line)
    moment = datetime.fromisoformat(entry.pop("time"))
    assert moment.utcoffset().total_seconds() == 0
    assert abs((moment - before).total_seconds()) < 5
    assert entry == {"event": "epoch", "epoch": 1, "loss": 0.25, "accuracy": None, "seeds": [0, 1]}


@pytest.mark.parametrize("missing", [1, 3, 60])
def test_a_line_cut_short_by_a_kill_is_neither_read_nor_in_the_way(tmp_path, missing):
    path = tmp_path / "log.jsonl"
    Journal(path).write("begun")
    whole = path.read_bytes()
    Journal(path).write("epoch", epoch=1)
    path.write_bytes(path.read_bytes()[:-missing])
    assert events(path) == ["begun"]
    Journal(path).write("epoch", epoch=2)
    assert path.read_bytes().startswith(whole)
    assert events(path) == ["begun", "epoch"]


def test_a_reader_returns_each_event_once_and_waits_for_the_end_of_a_line(tmp_path):
    path = tmp_path / "log.jsonl"
    reader = Tail(path)
    assert reader.new() == []
    Journal(path).write("begun")
    assert [entry["event"] for entry in reader.new()] == ["begun"]
    Journal(path).write("epoch", epoch=1)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert reader.new() == []
    path.write_bytes(content)
    assert [entry["event"] for entry in reader.new()] == ["epoch"]
    assert reader.new() == []


@pytest.mark.parametrize("line", ["{", "[]", "1", '{"event": "epoch"}', '{"time": "noon"}', ""])
def test_a_damaged_line_is_told_with_its_file(tmp_path, line):
    path = tmp_path / "log.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(SpecError, match=r"log\.jsonl is damaged"):
        Tail(path).new()


def test_on_a_full_disk_it_says_so_and_leaves_whole_lines(tmp_path):
    path = tmp_path / "log.jsonl"
    journal = Journal(path)
    journal.write("begun")
    whole = path.read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 20, before[1]))
    try:
        with pytest.raises(RunError, match=r"log\.jsonl cannot be written") as caught:
            journal.write("epoch", words="x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "No space left" in str(caught.value)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (StoppedError("at epoch 3"), "stopped"),
        (KeyboardInterrupt(), "stopped"),
        (DivergenceError("the loss is inf"), "diverged"),
        (OSError("no disk"), "failed"),
    ],
)
def test_the_log_says_how_a_run_ended(tmp_path, error, event):
    journal = Journal(tmp_path / "log.jsonl")
    with pytest.raises(type(error)), logged(journal, name="net"):
        raise error
    begun, ended = Tail(tmp_path / "log.jsonl").new()
    assert (begun["event"], begun["name"]) == ("begun", "net")
    assert ended["event"] == event
    assert ended["message"] == (str(error) or "KeyboardInterrupt")


def test_a_log_that_cannot_be_written_does_not_hide_why_the_run_failed(tmp_path):
    journal = Journal(tmp_path / "log.jsonl")
    with pytest.raises(DivergenceError), logged(journal):
        (tmp_path / "log.jsonl").unlink()
        (tmp_path / "log.jsonl").mkdir()
        raise DivergenceError("the loss is inf")


def test_a_run_that_ends_well_says_so_itself(tmp_path):
    journal = Journal(tmp_path / "log.jsonl")
    with logged(journal):
        journal.write("finished")
    assert events(tmp_path / "log.jsonl") == ["begun", "finished"]
