"""Synthetic shapes: made in a moment, learnt in seconds, the same bits on each machine."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from prunenas.data.base import (
    DATASETS,
    ImageData,
    Part,
    channel_statistics,
    refuse_argument,
    split_validation,
)
from prunenas.errors import DataError

Whole = npt.NDArray[np.int64]
Inside = npt.NDArray[np.bool_]


def _disc(x: Whole, y: Whole, r: Whole) -> Inside:
    return x * x + y * y <= r * r


def _square(x: Whole, y: Whole, r: Whole) -> Inside:
    return 8 * np.maximum(abs(x), abs(y)) <= 7 * r


def _diamond(x: Whole, y: Whole, r: Whole) -> Inside:
    return abs(x) + abs(y) <= r


def _triangle(x: Whole, y: Whole, r: Whole) -> Inside:
    return (abs(y) <= r) & (2 * abs(x) <= y + r)


def _plus(x: Whole, y: Whole, r: Whole) -> Inside:
    return (np.maximum(abs(x), abs(y)) <= r) & (4 * np.minimum(abs(x), abs(y)) <= r)


def _saltire(x: Whole, y: Whole, r: Whole) -> Inside:
    return (np.maximum(abs(x), abs(y)) <= r) & (3 * abs(abs(x) - abs(y)) <= r)


def _ring(x: Whole, y: Whole, r: Whole) -> Inside:
    return _disc(x, y, r) & ~_disc(2 * x, 2 * y, r)


def _frame(x: Whole, y: Whole, r: Whole) -> Inside:
    return _square(x, y, r) & ~_square(2 * x, 2 * y, r)


def _beam(x: Whole, y: Whole, r: Whole) -> Inside:
    return (abs(x) <= r) & (3 * abs(y) <= r)


def _pillar(x: Whole, y: Whole, r: Whole) -> Inside:
    return _beam(y, x, r)


# The place of a shape is its label. All are their own mirror images, so flips are legal.
_SHAPES: tuple[Callable[[Whole, Whole, Whole], Inside], ...] = (
    _disc,
    _square,
    _diamond,
    _triangle,
    _plus,
    _saltire,
    _ring,
    _frame,
    _beam,
    _pillar,
)


def shapes(*, train: int = 2000, test: int = 500, side: int = 32, seed: int = 0) -> ImageData:
    """Return coloured shapes of 10 classes, at random place, radius and colour, over noise.

    Args:
        train: Training images, at least 20, the classes in turn.
        test: Test images, at least 10, the classes in turn.
        side: Height and width of the images, at least 16.
        seed: Which images.

    Raises:
        DataError: Too few images, or too small ones.

    >>> shapes(train=20, test=10, side=16).input_size
    (3, 16, 16)
    """
    if train < 20 or test < 10 or side < 16:
        raise DataError(
            f"shapes needs train >= 20, test >= 10, side >= 16; {train=} {test=} {side=}"
        )
    drawn = _draw(train + test, side, seed)
    images, labels = drawn.images, drawn.labels
    mean, std = channel_statistics(images[:train])
    return ImageData(
        name="shapes",
        train_images=images[:train],
        train_labels=labels[:train],
        test_images=images[train:].clone(),
        test_labels=labels[train:].clone(),
        classes=len(_SHAPES),
        mean=mean,
        std=std,
        flip=True,
        crop_padding=side // 8,
        validation=split_validation(labels[:train]),
        notes=(f"synthetic, {seed=}",),
    )


@DATASETS.register("shapes")
def _load(argument: str, root: Path, download: bool) -> ImageData:
    refuse_argument("shapes", argument)
    return shapes()


def _draw(count: int, side: int, seed: int) -> Part:
    """Return ``count`` images. Whole numbers only: a float's last bit may differ by machine."""
    stream = np.random.Philox(seed)

    def whole(low: int | Whole, high: int | Whole, *shape: int) -> Whole:
        raw = stream.random_raw(int(np.prod(shape))) >> np.uint64(2)
        return low + raw.astype(np.int64).reshape(shape) % (high - low)

    labels = np.arange(count) % len(_SHAPES)
    radius = whole(side // 6, side // 3 + 1, count, 1, 1)
    centre_y, centre_x = (whole(radius, side - radius, count, 1, 1) for _ in range(2))
    y, x = np.arange(side)[:, None] - centre_y, np.arange(side)[None, :] - centre_x
    inside = np.empty((count, 1, side, side), dtype=np.bool_)
    for label, shape in enumerate(_SHAPES):
        chosen = labels == label
        inside[chosen, 0] = shape(x[chosen], y[chosen], radius[chosen])
    ground = whole(40, 120, count, 3, 1, 1)
    paint = ground + whole(50, 100, count, 3, 1, 1)  # lighter than its ground in each channel
    # Eight noise values of one byte each come out of each random number.
    noise = stream.random_raw(count * 3 * side * side // 8 + 1).astype("<u8").view(np.uint8)
    grain = noise[: count * 3 * side * side].reshape(count, 3, side, side) % 61
    images = np.where(inside, paint, ground) + grain - 30
    return Part(torch.from_numpy(images.astype(np.uint8)), torch.from_numpy(labels))
