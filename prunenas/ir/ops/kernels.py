"""Convolution by a kernel that is computed: standardised weights, fixed filters."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

from prunenas.errors import ShapeError
from prunenas.ir.axis import Axes, constant
from prunenas.ir.cuts import parts
from prunenas.ir.ops.base import Op, fix_sides
from prunenas.ir.shape import Pair, Shape, need_padding, need_positive, window
from prunenas.ir.unifier import Unifier


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Convolve(Op):
    """Images convolved by the second input, a kernel ``[out in/groups kh kw]``.

    Args:
        depthwise: Whether each channel has a kernel of its own, ``[c 1 kh kw]``.
        groups: Into how many parts the channels are cut; 1 where ``depthwise``.
    """

    arity: ClassVar[tuple[int, int | None]] = (2, 2)
    kind: Literal["Convolve"] = "Convolve"
    depthwise: bool = False
    groups: int = 1
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    def __post_init__(self) -> None:
        need_positive(self.kind, stride=self.stride, dilation=self.dilation, groups=self.groups)
        need_padding(self.kind, self.padding)
        if self.depthwise and self.groups > 1:
            raise ShapeError("Convolve is depthwise or in groups, not both")

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Slide the kernel over the image."""
        image, kernel = inputs
        size = image.size()
        if kernel.lead is not None or len(kernel.dims) != 4:
            raise ShapeError(f"Convolve needs a kernel [out in kh kw], got {kernel}")
        out, into, *sides = kernel.dims
        groups = image.channels if self.depthwise else self.groups
        if into * groups != image.channels or out % groups or (self.depthwise and out != groups):
            raise ShapeError(f"Convolve cannot slide a kernel {kernel} over {image}")
        found = window(
            size,
            kernel=(sides[0], sides[1]),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )
        return Shape.of(out, found, lead=image.lead)

    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """State that the kernel has the image's channels, and return its own."""
        image, kernel = inputs
        fix_sides(image, unifier, node)
        fix_sides(kernel, unifier, node)
        if self.depthwise:
            channels = unifier.unify(image[1], kernel[0], node=node)
        else:
            part = parts(unifier, image[1], self.groups, node=node)
            if part is None:
                unifier.fix(image[1], f"{node} convolves it in groups")
                part = constant(shapes[1].dims[1])
            unifier.unify(part, kernel[1], node=node)
            channels = unifier.fresh(out.channels, node, divisor=self.groups)
            unifier.unify(channels, kernel[0], node=node)
        return (image[0], channels, *map(constant, out.spatial))

    def macs(self, inputs: Sequence[Shape], out: Shape) -> int:
        """Return kernel area x inputs of a group x output elements."""
        return math.prod(inputs[1].dims[1:]) * out.numel
