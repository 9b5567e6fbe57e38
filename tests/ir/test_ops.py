"""Shape rules, costs and errors of each op, with the answers written as arithmetic."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from prunenas.errors import ShapeError
from prunenas.ir.ops import (
    Activation,
    Add,
    AnyOp,
    BatchNorm,
    Concat,
    Conv2d,
    Depthwise2d,
    Dropout,
    DropPath,
    Flatten,
    Gate,
    GlobalPool,
    GroupNorm,
    Input,
    KernelSparsity,
    Linear,
    PadChannels,
    Pool2d,
    Select,
    Shuffle,
    Split,
)
from prunenas.ir.shape import Shape

IMAGE = Shape(6, (8, 10))
VECTOR = Shape(6)

SHAPES: list[tuple[AnyOp, list[Shape], Shape]] = [
    (Input(width=3, spatial=(8, 10)), [], Shape(3, (8, 10))),
    (Input(width=3), [], Shape(3)),
    (Conv2d(width=5, kernel=(3, 3)), [IMAGE], Shape(5, (6, 8))),
    (
        Conv2d(width=4, kernel=(3, 1), stride=(2, 1), padding=(1, 0), groups=2),
        [IMAGE],
        Shape(4, (4, 10)),
    ),
    (Conv2d(width=5, kernel=(3, 3), dilation=(2, 3)), [IMAGE], Shape(5, (4, 4))),
    (Depthwise2d(multiplier=2, kernel=(3, 3), padding=(1, 1)), [IMAGE], Shape(12, (8, 10))),
    (Linear(width=4), [VECTOR], Shape(4)),
    (BatchNorm(), [IMAGE], IMAGE),
    (BatchNorm(), [VECTOR], VECTOR),
    (GroupNorm(groups=3), [IMAGE], IMAGE),
    (Activation(function="gelu"), [VECTOR], VECTOR),
    (Dropout(p=0.1), [VECTOR], VECTOR),
    (DropPath(p=0.1), [IMAGE], IMAGE),
    (Pool2d(kernel=(3, 3), stride=(3, 3)), [IMAGE], Shape(6, (2, 3))),
    (Pool2d(kernel=(3, 3), stride=(3, 3), ceil_mode=True), [IMAGE], Shape(6, (3, 4))),
    (GlobalPool(), [IMAGE], Shape(6, (1, 1))),
    (GlobalPool(size=(2, 3)), [IMAGE], Shape(6, (2, 3))),
    (Flatten(), [IMAGE], Shape(6 * 8 * 10)),
    (Add(), [IMAGE, IMAGE, IMAGE], IMAGE),
    (Gate(), [IMAGE, Shape(6, (1, 1))], IMAGE),
    (Gate(), [VECTOR, VECTOR], VECTOR),
    (Concat(), [IMAGE, Shape(1, (8, 10)), IMAGE], Shape(13, (8, 10))),
    (Concat(), [VECTOR, VECTOR], Shape(12)),
    (Split(parts=3, index=2), [IMAGE], Shape(2, (8, 10))),
    (Shuffle(groups=2), [IMAGE], IMAGE),
    (Select(indices=(0, 5)), [IMAGE], Shape(2, (8, 10))),
    (PadChannels(stride=2), [IMAGE, Shape(9, (4, 5))], Shape(9, (4, 5))),
    (PadChannels(stride=3), [IMAGE, Shape(6, (3, 4))], Shape(6, (3, 4))),
    (PadChannels(stride=3, function="average"), [IMAGE, Shape(6, (2, 3))], Shape(6, (2, 3))),
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
    assert sum(Shape(shape[0], shape[1:]).numel for shape in sizes.values()) == params
    assert op.macs([source], out) == macs


def test_tensors_have_the_shapes_and_names_of_the_framework() -> None:
    conv = Conv2d(width=4, kernel=(3, 1), groups=2, bias=True)
    assert conv.parameters([IMAGE], conv.shape([IMAGE])) == {"weight": (4, 3, 3, 1), "bias": (4,)}
    depthwise = Depthwise2d(kernel=(3, 3), multiplier=2)
    assert depthwise.parameters([IMAGE], depthwise.shape([IMAGE])) == {"weight": (12, 1, 3, 3)}
    linear = Linear(width=4)
    assert linear.parameters([VECTOR], Shape(4)) == {"weight": (4, 6), "bias": (4,)}


@pytest.mark.parametrize(("op", "inputs", "out"), SHAPES)
def test_ops_without_kernels_cost_nothing(op: AnyOp, inputs: list[Shape], out: Shape) -> None:
    if not isinstance(op, Conv2d | Depthwise2d | Linear):
        assert op.macs(inputs, out) == 0
    if not isinstance(op, Conv2d | Depthwise2d | Linear | BatchNorm | GroupNorm):
        assert op.parameters(inputs, out) == {}


UNFIT: list[tuple[AnyOp, list[Shape], str]] = [
    (Conv2d(width=4, kernel=(3, 3), groups=4), [IMAGE], "6 channels do not divide into 4"),
    (Conv2d(width=4, kernel=(9, 9)), [IMAGE], "a window of (9, 9) does not fit into (8, 10)"),
    (Conv2d(width=4, kernel=(1, 1)), [VECTOR], "an image [c h w] is needed, got a vector of 6"),
    (Depthwise2d(kernel=(1, 1)), [VECTOR], "got a vector of 6"),
    (Linear(width=4), [IMAGE], "flatten it first"),
    (GroupNorm(groups=4), [IMAGE], "6 channels do not divide into 4"),
    (Pool2d(kernel=(9, 2), stride=(1, 1)), [IMAGE], "a window of (9, 2) does not fit"),
    (GlobalPool(), [VECTOR], "got a vector of 6"),
    (Add(), [IMAGE, Shape(5, (8, 10))], "Add needs inputs of one shape"),
    (Add(), [IMAGE, VECTOR], "Add needs inputs of one shape"),
    (Gate(), [IMAGE, Shape(5, (1, 1))], "Gate needs one factor a channel"),
    (Gate(), [IMAGE, IMAGE], "Gate needs one factor a channel"),
    (Gate(), [IMAGE, VECTOR], "Gate needs one factor a channel"),
    (Concat(), [IMAGE, Shape(6, (8, 9))], "Concat needs inputs of one size"),
    (Split(parts=4, index=0), [IMAGE], "6 channels do not split into 4"),
    (Shuffle(groups=4), [IMAGE], "6 channels do not divide into 4"),
    (Select(indices=(0, 6)), [IMAGE], "Select asks channel 6 of 6"),
    (PadChannels(), [IMAGE, Shape(5, (8, 10))], "PadChannels cannot bring"),
    (PadChannels(stride=2), [IMAGE, IMAGE], "with stride 2"),
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
]


@pytest.mark.parametrize(("op", "fields", "message"), UNMAKEABLE)
def test_values_that_mean_nothing_are_refused_at_birth(
    op: Callable[..., Any], fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ShapeError, match=re.escape(message)):
        op(**fields)


def test_a_selection_is_as_wide_as_its_indices_are_many() -> None:
    assert Select(indices=(1, 4, 5)).width == 3


def test_ops_are_compared_by_value() -> None:
    assert Conv2d(width=4, kernel=(3, 3)) == Conv2d(width=4, kernel=(3, 3), stride=(1, 1))
    assert len({Dropout(), Dropout(p=0.5), DropPath(p=0.5)}) == 2
