"""The numbers of a run for TensorBoard, which is an extra."""

from pathlib import Path
from typing import Any, final

from prunenas.errors import InputError

_EPOCH = ("loss", "accuracy", "learning_rate", "images_per_second")
_TRAINED = ("accuracy", "params", "macs", "seconds")


@final
class Scalars:
    """A log that keeps the numbers of its events as scalars: epochs by training, results by phase.

    Args:
        folder: Where TensorBoard is to look; made with the first event.

    Raises:
        InputError: The package is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(
                f"scalars for TensorBoard need its package: pip install 'prunenas[tensorboard]' "
                f"({error})"
            ) from None
        self._make, self._folder = SummaryWriter, folder
        self._writer: SummaryWriter | None = None

    def write(self, event: str, **facts: Any) -> None:
        """Keep the numbers of an event."""
        if event == "epoch":
            self._add(facts["of"], {name: facts.get(name) for name in _EPOCH}, facts["epoch"])
        elif event == "trained":
            self._add(facts["phase"], {name: facts[name] for name in _TRAINED}, facts["done"])
        elif event == "finished" and "metrics" in facts:
            metrics = facts["metrics"]
            for one in metrics.results:
                reached = {f"{metrics.part}_accuracy": one.accuracy}
                self._add(f"seed {one.seed}", reached, one.epochs)

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()

    def _add(self, of: str, numbers: dict[str, float | None], step: int) -> None:
        if self._writer is None:
            self._writer = self._make(str(self._folder))
        for name, number in numbers.items():
            if number is not None:
                self._writer.add_scalar(f"{of}/{name}", number, step)
        self._writer.flush()
