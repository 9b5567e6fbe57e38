"""StreamedData: a data set whose images stay on disk and are read when they are needed."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from prunenas.data.base.image_data import usable_device
from prunenas.data.base.image_file import plain
from prunenas.data.base.image_set import PartName, named_part
from prunenas.errors import DataError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of ImageNet's training images. Source: Liu et al. 2019, released code for ImageNet."""


@final
@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class StreamedPart:
    """Image files of many sizes and their labels, to be read as images of one size.

    Args:
        folder: What the files are named from.
        files: Their paths below ``folder``.
        lengths: Their sizes ``[n]`` in bytes.
        labels: ``[n]``, int64; on the device to which images are brought.
        side: Height and width of what a network is given.
    """

    folder: Path
    files: tuple[str, ...]
    lengths: tuple[int, ...]
    labels: Tensor
    side: int

    def __len__(self) -> int:
        return len(self.files)

    def read(self, places: Tensor) -> Tensor:
        """Return the plain images at ``places``, read one after the other in this process."""
        files = [self.folder / self.files[place] for place in places.tolist()]
        return stacked([plain_tensor(file, self.side) for file in files]).to(self.labels.device)

    def chosen(self, places: Tensor) -> "StreamedPart":
        """Return the part of the images at ``places``, in that order."""
        chosen = places.tolist()
        return replace(
            self,
            files=tuple(self.files[place] for place in chosen),
            lengths=tuple(self.lengths[place] for place in chosen),
            labels=self.labels[places.to(self.labels.device)],
        )


@final
@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class StreamedData:
    """A classification data set of RGB image files that are read when they are needed.

    Images to judge by are scaled until their short side is 256/224 of ``side`` and cut to the
    central square. Images to train on are random parts of the image, scaled to ``side``.

    Args:
        name: What it is called in reports; no part of its identity.
        train: The training images; the validation part is among them.
        test: The test images.
        classes: Number of classes, at least 2.
        mean: Mean of each channel, for pixels scaled to 0..1.
        std: Standard deviation of each channel, for pixels scaled to 0..1.
        flip: Whether a mirrored image keeps its label.
        validation: Indices of the validation part in the training set, int64, ascending.
        workers: Processes that read, beside each one that trains; 0 reads in that one itself, and
            None is one for each core at hand.
        notes: What a reader of results should know, such as how a test part was drawn.

    Raises:
        DataError: The pieces do not fit each other; all violations are listed.
    """

    name: str
    train: StreamedPart
    test: StreamedPart
    classes: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    flip: bool
    validation: Tensor
    workers: int | None = None
    notes: tuple[str, ...] = ()
    _parts: dict[str, StreamedPart] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if problems := [*_problems(self)]:
            raise DataError("\n  ".join([f"data set {self.name!r} is not well formed:", *problems]))

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.input_size))
        return (
            f"StreamedData({self.name!r}, {shape}, {self.classes} classes, "
            f"{len(self.train)} train ({len(self.validation)} of them validation), "
            f"{len(self.test)} test, to {self.device})"
        )

    @property
    def input_size(self) -> tuple[int, int, int]:
        """Return channels, height and width of what a network is given."""
        return 3, self.train.side, self.train.side

    @property
    def device(self) -> torch.device:
        """Return where images are brought."""
        return self.train.labels.device

    @cached_property
    def digest(self) -> str:
        """Return 16 hex digits of the files' paths and sizes in bytes, labels, split and options.

        The pixels are left out, since to read them all takes hours: a file that was changed, but
        is as long as before, goes unseen. So do name, notes, device and ``workers``.
        """
        facts = {
            "streamed": [
                [[*part.files], [*part.lengths], part.labels.tolist()]
                for part in (self.train, self.test)
            ],
            "side": self.train.side,
            "classes": self.classes,
            "normalisation": [list(self.mean), list(self.std)],
            "augmentation": ["random part", self.flip],
            "validation": self.validation.tolist(),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    def part(self, name: PartName) -> StreamedPart:
        """Return one part; asked for again, the same.

        Args:
            name: ``"train"`` is the whole training set, ``"fit"`` is it less ``"validation"``.

        Raises:
            DataError: There is no such part, or no image in it.
        """
        return named_part(
            name,
            self._parts,
            train=self.train,
            test=self.test,
            validation=self.validation,
            of=self.name,
        )

    def to(self, device: str | torch.device) -> "StreamedData":
        """Return the same data set, whose images are brought to ``device``.

        Raises:
            DataError: There is no such device here.
        """
        target = usable_device(device)
        if target == self.device:
            return self
        train, test = (replace(p, labels=p.labels.to(target)) for p in (self.train, self.test))
        return replace(self, train=train, test=test)


def plain_tensor(file: Path, side: int) -> Tensor:
    """Return an image to be judged by, ``[3 side side]``, uint8."""
    return torch.from_numpy(plain(file, side).copy()).permute(2, 0, 1)


def stacked(images: Sequence[Tensor]) -> Tensor:
    """Return images ``[n 3 h w]``, one after the other in memory."""
    return torch.stack([*images]).contiguous()


def _problems(data: StreamedData) -> Iterator[str]:
    for name, part in (("train", data.train), ("test", data.test)):
        if not len(part.files) == len(part.lengths) == len(part.labels):
            yield (
                f"{len(part.files)} {name} files, but {len(part.lengths)} lengths and "
                f"{len(part.labels)} labels"
            )
        if part.labels.dtype != torch.int64 or part.labels.ndim != 1:
            yield f"{name} labels must be int64 [n]"
        elif len(part.labels) and not 0 <= part.labels.min() <= part.labels.max() < data.classes:
            yield f"{name} labels must lie in 0 to {data.classes - 1}"
    if data.classes < 2:
        yield f"classes must be at least 2, got {data.classes}"
    if data.train.side != data.test.side or data.train.side < 8:
        yield f"one side of at least 8 pixels, got {data.train.side} and {data.test.side}"
    if len(data.mean) != 3 or not all(0 <= value <= 1 for value in data.mean):
        yield f"mean must be 3 numbers in 0..1, one a channel, got {data.mean}"
    if len(data.std) != 3 or not all(0 < value <= 1 for value in data.std):
        yield f"std must be 3 numbers in 0..1, above 0, one a channel, got {data.std}"
    if data.workers is not None and data.workers < 0:
        yield f"workers must be 0 or more, got {data.workers}"
    held = data.validation
    if held.dtype != torch.int64 or held.ndim != 1:
        yield "validation must be int64 [k]"
    elif len(held):
        inside = int(held[0]) >= 0 and int(held[-1]) < len(data.train)
        if not inside or not bool((held.diff() > 0).all()):
            yield "validation must be ascending indices into the training set, each once"
        elif len(held) >= len(data.train):
            yield "validation leaves no training image to fit on"
