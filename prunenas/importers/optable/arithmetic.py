"""Arithmetic between tensors and with numbers; sums and means."""

import math
from typing import Any

import torch

from prunenas.importers.builder import Builder
from prunenas.importers.optable.table import FUNCTIONS, spelled
from prunenas.importers.values import UnsupportedError, Value
from prunenas.ir.ops import (
    Activation,
    Add,
    Affine,
    AnyOp,
    Clamp,
    Gate,
    GlobalPool,
    Power,
    Reduce,
)

Number = int | float


def number(x: Any) -> float | None:
    """Return ``x`` as a number if it is one, be it in a tensor."""
    if isinstance(x, bool) or not isinstance(x, Number | torch.Tensor):
        return None
    if isinstance(x, torch.Tensor):
        return float(x) if x.numel() == 1 and x.dim() == 0 else None
    return float(x)


def unary(g: Builder, op: AnyOp, x: Any) -> Value:
    """Add an op that leaves each element in its place."""
    value = g.value(x)
    return Value(g.add(op, value.node).node, value.order)


def affine(g: Builder, x: Any, scale: float, shift: float) -> Value:
    """Add a scale and a shift that are the same for all elements; nothing if they do nothing."""
    if scale == 1 and shift == 0:
        return g.value(x)
    return unary(g, Affine(scale=scale, shift=shift), x)


@spelled("add", "add_", "iadd", "radd")
def _add(g: Builder, x: Any, y: Any, alpha: Number = 1) -> Value:
    one, other = number(x), number(y)
    if one is not None:
        return affine(g, y, float(alpha), one)
    if other is not None:
        return affine(g, x, 1.0, other * alpha)
    if alpha != 1:
        y = affine(g, y, float(alpha), 0.0)
    first, second, order = g.alike(x, y)
    if g.shape(first) == g.shape(second):
        return Value(g.add(Add(), first, second).node, order)
    return g.arithmetic("add", x, y)


@spelled("sub", "sub_", "isub", "subtract")
def _subtract(g: Builder, x: Any, y: Any, alpha: Number = 1) -> Value:
    one, other = number(x), number(y)
    if one is not None:
        return affine(g, y, -float(alpha), one)
    if other is not None:
        return affine(g, x, 1.0, -other * alpha)
    if alpha != 1:
        y = affine(g, y, float(alpha), 0.0)
    return g.arithmetic("subtract", x, y)


@spelled("rsub")
def _reverse_subtract(g: Builder, x: Any, y: Any, alpha: Number = 1) -> Value:
    return _subtract(g, y, x if alpha == 1 else affine(g, x, float(alpha), 0.0))


@spelled("neg")
def _negative(g: Builder, x: Any) -> Value:
    return affine(g, x, -1.0, 0.0)


@spelled("mul", "mul_", "imul", "multiply", "rmul")
def _multiply(g: Builder, x: Any, y: Any) -> Value:
    one, other = number(x), number(y)
    if one is not None or other is not None:
        scale = one if one is not None else other
        return affine(g, y if one is not None else x, scale or 0.0, 0.0)
    for image, factors in ((x, y), (y, x)):
        if _is_gate(g, image, factors):
            return g.add(Gate(), g.plain(image), g.plain(factors))
    # A stored factor starts at 1: that changes nothing.
    for factor in (x, y):
        g.start(factor, "ones")
    return g.arithmetic("multiply", x, y)


def _is_gate(g: Builder, image: Any, factors: Any) -> bool:
    if not isinstance(image, Value) or not isinstance(factors, Value):
        return False
    one, other = g.shape(image), g.shape(factors)
    return (
        one.lead is not None
        and one.lead == other.lead
        and len(one.dims) == 3
        and image.order == factors.order == (0, 1, 2, 3)
        and other.dims == (one.dims[0], 1, 1)
        and one.dims[1:] != (1, 1)
    )


@spelled("div", "div_", "truediv", "itruediv", "divide")
def _divide(g: Builder, x: Any, y: Any, rounding_mode: Any = None) -> Value:
    if rounding_mode is not None:
        raise UnsupportedError("a division that rounds")
    one, other = number(x), number(y)
    if other is not None:
        return affine(g, x, 1.0 / other, 0.0)
    if one is not None:
        return affine(g, unary(g, Power(exponent=-1.0), y), one, 0.0)
    return g.arithmetic("divide", x, y)


@spelled("reciprocal")
def _reciprocal(g: Builder, x: Any) -> Value:
    return unary(g, Power(exponent=-1.0), x)


@spelled("pow", "pow_")
def _power(g: Builder, x: Any, exponent: Any) -> Value:
    known = number(exponent)
    if known is None:
        return g.arithmetic("power", x, exponent)
    return unary(g, Activation(function="square") if known == 2 else Power(exponent=known), x)


@spelled("maximum")
def _maximum(g: Builder, x: Any, y: Any) -> Value:
    return g.arithmetic("maximum", x, y)


@spelled("minimum")
def _minimum(g: Builder, x: Any, y: Any) -> Value:
    return g.arithmetic("minimum", x, y)


@spelled("addcmul")
def _addcmul(g: Builder, x: Any, one: Any, other: Any, value: Number = 1) -> Value:
    return _add(g, x, _multiply(g, _multiply(g, one, other), value))


@spelled("hardtanh", "hardtanh_")
def _hardtanh(
    g: Builder, x: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Value:
    return _clamp(g, x, min_val, max_val)


@spelled("clamp", "clamp_", "clip")
def _clamp(g: Builder, x: Any, min: Any = None, max: Any = None, *rest: Any) -> Value:
    if (min is not None and number(min) is None) or (max is not None and number(max) is None):
        raise UnsupportedError("limits that are tensors")
    # An infinite limit is none.
    low, high = (None if v is None or math.isinf(v) else v for v in map(number, (min, max)))
    return g.value(x) if low is None and high is None else unary(g, Clamp(low=low, high=high), x)


@spelled("clamp_min", "clamp_min_")
def _clamp_min(g: Builder, x: Any, low: Any) -> Value:
    return _clamp(g, x, low)


# Sums


def _reduced(g: Builder, x: Any, function: Any, dim: Any, keep: bool) -> Value:
    value = g.value(x)
    count = len(value.order)
    dims = [*range(count)] if dim is None else [dim] if isinstance(dim, int) else [*dim]
    places = sorted(d % count for d in dims)
    if g.batched(value) and 0 in {value.order[p] for p in places}:
        raise UnsupportedError("it sums over the batch")
    shape = g.shape(value)
    image = len(shape.dims) == 3 and shape.lead is not None and value.order == (0, 1, 2, 3)
    if image and places == [2, 3] and function in ("mean", "max"):
        pool = GlobalPool(function="average" if function == "mean" else "max")
        pooled = g.add(pool, value.node)
        return pooled if keep else FUNCTIONS["flatten"](g, pooled, 1)
    op = Reduce(function=function, dims=tuple(sorted(value.order[p] for p in places)), keep=keep)
    new = g.add(op, value.node)
    if keep:
        return Value(new.node, value.order)
    left = [d for p, d in enumerate(value.order) if p not in places]
    ranks = {d: i for i, d in enumerate(sorted(left))}
    return Value(new.node, tuple(ranks[d] for d in left))


@spelled("mean")
def _mean(g: Builder, x: Any, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Value:
    return _reduced(g, x, "mean", dim, keepdim)


@spelled("sum")
def _sum(g: Builder, x: Any, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Value:
    return _reduced(g, x, "sum", dim, keepdim)


@spelled("amax")
def _amax(g: Builder, x: Any, dim: Any = None, keepdim: bool = False) -> Value:
    return _reduced(g, x, "max", dim, keepdim)


@spelled("max")
def _max(g: Builder, x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    if isinstance(dim, Value):
        return _maximum(g, x, dim)
    return (_reduced(g, x, "max", dim, keepdim), None)


@spelled("norm", "linalg_vector_norm", "vector_norm")
def _norm(
    g: Builder, x: Any, p: Any = 2, dim: Any = None, keepdim: bool = False, **kwargs: Any
) -> Value:
    if p != 2:
        raise UnsupportedError(f"a {p}-norm")
    return _reduced(g, x, "norm", dim, keepdim)


@spelled("var")
def _variance(
    g: Builder,
    x: Any,
    dim: Any = None,
    unbiased: bool = True,
    keepdim: bool = False,
    correction: int | None = None,
) -> Value:
    if correction not in (0, None) or (correction is None and unbiased):
        raise UnsupportedError("a variance that is corrected for the sample's size")
    return _reduced(g, x, "variance", dim, keepdim)
