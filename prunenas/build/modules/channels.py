"""Modules on the channels of images: joining, cutting, reordering, masking."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunenas.ir import ops


class Sum(nn.Module):
    """Sum of two or more tensors of one shape."""

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        """Return the sum."""
        for other in others:
            first = first + other
        return first


class Product(nn.Module):
    """An image ``[n c h w]`` times factors ``[n c 1 1]``."""

    def forward(self, image: Tensor, factors: Tensor) -> Tensor:
        """Return the product."""
        return image * factors


class Concatenation(nn.Module):
    """Tensors one after another along ``dim``; the channels are 1."""

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the concatenation."""
        return torch.cat(inputs, dim=self.dim)


class Part(nn.Module):
    """Part number ``index`` of ``parts`` equal parts of the channels."""

    def __init__(self, parts: int, index: int) -> None:
        super().__init__()
        self.parts, self.index = parts, index

    def forward(self, x: Tensor) -> Tensor:
        """Return the part."""
        return x.chunk(self.parts, dim=1)[self.index]


class ChannelShuffle(nn.Module):
    """Interleave ``groups`` parts of the channels."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with its channels interleaved."""
        n, c, *size = x.shape
        return x.view(n, self.groups, c // self.groups, *size).transpose(1, 2).reshape(x.shape)


class ChannelSelection(nn.Module):
    """The channels at fixed indices; selecting all of them costs nothing."""

    indices: Tensor

    def __init__(self, indices: Sequence[int], source: int) -> None:
        super().__init__()
        self.everything = len(indices) == source
        self.chosen = tuple(indices)
        self.register_buffer("indices", torch.tensor(indices), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the selected channels."""
        return x if self.everything else x.index_select(1, self.indices)


class PadShortcut(nn.Module):
    """Subsample ``x`` and append zero channels up to the width of ``like``."""

    def __init__(self, op: ops.PadChannels) -> None:
        super().__init__()
        self.op = op

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        """Return ``x`` in the shape of ``like``."""
        step = self.op.stride
        if self.op.detach:
            x = x.detach()
        if self.op.function == "average":
            x = functional.avg_pool2d(x, step)
        else:
            x = x[:, :, ::step, ::step]
        return functional.pad(x, (0, 0, 0, 0, 0, like.shape[1] - x.shape[1]))


class DropBranch(nn.Module):
    """Zero whole images with probability ``p`` while training, scale the others by 1 / (1 - p)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with some images zeroed."""
        if not self.training or self.p == 0:
            return x
        kept = torch.rand(x.shape[0], *[1] * (x.dim() - 1), device=x.device) >= self.p
        return x * kept.to(x.dtype) / (1 - self.p) if self.p < 1 else torch.zeros_like(x)
