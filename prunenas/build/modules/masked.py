"""Layers whose kernel is multiplied by a fixed mask.

The mask follows from the graph, so it is no part of the state dict. Weights that start at zero
under the mask stay exactly zero: their gradient is zero, and so is the decay of zero.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunenas.ir import ops


class MaskedConv2d(nn.Conv2d):
    """A convolution of images; the mask is all ones until one is drawn."""

    mask: Tensor

    def __init__(self, sparsity: ops.Sparsity, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sparsity = sparsity
        self.register_buffer("mask", torch.ones_like(self.weight), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution with the masked kernel."""
        result: Tensor = self._conv_forward(input, self.weight * self.mask, self.bias)
        return result


class MaskedConv1d(nn.Conv1d):
    """A convolution along one dimension; the mask is all ones until one is drawn."""

    mask: Tensor

    def __init__(self, sparsity: ops.Sparsity, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sparsity = sparsity
        self.register_buffer("mask", torch.ones_like(self.weight), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution with the masked kernel."""
        result: Tensor = self._conv_forward(input, self.weight * self.mask, self.bias)
        return result


class MaskedLinear(nn.Linear):
    """A linear layer; the mask is all ones until one is drawn."""

    mask: Tensor

    def __init__(self, sparsity: ops.Sparsity, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sparsity = sparsity
        self.register_buffer("mask", torch.ones_like(self.weight), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Return the product with the masked matrix."""
        return functional.linear(input, self.weight * self.mask, self.bias)


Masked = MaskedConv2d | MaskedConv1d | MaskedLinear
