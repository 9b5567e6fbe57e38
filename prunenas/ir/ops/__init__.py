"""The closed set of ops, each with the four rules that say what it is.

An op stores what it decides and nothing else: a convolution stores its output width, never the
width of its input. So widths cannot disagree. The four rules:

* ``shape``: the shape of the output from the shapes of the inputs,
* ``channels``: the channel axis of the output, and the equations that the op states,
* ``macs``: multiply-accumulates for one image,
* ``parameters``: names and shapes of the trainable tensors.

Everything else that depends on an op (module, source text) is a table in one file elsewhere, and
a test demands that the keys of each table equal the set of ops.
"""

from prunenas.ir.ops.base import Op, Pointwise
from prunenas.ir.ops.layers import (
    BatchNorm,
    Conv2d,
    Depthwise2d,
    GroupNorm,
    Input,
    KernelSparsity,
    Linear,
)
from prunenas.ir.ops.plain import Activation, Dropout, DropPath, GlobalPool, Pool2d
from prunenas.ir.ops.wiring import (
    Add,
    Concat,
    Flatten,
    Gate,
    PadChannels,
    Select,
    Shuffle,
    Split,
)

AnyOp = (
    Input
    | Conv2d
    | Depthwise2d
    | Linear
    | BatchNorm
    | GroupNorm
    | Activation
    | Dropout
    | DropPath
    | Pool2d
    | GlobalPool
    | Flatten
    | Add
    | Gate
    | Concat
    | Split
    | Shuffle
    | Select
    | PadChannels
)
"""The closed set, as a type: what a node may hold."""

Producer = Conv2d | Linear | Select
"""Ops whose width a descriptor may change."""

__all__ = [
    "Activation",
    "Add",
    "AnyOp",
    "BatchNorm",
    "Concat",
    "Conv2d",
    "Depthwise2d",
    "DropPath",
    "Dropout",
    "Flatten",
    "Gate",
    "GlobalPool",
    "GroupNorm",
    "Input",
    "KernelSparsity",
    "Linear",
    "Op",
    "PadChannels",
    "Pointwise",
    "Pool2d",
    "Producer",
    "Select",
    "Shuffle",
    "Split",
]
