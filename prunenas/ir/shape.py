"""Shapes of one image's tensors, and the arithmetic of sliding windows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from prunenas.errors import ShapeError

Pair = tuple[int, int]


@final
@dataclass(frozen=True, slots=True)
class Shape:
    """Shape of one image's tensor.

    Args:
        channels: Number of channels, or of features of a vector.
        spatial: Height and width; empty for a vector.
    """

    channels: int
    spatial: tuple[int, ...] = ()

    @property
    def positions(self) -> int:
        """Number of spatial positions, 1 for a vector."""
        return math.prod(self.spatial)

    @property
    def numel(self) -> int:
        """Number of elements."""
        return self.channels * self.positions

    def size(self) -> Pair:
        """Return height and width.

        Raises:
            ShapeError: This is a vector.
        """
        if len(self.spatial) != 2:
            raise ShapeError(f"an image [c h w] is needed, got a vector of {self.channels}")
        return self.spatial[0], self.spatial[1]


def window(
    size: Pair,
    *,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair = (1, 1),
    ceil_mode: bool = False,
) -> Pair:
    """Return height and width after sliding a window over ``size``.

    Raises:
        ShapeError: The window is larger than the padded image.
    """

    def steps(n: int, k: int, s: int, p: int, d: int) -> int:
        span = n + 2 * p - d * (k - 1) - 1
        count = -(-span // s) if ceil_mode else span // s
        if count < 0:
            raise ShapeError(f"a window of {kernel} does not fit into {size} with {padding=}")
        # A window that would start in the right padding is left out, as torch does.
        return count if not ceil_mode or count * s < n + p else count - 1

    rows, columns = (
        steps(*axis) for axis in zip(size, kernel, stride, padding, dilation, strict=True)
    )
    return rows + 1, columns + 1


def need_padding(what: str, padding: Pair, *, most: Pair | None = None) -> None:
    """Refuse a padding that is negative, or more than ``most``.

    Raises:
        ShapeError: It is.
    """
    if min(padding) < 0:
        raise ShapeError(f"{what} needs a padding from 0 on, got {padding}")
    if most is not None and (padding[0] > most[0] or padding[1] > most[1]):
        raise ShapeError(f"{what} needs a padding of at most half its kernel {most}, got {padding}")


def need_positive(what: str, **values: int | Sequence[int]) -> None:
    """Refuse values that are not positive, all of them at once.

    Raises:
        ShapeError: Some value is less than 1.
    """
    bad = [
        f"{name}={value!r}"
        for name, value in values.items()
        if any(v < 1 for v in ((value,) if isinstance(value, int) else value))
    ]
    if bad:
        raise ShapeError(f"{what} needs positive integers, got {', '.join(bad)}")
