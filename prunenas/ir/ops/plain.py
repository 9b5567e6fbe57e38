"""Ops without trainable tensors on one input: activations, dropout, pooling."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final, get_args

from prunenas.errors import ShapeError
from prunenas.ir.ops.base import ChannelOp, Pointwise
from prunenas.ir.shape import Pair, Shape, need_padding, need_positive, window

ActivationName = Literal[
    "relu",
    "relu6",
    "leaky_relu",
    "silu",
    "hardswish",
    "hardsigmoid",
    "sigmoid",
    "tanh",
    "gelu",
    "gelu_tanh",
    "elu",
    "selu",
    "mish",
    "softplus",
    "exp",
    "log",
    "sqrt",
    "rsqrt",
    "square",
    "abs",
    "sin",
    "cos",
]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Activation(Pointwise):
    """A parameter-free non-linearity, by torch's name for it."""

    kind: Literal["Activation"] = "Activation"
    function: ActivationName = "relu"

    def __post_init__(self) -> None:
        known = get_args(ActivationName)
        if self.function not in known:
            raise ShapeError(f"unknown activation {self.function!r}; known: {', '.join(known)}")


def _need_probability(what: str, p: float) -> None:
    if not 0 <= p <= 1:
        raise ShapeError(f"{what} needs a probability in [0, 1], got {p}")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Dropout(Pointwise):
    """Zero single elements with probability ``p`` while training."""

    kind: Literal["Dropout"] = "Dropout"
    p: float = 0.5

    def __post_init__(self) -> None:
        _need_probability(self.kind, self.p)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DropPath(Pointwise):
    """Zero whole images of a branch with probability ``p`` while training (stochastic depth)."""

    kind: Literal["DropPath"] = "DropPath"
    p: float

    def __post_init__(self) -> None:
        _need_probability(self.kind, self.p)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Pool2d(ChannelOp):
    """Largest or mean value of a sliding window."""

    kind: Literal["Pool2d"] = "Pool2d"
    function: Literal["max", "average"] = "max"
    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    ceil_mode: bool = False
    count_padding: bool = True

    def __post_init__(self) -> None:
        need_positive(self.kind, kernel=self.kernel, stride=self.stride)
        # More would make windows of nothing but padding, which torch refuses.
        need_padding(self.kind, self.padding, most=(self.kernel[0] // 2, self.kernel[1] // 2))

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Slide the window."""
        size = window(
            inputs[0].size(),
            kernel=self.kernel,
            stride=self.stride,
            padding=self.padding,
            ceil_mode=self.ceil_mode,
        )
        return Shape.of(inputs[0].channels, size, lead=inputs[0].lead)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalPool(ChannelOp):
    """Mean or largest value over all positions, or over a fixed number of cells (adaptive)."""

    kind: Literal["GlobalPool"] = "GlobalPool"
    function: Literal["max", "average"] = "average"
    size: Pair = (1, 1)

    def __post_init__(self) -> None:
        need_positive(self.kind, size=self.size)

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return ``size``, whatever the input's."""
        inputs[0].size()
        return Shape.of(inputs[0].channels, self.size, lead=inputs[0].lead)
