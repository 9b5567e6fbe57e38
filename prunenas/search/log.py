"""What the log of a search says of its events."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, final

from prunenas.arch.metrics import Metrics
from prunenas.ir.canonical import encode
from prunenas.search.front import Front
from prunenas.search.worker import Event, OnEvent
from prunenas.training.keeping.journal import Journal, Log, Logs, logged
from prunenas.training.keeping.run_folder import LOG, claim


@final
class SearchLog:
    """Writes the events of a search into a log, and hands them on."""

    def __init__(self, log: Log, on_event: OnEvent | None) -> None:
        self._log, self._on_event = log, on_event

    def event(self, event: Event) -> None:
        """Take note of an event: an ``epoch``, or what was ``trained`` at a training's end."""
        place = {"of": event.name, "phase": event.phase, "done": event.done, "total": event.total}
        if event.epoch is not None:
            self._log.write("epoch", **place, **encode(event.epoch))
        elif event.metrics is not None:
            self._log.write("trained", **place, **_reached(event.metrics))
        if self._on_event is not None:
            self._on_event(event)

    def finished(self, front: Front) -> None:
        """Take note of what came out."""
        rows = [
            {"role": row.role, "name": row.spec.name, **_reached(row.confirmed)}
            for row in front.rows
        ]
        self._log.write("finished", rows=rows, trials=front.trials)


def _reached(metrics: Metrics) -> dict[str, Any]:
    return {
        "part": metrics.part,
        "accuracy": metrics.accuracy,
        "n": metrics.n,
        "params": metrics.compared_params,
        "macs": metrics.compared_macs,
        "seconds": metrics.seconds,
    }


@contextmanager
def at_work(
    folder: Path | None,
    facts: Mapping[str, Any],
    on_event: OnEvent | None,
    logs: Sequence[Log],
    **story: Any,
) -> Iterator[SearchLog]:
    """Hold ``folder`` for a search, if there is one, and log how it begins and ends.

    Args:
        folder: As in ``search``.
        facts: What the search is.
        on_event: Is told every event too.
        logs: Logs beside the folder's own.
        story: What the log says besides as the search begins.

    Raises:
        RunFolderError: As in ``claim``.
    """
    with nullcontext() if folder is None else claim(folder, facts, work="search"):
        log = Logs(logs if folder is None else [Journal(folder / LOG), *logs])
        with logged(log, work="search", facts=facts, **story):
            yield SearchLog(log, on_event)
