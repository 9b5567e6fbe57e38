"""Normalisations with learned scale and shift."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

from prunenas.errors import ShapeError
from prunenas.ir.axis import Axes
from prunenas.ir.ops.base import Pointwise
from prunenas.ir.shape import Shape, need_positive
from prunenas.ir.unifier import Unifier


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BatchNorm(Pointwise):
    """Batch normalisation with learned scale and shift, of an image or a vector."""

    of_images: ClassVar[bool] = True
    kind: Literal["BatchNorm"] = "BatchNorm"
    eps: float = 1e-5
    momentum: float = 0.1

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the input's shape."""
        if not 1 <= len(inputs[0].dims) <= 3 or inputs[0].lead is None:
            raise ShapeError(f"BatchNorm needs a vector, an image or [c n], got {inputs[0]}")
        return inputs[0]

    def parameters(self, inputs: Sequence[Shape], out: Shape) -> Mapping[str, tuple[int, ...]]:
        """Return scale ``weight`` [c] and shift ``bias`` [c]."""
        return {"weight": (out.channels,), "bias": (out.channels,)}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GroupNorm(Pointwise):
    """Group normalisation with learned scale and shift; the channels must divide."""

    of_images: ClassVar[bool] = True
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

    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """Pass the source on; its channels must divide into the groups."""
        unifier.divide(inputs[0][1], self.groups, node=node)
        return inputs[0]

    def parameters(self, inputs: Sequence[Shape], out: Shape) -> Mapping[str, tuple[int, ...]]:
        """Return scale ``weight`` [c] and shift ``bias`` [c]."""
        return {"weight": (out.channels,), "bias": (out.channels,)}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNorm(Pointwise):
    """Normalisation over the last ``dims`` dimensions, with learned scale and shift."""

    channel: ClassVar[int] = -1
    kind: Literal["LayerNorm"] = "LayerNorm"
    dims: int = 1
    eps: float = 1e-5
    scale: bool = True
    shift: bool = True

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the input's shape."""
        if not 1 <= self.dims <= len(inputs[0].dims):
            raise ShapeError(f"LayerNorm over {self.dims} dimensions of {inputs[0]}")
        return inputs[0]

    def parameters(self, inputs: Sequence[Shape], out: Shape) -> Mapping[str, tuple[int, ...]]:
        """Return ``weight`` and ``bias``, each of the last sizes."""
        sizes = out.dims[-self.dims :]
        return ({"weight": sizes} if self.scale else {}) | ({"bias": sizes} if self.shift else {})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RmsNorm(Pointwise):
    """Division by the root mean square of the last dimension, with a learned scale."""

    channel: ClassVar[int] = -1
    kind: Literal["RmsNorm"] = "RmsNorm"
    eps: float | None = None
    scale: bool = True

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the input's shape."""
        if not inputs[0].dims:
            raise ShapeError("RmsNorm needs a vector or tokens, got a single number")
        return inputs[0]

    def parameters(self, inputs: Sequence[Shape], out: Shape) -> Mapping[str, tuple[int, ...]]:
        """Return ``weight`` [c]."""
        return {"weight": out.dims[-1:]} if self.scale else {}
