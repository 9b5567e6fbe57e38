"""The closed set of ops, each with the four rules that say what it is.

An op stores what it decides and nothing else: a convolution stores its output width, never the
width of its input. So widths cannot disagree. The four rules:

* ``shape``: the shape of the output from the shapes of the inputs,
* ``axes``: what the entries of the output's dimensions are, and the equations that the op states,
* ``macs``: multiply-accumulates for one image,
* ``parameters``: names and shapes of the trainable tensors.

Everything else that depends on an op (module, source text) is a table in one file elsewhere, and
a test demands that the keys of each table equal the set of ops.
"""

from prunenas.ir.ops.arithmetic import (
    Affine,
    Arithmetic,
    Clamp,
    LeakyRelu,
    Normalize,
    Power,
    Reduce,
    Softmax,
)
from prunenas.ir.ops.attention import Attention, MatMul
from prunenas.ir.ops.base import Op, Pointwise
from prunenas.ir.ops.kernels import Convolve
from prunenas.ir.ops.layers import Conv1d, Conv2d, Depthwise2d, Input, Linear
from prunenas.ir.ops.layout import (
    Index,
    Join,
    Pad,
    Permute,
    Reshape,
    Roll,
    Slice,
    Spread,
    Take,
    Tile,
)
from prunenas.ir.ops.norms import BatchNorm, GroupNorm, LayerNorm, RmsNorm
from prunenas.ir.ops.opaque import Opaque
from prunenas.ir.ops.plain import Activation, Dropout, DropPath, GlobalPool, Pool2d
from prunenas.ir.ops.sparsity import ExactMask, KernelSparsity, Sparsity
from prunenas.ir.ops.stored import Constant, Filled, Parameter
from prunenas.ir.ops.windows import Fold, Resize, Unfold
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
    | Conv1d
    | Convolve
    | Linear
    | BatchNorm
    | GroupNorm
    | LayerNorm
    | RmsNorm
    | Activation
    | LeakyRelu
    | Clamp
    | Affine
    | Power
    | Softmax
    | Normalize
    | Dropout
    | DropPath
    | Pool2d
    | GlobalPool
    | Reduce
    | Resize
    | Flatten
    | Add
    | Gate
    | Arithmetic
    | Concat
    | Join
    | Split
    | Slice
    | Index
    | Take
    | Shuffle
    | Select
    | PadChannels
    | Reshape
    | Permute
    | Tile
    | Roll
    | Pad
    | Spread
    | Unfold
    | Fold
    | MatMul
    | Attention
    | Parameter
    | Constant
    | Filled
    | Opaque
)
"""The closed set, as a type: what a node may hold."""

Producer = Conv2d | Conv1d | Linear | Select
"""Ops whose width a descriptor may change."""

KernelOp = Conv2d | Depthwise2d | Conv1d | Linear
"""Ops with a kernel of their own, which may be sparse."""


def kernel_of(op: KernelOp) -> tuple[int, ...]:
    """Return the sizes of a kernel's window: (3, 3) of a convolution, () of a linear layer."""
    if isinstance(op, Linear):
        return ()
    return op.kernel if isinstance(op.kernel, tuple) else (op.kernel,)


__all__ = [
    "Activation",
    "Add",
    "Affine",
    "AnyOp",
    "Arithmetic",
    "Attention",
    "BatchNorm",
    "Clamp",
    "Concat",
    "Constant",
    "Conv1d",
    "Conv2d",
    "Convolve",
    "Depthwise2d",
    "DropPath",
    "Dropout",
    "ExactMask",
    "Filled",
    "Flatten",
    "Fold",
    "Gate",
    "GlobalPool",
    "GroupNorm",
    "Index",
    "Input",
    "Join",
    "KernelOp",
    "KernelSparsity",
    "LayerNorm",
    "LeakyRelu",
    "Linear",
    "MatMul",
    "Normalize",
    "Op",
    "Opaque",
    "Pad",
    "PadChannels",
    "Parameter",
    "Permute",
    "Pointwise",
    "Pool2d",
    "Power",
    "Producer",
    "Reduce",
    "Reshape",
    "Resize",
    "RmsNorm",
    "Roll",
    "Select",
    "Shuffle",
    "Slice",
    "Softmax",
    "Sparsity",
    "Split",
    "Spread",
    "Take",
    "Tile",
    "Unfold",
    "kernel_of",
]
