"""Each op by itself is written so that the exported network gives our bits."""

from typing import get_args

import numpy as np
import pytest
import torch

from prunenas.build.initialise import build
from prunenas.ir.graph import Graph
from prunenas.ir.ops import (
    Activation,
    Affine,
    AnyOp,
    Arithmetic,
    Attention,
    BatchNorm,
    Clamp,
    Constant,
    Conv1d,
    Convolve,
    Filled,
    Fold,
    Index,
    Join,
    LayerNorm,
    LeakyRelu,
    Linear,
    MatMul,
    Normalize,
    Opaque,
    Pad,
    Parameter,
    Permute,
    Power,
    Reduce,
    Reshape,
    Resize,
    RmsNorm,
    Roll,
    Shuffle,
    Slice,
    Softmax,
    Spread,
    Take,
    Tile,
    Unfold,
)
from prunenas.ir.ops.plain import ActivationName
from prunenas.ir.writer import GraphWriter
from tests.export.source import assert_same_function, networks, source_of


def constant(values: object, dtype: str) -> Constant:
    array = np.array(values, dtype=dtype)
    return Constant(sizes=array.shape, dtype=dtype, data=Constant.packed(array.tobytes()))


def written(*ops: AnyOp, size: tuple[int, int, int] = (4, 6, 6)) -> Graph:
    """These ops in a row, the first one on an image."""
    net = GraphWriter(size)
    x = net.input
    for number, op in enumerate(ops):
        x = net.add(f"{op.kind.lower()}{number}", op, x)
    return net.finish(x)


TOKENS = Reshape(sizes=(4, 36))
"""An image as four tokens of 36 entries."""

ROWS = [
    (Reshape(sizes=(2, 2, 6, 6)), "{x}.unflatten(1, (2, 2))"),
    (Reshape(sizes=(4, 36)), "{x}.flatten(2)"),
    (Reshape(sizes=(24, 6)), "{x}.flatten(1, 2)"),
    (Reshape(sizes=(144,)), "{x}.flatten(1)"),
    (Reshape(sizes=(4, 1, 6, 1, 6)), "{x}[:, :, None, :, None, :]"),
    (Reshape(sizes=(2, 72)), "{x}.reshape(-1, 2, 72)"),
    (Reshape(sizes=(6, 6)), "{x}.reshape(-1, 6, 6)"),
    (Reshape(sizes=(4, 6, 6)), "return x\n"),
    (Permute(order=(0, 2, 1, 3)), "{x}.transpose(1, 2)"),
    (Permute(order=(0, 2, 3, 1)), "{x}.permute(0, 2, 3, 1)"),
    (Permute(order=(0, 1, 2, 3)), "return x\n"),
    (Index(dim=2, index=3), "{x}[:, :, 3]"),
    (Slice(dim=1, start=1, stop=3), "{x}[:, 1:3]"),
    (Slice(dim=1, start=0, stop=3), "{x}[:, :3]"),
    (Slice(dim=2, start=2, stop=6), "{x}[:, :, 2:]"),
    (Slice(dim=2, start=1, stop=6, step=2), "{x}[:, :, 1::2]"),
    (Tile(dim=2, times=3), "{x}.repeat(1, 1, 3, 1)"),
    (Roll(dim=3, shift=-2), "torch.roll({x}, -2, dims=3)"),
    (Pad(dim=1, before=2, after=1), "F.pad({x}, (0, 0, 0, 0, 2, 1))"),
    (Pad(dim=3, before=-2, after=1, value=-1.5), "F.pad({x}, (-2, 1), value=-1.5)"),
    (
        Pad(dim=2, before=1, after=2, function="reflect"),
        'F.pad({x}, (0, 0, 1, 2), mode="reflect")',
    ),
    (Resize(size=(3, 9)), "F.interpolate({x}, (3, 9))"),
    (Resize(size=(9, 9), function="bilinear"), 'F.interpolate({x}, 9, mode="bilinear")'),
    (
        Resize(size=(9, 9), function="bicubic", align_corners=True),
        'F.interpolate({x}, 9, mode="bicubic", align_corners=True)',
    ),
    (Unfold(kernel=(3, 3)), "F.unfold({x}, 3)"),
    (
        Unfold(kernel=(2, 3), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
        "F.unfold({x}, (2, 3), dilation=(1, 2), padding=(1, 0), stride=(2, 1))",
    ),
    (Affine(scale=0.5, shift=-1.0), "{x} * 0.5 - 1.0"),
    (Affine(shift=2.0), "{x} + 2.0"),
    (Affine(scale=-3.0), "{x} * -3.0"),
    (Affine(), "return x\n"),
    (Power(exponent=2.0), "{x} ** 2.0"),
    (Clamp(low=-0.5, high=0.5), "{x}.clamp(min=-0.5, max=0.5)"),
    (Clamp(high=0.25), "{x}.clamp(max=0.25)"),
    (LeakyRelu(slope=0.2), "F.leaky_relu({x}, negative_slope=0.2)"),
    (Softmax(dim=1), "F.softmax({x}, dim=1)"),
    (Softmax(dim=3), "F.softmax({x}, dim=-1)"),
    (Normalize(dim=3), "F.normalize({x}, dim=-1)"),
    (Normalize(dim=1, eps=0.1), "F.normalize({x}, dim=1, eps=0.1)"),
    (Reduce(dims=(2, 3)), "{x}.mean(dim=(2, 3))"),
    (Reduce(function="sum", dims=(1,), keep=True), "{x}.sum(dim=1, keepdim=True)"),
    (Reduce(function="max", dims=(1, 3)), "{x}.amax(dim=(1, 3))"),
    (Reduce(function="norm", dims=(2, 3), keep=True), "torch.linalg.vector_norm({x}, dim=(2, 3)"),
    (Reduce(function="variance", dims=(2, 3)), "{x}.var(dim=(2, 3), correction=0)"),
    (LayerNorm(), "nn.LayerNorm(6)"),
    (LayerNorm(dims=2, eps=1e-6), "nn.LayerNorm((6, 6), eps=1e-06)"),
    (LayerNorm(shift=False), "nn.LayerNorm(6, bias=False)"),
    (LayerNorm(scale=False, shift=False), "nn.LayerNorm(6, elementwise_affine=False)"),
    (LayerNorm(dims=3, scale=False), "ShiftNorm((4, 6, 6))"),
    (RmsNorm(), "nn.RMSNorm(6)"),
    (RmsNorm(eps=1e-6, scale=False), "nn.RMSNorm(6, eps=1e-06, elementwise_affine=False)"),
    (Linear(width=5), "nn.Linear(6, 5)"),
    (BatchNorm(), "nn.BatchNorm2d(4)"),
    (Activation(function="gelu_tanh"), 'F.gelu({x}, approximate="tanh")'),
]


@pytest.mark.parametrize(("op", "text"), ROWS, ids=lambda value: str(value)[:60])
def test_an_op_on_an_image(op, text):
    source = source_of(written(op))
    assert text.format(x="x") in source
    assert_same_function(written(op), source=source, counts=(1, 3))


@pytest.mark.parametrize("function", get_args(ActivationName))
def test_an_activation(function):
    # Roots and logarithms are asked for positive numbers too.
    for scaled in (Affine(), Activation(function="abs")):
        graph = written(scaled, Activation(function=function), Clamp(low=-100.0, high=100.0))
        source = source_of(graph)
        (kind,) = networks(source)
        ours, theirs = build(graph), kind()
        x = torch.randn(3, 4, 6, 6)
        assert torch.equal(ours(x).nan_to_num(), theirs(x).nan_to_num())


ON_TOKENS = [
    (Conv1d(width=6, kernel=3, padding=1), "nn.Conv1d(4, 6, kernel_size=3, padding=1, bias=False)"),
    (Conv1d(width=8, kernel=2, stride=2, groups=4, bias=True), "kernel_size=2, stride=2, groups=4"),
    (BatchNorm(), "nn.BatchNorm1d(4)"),
    (Shuffle(groups=2), "channel_shuffle("),
    (Tile(dim=1, times=2), ".repeat(1, 2, 1)"),
]


@pytest.mark.parametrize(("op", "text"), ON_TOKENS, ids=lambda value: str(value)[:60])
def test_an_op_on_tokens(op, text):
    source = source_of(written(TOKENS, op))
    assert text in source
    assert_same_function(written(TOKENS, op), source=source, counts=(1, 3))


def test_windows_are_added_up():
    windows = {"kernel": (2, 2), "stride": (2, 1), "padding": (0, 1)}
    graph = written(Unfold(**windows), Affine(scale=2.0), Fold(size=(6, 6), **windows))
    source = source_of(graph)
    assert "F.fold(" in source
    assert_same_function(graph, source=source, counts=(1, 3))


@pytest.mark.parametrize(
    ("op", "sizes", "text"),
    [
        (Convolve(depthwise=True, padding=(1, 1)), (4, 1, 3, 3), "groups=x.shape[1])"),
        (Convolve(groups=2, stride=(2, 2)), (6, 2, 3, 3), "stride=(2, 2), groups=2)"),
        (Convolve(), (5, 4, 1, 1), "F.conv2d(x, self.kernel())"),
    ],
)
def test_a_kernel_that_is_a_value(op, sizes, text):
    net = GraphWriter((4, 6, 6))
    kernel = net.add("kernel", Parameter(sizes=sizes))
    graph = net.finish(net.add("conv", op, net.input, kernel))
    source = source_of(graph)
    assert text in source
    assert_same_function(graph, source=source, counts=(1, 3))


def test_a_single_entry_is_tiled_without_a_copy():
    graph = written(Reduce(dims=(2,), keep=True), Tile(dim=2, times=5))
    source = source_of(graph)
    assert "x.mean(dim=2, keepdim=True).expand(-1, -1, 5, -1)" in source
    assert_same_function(graph, source=source, counts=(1, 3))


@pytest.mark.parametrize(
    ("function", "text"),
    [
        ("add", "x + y"),
        ("subtract", "x - y"),
        ("multiply", "x * y"),
        ("divide", "x / y"),
        ("power", "x ** y"),
        ("maximum", "torch.maximum(x, y)"),
        ("minimum", "torch.minimum(x, y)"),
    ],
)
def test_two_tensors_are_combined(function, text):
    net = GraphWriter((4, 6, 6))
    x = net.add("abs", Activation(function="abs"), net.input)
    y = net.add("mean", Reduce(dims=(1,), keep=True), x)
    graph = net.finish(net.add("both", Arithmetic(function=function), x, y))
    text = text.replace("x", "?").replace("y", "x").replace("?", "y")
    source = source_of(graph)
    assert text in source or text.translate(str.maketrans("xy", "yx")) in source
    assert_same_function(graph, source=source, counts=(1, 3))


def test_brackets_stand_where_they_must():
    ops = [Affine(scale=2.0, shift=1.0), Power(exponent=2.0), Affine(shift=3.0), Reduce(dims=(1,))]
    source = source_of(written(*ops))
    assert "x = ((x * 2.0 + 1.0) ** 2.0) + 3.0\n" in source
    assert "return x.mean(dim=1)" in source
    assert_same_function(written(*ops), source=source, counts=(1, 3))
    ops = [Affine(shift=1.0), Index(dim=1, index=0), Affine(shift=1.0), Softmax(dim=1)]
    source = source_of(written(*ops))
    assert "(x + 1.0)[:, 0]" in source
    assert_same_function(written(*ops), source=source, counts=(1, 3))


def test_products_of_matrices():
    net = GraphWriter((4, 6, 5))
    y = net.add("turned", Permute(order=(0, 1, 3, 2)), net.input)
    graph = net.finish(net.add("product", MatMul(), net.input, y))
    source = source_of(graph)
    assert "return x @ y" in source
    assert_same_function(graph, source=source, counts=(1, 3))


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("scale", [None, 0.25])
def test_attention(biased, scale):
    net = GraphWriter((4, 6, 6))
    q, k, v = (net.add(name, Linear(width=8), net.input) for name in "qkv")
    bias = [net.add("bias", Parameter(sizes=(4, 6, 6)))] if biased else []
    attend = Attention(scale=scale, dropout=0.5)
    graph = net.finish(net.add("attention", attend, q, k, v, *bias))
    source = source_of(graph)
    assert ("attn_mask=self.bias()" in source) == biased
    assert ("scale=0.25" in source) == (scale is not None)
    assert "dropout_p=0.5 if self.training else 0.0" in source
    assert max(map(len, source.splitlines())) <= 100
    assert_same_function(graph, source=source, counts=(1, 3))


def test_attention_under_a_mask():
    net = GraphWriter((4, 6, 6))
    mask = net.add("mask", constant(np.tril(np.ones((6, 6))), "bool"))
    graph = net.finish(net.add("attention", Attention(), *[net.input] * 3, mask))
    assert_same_function(graph, counts=(1, 3))


def test_an_expression_that_does_nothing_is_left_out_between_others():
    graph = written(Affine(scale=2.0), Affine(), Permute(order=(0, 1, 2, 3)), Linear(width=2))
    assert "self.linear3(x * 2.0)" in source_of(graph)


def test_every_new_op_occurs_here() -> None:
    """A new op wants a line above."""
    here = {type(op) for op, _ in [*ROWS, *ON_TOKENS]}
    others = {
        Arithmetic,
        Attention,
        Constant,
        Filled,
        Fold,
        Join,
        Convolve,
        MatMul,
        Opaque,
        Parameter,
        Spread,
        Take,
    }
    known = {
        *("Input", "Conv2d", "Depthwise2d", "GroupNorm", "Dropout", "DropPath", "Pool2d"),
        *("GlobalPool", "Flatten", "Add", "Gate", "Concat", "Split", "Select", "PadChannels"),
    }
    assert {op.__name__ for op in here | others} | known == {op.__name__ for op in get_args(AnyOp)}
