"""Sparsity of a kernel: a pattern that masks are drawn from, or one exact mask."""

import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray

from prunenas.errors import MaskError, ShapeError


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSparsity:
    """A fixed random mask, drawn from a keep probability for each kernel position.

    Args:
        density: Keep probability of each position, row by row, ``[kh * kw]``; one number for a
            linear layer.
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
class ExactMask:
    """One fixed mask, weight by weight. Make one with ``of``.

    What is written down tells which mask it is; the bits themselves lie beside, so one that was
    read from JSON alone counts costs and compares, but cannot be built.

    Args:
        shape: Shape of the kernel.
        kept: Weights under a one.
        digest: Of shape and bits.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    shape: tuple[int, ...]
    kept: int
    digest: str
    bits: bytes | None = field(default=None, init=False, compare=False, repr=False)
    """The mask, eight weights a byte."""
    sought: str | None = field(default=None, init=False, compare=False, repr=False)
    """The file that should have held the bits, where they were looked for in vain."""

    def __post_init__(self) -> None:
        if not self.shape or not 1 <= self.kept <= math.prod(self.shape):
            raise ShapeError(
                f"an exact mask keeps at least one of its weights, got {self.kept} of a kernel "
                f"{list(self.shape)}"
            )

    @staticmethod
    def of(kept: NDArray[np.bool_]) -> "ExactMask":
        """Return the mask that is one where ``kept`` is true.

        Raises:
            ShapeError: Nothing is kept.
        """
        bits = np.packbits(kept.reshape(-1)).tobytes()
        mask = ExactMask(shape=kept.shape, kept=int(kept.sum()), digest=_digest(kept.shape, bits))
        object.__setattr__(mask, "bits", bits)
        return mask

    def with_bits(self, bits: bytes, where: str) -> "ExactMask":
        """Return this mask with its bits.

        Raises:
            MaskError: They are another mask's; ``where`` tells where they were found.
        """
        if _digest(self.shape, bits) == self.digest:
            mask = ExactMask.of(_unpacked(bits, self.shape))
            if mask == self:
                return mask
        raise MaskError(
            f"{where} holds another mask than the spec asks for, {self.digest}: the two files "
            "do not belong together, or one is damaged"
        )

    def sought_in(self, where: str) -> "ExactMask":
        """Return this mask without bits; who asks for them is told that ``where`` is missing."""
        mask = ExactMask(shape=self.shape, kept=self.kept, digest=self.digest)
        object.__setattr__(mask, "sought", where)
        return mask

    def array(self) -> NDArray[np.bool_]:
        """Return the mask, true where a weight is kept.

        Raises:
            MaskError: The bits are not here.
        """
        if self.bits is None:
            wanted = f"{self.sought} is missing" if self.sought else "none was loaded"
            raise MaskError(
                f"the bits of the mask {self.digest} are not here: they lie in the "
                f".masks.safetensors file beside the spec, and {wanted}"
            )
        return _unpacked(self.bits, self.shape)


Sparsity = KernelSparsity | ExactMask


def check_sparsity(sparsity: Sparsity | None, kernel: tuple[int, ...]) -> None:
    """Refuse a pattern of another size than the kernel's.

    Raises:
        ShapeError: It has another number of positions.
    """
    area = math.prod(kernel)
    if isinstance(sparsity, KernelSparsity) and len(sparsity.density) != area:
        raise ShapeError(f"a {kernel} kernel needs {area} densities, got {len(sparsity.density)}")


def _unpacked(bits: bytes, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    flat = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=math.prod(shape))
    return flat.astype(np.bool_).reshape(shape)


def _digest(shape: tuple[int, ...], bits: bytes) -> str:
    return hashlib.sha256(json.dumps([*shape]).encode() + bits).hexdigest()[:16]
