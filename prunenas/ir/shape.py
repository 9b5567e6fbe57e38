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

    A tensor has one entry of the batch for each image, or ``lead`` of them (the windows that an
    image was cut into, say). One that is the same for all images has no batch dimension.

    Args:
        dims: Sizes without the batch: ``[c h w]`` of an image, ``[c]`` of a vector, ``[t c]`` of
            tokens.
        lead: Entries of the batch dimension for each image; None without a batch dimension.
    """

    dims: tuple[int, ...]
    lead: int | None = 1

    @staticmethod
    def of(channels: int, spatial: tuple[int, ...] = (), *, lead: int | None = 1) -> "Shape":
        """Return the shape of an image, or of a vector."""
        return Shape((channels, *spatial), lead)

    @property
    def channels(self) -> int:
        """Number of channels, or of features of a vector.

        Raises:
            ShapeError: This is a single number, or the same for all images.
        """
        if not self.dims or self.lead is None:
            raise ShapeError(f"a tensor with channels is needed, got {self}")
        return self.dims[0]

    @property
    def spatial(self) -> tuple[int, ...]:
        """Height and width; empty for a vector."""
        return self.dims[1:]

    @property
    def positions(self) -> int:
        """Number of spatial positions, 1 for a vector."""
        return math.prod(self.dims[1:])

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.dims) * (1 if self.lead is None else self.lead)

    @property
    def sizes(self) -> tuple[int, ...]:
        """All sizes in torch's order, the batch dimension counted for one image."""
        return self.dims if self.lead is None else (self.lead, *self.dims)

    @staticmethod
    def from_sizes(sizes: tuple[int, ...], *, batched: bool) -> "Shape":
        """Return the shape whose ``sizes`` these are."""
        return Shape(sizes[1:], sizes[0]) if batched else Shape(sizes, None)

    def size(self) -> Pair:
        """Return height and width.

        Raises:
            ShapeError: This is no image.
        """
        if len(self.dims) != 3 or self.lead is None:
            raise ShapeError(f"an image [c h w] is needed, got {self}")
        return self.dims[1], self.dims[2]

    def __str__(self) -> str:
        text = f"[{' '.join(map(str, self.dims))}]"
        if self.lead is None:
            return f"{text} for all images"
        return text if self.lead == 1 else f"{self.lead} x {text}"


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
