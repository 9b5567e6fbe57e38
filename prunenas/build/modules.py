"""The table from ops to torch modules."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunenas.ir import ops
from prunenas.ir.shape import Shape


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
    """Tensors one after another along the channels."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the concatenation."""
        return torch.cat(inputs, dim=1)


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
        n, c, h, w = x.shape
        return x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)


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


class MaskedConv2d(nn.Conv2d):
    """A convolution whose kernel is multiplied by a fixed mask.

    The mask follows from the graph, so it is no part of the state dict. Weights that start at zero
    under the mask stay exactly zero: their gradient is zero, and so is the decay of zero.
    """

    mask: Tensor

    def __init__(self, sparsity: ops.KernelSparsity, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sparsity = sparsity
        self.register_buffer("mask", torch.ones_like(self.weight), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution with the masked kernel."""
        result: Tensor = self._conv_forward(input, self.weight * self.mask, self.bias)
        return result


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
}


def _conv(op: ops.Conv2d, inputs: Sequence[Shape], out: Shape) -> nn.Module:
    kwargs: dict[str, Any] = {
        "in_channels": inputs[0].channels,
        "out_channels": op.width,
        "kernel_size": op.kernel,
        "stride": op.stride,
        "padding": op.padding,
        "dilation": op.dilation,
        "groups": op.groups,
        "bias": op.bias,
    }
    return MaskedConv2d(op.sparsity, **kwargs) if op.sparsity else nn.Conv2d(**kwargs)


def _depthwise(op: ops.Depthwise2d, inputs: Sequence[Shape], out: Shape) -> nn.Module:
    return nn.Conv2d(
        inputs[0].channels,
        out.channels,
        op.kernel,
        stride=op.stride,
        padding=op.padding,
        dilation=op.dilation,
        groups=inputs[0].channels,
        bias=op.bias,
    )


def _batch_norm(op: ops.BatchNorm, inputs: Sequence[Shape], out: Shape) -> nn.Module:
    if out.spatial:
        return nn.BatchNorm2d(out.channels, eps=op.eps, momentum=op.momentum)
    return nn.BatchNorm1d(out.channels, eps=op.eps, momentum=op.momentum)


def _pool(op: ops.Pool2d, inputs: Sequence[Shape], out: Shape) -> nn.Module:
    if op.function == "max":
        return nn.MaxPool2d(op.kernel, op.stride, op.padding, ceil_mode=op.ceil_mode)
    return nn.AvgPool2d(
        op.kernel,
        op.stride,
        op.padding,
        ceil_mode=op.ceil_mode,
        count_include_pad=op.count_padding,
    )


def _global_pool(op: ops.GlobalPool, inputs: Sequence[Shape], out: Shape) -> nn.Module:
    if op.function == "max":
        return nn.AdaptiveMaxPool2d(op.size)
    return nn.AdaptiveAvgPool2d(op.size)


Maker = Callable[[Any, Sequence[Shape], Shape], nn.Module]

MODULES: dict[type[ops.Op], Maker] = {
    ops.Input: lambda op, inputs, out: nn.Identity(),
    ops.Conv2d: _conv,
    ops.Depthwise2d: _depthwise,
    ops.Linear: lambda op, inputs, out: nn.Linear(inputs[0].channels, op.width, bias=op.bias),
    ops.BatchNorm: _batch_norm,
    ops.GroupNorm: lambda op, inputs, out: nn.GroupNorm(op.groups, out.channels, eps=op.eps),
    ops.Activation: lambda op, inputs, out: ACTIVATIONS[op.function](),
    ops.Dropout: lambda op, inputs, out: nn.Dropout(op.p),
    ops.DropPath: lambda op, inputs, out: DropBranch(op.p),
    ops.Pool2d: _pool,
    ops.GlobalPool: _global_pool,
    ops.Flatten: lambda op, inputs, out: nn.Flatten(),
    ops.Add: lambda op, inputs, out: Sum(),
    ops.Gate: lambda op, inputs, out: Product(),
    ops.Concat: lambda op, inputs, out: Concatenation(),
    ops.Split: lambda op, inputs, out: Part(op.parts, op.index),
    ops.Shuffle: lambda op, inputs, out: ChannelShuffle(op.groups),
    ops.Select: lambda op, inputs, out: ChannelSelection(op.indices, inputs[0].channels),
    ops.PadChannels: lambda op, inputs, out: PadShortcut(op),
}


def make_module(op: ops.AnyOp, inputs: Sequence[Shape], out: Shape) -> nn.Module:
    """Return the module that computes ``op`` on values of these shapes."""
    return MODULES[type(op)](cast(Any, op), inputs, out)
