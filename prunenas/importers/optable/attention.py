"""Matrix products and attention."""

import math
from typing import Any

import torch
from torch import nn

from prunenas.importers.builder import Builder
from prunenas.importers.optable.layers import linear
from prunenas.importers.optable.layout import permute, transpose
from prunenas.importers.optable.modules import tensors_of
from prunenas.importers.optable.table import layer, spelled
from prunenas.importers.values import BATCH, UnsupportedError, Value, Weight
from prunenas.ir.ops import (
    Attention,
    MatMul,
)


@spelled("matmul", "bmm", "mm", "__matmul__")
def _matmul(g: Builder, x: Any, y: Any) -> Value:
    one, other = g.value(x), g.value(y)
    if len(one.order) == 2 and g.batched(one) and not g.batched(other):
        # One vector an image is a matrix of one row.
        n, k = g.sizes(one)
        row = g.add(MatMul(), g.plain(g.reshape(one, (n, 1, k))), g.plain(other))
        return g.reshape(row, (n, g.sizes(row)[-1]))
    return g.add(MatMul(), g.plain(one), g.plain(other))


@spelled("einsum")
def _einsum(g: Builder, equation: str, *operands: Any) -> Value:
    tensors = [*operands[0]] if len(operands) == 1 else [*operands]
    left, _, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != 2 or "." in equation or any(len({*t}) < len(t) for t in (*terms, right)):
        raise UnsupportedError(f"the Einstein sum {equation}")
    one, other = terms
    summed = [c for c in one if c in other and c not in right]
    stacked = [c for c in one if c in other and c in right]
    rows = [c for c in one if c not in other]
    columns = [c for c in other if c not in one]
    if not {*rows, *columns} <= {*right}:
        raise UnsupportedError(f"the Einstein sum {equation}")
    sizes = dict(
        zip(one + other, g.sizes(g.value(tensors[0])) + g.sizes(g.value(tensors[1])), strict=True)
    )

    def brought(term: str, tensor: Any, *parts: list[str]) -> Value:
        order = [term.index(c) for part in parts for c in part]
        value = permute(g, tensor, order)
        return g.reshape(
            value,
            [sizes[c] for c in parts[0]] + [math.prod(sizes[c] for c in p) for p in parts[1:]],
        )

    # The batch stays first, also where one side alone has it.
    batch = [c for c in rows if sizes[c] % BATCH == 0]
    rows = [c for c in rows if c not in batch]
    x = brought(one, tensors[0], batch + stacked, rows, summed)
    y = brought(other, tensors[1], stacked, summed, columns)
    now = [*batch, *stacked, *rows, *columns]
    laid = g.reshape(_matmul(g, x, y), [sizes[c] for c in now])
    return permute(g, laid, [now.index(c) for c in right])


@spelled("scaled_dot_product_attention")
def _attention(
    g: Builder,
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Value:
    if is_causal or enable_gqa:
        raise UnsupportedError("attention that is causal or shares keys among queries")
    if isinstance(attn_mask, torch.Tensor) and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros(attn_mask.shape).masked_fill(~attn_mask, -math.inf)
    inputs = [g.plain(t) for t in (query, key, value) if t is not None]
    if attn_mask is not None:
        inputs.append(g.plain(attn_mask))
    return g.add(Attention(scale=scale, dropout=dropout_p), *inputs)


@layer("MultiheadAttention")
def _multihead(
    g: Builder,
    module: nn.MultiheadAttention,
    path: str,
    query: Any,
    key: Any,
    value: Any,
    key_padding_mask: Any = None,
    need_weights: bool = True,
    attn_mask: Any = None,
    **kwargs: Any,
) -> tuple[Value, None]:
    plain = (
        query == key == value
        and module._qkv_same_embed_dim
        and module.batch_first
        and module.bias_k is None
        and not module.add_zero_attn
        and key_padding_mask is None
        and attn_mask is None
    )
    if not plain:
        raise UnsupportedError("attention between different tensors, with masks, or batch second")
    t = tensors_of(module, path)
    weight, bias = t["in_proj_weight"], t.get("in_proj_bias")
    x = _into_heads(g, path, query, weight, bias)
    b, n, _ = g.sizes(x)
    heads = module.num_heads
    each = module.embed_dim // heads
    parts = permute(g, g.reshape(x, (b, n, 3, heads, each)), 2, 0, 3, 1, 4)
    q, k, v = (g.index(parts, 0, i) for i in range(3))
    mixed = transpose(g, _attention(g, q, k, v, dropout_p=module.dropout), 1, 2)
    out = module.out_proj
    tensors = tensors_of(out, f"{path}.out_proj")
    result = linear(
        g, g.reshape(mixed, (b, n, heads * each)), tensors["weight"], tensors.get("bias")
    )
    return result, None


def _into_heads(g: Builder, path: str, x: Any, weight: Any, bias: Any) -> Value:
    """Add the layer of queries, keys and values, whose tensors have names of their own."""
    assert isinstance(weight, Weight)
    renamed = Weight(f"{path}.in_proj.weight", weight.tensor)
    shift = None if bias is None else Weight(f"{path}.in_proj.bias", bias.tensor)
    value = linear(g, x, renamed, shift)
    g.state[f"{value.node}.weight"] = weight.name
    if bias is not None:
        g.state[f"{value.node}.bias"] = bias.name
    return value
