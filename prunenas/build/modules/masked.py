"""Layers whose kernel is multiplied by a fixed mask.

The mask follows from the graph, so it is no part of the state dict. Weights that start at zero
under the mask stay exactly zero: their gradient is zero, and so is the decay of zero.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunenas.ir import ops


class _UnderMask(nn.Module):
    """What the layers share; the mask is all ones until one is drawn."""

    mask: Tensor

    def __init__(self, sparsity: ops.Sparsity, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sparsity = sparsity
        ones = torch.ones_like(cast(Tensor, self.weight))
        self.register_buffer("mask", ones, persistent=False)


class MaskedConv2d(_UnderMask, nn.Conv2d):
    """A convolution of images."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution with the masked kernel."""
        result: Tensor = self._conv_forward(input, self.weight * self.mask, self.bias)
        return result


class MaskedConv1d(_UnderMask, nn.Conv1d):
    """A convolution along one dimension."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution with the masked kernel."""
        result: Tensor = self._conv_forward(input, self.weight * self.mask, self.bias)
        return result


class MaskedLinear(_UnderMask, nn.Linear):
    """A linear layer."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the product with the masked matrix."""
        return functional.linear(input, self.weight * self.mask, self.bias)


Masked = MaskedConv2d | MaskedConv1d | MaskedLinear
