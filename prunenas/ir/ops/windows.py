"""Ops on windows and sizes of images that leave the channels alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

from prunenas.errors import ShapeError
from prunenas.ir.axis import Axes, constant
from prunenas.ir.cuts import reshape
from prunenas.ir.ops.base import Op, fix_sides
from prunenas.ir.ops.layout import LayoutOp
from prunenas.ir.shape import Pair, Shape, need_padding, need_positive, window
from prunenas.ir.unifier import Unifier


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Resize(Op):
    """An image at another size, by interpolation."""

    kind: Literal["Resize"] = "Resize"
    size: Pair
    function: Literal["nearest", "bilinear", "bicubic"] = "nearest"
    align_corners: bool = False

    def __post_init__(self) -> None:
        need_positive(self.kind, size=self.size)

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the image at ``size``; one for all images is ``[1 c h w]``."""
        source = inputs[0]
        if len(source.sizes) != 4:
            raise ShapeError(f"Resize needs an image, got {source}")
        return Shape.from_sizes((*source.sizes[:2], *self.size), batched=source.lead is not None)

    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """Pass the channels on."""
        fix_sides(inputs[0], unifier, node)
        return (*inputs[0][:2], *map(constant, self.size))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Unfold(LayoutOp):
    """The windows of an image as columns: ``[c kh kw]`` in a row by positions."""

    kind: Literal["Unfold"] = "Unfold"
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    def __post_init__(self) -> None:
        need_positive(self.kind, kernel=self.kernel, stride=self.stride, dilation=self.dilation)
        need_padding(self.kind, self.padding)

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return channels x kernel area by the number of windows."""
        rows, columns = window(
            inputs[0].size(),
            kernel=self.kernel,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )
        channels = inputs[0].channels * math.prod(self.kernel)
        return Shape((channels, rows * columns), inputs[0].lead)

    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """Return the channels with the kernel's positions behind each."""
        fix_sides(inputs[0], unifier, node)
        area = constant(math.prod(self.kernel))
        columns = reshape(unifier, [inputs[0][1], area], [out.dims[0]], node=node)
        return (inputs[0][0], *columns, constant(out.dims[1]))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Fold(Op):
    """Columns of windows added up to an image of ``size``: what ``Unfold`` took apart."""

    kind: Literal["Fold"] = "Fold"
    size: Pair
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    def __post_init__(self) -> None:
        need_positive(
            self.kind,
            size=self.size,
            kernel=self.kernel,
            stride=self.stride,
            dilation=self.dilation,
        )
        need_padding(self.kind, self.padding)

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the image; the windows must be those of one of its size."""
        rows, columns = window(
            self.size,
            kernel=self.kernel,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )
        area = math.prod(self.kernel)
        source = inputs[0].dims
        fits = len(source) == 2 and inputs[0].lead is not None
        if not fits or source[0] % area or source[1] != rows * columns:
            raise ShapeError(f"Fold cannot make an image of {self.size} from {inputs[0]}")
        return Shape.of(source[0] // area, self.size, lead=inputs[0].lead)

    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """Take the kernel's positions from behind each channel."""
        fix_sides(inputs[0], unifier, node)
        sizes = [out.channels, math.prod(self.kernel)]
        channels, area = reshape(unifier, [inputs[0][1]], sizes, node=node)
        unifier.fix(area, f"{node} folds windows of {self.kernel}")
        return (inputs[0][0], channels, *map(constant, self.size))
