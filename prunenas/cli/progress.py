"""Progress: bars in a terminal, some lines for each training elsewhere, always on stderr."""

import math
from types import TracebackType
from typing import Self, final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from prunenas.search.worker import Event
from prunenas.training.follow import EpochReport

TITLES = {"trials": "trials", "controls": "controls", "confirm": "several seeds"}
"""What people call the phases of a search."""

_LINES = 20
"""Lines about one training, where there is no terminal to draw bars in."""


@final
class Display:
    """Shows the progress of trainings and searches.

    Args:
        quiet: Show nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self.console = Console(stderr=True, markup=False, emoji=False)
        self.draws = self.console.is_terminal and not quiet
        self._bars = Progress(
            TextColumn("{task.description:<21}", markup=False),
            # Narrow, so that the rest of a line has room in 80 columns.
            BarColumn(bar_width=10),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(
                compact=True, elapsed_when_finished=True, table_column=Column(min_width=5)
            ),
            TextColumn("{task.fields[note]}", markup=False),
            console=self.console,
            disable=not self.draws,
        )
        self._outer = self._bars.add_task("", total=None, visible=False, note="")
        self._inner = self._bars.add_task("", total=None, visible=False, note="")

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def epoch(self, report: EpochReport, of: str = "epochs") -> None:
        """Show the end of an epoch, ``of`` a seed or candidate."""
        note = epoch_text(report.loss, report.accuracy, report.images_per_second)
        self._show(self._inner, of, report.epoch, report.epochs, note)
        if not self.draws and worth_a_line(report.epoch, report.epochs):
            title = "" if of == "epochs" else f"{of}, "
            self.say(f"{title}epoch {report.epoch}/{report.epochs}: {note}")

    def event(self, event: Event) -> None:
        """Show the progress of a search."""
        if event.epoch is not None:
            report = event.epoch
            note = epoch_text(report.loss, report.accuracy, report.images_per_second)
            self._show(self._inner, event.name, report.epoch, report.epochs, note)
        title = TITLES[event.phase]
        told = None
        if event.metrics is not None:
            metrics = event.metrics
            told = f"{event.name}: {metrics.part} {100 * metrics.accuracy:.2f} %, "
            told += f"{metrics.compared_macs:,} {'effective ' * metrics.is_sparse}MACs"
            if not self.draws:
                self.say(f"{title} {event.done}/{event.total}  {told}")
        self._show(self._outer, title, event.done, event.total, told)

    def seeds(self, done: int, total: int) -> None:
        """Show how many trainings of several seeds are done."""
        if total > 1:
            self._show(self._outer, "seeds", done, total, "")

    def say(self, text: str) -> None:
        """Print a line, unless all is to be quiet."""
        if not self._quiet:
            self.console.print(text, highlight=False, soft_wrap=True)

    def _show(self, bar: TaskID, title: str, done: int, total: int, note: str | None) -> None:
        if self._bars.tasks[bar].description != title:
            # Another training: how long it takes is not known from the last one.
            self._bars.reset(bar)
        self._bars.update(bar, description=title, completed=done, total=total, visible=True)
        if note is not None:
            self._bars.update(bar, note=note)


def worth_a_line(epoch: int, epochs: int) -> bool:
    """Return whether to print a line after ``epoch``: after the last, and evenly before."""
    return epoch == epochs or epoch % math.ceil(epochs / _LINES) == 0


def epoch_text(loss: float, accuracy: float | None, images_per_second: float | None) -> str:
    """Return what an epoch came to, in words."""
    judged = "" if accuracy is None else f", validation {100 * accuracy:.2f} %"
    speed = "" if images_per_second is None else f", {images_per_second:,.0f} images/s"
    return f"loss {loss:.3f}{judged}{speed}"


def time_text(seconds: float) -> str:
    """Return a length of time in words, as exactly as it matters."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
