"""Ops with trainable tensors, and the input."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

from prunenas.errors import ShapeError
from prunenas.ir.axis import Axis, Segment, Unifier
from prunenas.ir.ops.base import Op, Pointwise
from prunenas.ir.shape import Pair, Shape, need_padding, need_positive, window


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSparsity:
    """A fixed random mask, drawn from a keep probability for each kernel position.

    Args:
        density: Keep probability of each position, row by row, ``[kh * kw]``.
        seed: Seed of the draw.

    Source: Liu et al. 2019, arXiv:1810.05270, guided sparsification (an independent draw for each
        position is our reading of it).
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    density: tuple[float, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.density or not all(0 <= p <= 1 for p in self.density) or not any(self.density):
            raise ShapeError(f"densities lie in [0, 1] and one is not 0, got {self.density}")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Input(Op):
    """The image, or a vector where ``spatial`` is empty."""

    arity: ClassVar[tuple[int, int | None]] = (0, 0)
    kind: Literal["Input"] = "Input"
    width: int
    spatial: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        need_positive(self.kind, width=self.width, spatial=self.spatial)
        if len(self.spatial) not in (0, 2):
            raise ShapeError(f"Input is a vector or an image [c h w], got spatial={self.spatial}")

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the stored shape."""
        return Shape(self.width, self.spatial)

    def channels(
        self, axes: Sequence[Axis], shapes: Sequence[Shape], unifier: Unifier, node: str
    ) -> Axis:
        """Return a variable that is fixed."""
        axis = unifier.fresh(self.width, node)
        unifier.fix(axis, "network input")
        return axis


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Conv2d(Op):
    """A convolution, dense or in ``groups``; a depthwise one is ``Depthwise2d``."""

    kind: Literal["Conv2d"] = "Conv2d"
    width: int
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = False
    sparsity: KernelSparsity | None = None

    def __post_init__(self) -> None:
        need_positive(
            self.kind,
            width=self.width,
            kernel=self.kernel,
            stride=self.stride,
            dilation=self.dilation,
            groups=self.groups,
        )
        need_padding(self.kind, self.padding)
        if self.width % self.groups:
            raise ShapeError(f"Conv2d of {self.groups} groups cannot have width {self.width}")
        if self.sparsity and len(self.sparsity.density) != math.prod(self.kernel):
            raise ShapeError(
                f"a {self.kernel} kernel needs {math.prod(self.kernel)} densities, "
                f"got {len(self.sparsity.density)}"
            )

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Slide the window; the source must divide into the groups."""
        if inputs[0].channels % self.groups:
            raise ShapeError(f"{inputs[0].channels} channels do not divide into {self.groups}")
        return Shape(
            self.width,
            window(
                inputs[0].size(),
                kernel=self.kernel,
                stride=self.stride,
                padding=self.padding,
                dilation=self.dilation,
            ),
        )

    def channels(
        self, axes: Sequence[Axis], shapes: Sequence[Shape], unifier: Unifier, node: str
    ) -> Axis:
        """Return a fresh variable; it and the source must divide into the groups."""
        unifier.divide(axes[0], self.groups, node=node)
        return unifier.fresh(self.width, node, divisor=self.groups)

    def macs(self, inputs: Sequence[Shape], out: Shape) -> int:
        """Return kernel area x inputs of a group x output elements."""
        return math.prod(self.kernel) * inputs[0].channels * out.numel // self.groups

    def parameters(self, inputs: Sequence[Shape], out: Shape) -> Mapping[str, tuple[int, ...]]:
        """Return ``weight`` [out in/groups kh kw] and ``bias`` [out]."""
        weight = (out.channels, inputs[0].channels // self.groups, *self.kernel)
        return {"weight": weight} | ({"bias": (out.channels,)} if self.bias else {})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Depthwise2d(Op):
    """A convolution of each channel alone, ``multiplier`` outputs for each."""

    kind: Literal["Depthwise2d"] = "Depthwise2d"
    multiplier: int = 1
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    bias: bool = False

    def __post_init__(self) -> None:
        need_positive(
            self.kind,
            multiplier=self.multiplier,
            kernel=self.kernel,
            stride=self.stride,
            dilation=self.dilation,
        )
        need_padding(self.kind, self.padding)

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Slide the window; each channel occurs ``multiplier`` times."""
        return Shape(
            inputs[0].channels * self.multiplier,
            window(
                inputs[0].size(),
                kernel=self.kernel,
                stride=self.stride,
                padding=self.padding,
                dilation=self.dilation,
            ),
        )

    def channels(
        self, axes: Sequence[Axis], shapes: Sequence[Shape], unifier: Unifier, node: str
    ) -> Axis:
        """Pass the source on, each channel ``multiplier`` times."""
        return tuple(Segment(s.variable, s.repeat * self.multiplier) for s in axes[0])

    def macs(self, inputs: Sequence[Shape], out: Shape) -> int:
        """Return kernel area x output elements."""
        return math.prod(self.kernel) * out.numel

    def parameters(self, inputs: Sequence[Shape], out: Shape) -> Mapping[str, tuple[int, ...]]:
        """Return ``weight`` [out 1 kh kw] and ``bias`` [out]."""
        weight = (out.channels, 1, *self.kernel)
        return {"weight": weight} | ({"bias": (out.channels,)} if self.bias else {})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Linear(Op):
    """A linear layer on a vector."""

    kind: Literal["Linear"] = "Linear"
    width: int
    bias: bool = True

    def __post_init__(self) -> None:
        need_positive(self.kind, width=self.width)

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return a vector of ``width``; an image must be flattened first."""
        if inputs[0].spatial:
            raise ShapeError(f"Linear needs a vector, got an image {inputs[0]}: flatten it first")
        return Shape(self.width)

    def channels(
        self, axes: Sequence[Axis], shapes: Sequence[Shape], unifier: Unifier, node: str
    ) -> Axis:
        """Return a fresh variable."""
        return unifier.fresh(self.width, node)

    def macs(self, inputs: Sequence[Shape], out: Shape) -> int:
        """Return inputs x outputs."""
        return inputs[0].channels * out.channels

    def parameters(self, inputs: Sequence[Shape], out: Shape) -> Mapping[str, tuple[int, ...]]:
        """Return ``weight`` [out in] and ``bias`` [out]."""
        weight = (out.channels, inputs[0].channels)
        return {"weight": weight} | ({"bias": (out.channels,)} if self.bias else {})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BatchNorm(Pointwise):
    """Batch normalisation with learned scale and shift, of an image or a vector."""

    kind: Literal["BatchNorm"] = "BatchNorm"
    eps: float = 1e-5
    momentum: float = 0.1

    def parameters(self, inputs: Sequence[Shape], out: Shape) -> Mapping[str, tuple[int, ...]]:
        """Return scale ``weight`` [c] and shift ``bias`` [c]."""
        return {"weight": (out.channels,), "bias": (out.channels,)}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GroupNorm(Pointwise):
    """Group normalisation with learned scale and shift; the channels must divide."""

    kind: Literal["GroupNorm"] = "GroupNorm"
    groups: int
    eps: float = 1e-5

    def __post_init__(self) -> None:
        need_positive(self.kind, groups=self.groups)

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the input's shape; its channels must divide into the groups."""
        if inputs[0].channels % self.groups:
            raise ShapeError(f"{inputs[0].channels} channels do not divide into {self.groups}")
        return inputs[0]

    def channels(
        self, axes: Sequence[Axis], shapes: Sequence[Shape], unifier: Unifier, node: str
    ) -> Axis:
        """Pass the source on; it must divide into the groups."""
        unifier.divide(axes[0], self.groups, node=node)
        return axes[0]

    def parameters(self, inputs: Sequence[Shape], out: Shape) -> Mapping[str, tuple[int, ...]]:
        """Return scale ``weight`` [c] and shift ``bias`` [c]."""
        return {"weight": (out.channels,), "bias": (out.channels,)}
