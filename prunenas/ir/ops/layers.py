"""Ops with trainable tensors, and the input."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, final

from prunenas.errors import ShapeError
from prunenas.ir.axis import Axes, Axis, constant, times
from prunenas.ir.ops.base import ChannelOp, Op
from prunenas.ir.ops.sparsity import Sparsity, check_sparsity
from prunenas.ir.shape import Pair, Shape, need_padding, need_positive, window
from prunenas.ir.unifier import Unifier


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
        return Shape.of(self.width, self.spatial)

    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """Return a variable that is fixed, beside constants."""
        axis = unifier.fresh(self.width, node)
        unifier.fix(axis, "network input")
        return (constant(1), axis, *map(constant, self.spatial))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Conv2d(ChannelOp):
    """A convolution, dense or in ``groups``; a depthwise one is ``Depthwise2d``."""

    kind: Literal["Conv2d"] = "Conv2d"
    width: int
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = False
    sparsity: Sparsity | None = None

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
        check_sparsity(self.sparsity, self.kernel)

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Slide the window; the source must divide into the groups."""
        if inputs[0].channels % self.groups:
            raise ShapeError(f"{inputs[0].channels} channels do not divide into {self.groups}")
        size = window(
            inputs[0].size(),
            kernel=self.kernel,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )
        return Shape.of(self.width, size, lead=inputs[0].lead)

    def channels(
        self, axes: Sequence[Axis], shapes: Sequence[Shape], unifier: Unifier, node: str
    ) -> Axis:
        """Return a fresh variable; it and the source must divide into the groups."""
        unifier.divide(axes[0], self.groups, node=node)
        axis = unifier.fresh(self.width, node, divisor=self.groups)
        unifier.store(node, width=axis)
        return axis

    def macs(self, inputs: Sequence[Shape], out: Shape) -> int:
        """Return kernel area x inputs of a group x output elements."""
        return math.prod(self.kernel) * inputs[0].channels * out.numel // self.groups

    def parameters(self, inputs: Sequence[Shape], out: Shape) -> Mapping[str, tuple[int, ...]]:
        """Return ``weight`` [out in/groups kh kw] and ``bias`` [out]."""
        weight = (out.channels, inputs[0].channels // self.groups, *self.kernel)
        return {"weight": weight} | ({"bias": (out.channels,)} if self.bias else {})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Depthwise2d(ChannelOp):
    """A convolution of each channel alone, ``multiplier`` outputs for each."""

    kind: Literal["Depthwise2d"] = "Depthwise2d"
    multiplier: int = 1
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    bias: bool = False
    sparsity: Sparsity | None = field(default=None, metadata={"omit": True})

    def __post_init__(self) -> None:
        need_positive(
            self.kind,
            multiplier=self.multiplier,
            kernel=self.kernel,
            stride=self.stride,
            dilation=self.dilation,
        )
        need_padding(self.kind, self.padding)
        check_sparsity(self.sparsity, self.kernel)

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Slide the window; each channel occurs ``multiplier`` times."""
        size = window(
            inputs[0].size(),
            kernel=self.kernel,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )
        return Shape.of(inputs[0].channels * self.multiplier, size, lead=inputs[0].lead)

    def channels(
        self, axes: Sequence[Axis], shapes: Sequence[Shape], unifier: Unifier, node: str
    ) -> Axis:
        """Pass the source on, each channel ``multiplier`` times."""
        return times(axes[0], self.multiplier)

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
    """A linear layer on the last dimension: of a vector, or of each token."""

    channel: ClassVar[int] = -1
    kind: Literal["Linear"] = "Linear"
    width: int
    bias: bool = True
    sparsity: Sparsity | None = field(default=None, metadata={"omit": True})

    def __post_init__(self) -> None:
        need_positive(self.kind, width=self.width)
        check_sparsity(self.sparsity, ())

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the input's shape with ``width`` as its last size."""
        if not inputs[0].dims:
            raise ShapeError("Linear needs a vector or tokens, got a single number")
        return Shape((*inputs[0].dims[:-1], self.width), inputs[0].lead)

    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """Return a fresh variable in the last place."""
        axis = unifier.fresh(self.width, node)
        unifier.store(node, width=axis)
        return (*inputs[0][:-1], axis)

    def macs(self, inputs: Sequence[Shape], out: Shape) -> int:
        """Return inputs x output elements."""
        return inputs[0].dims[-1] * out.numel

    def parameters(self, inputs: Sequence[Shape], out: Shape) -> Mapping[str, tuple[int, ...]]:
        """Return ``weight`` [out in] and ``bias`` [out]."""
        weight = (out.dims[-1], inputs[0].dims[-1])
        return {"weight": weight} | ({"bias": (out.dims[-1],)} if self.bias else {})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Conv1d(Op):
    """A convolution along the last dimension of ``[c n]``, dense, in groups or depthwise."""

    kind: Literal["Conv1d"] = "Conv1d"
    width: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    bias: bool = False
    sparsity: Sparsity | None = field(default=None, metadata={"omit": True})

    def __post_init__(self) -> None:
        need_positive(
            self.kind,
            width=self.width,
            kernel=self.kernel,
            stride=self.stride,
            groups=self.groups,
        )
        need_padding(self.kind, (self.padding, self.padding))
        check_sparsity(self.sparsity, (self.kernel,))

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Slide the window."""
        source = inputs[0]
        if len(source.dims) != 2 or source.channels % self.groups or self.width % self.groups:
            raise ShapeError(f"Conv1d in {self.groups} groups to {self.width} cannot read {source}")
        length = (source.dims[1] + 2 * self.padding - self.kernel) // self.stride + 1
        need_positive(self.kind, length=length)
        return Shape((self.width, length), source.lead)

    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """Return a fresh variable; what the window slides along keeps its order."""
        lead, channels, along = inputs[0]
        if self.groups > 1:
            unifier.fix(channels, f"{node} convolves it in groups")
        axis = unifier.fresh(self.width, node, divisor=self.groups)
        if self.groups > 1:
            unifier.fix(axis, f"{node} convolves it in groups")
        unifier.store(node, width=axis)
        if out.dims[1] == shapes[0].dims[1]:
            unifier.order(along, f"{node} slides along it")
        else:
            unifier.fix(along, f"{node} slides along it")
            along = constant(out.dims[1])
        return (lead, axis, along)

    def macs(self, inputs: Sequence[Shape], out: Shape) -> int:
        """Return kernel x inputs of a group x output elements."""
        return self.kernel * inputs[0].channels * out.numel // self.groups

    def parameters(self, inputs: Sequence[Shape], out: Shape) -> Mapping[str, tuple[int, ...]]:
        """Return ``weight`` [out in/groups k] and ``bias`` [out]."""
        weight = (out.channels, inputs[0].channels // self.groups, self.kernel)
        return {"weight": weight} | ({"bias": (out.channels,)} if self.bias else {})
