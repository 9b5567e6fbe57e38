"""Arithmetic between tensors and on their elements; sums and means."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

from prunenas.errors import ShapeError
from prunenas.ir.axis import ONE, Axes, Axis
from prunenas.ir.ops.base import Pointwise, dimension, need_finite
from prunenas.ir.ops.layout import LayoutOp
from prunenas.ir.shape import Shape
from prunenas.ir.unifier import Unifier


def broadcast(what: str, shapes: Sequence[Shape]) -> Shape:
    """Return the shape of several tensors brought to one, sizes of 1 spread out."""
    leads = {shape.lead for shape in shapes} - {None}
    if len(leads) > 1:
        raise ShapeError(f"{what} meets different batches: {', '.join(map(str, shapes))}")
    batched = bool(leads)
    length = max(len(shape.sizes) for shape in shapes)
    sizes = [1] * length
    for shape in shapes:
        own = shape.sizes
        if shape.lead is not None and len(own) < length:
            raise ShapeError(f"{what} would spread the batch of {shape} along another dimension")
        for place, size in enumerate(own, start=length - len(own)):
            if place == 0 and batched and shape.lead is None and size != 1:
                raise ShapeError(f"{what} meets {shape}, which differs by image, as one for all")
            if size != 1 and sizes[place] not in (1, size):
                raise ShapeError(f"{what} cannot bring together {', '.join(map(str, shapes))}")
            sizes[place] = max(sizes[place], size)
    return Shape.from_sizes(tuple(sizes), batched=batched)


def met(axes: Sequence[Axes], shapes: Sequence[Shape], unifier: Unifier, node: str) -> Axes:
    """Return the axes of several tensors brought to one; a size of 1 is spread out."""
    length = max(map(len, axes))
    batched = any(shape.lead is not None for shape in shapes)
    columns: list[list[Axis]] = [[] for _ in range(length)]
    for own, shape in zip(axes, shapes, strict=True):
        for place, axis in enumerate(own, start=length - len(own)):
            if place or not batched or shape.lead is not None:
                columns[place].append(axis)
    result = []
    for column in columns:
        wide = [axis for axis in column if unifier.width(axis) > 1]
        if wide:
            for axis in column:
                if unifier.width(axis) == 1:
                    unifier.fix(axis, f"{node} spreads it out")
        first, *others = wide or column
        for axis in others:
            unifier.unify(first, axis, node=node)
        result.append(first)
    return tuple(result)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic(LayoutOp):
    """Two tensors combined element by element; sizes of 1 are spread out."""

    arity: ClassVar[tuple[int, int | None]] = (2, 2)
    kind: Literal["Arithmetic"] = "Arithmetic"
    function: Literal["add", "subtract", "multiply", "divide", "maximum", "minimum", "power"] = (
        "add"
    )

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the shape that both are brought to."""
        return broadcast(self.kind, inputs)

    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """Unify all axes but those of size 1."""
        return met(inputs, shapes, unifier, node)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Affine(Pointwise):
    """Every element times ``scale`` plus ``shift``."""

    channel: ClassVar[int] = -1
    kind: Literal["Affine"] = "Affine"
    scale: float = 1.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        need_finite(self.kind, scale=self.scale, shift=self.shift)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Power(Pointwise):
    """Every element to the power ``exponent``."""

    channel: ClassVar[int] = -1
    kind: Literal["Power"] = "Power"
    exponent: float

    def __post_init__(self) -> None:
        need_finite(self.kind, exponent=self.exponent)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Clamp(Pointwise):
    """Every element held between ``low`` and ``high``; None is no limit."""

    channel: ClassVar[int] = -1
    kind: Literal["Clamp"] = "Clamp"
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        need_finite(self.kind, low=self.low, high=self.high)
        if self.low is None and self.high is None:
            raise ShapeError("Clamp needs a limit")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LeakyRelu(Pointwise):
    """Negative elements times ``slope``; the framework's own slope is an ``Activation``."""

    kind: Literal["LeakyRelu"] = "LeakyRelu"
    slope: float

    def __post_init__(self) -> None:
        need_finite(self.kind, slope=self.slope)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Softmax(Pointwise):
    """Exponentials along ``dim``, divided by their sum."""

    channel: ClassVar[int] = -1
    kind: Literal["Softmax"] = "Softmax"
    dim: int

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the input's shape."""
        dimension(self.kind, self.dim, inputs[0])
        return inputs[0]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Normalize(Pointwise):
    """Vectors along ``dim`` brought to length 1; shorter ones than ``eps`` are divided by it."""

    channel: ClassVar[int] = -1
    kind: Literal["Normalize"] = "Normalize"
    dim: int
    eps: float = 1e-12

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the input's shape."""
        dimension(self.kind, self.dim, inputs[0])
        return inputs[0]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Reduce(LayoutOp):
    """Mean, sum, largest value, length or variance over ``dims``, which stay as 1 or go."""

    kind: Literal["Reduce"] = "Reduce"
    function: Literal["mean", "sum", "max", "norm", "variance"] = "mean"
    dims: tuple[int, ...]
    keep: bool = False

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the sizes without ``dims``, or with 1 in their places."""
        if not self.dims or len({*self.dims}) < len(self.dims):
            raise ShapeError(f"Reduce needs different dimensions, got {list(self.dims)}")
        for dim in self.dims:
            dimension(self.kind, dim, inputs[0])
        sizes = [
            1 if place in self.dims else size
            for place, size in enumerate(inputs[0].sizes)
            if self.keep or place not in self.dims
        ]
        return Shape.from_sizes(tuple(sizes), batched=inputs[0].lead is not None)

    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """Return the other axes: over how many entries is reduced is free."""
        return tuple(
            ONE if place in self.dims else axis
            for place, axis in enumerate(inputs[0])
            if self.keep or place not in self.dims
        )
