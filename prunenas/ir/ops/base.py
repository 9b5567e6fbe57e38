"""What every op must say of itself, and the ops that leave shapes alone."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from prunenas.errors import ShapeError
from prunenas.ir.axis import Axes, Axis, constant
from prunenas.ir.ops.sparsity import ExactMask
from prunenas.ir.shape import Shape
from prunenas.ir.unifier import Unifier


class Op(ABC):
    """What a node does. Immutable, compared by value."""

    __slots__ = ()
    # pydantic reads this when a spec is decoded: unknown keys and wrong types are refused.
    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    kind: str
    arity: ClassVar[tuple[int, int | None]] = (1, 1)
    """Least and greatest number of inputs; None is no limit."""

    channel: ClassVar[int] = 1
    """Dimension that holds the channels of input and output, as torch counts: the batch is 0."""

    of_images: ClassVar[bool] = False
    """Whether the op speaks of images or vectors, so that a tensor without batch will not do."""

    def checked_shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the shape of the output, of inputs that may be anything.

        Raises:
            ShapeError: The inputs do not fit.
        """
        if self.of_images and any(shape.lead is None or not shape.dims for shape in inputs):
            raise ShapeError(
                f"{self.kind} needs images or vectors, got {', '.join(map(str, inputs))}"
            )
        out = self.shape(inputs)
        mask = getattr(self, "sparsity", None)
        if isinstance(mask, ExactMask):
            kernel = self.parameters(inputs, out)["weight"]
            if kernel != mask.shape:
                raise ShapeError(
                    f"{self.kind} has a kernel {list(kernel)}, its exact mask is of "
                    f"{list(mask.shape)}"
                )
        return out

    @abstractmethod
    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the shape of the output.

        Raises:
            ShapeError: The inputs do not fit.
        """

    @abstractmethod
    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """Return the output's axes; state on ``unifier`` equations and which fields are widths."""

    def macs(self, inputs: Sequence[Shape], out: Shape) -> int:
        """Return multiply-accumulates for one image; bias, norm and pooling are not counted."""
        return 0

    def parameters(self, inputs: Sequence[Shape], out: Shape) -> Mapping[str, tuple[int, ...]]:
        """Return the shape of each trainable tensor, by its name below the node."""
        return {}


class ChannelOp(Op):
    """An op on images or vectors, whose equations speak of channels alone."""

    __slots__ = ()
    of_images: ClassVar[bool] = True

    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """Return the channels' axis beside constants."""
        for other in inputs[1:]:
            unifier.unify(inputs[0][0], other[0], node=node)
        for own in inputs:
            fix_sides(own, unifier, node)
        channels = self.channels([axes[1] for axes in inputs], shapes, unifier, node)
        return (inputs[0][0], channels, *map(constant, out.spatial))

    def channels(
        self, axes: Sequence[Axis], shapes: Sequence[Shape], unifier: Unifier, node: str
    ) -> Axis:
        """Return the output's channels; state equations, divisors and bounds on ``unifier``."""
        return axes[0]


def fix_sides(axes: Axes, unifier: Unifier, node: str) -> None:
    """Fix what stands where an image has its height and width."""
    for axis in axes[2:]:
        unifier.fix(axis, f"{node} takes it for the side of an image")


class Pointwise(Op):
    """An op that leaves the shape and every axis as they are."""

    __slots__ = ()

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the input's shape."""
        return inputs[0]

    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """Pass the source on."""
        return inputs[0]


def dimension(what: str, dim: int, shape: Shape, *, first: int = 0) -> int:
    """Return ``dim`` of ``shape`` if there is one.

    Raises:
        ShapeError: The tensor has no such dimension, or it is the batch's.
    """
    least = first if shape.lead is None else max(first, 1)
    if not least <= dim < len(shape.sizes):
        raise ShapeError(f"{what} asks for dimension {dim} of {shape}")
    return dim


def need_finite(what: str, **values: float | None) -> None:
    """Refuse numbers that JSON cannot hold.

    Raises:
        ShapeError: Some value is infinite, or no number.
    """
    bad = [f"{k}={v}" for k, v in values.items() if v is not None and not math.isfinite(v)]
    if bad:
        raise ShapeError(f"{what} needs finite numbers, got {', '.join(bad)}")
