"""Progress: bars in a terminal, a line for each training elsewhere, always on stderr."""

from types import TracebackType
from typing import Self, final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from prunenas.search.worker import Event
from prunenas.training.loop import EpochReport

_TITLES = {"trials": "trials", "controls": "controls", "confirm": "several seeds"}


@final
class Watch:
    """Shows the progress of trainings and searches."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, markup=False, emoji=False)
        self._bars = Progress(
            TextColumn("{task.description:<34}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self.console,
            disable=not self.console.is_terminal,
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

    def epoch(self, report: EpochReport) -> None:
        """Show the end of an epoch."""
        accuracy = "" if report.accuracy is None else f", validation {100 * report.accuracy:.2f} %"
        self._bars.update(
            self._inner,
            description="epochs",
            completed=report.epoch,
            total=report.epochs,
            visible=True,
            note=f"loss {report.loss:.3f}{accuracy}",
        )
        if report.epoch == report.epochs and not self.console.is_terminal:
            self.say(f"{report.epochs} epochs: loss {report.loss:.3f}{accuracy}")

    def event(self, event: Event) -> None:
        """Show the progress of a search."""
        if event.epoch is not None:
            self._bars.update(
                self._inner,
                description=event.name,
                completed=event.epoch.epoch,
                total=event.epoch.epochs,
                visible=True,
                note=f"loss {event.epoch.loss:.3f}",
            )
        title = _TITLES[event.phase]
        note = None
        if event.metrics is not None:
            metrics = event.metrics
            note = f"{event.name}: {metrics.part} {100 * metrics.accuracy:.2f} %, "
            note += f"{metrics.compared_macs:,} {'effective ' * metrics.is_sparse}MACs"
            if not self.console.is_terminal:
                self.say(f"{title} {event.done}/{event.total}  {note}")
        self._bars.update(
            self._outer,
            description=title,
            completed=event.done,
            total=event.total,
            visible=True,
        )
        if note is not None:
            self._bars.update(self._outer, note=note)

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, highlight=False, soft_wrap=True)
