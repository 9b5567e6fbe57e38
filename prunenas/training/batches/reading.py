"""Processes that read images from disk while the network trains."""

import multiprocessing
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from prunenas.data.base import StreamedData, StreamedPart, augmented, plain
from prunenas.errors import DataError, ReadingError
from prunenas.training.own_process import cores, live_with_parent

_MOST_WORKERS = 16
"""Processes that read, where nobody says how many: so many keep the fastest devices busy."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The images of a batch, told to the process that reads them.

    Args:
        files: Their paths below the data set's folder.
        labels: Theirs ``[b]``, which come back with the images.
        seeds: What each is augmented by; None leaves them plain.
    """

    files: tuple[str, ...]
    labels: Tensor
    seeds: tuple[int, ...] | None = None


Found = tuple[Tensor, Tensor] | str
"""Images ``[b 3 h w]``, uint8, and their labels; or what is wrong with a file, in words."""


@final
class BatchReader(Dataset[Found]):
    """Reads what is wanted, in whatever process it is.

    Args:
        part: Says folder and side.
        flip: Whether augmentation mirrors.
    """

    def __init__(self, part: StreamedPart, *, flip: bool) -> None:
        # The files' names come with what is wanted: no process needs the list of all.
        self._folder, self._side, self._flip = part.folder, part.side, flip

    def __getitem__(self, wanted: Wanted) -> Found:
        """Return the images of ``wanted`` and their labels."""
        images = torch.empty(len(wanted.files), 3, self._side, self._side, dtype=torch.uint8)
        try:
            for place, file in enumerate(wanted.files):
                seed = wanted.seeds[place] if wanted.seeds else None
                images[place] = self._image(self._folder / file, seed)
        except DataError as error:
            # An error that leaves its process takes a wall of text along.
            return str(error)
        return images, wanted.labels

    def _image(self, file: Path, seed: int | None) -> Tensor:
        if seed is None:
            pixels = plain(file, self._side)
        else:
            pixels = augmented(file, self._side, seed=seed, flip=self._flip)
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


@final
class Readers:
    """Processes that read batches ahead of their use, in the order in which they are wanted.

    Args:
        reader: Reads a batch.
        workers: Number of processes; 0 reads in this one, when a batch is asked for.
        device: Where the images go to: memory from which a CUDA device copies is pinned.
        stay: Whether the processes wait for the next epoch; else they end with each.
    """

    def __init__(
        self, reader: BatchReader, *, workers: int, device: torch.device, stay: bool = True
    ) -> None:
        self._reader, self._workers, self._stay = reader, workers, stay
        self._device = device
        self._plan = _Plan()
        self._loader: DataLoader[Found] | None = None
        self._turn = 0

    def read(self, wanted: Iterable[Wanted]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images and labels of each batch that is wanted, one epoch at a time.

        Raises:
            DataError: A file is damaged or cannot be read; names it.
            ReadingError: A process that reads has ended before its time.
        """
        self._turn += 1
        turn = self._turn
        self._plan.wanted = wanted
        if self._loader is None:
            self._loader = self._made()
        try:
            for found in self._loader:
                if isinstance(found, str):
                    raise DataError(found)
                yield found
                assert turn == self._turn, "one epoch is drawn at a time"
        except (RuntimeError, OSError, EOFError, MemoryError) as error:
            # Images that a process left behind when it died cannot be fetched from it any more.
            theirs = not isinstance(error, RuntimeError) or "DataLoader worker" in str(error)
            if not (self._workers and theirs):
                raise
            raise ReadingError(_lost(error)) from None

    def close(self) -> None:
        """End the processes."""
        self._loader = None

    def _made(self) -> DataLoader[Found]:
        own: dict[str, object] = {}
        if self._workers:
            context = multiprocessing.get_context("forkserver")
            # They begin with what they need loaded already, and with no lock or thread of ours.
            context.set_forkserver_preload([__name__, "torchvision.transforms.v2"])
            own = {
                "multiprocessing_context": context,
                "persistent_workers": self._stay,
                "worker_init_fn": _begin,
            }
        return DataLoader(
            self._reader,
            batch_size=None,
            sampler=self._plan,
            collate_fn=_as_it_is,  # type: ignore[arg-type]  # it is for single items too
            num_workers=self._workers,
            pin_memory=self._device.type == "cuda",
            # Else it would draw from the global state, of which dropout draws too.
            generator=torch.Generator(),
            **own,  # type: ignore[arg-type]
        )


def workers_of(data: StreamedData) -> int:
    """Return how many processes read for this one: what ``data`` says, else by this machine.

    That is one for each core that this process may use, shared by the trainings that torchrun
    started here, and 16 at most.
    """
    if data.workers is not None:
        return data.workers
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(_MOST_WORKERS, cores() // here))


@final
class _Plan:
    """What is wanted next, to be iterated over by the loader."""

    def __init__(self) -> None:
        self.wanted: Iterable[Wanted] = ()

    def __iter__(self) -> Iterator[Wanted]:
        return iter(self.wanted)


def _as_it_is(found: Found) -> Found:
    return found


def _begin(number: int) -> None:
    # Torch looks whether its parent lives, which is the server that forked it.
    live_with_parent()


def _lost(error: Exception) -> str:
    # Of a text with the other process's traceback the last line is the one that says something.
    last = str(error).splitlines()[-1:]
    said = ": ".join([type(error).__name__, *last])
    return (
        f"a process that reads images has failed ({said}): if memory or "
        "/dev/shm ran out, use fewer of them (workers=2 behind the folder's name) or smaller "
        'batches; a script must train below `if __name__ == "__main__":`, since they import it; '
        "workers=0 reads without other processes"
    )
