"""What the log of a search says of its events."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from prunenas.arch.metrics import Metrics
from prunenas.ir.canonical import encode
from prunenas.search.front import Front
from prunenas.search.worker import Event, OnEvent
from prunenas.training.journal import Journal, Log, logged
from prunenas.training.run_folder import LOG, claim


def tell(log: Log, event: Event) -> None:
    """Write an event of a search into ``log``: ``epoch``, or ``trained`` at a training's end."""
    place = {"of": event.name, "phase": event.phase, "done": event.done, "total": event.total}
    if event.epoch is not None:
        log.write("epoch", **place, **encode(event.epoch))
    elif event.metrics is not None:
        log.write("trained", **place, **_reached(event.metrics))


def _reached(metrics: Metrics) -> dict[str, Any]:
    return {
        "part": metrics.part,
        "accuracy": metrics.accuracy,
        "n": metrics.n,
        "params": metrics.compared_params,
        "macs": metrics.compared_macs,
        "seconds": metrics.seconds,
    }


@final
class SearchLog:
    """Hands the events of a search on, to its log too where it has one."""

    def __init__(self, log: Log | None, on_event: OnEvent | None) -> None:
        self._log, self._on_event = log, on_event

    def event(self, event: Event) -> None:
        """Take note of an event."""
        if self._log is not None:
            tell(self._log, event)
        if self._on_event is not None:
            self._on_event(event)

    def finished(self, front: Front) -> None:
        """Take note of what came out."""
        if self._log is not None:
            rows = [
                {"role": row.role, "name": row.spec.name, **_reached(row.confirmed)}
                for row in front.rows
            ]
            self._log.write("finished", rows=rows, trials=front.trials)


@contextmanager
def at_work(
    folder: Path | None, facts: Mapping[str, Any], on_event: OnEvent | None, **story: Any
) -> Iterator[SearchLog]:
    """Hold ``folder`` for a search, if there is one, and log there how it begins and ends.

    Args:
        folder: As in ``search``.
        facts: What the search is.
        on_event: Is told every event too.
        story: What the log says besides as the search begins.

    Raises:
        RunFolderError: As in ``claim``.
    """
    if folder is None:
        yield SearchLog(None, on_event)
        return
    with claim(folder, facts):
        journal = Journal(folder / LOG)
        with logged(journal, work="search", facts=facts, **story):
            yield SearchLog(journal, on_event)
