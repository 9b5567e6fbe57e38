"""Where a run stands, told by its log and its lock."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, final

from prunenas.errors import RunFolderError, SpecError
from prunenas.training.keeping.journal import ENDS, Entry, Tail
from prunenas.training.keeping.run_folder import LOG, MARK, holder

Standing = Literal["running", "finished", "stopped", "diverged", "failed", "killed"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """Where a run stands.

    Args:
        run: Its folder.
        work: ``training`` or ``search``.
        standing: What became of it; ``killed`` if its process ended without a word.
        message: Why it ended, if it did not finish.
        pid: The process that works on it; None where none does.
        phase: What is counted: ``epochs`` of all seeds, or ``trials``, ``controls`` or ``confirm``
            of a search.
        done: So many of them are done.
        total: And so many there are.
        training: What ended an epoch last: the training of a seed, or of a candidate.
        epoch: Its finished epochs.
        epochs: Its epochs in all.
        loss: Mean training loss of its last epoch.
        images_per_second: How fast its last epoch trained.
        best: Largest accuracy of all trainings so far; test accuracy where ``part`` says so.
        best_of: What reached it.
        part: The images that ``best`` speaks of.
        seconds: Since the process that works on it, or last did, began; up to its last event where
            it has ended.
        seconds_left: Until this phase is done, if it goes on as it did; None if nothing is known.
    """

    run: str
    work: str
    standing: Standing
    message: str | None
    pid: int | None
    phase: str | None
    done: int
    total: int | None
    training: str | None
    epoch: int | None
    epochs: int | None
    loss: float | None
    images_per_second: float | None
    best: float | None
    best_of: str | None
    part: str | None
    seconds: float
    seconds_left: float | None


@final
class RunWatch:
    """Follows a run, whichever process works on it.

    Args:
        folder: Of a training or of a search.

    Raises:
        RunFolderError: It is no run's folder.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / MARK).is_file():
            what = "is not there" if not folder.exists() else f"has no {MARK}"
            raise RunFolderError(f"{folder} is no run: it {what}; name the folder of one")
        self._folder = folder
        self._reader = Tail(folder / LOG)
        self._begun: Entry = {}
        self._last: Entry = {}
        self._epoch: Entry = {}
        self._place: Entry = {}
        self._best: Entry = {}
        # Epochs that are done of each seed; and moments at which the last process did some.
        self._seeds: dict[Any, int] = {}
        self._moments: list[datetime] = []

    def look(self, now: datetime) -> tuple[RunState | None, list[Entry]]:
        """Return where the run stands ``now``, and the events since the last look.

        The state is None where a process has the folder and has not said a word yet.

        Raises:
            RunFolderError: The run has no log, and no process works on it.
            SpecError: Its log is damaged.
        """
        # In this order: a process that is gone has written all that it ever will.
        pid = holder(self._folder)
        events = self._reader.new()
        try:
            self._take(events)
        except (KeyError, TypeError, ValueError) as error:
            raise SpecError(
                f"{self._folder / LOG} is damaged: an event lacks what it says ({error!r})"
            ) from None
        if not self._begun:
            if pid is None:
                raise RunFolderError(f"{self._folder} has no log: nothing is known of what it did")
            return None, events
        return self._state(pid, now), events

    def _take(self, events: Iterable[Entry]) -> None:
        for entry in events:
            self._last = entry
            kind = entry["event"]
            if kind == "begun":
                self._begun, self._moments = entry, []
            elif kind == "epoch":
                self._epoch = self._place = entry
                self._seeds[entry.get("seed")] = entry["epoch"]
                if self._works == "training":
                    self._moments.append(_time(entry))
                    self._compare({**entry, "part": "validation"})
            elif kind == "trained":
                self._place = entry
                self._moments.append(_time(entry))
                if entry.get("part") == "validation":
                    self._compare(entry)
            elif kind == "finished":
                self._conclude(entry)

    @property
    def _works(self) -> str:
        return str(self._begun.get("work", "training"))

    def _compare(self, entry: Mapping[str, Any]) -> None:
        accuracy = entry.get("accuracy")
        if accuracy is not None and accuracy > self._best.get("accuracy", -1.0):
            self._best = entry

    def _conclude(self, entry: Entry) -> None:
        """Take note of what came out, which is what was confirmed."""
        if "rows" in entry:
            rows = [row for row in entry["rows"] if row["role"] != "control"]
            best = max(rows, key=lambda row: row["accuracy"])
            self._best = {**best, "of": best["name"]}
        elif "metrics" in entry:
            results = entry["metrics"]["results"]
            self._best = {
                "accuracy": fmean(result["accuracy"] for result in results),
                "of": f"mean of {len(results)} seeds" if len(results) > 1 else self._epoch_of(),
                "part": entry["metrics"]["part"],
            }

    def _epoch_of(self) -> str | None:
        of = self._epoch.get("of")
        return None if of is None else str(of)

    def _state(self, pid: int | None, now: datetime) -> RunState:
        standing: Standing = "running" if pid is not None else "killed"
        if self._last["event"] in ENDS:
            standing = self._last["event"]
        phase, done, total = self._counted()
        running = standing == "running"
        until = now if running else _time(self._last)
        return RunState(
            run=str(self._folder),
            work=self._works,
            standing=standing,
            message=self._last.get("message"),
            pid=pid,
            phase=phase,
            done=done,
            total=total,
            training=self._epoch.get("of"),
            epoch=self._epoch.get("epoch"),
            epochs=self._epoch.get("epochs"),
            loss=self._epoch.get("loss"),
            images_per_second=self._epoch.get("images_per_second"),
            best=self._best.get("accuracy"),
            best_of=self._best.get("of"),
            part=self._best.get("part"),
            seconds=(until - _time(self._begun)).total_seconds(),
            seconds_left=self._left(done, total, now) if running else None,
        )

    def _counted(self) -> tuple[str | None, int, int | None]:
        if self._works == "search":
            place = self._place or {"phase": "trials", "done": 0, "total": self._begun["trials"]}
            return place["phase"], place["done"], place["total"]
        asked = self._begun["seeds"]
        done = sum(self._seeds.get(seed, 0) for seed in asked)
        return "epochs", done, len(asked) * self._begun["epochs"]

    def _left(self, done: int, total: int | None, now: datetime) -> float | None:
        if not self._moments or total is None:
            return None
        began, last = _time(self._begun), self._moments[-1]
        each = (last - began).total_seconds() / len(self._moments)
        return max(0.0, each * (total - done) - (now - last).total_seconds())


def _time(entry: Entry) -> datetime:
    return datetime.fromisoformat(entry["time"])
