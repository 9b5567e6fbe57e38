"""Fixed masks, drawn from the keep probability of each kernel position."""

import math

import torch
from torch import Tensor

from prunenas.ir.draw import uniform
from prunenas.ir.ops import KernelSparsity


def draw_mask(sparsity: KernelSparsity, shape: tuple[int, ...], name: str) -> Tensor:
    """Return a mask of zeros and ones ``[out in kh kw]``, the same on every machine.

    Each kernel position is kept with its own probability, independently. A filter that would lose
    every weight keeps the one closest to being kept, so that no channel is dead.

    Args:
        sparsity: Keep probability of each position, and the seed.
        shape: Shape of the kernel.
        name: The convolution's name: each has a stream of its own.
    """
    draws = torch.from_numpy(uniform(math.prod(shape), seed=sparsity.seed, stream=name))
    density = torch.tensor(sparsity.density, dtype=torch.float64)
    # A position that is never kept is further from being kept than any draw can tell.
    margin = torch.where(density > 0, density - draws.view(*shape[:2], -1), -2.0)
    mask = (margin > 0).view(shape[0], -1)
    strongest = margin.view(shape[0], -1).argmax(dim=1, keepdim=True)
    mask.scatter_(1, strongest, mask.gather(1, strongest) | ~mask.any(dim=1, keepdim=True))
    return mask.view(shape).to(torch.float32)
