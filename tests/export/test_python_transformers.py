"""Transformers are written as people write them, and in time."""

import time

import numpy as np
import pytest

from prunenas.ir.graph import Graph, Init
from prunenas.ir.ops import (
    Activation,
    Add,
    Arithmetic,
    Attention,
    Constant,
    Conv2d,
    DropPath,
    Index,
    Join,
    LayerNorm,
    Linear,
    Parameter,
    Permute,
    Reduce,
    Reshape,
    Roll,
    Spread,
    Take,
)
from prunenas.ir.writer import GraphWriter
from tests.export.source import assert_same_function, source_of


def mlp(net: GraphWriter, x: str, hidden: int) -> str:
    y = net.add("norm2", LayerNorm(eps=1e-6), x)
    width = net.shape(x).dims[-1]
    with net.scope("mlp"):
        y = net.add("fc1", Linear(width=hidden), y)
        y = net.add("act", Activation(function="gelu"), y)
        y = net.add("fc2", Linear(width=width), y)
    return net.add("add2", Add(), x, y)


def vit(heads: tuple[int, ...] = (3, 3), hidden: tuple[int, ...] = (48, 48)) -> Graph:
    """A vision transformer with a class token, 24 channels, heads of width 8."""
    net = GraphWriter((3, 8, 8))
    x = net.add("proj", Conv2d(width=24, kernel=(4, 4), stride=(4, 4), bias=True), net.input)
    x = net.add("flat", Reshape(sizes=(24, 4)), x)
    x = net.add("tokens", Permute(order=(0, 2, 1)), x)
    token = net.add("cls_token", Parameter(sizes=(1, 1, 24)))
    token = net.add("spread", Spread(), token, x)
    x = net.add("join", Join(dim=1), token, x)
    positions = net.add("pos_embed", Parameter(sizes=(1, 5, 24)))
    x = net.add("placed", Arithmetic(), x, positions)
    for number, (count, inner) in enumerate(zip(heads, hidden, strict=True)):
        with net.scope(f"blocks.{number}"):
            y = net.add("norm1", LayerNorm(eps=1e-6), x)
            with net.scope("attn"):
                y = net.add("qkv", Linear(width=24 * count), y)
                y = net.add("heads", Reshape(sizes=(5, 3, count, 8)), y)
                y = net.add("order", Permute(order=(0, 2, 3, 1, 4)), y)
                parts = [net.add(f"{k}", Index(dim=1, index=i), y) for i, k in enumerate("qkv")]
                y = net.add("attend", Attention(), *parts)
                y = net.add("back", Permute(order=(0, 2, 1, 3)), y)
                y = net.add("whole", Reshape(sizes=(5, 8 * count)), y)
                y = net.add("proj", Linear(width=24), y)
            x = mlp(net, net.add("add1", Add(), x, y), inner)
    x = net.add("norm", LayerNorm(eps=1e-6), x)
    x = net.add("token", Index(dim=1, index=0), x)
    init = Init(linear="trunc_normal_0.02")
    return net.finish(net.linear("head", x, 10), init=init)


BLOCK = '''
class Attention(nn.Module):
    """Tokens that are mixed by attention."""

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(in_width, width)
        self.proj = nn.Linear(in_width, in_width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.qkv(x).unflatten(2, (3, 3, 8)).permute(0, 2, 3, 1, 4)
        y = x[:, 0]
        z = x[:, 1]
        x = x[:, 2]
        x = F.scaled_dot_product_attention(y, z, x).transpose(1, 2).flatten(2)
        return self.proj(x)
'''

FORWARD = """
    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x).flatten(2).transpose(1, 2)
        y = self.cls_token().expand(x.shape[0], -1, -1)
        x = torch.cat([y, x], dim=1) + self.pos_embed()
        x = self.blocks(x)
        return self.head(self.norm(x)[:, 0])
"""


def test_a_vision_transformer_reads_as_people_write_it():
    graph = vit()
    source = source_of(graph)
    assert BLOCK in source
    assert FORWARD in source
    assert source.count("            ResidualBlock(24, 72, 48),\n") == 2
    assert "nn.init.trunc_normal_(module.weight, std=0.02)" in source
    assert_same_function(graph, source=source, counts=(1, 3))


def test_blocks_of_other_heads_are_of_one_class_and_told_their_number():
    graph = vit(heads=(3, 2, 1), hidden=(48, 30, 7))
    source = source_of(graph)
    assert source.count("class Attention(") == source.count("class ResidualBlock(") == 1
    assert "self.size = size" in source
    assert "unflatten(2, (3, self.size, 8))" in source
    assert "ResidualBlock(24, 48, 16, 30, size=2)" in source
    assert_same_function(graph, source=source, counts=(1, 3))


def indices(side: int) -> Constant:
    """For each pair of places in a window, the number of their distance."""
    places = np.stack(np.meshgrid(*[np.arange(side)] * 2, indexing="ij")).reshape(2, -1)
    apart = places[:, :, None] - places[:, None, :] + side - 1
    numbers = (apart[0] * (2 * side - 1) + apart[1]).reshape(-1).astype("int64")
    return Constant(sizes=numbers.shape, dtype="int64", data=Constant.packed(numbers.tobytes()))


def mask(windows: int, area: int) -> Constant:
    """Zeros, and -100 where two places of a window must not meet."""
    rng = np.random.default_rng(0)
    numbers = np.where(rng.random((windows, 1, area, area)) < 0.3, -100, 0).astype("float32")
    return Constant(sizes=numbers.shape, dtype="float32", data=Constant.packed(numbers.tobytes()))


def attend(net: GraphWriter, x: str, heads: int, side: int, shift: int) -> str:
    """Attention inside windows of ``side``, which may be moved by ``shift``."""
    _, high, wide, width = net.shape(x).sizes
    rows, columns, area = high // side, wide // side, side * side
    for dim in (1, 2):
        if shift:
            x = net.add(f"roll{dim}", Roll(dim=dim, shift=-shift), x)
    x = net.add("cut", Reshape(sizes=(rows, side, columns, side, width)), x)
    x = net.add("order", Permute(order=(0, 1, 3, 2, 4, 5)), x)
    x = net.add("windows", Reshape(sizes=(area, width)), x)
    x = net.add("qkv", Linear(width=3 * width), x)
    x = net.add("heads", Reshape(sizes=(area, 3, heads, width // heads)), x)
    x = net.add("first", Permute(order=(0, 2, 3, 1, 4)), x)
    parts = [net.add(key, Index(dim=1, index=i), x) for i, key in enumerate("qkv")]
    bias = net.add("table", Parameter(sizes=((2 * side - 1) ** 2, heads)))
    bias = net.add("biases", Take(dim=0), bias, net.add("apart", indices(side)))
    bias = net.add("square", Reshape(sizes=(area, area, heads)), bias)
    bias = net.add("bias", Permute(order=(2, 0, 1)), bias)
    if shift:
        bias = net.add("masked", Arithmetic(), bias, net.add("mask", mask(rows * columns, area)))
        parts = [
            net.add(f"{p}w", Reshape(sizes=(rows * columns, *net.shape(x).dims)), x)
            for p, x in zip("qkv", parts, strict=True)
        ]
    x = net.add("attend", Attention(), *parts, bias)
    if shift:
        x = net.add("flat", Reshape(sizes=(heads, area, width // heads)), x)
    x = net.add("back", Permute(order=(0, 2, 1, 3)), x)
    x = net.add("whole", Reshape(sizes=(area, width)), x)
    x = net.add("proj", Linear(width=width), x)
    x = net.add("uncut", Reshape(sizes=(rows, columns, side, side, width)), x)
    x = net.add("unorder", Permute(order=(0, 1, 3, 2, 4, 5)), x)
    x = net.add("image", Reshape(sizes=(high, wide, width)), x)
    for dim in (1, 2):
        if shift:
            x = net.add(f"unroll{dim}", Roll(dim=dim, shift=shift), x)
    return x


def swin(depths: tuple[int, ...], size: int = 32, side: int = 4, width: int = 8) -> Graph:
    """Windows of attention, every second ones moved; half the places from stage to stage."""
    net = GraphWriter((3, size, size))
    x = net.add("proj", Conv2d(width=width, kernel=(2, 2), stride=(2, 2), bias=True), net.input)
    x = net.add("last", Permute(order=(0, 2, 3, 1)), x)
    for stage, depth in enumerate(depths):
        width, heads = width * 2, 2 ** (stage + 1)
        with net.scope(f"stages.{stage}"):
            x = net.add("merge", Linear(width=width), x)
            for number in range(depth):
                with net.scope(f"blocks.{number}"):
                    y = net.add("norm1", LayerNorm(), x)
                    with net.scope("attn"):
                        y = attend(net, y, heads, side, side // 2 * (number % 2))
                    y = net.add("drop_path", DropPath(p=0.01 * number), y)
                    x = mlp(net, net.add("add1", Add(), x, y), 2 * width)
    x = net.add("norm", LayerNorm(), x)
    x = net.add("mean", Reduce(dims=(1, 2)), x)
    return net.finish(net.linear("head", x, 10))


def test_shifted_windows():
    graph = swin((2, 2))
    source = source_of(graph)
    assert max(map(len, source.splitlines())) <= 100
    assert source.count("class Attention") == 2
    assert_same_function(graph, source=source, counts=(1, 3))


@pytest.mark.parametrize("depths", [(2, 40), (42,)])
def test_a_thousand_nodes_are_written_in_time(depths):
    graph = swin(depths)
    assert len(graph.nodes) > 1000
    start = time.process_time()
    source = source_of(graph)
    assert time.process_time() - start < 2
    assert len(source.splitlines()) < 700
