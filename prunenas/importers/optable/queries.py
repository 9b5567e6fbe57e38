"""What is asked of a tensor, tensors made in its likeness, parts of it overwritten."""

import math
from typing import Any

import torch

from prunenas.importers.builder import Builder
from prunenas.importers.optable.arithmetic import affine
from prunenas.importers.optable.table import FUNCTIONS, spelled
from prunenas.importers.values import BATCH, UnsupportedError, Value
from prunenas.ir.ops import (
    Join,
    Slice,
)


@spelled("size")
def _size(g: Builder, x: Any, dim: int | None = None) -> Any:
    sizes = torch.Size(g.sizes(x))
    return sizes if dim is None else sizes[dim]


@spelled("getattr")
def _getattr(g: Builder, x: Any, name: str, *default: Any) -> Any:
    known = {
        "shape": torch.Size(g.sizes(x)),
        "ndim": len(g.sizes(x)),
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        "is_cuda": False,
        "requires_grad": False,
    }
    if name in known:
        return known[name]
    if name in ("T", "mT"):
        return FUNCTIONS[name](g, x)
    raise UnsupportedError(f"the attribute {name} of a tensor")


@spelled("dim")
def _rank(g: Builder, x: Any) -> int:
    return len(g.sizes(x))


@spelled("numel")
def _numel(g: Builder, x: Any) -> int:
    return math.prod(g.sizes(x))


@spelled("is_floating_point")
def _floating(g: Builder, x: Any) -> bool:
    return True


def _filled(g: Builder, sizes: Any, value: float) -> torch.Tensor:
    if any(size and size % BATCH == 0 for size in sizes):
        raise UnsupportedError("a constant for each image of the batch")
    return torch.full(tuple(sizes), value)


@spelled("new_zeros", "new_ones", "new_full", "new_empty")
def _new(g: Builder, x: Any, *sizes: Any, **kwargs: Any) -> torch.Tensor:
    word = g.site.called
    size = kwargs.get("size") or (sizes[0] if not isinstance(sizes[0], int) else sizes)
    value = sizes[1] if "full" in word else 1.0 if "ones" in word else 0.0
    return _filled(g, size, float(value))


@spelled("zeros_like", "empty_like")
def _zeros_like(g: Builder, x: Any, **kwargs: Any) -> torch.Tensor:
    return _filled(g, g.sizes(x), 0.0)


@spelled("ones_like")
def _ones_like(g: Builder, x: Any, **kwargs: Any) -> torch.Tensor:
    return _filled(g, g.sizes(x), 1.0)


@spelled("zero_")
def _zeroed(g: Builder, x: Any) -> Value:
    value = g.value(x)
    op = g[value.node].op
    if not isinstance(op, Slice):
        return affine(g, value, 0.0, 0.0)
    # A part of a tensor is zeroed where it stands: whoever reads the whole reads this from now on.
    whole = Value(g[value.node].inputs[0], value.order)
    full = g.shape(whole).sizes[op.dim]
    parts = [
        Value(whole.node, whole.order)
        if (a, b) == (0, full)
        else g.add(Slice(dim=op.dim, start=a, stop=b), whole.node)
        for a, b in ((0, op.start), (op.stop, full))
        if a < b
    ]
    silent = affine(g, value, 0.0, 0.0)
    parts.insert(1 if op.start else 0, silent)
    new = g.add(Join(dim=op.dim), *(part.node for part in parts))
    g.replaced[whole.node] = new.node
    return silent


@spelled("to", "type", "type_as", "_to_copy")
def _cast(g: Builder, x: Any, *args: Any, **kwargs: Any) -> Any:
    asked = [a for a in (*args, *kwargs.values()) if isinstance(a, torch.dtype)]
    asked += [a.dtype for a in args if isinstance(a, torch.Tensor)]
    if any(dtype not in (torch.float32, torch.float64) for dtype in asked):
        raise UnsupportedError(f"a cast to {asked[0]}, which rounds")
    return x
