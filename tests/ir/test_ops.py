"""Shape rules, costs and errors of each op, with the answers written as arithmetic."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunenas.errors import ShapeError
from prunenas.ir.graph import Graph
from prunenas.ir.ops import (
    Activation,
    Add,
    AnyOp,
    Arithmetic,
    Attention,
    BatchNorm,
    Concat,
    Constant,
    Conv1d,
    Conv2d,
    Convolve,
    Depthwise2d,
    Dropout,
    DropPath,
    Filled,
    Flatten,
    Fold,
    Gate,
    GlobalPool,
    GroupNorm,
    Index,
    Input,
    Join,
    KernelSparsity,
    LayerNorm,
    Linear,
    MatMul,
    Normalize,
    Opaque,
    Pad,
    PadChannels,
    Parameter,
    Permute,
    Pool2d,
    Reduce,
    Reshape,
    Resize,
    RmsNorm,
    Roll,
    Select,
    Shuffle,
    Slice,
    Softmax,
    Split,
    Spread,
    Take,
    Tile,
    Unfold,
)
from prunenas.ir.shape import Shape
from prunenas.ir.unifier import Unifier
from tests.graphs import graphs

IMAGE = Shape.of(6, (8, 10))
VECTOR = Shape.of(6)
TOKENS = Shape((4, 6))
WINDOWS = Shape((4, 6), 9)
TABLE = Shape((2, 6), None)

SORTED = Opaque.text([[{"tensor": 0}], {}])

SHAPES: list[tuple[AnyOp, list[Shape], Shape]] = [
    (Input(width=3, spatial=(8, 10)), [], Shape.of(3, (8, 10))),
    (Input(width=3), [], Shape.of(3)),
    (Conv2d(width=5, kernel=(3, 3)), [IMAGE], Shape.of(5, (6, 8))),
    (
        Conv2d(width=4, kernel=(3, 1), stride=(2, 1), padding=(1, 0), groups=2),
        [IMAGE],
        Shape.of(4, (4, 10)),
    ),
    (Conv2d(width=5, kernel=(3, 3), dilation=(2, 3)), [IMAGE], Shape.of(5, (4, 4))),
    (Depthwise2d(multiplier=2, kernel=(3, 3), padding=(1, 1)), [IMAGE], Shape.of(12, (8, 10))),
    (Linear(width=4), [VECTOR], Shape.of(4)),
    (BatchNorm(), [IMAGE], IMAGE),
    (BatchNorm(), [VECTOR], VECTOR),
    (GroupNorm(groups=3), [IMAGE], IMAGE),
    (Activation(function="gelu"), [VECTOR], VECTOR),
    (Dropout(p=0.1), [VECTOR], VECTOR),
    (DropPath(p=0.1), [IMAGE], IMAGE),
    (Pool2d(kernel=(3, 3), stride=(3, 3)), [IMAGE], Shape.of(6, (2, 3))),
    (Pool2d(kernel=(3, 3), stride=(3, 3), ceil_mode=True), [IMAGE], Shape.of(6, (3, 4))),
    (GlobalPool(), [IMAGE], Shape.of(6, (1, 1))),
    (GlobalPool(size=(2, 3)), [IMAGE], Shape.of(6, (2, 3))),
    (Flatten(), [IMAGE], Shape.of(6 * 8 * 10)),
    (Add(), [IMAGE, IMAGE, IMAGE], IMAGE),
    (Gate(), [IMAGE, Shape.of(6, (1, 1))], IMAGE),
    (Gate(), [VECTOR, VECTOR], VECTOR),
    (Concat(), [IMAGE, Shape.of(1, (8, 10)), IMAGE], Shape.of(13, (8, 10))),
    (Concat(), [VECTOR, VECTOR], Shape.of(12)),
    (Split(parts=3, index=2), [IMAGE], Shape.of(2, (8, 10))),
    (Shuffle(groups=2), [IMAGE], IMAGE),
    (Select(indices=(0, 5)), [IMAGE], Shape.of(2, (8, 10))),
    (PadChannels(stride=2), [IMAGE, Shape.of(9, (4, 5))], Shape.of(9, (4, 5))),
    (PadChannels(stride=3), [IMAGE, Shape.of(6, (3, 4))], Shape.of(6, (3, 4))),
    (PadChannels(stride=3, function="average"), [IMAGE, Shape.of(6, (2, 3))], Shape.of(6, (2, 3))),
    (Linear(width=5), [WINDOWS], Shape((4, 5), 9)),
    (Conv1d(width=8, kernel=3, stride=2, padding=1, groups=4), [TOKENS], Shape((8, 3))),
    (LayerNorm(dims=2), [WINDOWS], WINDOWS),
    (RmsNorm(), [TABLE], TABLE),
    (Reshape(sizes=(2, 12)), [TOKENS], Shape((2, 12))),
    (Reshape(sizes=(6,)), [TOKENS], Shape((6,), 4)),
    (Reshape(sizes=(3, 3, 4, 6)), [WINDOWS], Shape((3, 3, 4, 6))),
    (Reshape(sizes=(12,)), [TABLE], Shape((12,), None)),
    (Permute(order=(0, 2, 1)), [WINDOWS], Shape((6, 4), 9)),
    (Permute(order=(1, 0)), [TABLE], Shape((6, 2), None)),
    (Index(dim=1, index=3), [TOKENS], VECTOR),
    (Index(dim=0, index=1), [TABLE], Shape((6,), None)),
    (Slice(dim=2, start=1, stop=6, step=2), [WINDOWS], Shape((4, 3), 9)),
    (Join(dim=1), [TOKENS, Shape((1, 6))], Shape((5, 6))),
    (Join(dim=0), [TABLE, TABLE], Shape((4, 6), None)),
    (Spread(), [Shape((1, 3, 6), None), WINDOWS], Shape((3, 6), 9)),
    (Tile(dim=1, times=3), [TOKENS], Shape((12, 6))),
    (Roll(dim=2, shift=-1), [TOKENS], TOKENS),
    (Pad(dim=1, before=-1, after=3), [TOKENS], Shape((6, 6))),
    (Take(dim=0), [TABLE, Shape((9,), None)], Shape((9, 6), None)),
    (Arithmetic(), [TOKENS, Shape((6,), None)], TOKENS),
    (Arithmetic(), [TOKENS, Shape((), None)], TOKENS),
    (Arithmetic(), [Shape((1, 6)), Shape((1, 4, 1), None)], TOKENS),
    (Arithmetic(), [TABLE, Shape((2, 1), None)], TABLE),
    (Softmax(dim=1), [WINDOWS], WINDOWS),
    (Normalize(dim=0), [TABLE], TABLE),
    (Reduce(dims=(2, 3)), [IMAGE], VECTOR),
    (Reduce(dims=(1,), keep=True), [IMAGE], Shape.of(1, (8, 10))),
    (MatMul(), [WINDOWS, Shape((6, 5), None)], Shape((4, 5), 9)),
    (MatMul(), [Shape((2, 3, 4)), Shape((1, 4, 5))], Shape((2, 3, 5))),
    (Attention(), [Shape((2, 3, 4)), Shape((2, 5, 4)), Shape((2, 5, 6))], Shape((2, 3, 6))),
    (Attention(), [TOKENS, TOKENS, TOKENS, Shape((4, 4), None)], TOKENS),
    (Resize(size=(3, 20)), [IMAGE], Shape.of(6, (3, 20))),
    (Unfold(kernel=(3, 2), padding=(1, 0)), [IMAGE], Shape((36, 8 * 9))),
    (Fold(size=(8, 10), kernel=(3, 2), padding=(1, 0)), [Shape((36, 72))], IMAGE),
    (Parameter(sizes=(1, 4)), [], Shape((1, 4), None)),
    (Filled(sizes=(2,)), [], Shape((2,), None)),
    (Opaque(call="sort.default", arguments=SORTED, sizes=(3,)), [IMAGE], Shape((3,))),
    (
        Convolve(groups=2, stride=(2, 1)),
        [IMAGE, Shape((4, 3, 2, 3), None)],
        Shape.of(4, (4, 8)),
    ),
    (
        Convolve(depthwise=True, padding=(1, 1)),
        [IMAGE, Shape((6, 1, 3, 3), None)],
        IMAGE,
    ),
]


@pytest.mark.parametrize(("op", "inputs", "out"), SHAPES)
def test_shapes_follow_the_rule(op: AnyOp, inputs: list[Shape], out: Shape) -> None:
    assert op.shape(inputs) == out


# Of each op with tensors or products: parameters, multiply-accumulates.
COSTS: list[tuple[AnyOp, Shape, int, int]] = [
    (Conv2d(width=5, kernel=(3, 3)), IMAGE, 5 * 6 * 3 * 3, 3 * 3 * 6 * 5 * (6 * 8)),
    (Conv2d(width=5, kernel=(3, 3), bias=True), IMAGE, 5 * 6 * 9 + 5, 9 * 6 * 5 * (6 * 8)),
    (Conv2d(width=5, kernel=(1, 1), stride=(2, 2)), IMAGE, 5 * 6, 6 * 5 * (4 * 5)),
    (
        Conv2d(width=4, kernel=(3, 1), padding=(1, 0), groups=2, bias=True),
        IMAGE,
        4 * (6 // 2) * 3 + 4,
        3 * (6 // 2) * 4 * (8 * 10),
    ),
    (Depthwise2d(multiplier=2, kernel=(3, 3)), IMAGE, 12 * 9, 9 * 12 * (6 * 8)),
    (Depthwise2d(kernel=(3, 3), bias=True), IMAGE, 6 * 9 + 6, 9 * 6 * (6 * 8)),
    (Linear(width=4), VECTOR, 4 * 6 + 4, 4 * 6),
    (Linear(width=4, bias=False), VECTOR, 4 * 6, 4 * 6),
    (BatchNorm(), IMAGE, 6 + 6, 0),
    (GroupNorm(groups=3), IMAGE, 6 + 6, 0),
]


@pytest.mark.parametrize(("op", "source", "params", "macs"), COSTS)
def test_costs_are_the_arithmetic(op: AnyOp, source: Shape, params: int, macs: int) -> None:
    out = op.shape([source])
    sizes = op.parameters([source], out)
    assert sum(Shape.of(shape[0], shape[1:]).numel for shape in sizes.values()) == params
    assert op.macs([source], out) == macs


def test_tensors_have_the_shapes_and_names_of_the_framework() -> None:
    conv = Conv2d(width=4, kernel=(3, 1), groups=2, bias=True)
    assert conv.parameters([IMAGE], conv.shape([IMAGE])) == {"weight": (4, 3, 3, 1), "bias": (4,)}
    depthwise = Depthwise2d(kernel=(3, 3), multiplier=2)
    assert depthwise.parameters([IMAGE], depthwise.shape([IMAGE])) == {"weight": (12, 1, 3, 3)}
    linear = Linear(width=4)
    assert linear.parameters([VECTOR], Shape.of(4)) == {"weight": (4, 6), "bias": (4,)}


@pytest.mark.parametrize(("op", "inputs", "out"), SHAPES)
def test_ops_without_kernels_cost_nothing(op: AnyOp, inputs: list[Shape], out: Shape) -> None:
    if not isinstance(op, Conv2d | Depthwise2d | Conv1d | Linear | MatMul | Attention | Convolve):
        assert op.macs(inputs, out) == 0
    if not isinstance(op, WEIGHTED):
        assert op.parameters(inputs, out) == {}


WEIGHTED = (
    Conv2d | Depthwise2d | Conv1d | Linear | BatchNorm | GroupNorm | LayerNorm | RmsNorm | Parameter
)

UNFIT: list[tuple[AnyOp, list[Shape], str]] = [
    (Conv2d(width=4, kernel=(3, 3), groups=4), [IMAGE], "6 channels do not divide into 4"),
    (Conv2d(width=4, kernel=(9, 9)), [IMAGE], "a window of (9, 9) does not fit into (8, 10)"),
    (Conv2d(width=4, kernel=(1, 1)), [VECTOR], "an image [c h w] is needed, got [6]"),
    (Depthwise2d(kernel=(1, 1)), [VECTOR], "[c h w] is needed, got [6]"),
    (GroupNorm(groups=4), [IMAGE], "6 channels do not divide into 4"),
    (Pool2d(kernel=(9, 2), stride=(1, 1)), [IMAGE], "a window of (9, 2) does not fit"),
    (GlobalPool(), [VECTOR], "[c h w] is needed, got [6]"),
    (Add(), [IMAGE, Shape.of(5, (8, 10))], "Add needs inputs of one shape"),
    (Add(), [IMAGE, VECTOR], "Add needs inputs of one shape"),
    (Gate(), [IMAGE, Shape.of(5, (1, 1))], "Gate needs one factor a channel"),
    (Gate(), [IMAGE, IMAGE], "Gate needs one factor a channel"),
    (Gate(), [IMAGE, VECTOR], "Gate needs one factor a channel"),
    (Concat(), [IMAGE, Shape.of(6, (8, 9))], "Concat needs inputs of one size"),
    (Split(parts=4, index=0), [IMAGE], "6 channels do not split into 4"),
    (Shuffle(groups=4), [IMAGE], "6 channels do not divide into 4"),
    (Select(indices=(0, 6)), [IMAGE], "Select asks channel 6 of 6"),
    (PadChannels(), [IMAGE, Shape.of(5, (8, 10))], "PadChannels cannot bring"),
    (PadChannels(stride=2), [IMAGE, IMAGE], "with stride 2"),
    (Linear(width=4), [Shape(())], "a single number"),
    (RmsNorm(), [Shape(())], "a single number"),
    (BatchNorm(), [Shape(())], "BatchNorm needs a vector, an image or [c n]"),
    (BatchNorm(), [Shape((2, 6, 8, 10))], "got [2 6 8 10]"),
    (LayerNorm(dims=2), [VECTOR], "LayerNorm over 2 dimensions of [6]"),
    (Conv1d(width=4, kernel=3), [IMAGE], "cannot read [6 8 10]"),
    (Conv1d(width=4, kernel=3, groups=3), [TOKENS], "in 3 groups"),
    (Conv1d(width=4, kernel=9), [TOKENS], "got length"),
    (Reshape(sizes=(7,)), [VECTOR], "[6] cannot be laid out in [7]"),
    (Reshape(sizes=(3,)), [TABLE], "cannot be laid out in [3]"),
    (Permute(order=(1, 0)), [VECTOR], "cannot put [6] in the order [1, 0]"),
    (Permute(order=(0, 1, 1)), [TOKENS], "in the order [0, 1, 1]"),
    (Index(dim=1, index=6), [VECTOR], "entry 6 of dimension 1 of [6]"),
    (Index(dim=0, index=0), [VECTOR], "Index asks for dimension 0"),
    (Slice(dim=1, start=2, stop=7), [VECTOR], "Slice 2:7:1 does not fit"),
    (Slice(dim=1, start=2, stop=2), [VECTOR], "Slice 2:2:1 does not fit"),
    (Slice(dim=1, start=0, stop=2, step=0), [VECTOR], "Slice 0:2:0 does not fit"),
    (Join(dim=1), [TOKENS, Shape((4, 7))], "needs one size elsewhere"),
    (Join(dim=2), [TOKENS, VECTOR], "needs one size elsewhere"),
    (Join(dim=3), [TOKENS, TOKENS], "Join asks for dimension 3 of [4 6]"),
    (Join(dim=1), [TABLE, Shape((2,))], "needs one size elsewhere"),
    (Spread(), [TOKENS, TOKENS], "Spread cannot give [4 6] the batch of [4 6]"),
    (Spread(), [TABLE, TOKENS], "Spread cannot give [2 6] for all images"),
    (Spread(), [Shape((), None), TOKENS], "Spread cannot give [] for all images"),
    (Tile(dim=2, times=2), [VECTOR], "Tile asks for dimension 2 of [6]"),
    (Roll(dim=0, shift=1), [VECTOR], "Roll asks for dimension 0"),
    (Pad(dim=1, before=-6), [VECTOR], "Pad needs positive integers, got size=0"),
    (Take(dim=1), [VECTOR, VECTOR], "Take needs a row of indices"),
    (Arithmetic(), [VECTOR, Shape.of(5)], "Arithmetic cannot bring together [6], [5]"),
    (Arithmetic(), [VECTOR, TOKENS], "would spread the batch of [6]"),
    (Arithmetic(), [VECTOR, TABLE], "which differs by image, as one for all"),
    (Softmax(dim=0), [VECTOR], "Softmax asks for dimension 0"),
    (Normalize(dim=2), [VECTOR], "Normalize asks for dimension 2"),
    (Reduce(dims=(0, 1)), [VECTOR], "Reduce asks for dimension 0"),
    (MatMul(), [TOKENS, TOKENS], "MatMul cannot multiply [4 6] by [4 6]"),
    (MatMul(), [VECTOR, Shape((6, 2), None)], "MatMul cannot multiply [6] by [6 2]"),
    (Attention(), [TOKENS, Shape((4, 5)), TOKENS], "Attention does not fit [4 6], [4 5], [4 6]"),
    (Attention(), [TOKENS, TOKENS, Shape((5, 6))], "Attention does not fit"),
    (Attention(), [TOKENS, TOKENS, TOKENS, TOKENS], "cannot bring together [4 4], [4 6]"),
    (Attention(), [*[TOKENS] * 3, Shape((2, 1, 1))], "would spread the batch of [4 4]"),
    (Resize(size=(2, 2)), [TOKENS], "Resize needs an image, got [4 6]"),
    (Unfold(kernel=(9, 9)), [IMAGE], "a window of (9, 9) does not fit"),
    (Opaque(call="sort.default", arguments=SORTED, sizes=()), [], "is given 0 tensors"),
    (Tile(dim=1, times=10**9), [IMAGE], "is too large"),
    (Convolve(), [IMAGE, IMAGE], "Convolve needs a kernel [out in kh kw]"),
    (Convolve(), [IMAGE, Shape((4, 3, 1, 1), None)], "Convolve cannot slide a kernel"),
    (Convolve(groups=3), [IMAGE, Shape((4, 2, 1, 1), None)], "Convolve cannot slide a kernel"),
    (Convolve(depthwise=True), [IMAGE, Shape((4, 1, 1, 1), None)], "Convolve cannot slide"),
    (Fold(size=(4, 4), kernel=(2, 2)), [TOKENS], "Fold cannot make an image of (4, 4)"),
]


@pytest.mark.parametrize(("op", "inputs", "message"), UNFIT)
def test_inputs_that_do_not_fit_are_refused(op: AnyOp, inputs: list[Shape], message: str) -> None:
    with pytest.raises(ShapeError, match=re.escape(message)):
        op.shape(inputs)


UNMAKEABLE: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
    (Input, {"width": 0}, "Input needs positive integers, got width=0"),
    (Input, {"width": 3, "spatial": (4,)}, "got spatial=(4,)"),
    (Input, {"width": 3, "spatial": (4, 0)}, "got spatial=(4, 0)"),
    (Conv2d, {"width": 0, "kernel": (0, 1), "stride": (1, -1)}, "width=0, kernel=(0, 1), stride"),
    (Conv2d, {"width": 4, "kernel": (1, 1), "padding": (0, -1)}, "from 0 on, got (0, -1)"),
    (Conv2d, {"width": 4, "kernel": (1, 1), "groups": 3}, "of 3 groups cannot have width 4"),
    (
        Conv2d,
        {"width": 4, "kernel": (3, 3), "sparsity": KernelSparsity(density=(0.5,))},
        "a (3, 3) kernel needs 9 densities, got 1",
    ),
    (KernelSparsity, {"density": ()}, "got ()"),
    (KernelSparsity, {"density": (0.0, 0.0)}, "one is not 0, got (0.0, 0.0)"),
    (KernelSparsity, {"density": (0.5, 1.5)}, "densities lie in [0, 1]"),
    (KernelSparsity, {"density": (float("nan"),)}, "densities lie in [0, 1]"),
    (Depthwise2d, {"multiplier": 0, "kernel": (3, 3)}, "got multiplier=0"),
    (Depthwise2d, {"kernel": (3, 3), "padding": (-1, 0)}, "from 0 on, got (-1, 0)"),
    (Linear, {"width": -2}, "got width=-2"),
    (GroupNorm, {"groups": 0}, "got groups=0"),
    (Activation, {"function": "swoosh"}, "unknown activation 'swoosh'; known: relu, relu6"),
    (Dropout, {"p": 1.5}, "a probability in [0, 1], got 1.5"),
    (DropPath, {"p": float("nan")}, "a probability in [0, 1], got nan"),
    (Pool2d, {"kernel": (2, 2), "stride": (0, 1)}, "got stride=(0, 1)"),
    (Pool2d, {"kernel": (2, 2), "stride": (1, 1), "padding": (0, 2)}, "half its kernel (1, 1)"),
    (GlobalPool, {"size": (0, 1)}, "got size=(0, 1)"),
    (Split, {"parts": 0, "index": 0}, "got parts=0"),
    (Split, {"parts": 2, "index": 2}, "Split into 2 parts has no part 2"),
    (Split, {"parts": 2, "index": -1}, "Split into 2 parts has no part -1"),
    (Shuffle, {"groups": 0}, "got groups=0"),
    (Select, {"indices": ()}, "got ()"),
    (Select, {"indices": (1, 0)}, "ascending indices from 0 on, got (1, 0)"),
    (Select, {"indices": (1, 1)}, "got (1, 1)"),
    (Select, {"indices": (-1, 0)}, "got (-1, 0)"),
    (PadChannels, {"stride": 0}, "got stride=0"),
    (Reshape, {"sizes": (2, 0)}, "got sizes=(2, 0)"),
    (Tile, {"dim": 1, "times": 0}, "got times=0"),
    (Parameter, {"sizes": (-1,)}, "got sizes=(-1,)"),
    (Filled, {"sizes": (0,)}, "got sizes=(0,)"),
    (Conv1d, {"width": 0, "kernel": 1}, "got width=0"),
    (Resize, {"size": (0, 1)}, "got size=(0, 1)"),
    (Unfold, {"kernel": (0, 1)}, "got kernel=(0, 1)"),
    (Fold, {"size": (4, 4), "kernel": (1, 1), "padding": (-1, 0)}, "from 0 on"),
    (Constant, {"sizes": (2,), "data": Constant.packed(bytes(4))}, "of [2] needs 8 bytes"),
    (Constant, {"sizes": (2,), "data": "?"}, "the data of a Constant is damaged"),
    (Constant, {"sizes": (1 << 25,), "data": ""}, "is too large"),
    (Filled, {"sizes": (10**6, 10**6)}, "a Filled of [1000000, 1000000] is too large"),
    (Parameter, {"sizes": (10**6, 10**6)}, "a Parameter of [1000000, 1000000] is too large"),
    (Opaque, {"call": "os.system('x')", "arguments": "[[],{}]", "sizes": ()}, "name of an aten op"),
    (Opaque, {"call": "sort.default", "arguments": "[", "sizes": ()}, "cannot be read"),
]


@pytest.mark.parametrize(("op", "fields", "message"), UNMAKEABLE)
def test_values_that_mean_nothing_are_refused_at_birth(
    op: Callable[..., Any], fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ShapeError, match=re.escape(message)):
        op(**fields)


def test_a_selection_is_as_wide_as_its_indices_are_many() -> None:
    assert Select(indices=(1, 4, 5)).width == 3


SIZES = st.lists(st.integers(1, 4), max_size=5).map(tuple)


@given(graphs(), st.lists(st.builds(Shape, SIZES, st.sampled_from([1, 2, None])), min_size=4))
def test_any_input_fits_or_is_refused(graph: Graph, shapes: list[Shape]) -> None:
    for node in graph.nodes:
        inputs = shapes[: len(node.inputs)]
        try:
            out = node.op.shape(inputs)
        except ShapeError:
            continue
        unifier = Unifier()
        axes = [tuple(unifier.fresh(size, "x") for size in shape.sizes) for shape in inputs]
        found = node.op.axes(axes, inputs, out, unifier, node.name)
        assert tuple(map(unifier.width, found)) == out.sizes
        assert node.op.macs(inputs, out) >= 0
        assert all(min(sizes, default=1) > 0 for sizes in node.op.parameters(inputs, out).values())


def test_ops_are_compared_by_value() -> None:
    assert Conv2d(width=4, kernel=(3, 3)) == Conv2d(width=4, kernel=(3, 3), stride=(1, 1))
    assert len({Dropout(), Dropout(p=0.5), DropPath(p=0.5)}) == 2
