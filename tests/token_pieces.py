"""Pieces of random graphs on tokens: each makes tokens of an image, and an image of the tokens."""

import numpy as np

from prunenas.ir.ops import (
    Affine,
    Arithmetic,
    Attention,
    DropPath,
    GlobalPool,
    Index,
    Join,
    LayerNorm,
    Linear,
    MatMul,
    Parameter,
    Permute,
    Reduce,
    Reshape,
    Resize,
    RmsNorm,
    Roll,
    Slice,
    Softmax,
    Spread,
    Take,
    Tile,
)
from tests.layout_pieces import constant
from tests.sketch import Sketch


def tokens(s: Sketch, x: str) -> tuple[str, tuple[int, int]]:
    """Return few pixels as tokens ``[n c]``, and the sides of the image that they were."""
    sides = s.integer(1, 2), s.integer(2, 3)
    x = s.net.add("cells", GlobalPool(size=sides), x)
    x = s.net.add("row", Reshape(sizes=(s.channels(x), sides[0] * sides[1])), x)
    return s.net.add("tokens", Permute(order=(0, 2, 1)), x), sides


def image(s: Sketch, x: str, sides: tuple[int, int]) -> str:
    x = s.net.add("columns", Permute(order=(0, 2, 1)), x)
    return s.net.add("image", Reshape(sizes=(s.net.shape(x).dims[0], *sides)), x)


def width_of(s: Sketch, x: str) -> int:
    return s.net.shape(x).dims[-1]


def normed(s: Sketch, name: str, x: str) -> str:
    op = s.one_of(
        [LayerNorm(), LayerNorm(scale=False), LayerNorm(shift=False), LayerNorm(dims=2), RmsNorm()]
    )
    return s.net.add(name, op, x)


def fused(s: Sketch, x: str, heads: int, width: int) -> list[str]:
    """Queries, keys and values ``[heads n width]`` of one layer, cut apart in one of three ways."""
    n = s.net.shape(x).dims[0]
    x = s.net.add("qkv", Linear(width=3 * heads * width, bias=s.flag()), x)
    way = s.integer(0, 2)
    if way == 0:
        x = s.net.add("heads", Reshape(sizes=(n, 3, heads, width)), x)
        x = s.net.add("first", Permute(order=(0, 2, 3, 1, 4)), x)
        return [s.net.add(name, Index(dim=1, index=i), x) for i, name in enumerate("qkv")]
    found = []
    if way == 2:
        # Each head's queries, keys and values side by side.
        x = s.net.add("heads", Reshape(sizes=(n, heads, 3 * width)), x)
        x = s.net.add("turned", Permute(order=(0, 2, 1, 3)), x)
    for i, name in enumerate("qkv"):
        each = width if way == 2 else heads * width
        dim = 3 if way == 2 else 2
        part = s.net.add(name, Slice(dim=dim, start=i * each, stop=(i + 1) * each), x)
        found.append(part if way == 2 else split_heads(s, name, part, heads))
    return found


def split_heads(s: Sketch, name: str, x: str, heads: int) -> str:
    n, width = s.net.shape(x).dims
    x = s.net.add(f"{name}_heads", Reshape(sizes=(n, heads, width // heads)), x)
    return s.net.add(f"{name}_turned", Permute(order=(0, 2, 1, 3)), x)


def separate(s: Sketch, x: str, heads: int, width: int) -> list[str]:
    """Queries, keys and values of a layer each; values may be of another width."""
    widths = {"q": width, "k": width, "v": s.integer(1, 3)}
    return [
        split_heads(s, name, s.net.add(f"to_{name}", Linear(width=heads * w), x), heads)
        for name, w in widths.items()
    ]


def relative_bias(s: Sketch, heads: int, n: int) -> str:
    """A trained bias for each head and distance ``[1 heads n n]``."""
    table = s.net.add("table", Parameter(sizes=(2 * n - 1, heads)))
    where = (np.arange(n)[:, None] - np.arange(n)[None] + n - 1).ravel()
    bias = s.net.add("bias", Take(dim=0), table, s.net.add("where", constant(where)))
    bias = s.net.add("bias_square", Reshape(sizes=(n, n, heads)), bias)
    bias = s.net.add("bias_first", Permute(order=(2, 0, 1)), bias)
    return s.net.add("bias_all", Reshape(sizes=(1, heads, n, n)), bias)


def attended(s: Sketch, x: str) -> str:
    """Self-attention by one op, or by its products and a softmax."""
    n, c = s.net.shape(x).dims
    heads, width = s.integer(1, 3), s.integer(1, 3)
    query, key, value = s.one_of([fused, separate])(s, x, heads, width)
    bias = [relative_bias(s, heads, n)] if s.flag() else []
    if s.flag():
        op = Attention(scale=s.one_of([None, 0.5]))
        x = s.net.add("attention", op, query, key, value, *bias)
    else:
        key = s.net.add("turned_key", Permute(order=(0, 1, 3, 2)), key)
        x = s.net.add("scores", MatMul(), query, key)
        x = s.net.add("scaled_scores", Affine(scale=0.5), x)
        x = s.net.add("biased", Arithmetic(), x, *bias) if bias else x
        x = s.net.add("weights", Softmax(dim=3), x)
        x = s.net.add("mixed", MatMul(), x, value)
    each = width_of(s, x)
    x = s.net.add("back", Permute(order=(0, 2, 1, 3)), x)
    x = s.net.add("merged", Reshape(sizes=(n, heads * each)), x)
    return s.net.add("proj", Linear(width=c), x)


def perceptron(s: Sketch, x: str) -> str:
    y = s.net.add("fc1", Linear(width=s.width()), x)
    y = s.net.activation("gelu", y, "gelu")
    return s.net.add("fc2", Linear(width=width_of(s, x)), y)


def layer_scaled(s: Sketch, name: str, x: str) -> str:
    scale = s.net.add(f"{name}_scale", Parameter(sizes=(width_of(s, x),), start="ones"))
    return s.net.add(f"{name}_scaled", Arithmetic(function="multiply"), x, scale)


def transformer(s: Sketch, x: str) -> str:
    """A class token, positions, attention and a perceptron, each with a norm and a shortcut."""
    x, sides = tokens(s, x)
    n, c = s.net.shape(x).dims
    extra = s.integer(0, 1)
    if extra:
        token = s.net.add("cls", Spread(), s.net.add("token", Parameter(sizes=(1, 1, c))), x)
        x = s.net.add("joined", Join(dim=1), token, x)
    if s.flag():
        where = s.net.add("where", Parameter(sizes=(1, n + extra, c)))
        x = s.net.add("placed", Arithmetic(), x, where)
    for name, branch in (("attend", attended), ("perceive", perceptron)):
        with s.net.scope(name):
            y = normed(s, "norm", x) if s.flag() else x
            y = branch(s, y)
            y = layer_scaled(s, "layer", y) if s.flag() else y
            y = s.net.add("drop", DropPath(p=0.1), y) if s.flag() else y
            x = s.net.join("add", x, y)
    if extra:
        x = s.net.add("cut", Slice(dim=1, start=1, stop=n + 1), x)
    return image(s, x, sides)


def mixer(s: Sketch, x: str) -> str:
    """Perceptrons along the tokens and along their channels."""
    x, sides = tokens(s, x)
    y = s.net.add("turned", Permute(order=(0, 2, 1)), normed(s, "norm1", x))
    with s.net.scope("mix"):
        y = perceptron(s, y)
    x = s.net.join("add1", x, s.net.add("back", Permute(order=(0, 2, 1)), y))
    return image(s, s.net.join("add2", x, perceptron(s, normed(s, "norm2", x))), sides)


def windowed(s: Sketch, x: str) -> str:
    """Attention within shifted windows, which go to the batch and come back."""
    c, side = s.channels(x), s.integer(1, 2)
    x = s.net.add("even", Resize(size=(2 * side, 4)), x)
    x = s.net.add("last", Permute(order=(0, 2, 3, 1)), x)
    x = s.net.add("shifted", Roll(dim=1, shift=-1), x) if s.flag() else x
    x = s.net.add("windows", Reshape(sizes=(2, side, 2, 2, c)), x)
    x = s.net.add("sorted", Permute(order=(0, 1, 3, 2, 4, 5)), x)
    x = s.net.add("batched", Reshape(sizes=(side * 2, c)), x)
    x = attended(s, x)
    x = s.net.add("unbatched", Reshape(sizes=(2, 2, side, 2, c)), x)
    x = s.net.add("unsorted", Permute(order=(0, 1, 3, 2, 4, 5)), x)
    x = s.net.add("map", Reshape(sizes=(2 * side, 4, c)), x)
    return s.net.add("channels_first", Permute(order=(0, 3, 1, 2)), x)


def pooled_queries(s: Sketch, x: str) -> str:
    """One trained query, repeated, that attends to all tokens; heads may fold into the batch."""
    x, _ = tokens(s, x)
    c = width_of(s, x)
    heads, width = s.integer(1, 2), s.integer(1, 3)
    query = s.net.add("query", Spread(), s.net.add("trained", Parameter(sizes=(1, 1, c))), x)
    query = s.net.add("queries", Tile(dim=1, times=s.integer(1, 3)), query)
    found = []
    for name, source in (("q", query), ("k", x), ("v", x)):
        y = s.net.add(f"to_{name}", Linear(width=heads * width), source)
        y = split_heads(s, name, y, heads)
        found.append(s.net.add(f"{name}_flat", Reshape(sizes=s.net.shape(y).dims[1:]), y))
    x = s.net.add("attention", Attention(), *found)
    count = s.net.shape(x).dims[0]
    x = s.net.add("unfolded", Reshape(sizes=(heads, count, width)), x)
    x = s.net.add("turned", Permute(order=(0, 1, 3, 2)), x)
    return s.net.add("image", Reshape(sizes=(heads * width, count, 1)), x)


def covariance(s: Sketch, x: str) -> str:
    """Attention across channels: products of all pairs of them."""
    x, sides = tokens(s, x)
    turned = s.net.add("turned", Permute(order=(0, 2, 1)), x)
    pairs = s.net.add("pairs", MatMul(), turned, x)
    weights = s.net.add("weights", Softmax(dim=2), pairs)
    return image(s, s.net.add("mixed", MatMul(), x, weights), sides)


def token_head(s: Sketch, x: str) -> str:
    """The mean over normed tokens, or the first of them."""
    x, _ = tokens(s, x)
    x = normed(s, "norm", x)
    if s.flag():
        x = s.net.add("mean", Reduce(dims=(1,)), x)
    else:
        x = s.net.add("first", Index(dim=1, index=0), x)
    return s.net.add("fc", Linear(width=s.integer(2, 5)), x)


TOKEN_PIECES = (transformer, transformer, mixer, windowed, pooled_queries, covariance)
