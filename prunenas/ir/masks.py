"""Masks of kernels, from what the graph says of their sparsity."""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from prunenas.ir.draw import uniform
from prunenas.ir.ops import ExactMask, KernelSparsity, Op, Sparsity


def sparsity_of(op: Op) -> Sparsity | None:
    """Return the sparsity of an op's kernel; None of a dense one, or where there is no kernel."""
    return getattr(op, "sparsity", None)


def mask_of(sparsity: Sparsity, shape: tuple[int, ...], name: str) -> NDArray[np.bool_]:
    """Return the mask of a kernel, true where a weight is kept; the same on every machine.

    Of a pattern each kernel position is kept with its own probability, independently. A filter
    that would lose every weight keeps the one closest to being kept, so that no channel is dead.

    Args:
        sparsity: An exact mask, or keep probabilities and a seed.
        shape: Shape of the kernel, ``[out in ...]``.
        name: The layer's name: each has a stream of its own.

    Raises:
        MaskError: The bits of an exact mask are not here.
    """
    if isinstance(sparsity, ExactMask):
        return sparsity.array()
    draws = uniform(math.prod(shape), seed=sparsity.seed, stream=name)
    density = np.asarray(sparsity.density)
    # A position that is never kept is further from being kept than any draw can tell.
    margin = np.where(density > 0, density - draws.reshape(*shape[:2], -1), -2.0)
    margin = margin.reshape(shape[0], -1)
    mask: NDArray[np.bool_] = margin > 0
    dead = np.flatnonzero(~mask.any(axis=1))
    mask[dead, margin[dead].argmax(axis=1)] = True
    return mask.reshape(shape)


def kept_weights(sparsity: Sparsity, shape: tuple[int, ...], name: str) -> int:
    """Return how many weights the mask of a kernel keeps; needs no bits."""
    return sparsity.kept if isinstance(sparsity, ExactMask) else _drawn(sparsity, shape, name)


@lru_cache(maxsize=4096)
def _drawn(sparsity: KernelSparsity, shape: tuple[int, ...], name: str) -> int:
    return int(mask_of(sparsity, shape, name).sum())
