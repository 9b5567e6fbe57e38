"""What loaders share: arguments and options, test parts, normalisation."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from prunenas.data.base.image_data import ImageData, Part
from prunenas.data.base.image_set import ImagePart
from prunenas.data.base.splits import split_validation
from prunenas.errors import DataError

SomePart = TypeVar("SomePart", bound=ImagePart)


def own_data(
    name: str,
    train: Part,
    test: Part | None,
    *,
    classes: int,
    options: Mapping[str, Any],
    notes: tuple[str, ...] = (),
) -> ImageData:
    """Return the data set of a user's own images, with its normalisation measured.

    Args:
        name: What it is called in reports.
        train: The training images.
        test: The test images; none means that a fifth of ``train`` is held out.
        classes: Number of classes.
        options: ``flip`` and ``crop_padding`` where the user gave them; by default nothing is
            mirrored, and an eighth of the height is padded.
        notes: What a reader of results should know.
    """
    if test is None:
        train, test = hold_out(train)
        notes = (*notes, f"no test part given: {len(test)} images held out, stratified, seed=0")
    mean, std = channel_statistics(train.images)
    return ImageData(
        name=name,
        train_images=train.images,
        train_labels=train.labels,
        test_images=test.images,
        test_labels=test.labels,
        classes=classes,
        mean=mean,
        std=std,
        flip=options.get("flip", False),
        crop_padding=options.get("crop_padding", train.images.shape[2] // 8),
        validation=split_validation(train.labels),
        notes=notes,
    )


def read_argument(
    kind: str, argument: str, readers: Mapping[str, Callable[[str], object]]
) -> tuple[Path, dict[str, Any]]:
    """Return path and options of an argument such as ``PATH?flip=true&crop_padding=4``.

    Args:
        kind: The registered name, for messages.
        argument: The text behind the colon.
        readers: From each legal option to what reads its value (``ValueError`` if it cannot).

    Raises:
        DataError: The path is missing, or options are unknown, given twice or unreadable.
    """
    path, _, text = argument.rpartition("?") if "?" in argument else (argument, "", "")
    problems = [] if path else [f"the path is missing: write {kind}:PATH"]
    options: dict[str, Any] = {}
    for item in filter(None, text.split("&")):
        key, _, value = item.partition("=")
        if key not in readers:
            problems.append(f"unknown option {key!r}; legal: {', '.join(sorted(readers))}")
        elif key in options:
            problems.append(f"option {key!r} is given twice")
        else:
            try:
                options[key] = readers[key](value)
            except ValueError as error:
                problems.append(f"option {key}={value}: {error}")
    if problems:
        raise DataError("\n  ".join([f"cannot read {kind}:{argument}", *problems]))
    return Path(path).expanduser(), options


def read_flag(text: str) -> bool:
    """Return the truth of ``"true"`` or ``"false"``."""
    if text not in ("true", "false"):
        raise ValueError("must be true or false")
    return text == "true"


def read_pixels(text: str) -> int:
    """Return the whole number, 0 or more, that ``text`` spells."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError("must be a whole number of pixels")
    return int(text)


def read_count(text: str) -> int:
    """Return the whole number, 0 or more, that ``text`` spells."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError("must be a whole number")
    return int(text)


def read_parts(text: str) -> tuple[float, ...]:
    """Return the numbers that ``text`` spells, such as ``0.5,0.4,0.4``, one a channel."""
    try:
        return tuple(float(piece) for piece in text.split(","))
    except ValueError as error:
        raise ValueError("must be numbers with commas, one a channel") from error


def refuse_argument(name: str, argument: str) -> None:
    """Raise ``DataError`` if a data set that takes no argument was given one."""
    if argument:
        raise DataError(f"the data set {name!r} takes no argument, got {argument!r}")


def hold_out(whole: SomePart, fraction: float = 0.2, seed: int = 0) -> tuple[SomePart, SomePart]:
    """Return ``whole`` cut into a training and a stratified test part."""
    test = torch.zeros(len(whole), dtype=torch.bool)
    test[split_validation(whole.labels, fraction, seed)] = True
    return whole.chosen((~test).nonzero()[:, 0]), whole.chosen(test.nonzero()[:, 0])


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel of ``[n c h w]`` uint8, in units of 0..1.

    They come from counts of pixel values and have four decimals, so they are the same on each
    machine. A channel that never varies is given 1, since one divides by it.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in images.unbind(1):
        counts = torch.bincount(channel.reshape(-1), minlength=256).double()
        mean = (counts @ levels) / counts.sum()
        variance = (counts @ (levels - mean) ** 2) / counts.sum()
        means.append(round(mean.item(), 4))
        stds.append(round(variance.item() ** 0.5, 4) or 1.0)
    return tuple(means), tuple(stds)
