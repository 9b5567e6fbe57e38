"""The table from ops to torch modules."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunenas.build.modules.arithmetic import Function, ScaledAttention, ScaleShift
from prunenas.build.modules.channels import (
    ChannelSelection,
    ChannelShuffle,
    Concatenation,
    DropBranch,
    PadShortcut,
    Part,
    Product,
    Sum,
)
from prunenas.build.modules.layout import Slicing, Spreading, Taking, Tiling
from prunenas.build.modules.masked import Masked, MaskedConv1d, MaskedConv2d, MaskedLinear
from prunenas.build.modules.opaque import AtenCall
from prunenas.build.modules.stored import ConstantTensor, TrainableTensor
from prunenas.ir import ops
from prunenas.ir.shape import Shape

__all__ = [
    "ACTIVATIONS",
    "MODULES",
    "ChannelSelection",
    "ConstantTensor",
    "Masked",
    "TrainableTensor",
    "make_module",
]

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
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
    "elu": nn.ELU,
    "selu": nn.SELU,
    "mish": nn.Mish,
    "softplus": nn.Softplus,
    "exp": partial(Function, torch.exp),
    "log": partial(Function, torch.log),
    "sqrt": partial(Function, torch.sqrt),
    "rsqrt": partial(Function, torch.rsqrt),
    "square": partial(Function, torch.square),
    "abs": partial(Function, torch.abs),
    "sin": partial(Function, torch.sin),
    "cos": partial(Function, torch.cos),
}

ARITHMETIC: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "subtract": torch.sub,
    "multiply": torch.mul,
    "divide": torch.div,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "power": torch.pow,
}

REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "mean": torch.mean,
    "sum": torch.sum,
    "max": torch.amax,
    "norm": torch.linalg.vector_norm,
    "variance": partial(torch.var, correction=0),
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


def _conv1d(op: ops.Conv1d, inputs: Sequence[Shape], out: Shape) -> nn.Module:
    kwargs: dict[str, Any] = {
        "in_channels": inputs[0].channels,
        "out_channels": op.width,
        "kernel_size": op.kernel,
        "stride": op.stride,
        "padding": op.padding,
        "groups": op.groups,
        "bias": op.bias,
    }
    return MaskedConv1d(op.sparsity, **kwargs) if op.sparsity else nn.Conv1d(**kwargs)


def _depthwise(op: ops.Depthwise2d, inputs: Sequence[Shape], out: Shape) -> nn.Module:
    kwargs: dict[str, Any] = {
        "in_channels": inputs[0].channels,
        "out_channels": out.channels,
        "kernel_size": op.kernel,
        "stride": op.stride,
        "padding": op.padding,
        "dilation": op.dilation,
        "groups": inputs[0].channels,
        "bias": op.bias,
    }
    return MaskedConv2d(op.sparsity, **kwargs) if op.sparsity else nn.Conv2d(**kwargs)


def _linear(op: ops.Linear, inputs: Sequence[Shape], out: Shape) -> nn.Module:
    into = inputs[0].dims[-1]
    if op.sparsity:
        return MaskedLinear(op.sparsity, into, op.width, bias=op.bias)
    return nn.Linear(into, op.width, bias=op.bias)


def _batch_norm(op: ops.BatchNorm, inputs: Sequence[Shape], out: Shape) -> nn.Module:
    kind = nn.BatchNorm2d if len(out.dims) == 3 else nn.BatchNorm1d
    return kind(out.channels, eps=op.eps, momentum=op.momentum)


def _layer_norm(op: ops.LayerNorm, inputs: Sequence[Shape], out: Shape) -> nn.Module:
    norm = nn.LayerNorm(out.dims[-op.dims :], eps=op.eps)
    # torch's own arguments cannot ask for a shift without a scale.
    if not op.scale:
        norm.register_parameter("weight", None)
    if not op.shift:
        norm.register_parameter("bias", None)
    return norm


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


def _resize(op: ops.Resize, inputs: Sequence[Shape], out: Shape) -> nn.Module:
    corners = None if op.function == "nearest" else op.align_corners
    return nn.Upsample(op.size, mode=op.function, align_corners=corners)


def _unfold(op: ops.Unfold, inputs: Sequence[Shape], out: Shape) -> nn.Module:
    return nn.Unfold(op.kernel, dilation=op.dilation, padding=op.padding, stride=op.stride)


def _fold(op: ops.Fold, inputs: Sequence[Shape], out: Shape) -> nn.Module:
    return nn.Fold(op.size, op.kernel, dilation=op.dilation, padding=op.padding, stride=op.stride)


def _reshape(op: ops.Reshape, inputs: Sequence[Shape], out: Shape) -> nn.Module:
    sizes = op.sizes if out.lead is None else (-1, *op.sizes)
    return Function(partial(torch.reshape, shape=sizes))


def _pad(op: ops.Pad, inputs: Sequence[Shape], out: Shape) -> nn.Module:
    # torch counts from the last dimension on, two numbers each.
    behind = (0, 0) * (len(out.sizes) - 1 - op.dim)
    pad = (*behind, op.before, op.after)
    if op.function == "reflect":
        # Reflection is asked for along both sides.
        both = pad if len(pad) == 4 else (*pad, 0, 0)
        return Function(partial(functional.pad, pad=both, mode="reflect"))
    return Function(partial(functional.pad, pad=pad, value=op.value))


def _convolve(op: ops.Convolve, inputs: Sequence[Shape], out: Shape) -> nn.Module:
    return Function(
        partial(
            functional.conv2d,
            stride=op.stride,
            padding=op.padding,
            dilation=op.dilation,
            groups=out.channels if op.depthwise else op.groups,
        )
    )


def _reduce(op: ops.Reduce, inputs: Sequence[Shape], out: Shape) -> nn.Module:
    return Function(partial(REDUCTIONS[op.function], dim=op.dims, keepdim=op.keep))


Maker = Callable[[Any, Sequence[Shape], Shape], nn.Module]

MODULES: dict[type[ops.Op], Maker] = {
    ops.Input: lambda op, inputs, out: nn.Identity(),
    ops.Conv2d: _conv,
    ops.Depthwise2d: _depthwise,
    ops.Conv1d: _conv1d,
    ops.Convolve: _convolve,
    ops.Linear: _linear,
    ops.BatchNorm: _batch_norm,
    ops.GroupNorm: lambda op, inputs, out: nn.GroupNorm(op.groups, out.channels, eps=op.eps),
    ops.LayerNorm: _layer_norm,
    ops.RmsNorm: lambda op, inputs, out: nn.RMSNorm(
        out.dims[-1], eps=op.eps, elementwise_affine=op.scale
    ),
    ops.Activation: lambda op, inputs, out: ACTIVATIONS[op.function](),
    ops.LeakyRelu: lambda op, inputs, out: nn.LeakyReLU(op.slope),
    ops.Clamp: lambda op, inputs, out: Function(partial(torch.clamp, min=op.low, max=op.high)),
    ops.Affine: lambda op, inputs, out: ScaleShift(op.scale, op.shift),
    ops.Power: lambda op, inputs, out: Function(partial(torch.pow, exponent=op.exponent)),
    ops.Softmax: lambda op, inputs, out: nn.Softmax(op.dim),
    ops.Normalize: lambda op, inputs, out: Function(
        partial(functional.normalize, dim=op.dim, eps=op.eps)
    ),
    ops.Dropout: lambda op, inputs, out: nn.Dropout(op.p),
    ops.DropPath: lambda op, inputs, out: DropBranch(op.p),
    ops.Pool2d: _pool,
    ops.GlobalPool: _global_pool,
    ops.Reduce: _reduce,
    ops.Resize: _resize,
    ops.Flatten: lambda op, inputs, out: nn.Flatten(),
    ops.Add: lambda op, inputs, out: Sum(),
    ops.Gate: lambda op, inputs, out: Product(),
    ops.Arithmetic: lambda op, inputs, out: Function(ARITHMETIC[op.function]),
    ops.Concat: lambda op, inputs, out: Concatenation(),
    ops.Join: lambda op, inputs, out: Concatenation(op.dim),
    ops.Split: lambda op, inputs, out: Part(op.parts, op.index),
    ops.Slice: lambda op, inputs, out: Slicing(op.dim, op.start, op.stop, op.step),
    ops.Index: lambda op, inputs, out: Function(partial(torch.select, dim=op.dim, index=op.index)),
    ops.Take: lambda op, inputs, out: Taking(op.dim),
    ops.Shuffle: lambda op, inputs, out: ChannelShuffle(op.groups),
    ops.Select: lambda op, inputs, out: ChannelSelection(op.indices, inputs[0].channels),
    ops.PadChannels: lambda op, inputs, out: PadShortcut(op),
    ops.Reshape: _reshape,
    ops.Permute: lambda op, inputs, out: Function(partial(torch.permute, dims=op.order)),
    ops.Tile: lambda op, inputs, out: Tiling(inputs[0].sizes, op.dim, op.times),
    ops.Roll: lambda op, inputs, out: Function(partial(torch.roll, shifts=op.shift, dims=op.dim)),
    ops.Pad: _pad,
    ops.Spread: lambda op, inputs, out: Spreading(),
    ops.Unfold: _unfold,
    ops.Fold: _fold,
    ops.MatMul: lambda op, inputs, out: Function(torch.matmul),
    ops.Attention: lambda op, inputs, out: ScaledAttention(op.scale, op.dropout),
    ops.Parameter: lambda op, inputs, out: TrainableTensor(op),
    ops.Constant: lambda op, inputs, out: ConstantTensor(op),
    ops.Filled: lambda op, inputs, out: ConstantTensor(op),
    ops.Opaque: lambda op, inputs, out: AtenCall(op),
}


def make_module(op: ops.AnyOp, inputs: Sequence[Shape], out: Shape) -> nn.Module:
    """Return the module that computes ``op`` on values of these shapes."""
    return MODULES[type(op)](cast(Any, op), inputs, out)
