"""Tensors that are stored: trainable ones, and constants."""

import base64
import binascii
import builtins
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

from prunenas.errors import ShapeError
from prunenas.ir.axis import Axes, constant
from prunenas.ir.ops.base import need_finite
from prunenas.ir.ops.layout import LayoutOp
from prunenas.ir.shape import Shape, need_positive
from prunenas.ir.unifier import Unifier

_LARGEST_CONSTANT = 1 << 24
"""Elements: a stored tensor beyond this belongs into a file of weights."""

_LARGEST_PARAMETER = 1 << 30
"""Elements: 4 GiB, more than any one tensor of a network of images."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter(LayoutOp):
    """A trainable tensor that enters as a value: class token, position embedding, layer scale.

    Args:
        sizes: All its sizes.
        start: How it is drawn: ``normal`` with deviation 0.02, or all ``ones`` or ``zeros``.
    """

    arity: ClassVar[tuple[int, int | None]] = (0, 0)
    kind: Literal["Parameter"] = "Parameter"
    sizes: tuple[int, ...]
    start: Literal["normal", "ones", "zeros"] = "normal"

    def __post_init__(self) -> None:
        need_positive(self.kind, sizes=self.sizes)
        _need_small(self.kind, self.sizes, _LARGEST_PARAMETER)

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the sizes; there is no batch."""
        return Shape(self.sizes, None)

    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """Return axes that follow those that they meet."""
        axes = unifier.weak(self.sizes, node)
        unifier.store_sizes(node, axes)
        return axes

    def parameters(self, inputs: Sequence[Shape], out: Shape) -> Mapping[str, tuple[int, ...]]:
        """Return ``value``."""
        return {"value": out.dims}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Filled(LayoutOp):
    """One number all over."""

    arity: ClassVar[tuple[int, int | None]] = (0, 0)
    kind: Literal["Filled"] = "Filled"
    sizes: tuple[int, ...]
    value: float = 0.0

    def __post_init__(self) -> None:
        need_positive(self.kind, sizes=self.sizes)
        _need_small(self.kind, self.sizes, _LARGEST_CONSTANT)
        need_finite(self.kind, value=self.value)

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the sizes; there is no batch."""
        return Shape(self.sizes, None)

    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """Return axes that follow those that they meet."""
        axes = unifier.weak(self.sizes, node)
        unifier.store_sizes(node, axes)
        return axes


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Constant(LayoutOp):
    """A tensor that is not trained: relative positions, attention masks.

    Args:
        sizes: All its sizes; none for a single number.
        dtype: Of its numbers.
        data: Base64 of the zlib-compressed little-endian bytes.
    """

    arity: ClassVar[tuple[int, int | None]] = (0, 0)
    kind: Literal["Constant"] = "Constant"
    sizes: tuple[int, ...]
    dtype: Literal["float32", "int64", "bool"] = "float32"
    data: str

    def __post_init__(self) -> None:
        need_positive(self.kind, sizes=self.sizes)
        _need_small(self.kind, self.sizes, _LARGEST_CONSTANT)
        self.bytes()

    def bytes(self) -> bytes:
        """Return the numbers' little-endian bytes.

        Raises:
            ShapeError: The data is damaged, or not of ``sizes``.
        """
        width = {"float32": 4, "int64": 8, "bool": 1}[self.dtype]
        wanted = width * math.prod(self.sizes)
        unpacker = zlib.decompressobj()
        try:
            # One byte more than wanted tells too much from enough without unpacking all of it.
            raw = unpacker.decompress(base64.b64decode(self.data, validate=True), wanted + 1)
        except (binascii.Error, zlib.error) as error:
            raise ShapeError(f"the data of a Constant is damaged: {error}") from None
        if len(raw) != wanted:
            raise ShapeError(f"a Constant of {list(self.sizes)} needs {wanted} bytes")
        return raw

    @staticmethod
    def packed(raw: builtins.bytes) -> str:
        """Return the ``data`` of these bytes."""
        return base64.b64encode(zlib.compress(raw, 9)).decode()

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the sizes; there is no batch."""
        return Shape(self.sizes, None)

    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """Return constants."""
        return tuple(map(constant, self.sizes))


def _need_small(what: str, sizes: Sequence[int], most: int) -> None:
    if math.prod(sizes) > most:
        raise ShapeError(f"a {what} of {list(sizes)} is too large")
