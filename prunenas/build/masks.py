"""Masks as tensors."""

import torch
from torch import Tensor

from prunenas.ir.masks import mask_of
from prunenas.ir.ops import Sparsity


def mask_tensor(sparsity: Sparsity, shape: tuple[int, ...], name: str) -> Tensor:
    """Return the mask of a kernel as zeros and ones ``[out in ...]``.

    Raises:
        MaskError: The bits of an exact mask are not here.
    """
    return torch.from_numpy(mask_of(sparsity, shape, name)).to(torch.float32)
