"""Two small networks of tokens: a vision transformer, and attention in shifted windows."""

import numpy

from prunenas.ir.graph import Graph, Init
from prunenas.ir.ops import (
    Activation,
    Add,
    Affine,
    Arithmetic,
    Attention,
    Conv1d,
    Index,
    Join,
    LayerNorm,
    Linear,
    MatMul,
    Parameter,
    Permute,
    Reduce,
    Reshape,
    RmsNorm,
    Roll,
    Softmax,
    Spread,
    Take,
)
from prunenas.ir.writer import GraphWriter
from tests.build.examples import constant

INIT = Init(conv="torch", linear="normal_0.02")


def heads(net: GraphWriter, x: str, tokens: int, count: int, width: int) -> list[str]:
    """Return queries, keys and values ``[heads tokens width]``."""
    x = net.add("qkv", Linear(width=3 * count * width), x)
    x = net.add("qkv_heads", Reshape(sizes=(tokens, 3, count, width)), x)
    x = net.add("qkv_first", Permute(order=(0, 2, 3, 1, 4)), x)
    return [net.add(name, Index(dim=1, index=i), x) for i, name in enumerate("qkv")]


def vit() -> Graph:
    """Patches, a class token, positions, one block with layer scales, a convolution of tokens."""
    net = GraphWriter((3, 8, 8))
    x = net.conv("patches", net.input, 6, kernel=4, stride=4, padding=0, bias=True)
    x = net.add("flat", Reshape(sizes=(6, 4)), x)
    x = net.add("tokens", Permute(order=(0, 2, 1)), x)
    first = net.add("first", Spread(), net.add("cls", Parameter(sizes=(1, 1, 6))), x)
    x = net.add("joined", Join(dim=1), first, x)
    positions = net.add("positions", Parameter(sizes=(1, 5, 6)))
    x = net.add("placed", Arithmetic(), x, positions)
    with net.scope("block"):
        y = net.add("norm1", LayerNorm(), x)
        y = net.add("attention", Attention(), *heads(net, y, 5, 2, 3))
        y = net.add("back", Permute(order=(0, 2, 1, 3)), y)
        y = net.add("proj", Linear(width=6), net.add("merged", Reshape(sizes=(5, 6)), y))
        scale = net.add("scale", Parameter(sizes=(6,), start="ones"))
        x = net.add("add1", Add(), x, net.add("scaled", Arithmetic(function="multiply"), y, scale))
        y = net.add("fc1", Linear(width=12), net.add("norm2", RmsNorm(), x))
        y = net.add("gelu", Activation(function="gelu_tanh"), y)
        x = net.add("add2", Add(), x, net.add("fc2", Linear(width=6), y))
        shift = net.add("shift", Parameter(sizes=(6,), start="zeros"))
        x = net.add("shifted", Arithmetic(), x, shift)
    x = net.add("mix", Conv1d(width=4, kernel=3, padding=1, bias=True), x)
    x = net.add("norm", LayerNorm(scale=False), x)
    x = net.add("picked", Index(dim=1, index=0), x)
    return net.finish(net.add("head", Linear(width=10), x), INIT)


def swin() -> Graph:
    """Attention within shifted windows of 2 x 2, with a bias by relative position and a mask."""
    net = GraphWriter((4, 4, 4))
    x = net.add("last", Permute(order=(0, 2, 3, 1)), net.input)
    x = net.add("roll1", Roll(dim=1, shift=-1), x)
    x = net.add("roll2", Roll(dim=2, shift=-1), x)
    x = net.add("cut", Reshape(sizes=(2, 2, 2, 2, 4)), x)
    x = net.add("cells", Permute(order=(0, 1, 3, 2, 4, 5)), x)
    x = net.add("windows", Reshape(sizes=(4, 4)), x)
    q, k, v = heads(net, x, 4, 2, 2)
    q = net.add("q_small", Affine(scale=2**-0.5), q)
    scores = net.add("scores", MatMul(), q, net.add("k_t", Permute(order=(0, 1, 3, 2)), k))
    scores = net.add("by_image", Reshape(sizes=(4, 2, 4, 4)), scores)

    place = numpy.stack(numpy.meshgrid([0, 1], [0, 1], indexing="ij")).reshape(2, 4)
    apart = place[:, :, None] - place[:, None] + 1
    table = net.add("table", Parameter(sizes=(9, 2)))
    where = net.add("where", constant((3 * apart[0] + apart[1]).ravel()))
    bias = net.add(
        "bias", Reshape(sizes=(4, 4, 2)), net.add("looked_up", Take(dim=0), table, where)
    )
    bias = net.add("bias_first", Permute(order=(2, 0, 1)), bias)

    rolled = numpy.array([0, 0, 0, 1])
    region = (2 * rolled[:, None] + rolled).reshape(2, 2, 2, 2).swapaxes(1, 2).reshape(4, 4)
    hidden = numpy.where(region[:, None] == region[..., None], 0.0, -100.0)[None, :, None]
    mask = net.add("mask", constant(hidden))

    scores = net.add("biased", Arithmetic(), scores, bias)
    scores = net.add("masked", Arithmetic(), scores, mask)
    scores = net.add("by_window", Reshape(sizes=(2, 4, 4)), scores)
    x = net.add("attended", MatMul(), net.add("softmax", Softmax(dim=3), scores), v)
    x = net.add("back", Permute(order=(0, 2, 1, 3)), x)
    x = net.add("proj", Linear(width=4), net.add("merged", Reshape(sizes=(4, 4)), x))
    x = net.add("uncut", Reshape(sizes=(2, 2, 2, 2, 4)), x)
    x = net.add("uncells", Permute(order=(0, 1, 3, 2, 4, 5)), x)
    x = net.add("image", Reshape(sizes=(4, 4, 4)), x)
    x = net.add("unroll1", Roll(dim=1, shift=1), x)
    x = net.add("unroll2", Roll(dim=2, shift=1), x)
    x = net.add("add", Add(), x, "last")
    x = net.add("mean", Reduce(dims=(1, 2)), x)
    return net.finish(net.add("head", Linear(width=10), x), INIT)
