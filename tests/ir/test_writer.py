"""The writer adds what is asked, under the name that is asked."""

import pytest

from prunenas.errors import GraphError, ShapeError
from prunenas.ir.graph import Init
from prunenas.ir.ops import (
    Activation,
    Add,
    BatchNorm,
    Concat,
    Conv2d,
    Depthwise2d,
    Dropout,
    Flatten,
    GlobalPool,
    Input,
    Linear,
    PadChannels,
    Pool2d,
    Select,
)
from prunenas.ir.shape import Shape
from prunenas.ir.writer import GraphWriter


def test_each_method_adds_one_op_with_its_defaults() -> None:
    net = GraphWriter((3, 8, 8))
    conv = net.conv("conv", net.input, 4, kernel=3)
    wide = net.conv("wide", conv, 6, kernel=5, stride=2, padding=1, groups=2, bias=True)
    ops = {
        net.input: Input(width=3, spatial=(8, 8)),
        conv: Conv2d(width=4, kernel=(3, 3), padding=(1, 1)),
        wide: Conv2d(width=6, kernel=(5, 5), stride=(2, 2), padding=(1, 1), groups=2, bias=True),
        net.depthwise("dw", conv, kernel=5, stride=2): Depthwise2d(
            kernel=(5, 5), stride=(2, 2), padding=(2, 2)
        ),
        net.batch_norm("bn", conv): BatchNorm(),
        net.activation("silu", conv, "silu"): Activation(function="silu"),
        net.relu("relu", conv): Activation(function="relu"),
        net.dropout("dropout", conv, 0.2): Dropout(p=0.2),
        net.max_pool("max", conv, kernel=3, stride=2, padding=1): Pool2d(
            kernel=(3, 3), stride=(2, 2), padding=(1, 1)
        ),
        net.average_pool("mean", conv, kernel=2): Pool2d(
            function="average", kernel=(2, 2), stride=(2, 2)
        ),
        net.global_pool("pool", conv): GlobalPool(),
        net.join("add", conv, conv): Add(),
        net.concat("concat", conv, conv): Concat(),
        net.select_all("select", conv): Select(indices=(0, 1, 2, 3)),
        net.pad_channels("pad", net.input, conv, stride=1, detach=True): PadChannels(detach=True),
    }
    graphs = {name: net.finish(name) for name in ops}
    assert {name: graph[name].op for name, graph in graphs.items()} == ops


def test_names_are_given_below_the_scope() -> None:
    net = GraphWriter((3, 8, 8))
    with net.scope("layer1"), net.scope("0"):
        inner = net.conv("conv", net.input, 4, kernel=1)
    outer = net.relu("relu", inner)
    assert (inner, outer) == ("layer1.0.conv", "relu")


def test_a_scope_is_left_even_after_an_error() -> None:
    net = GraphWriter((3, 8, 8))
    with pytest.raises(ShapeError), net.scope("layer1"):
        net.conv("conv", net.input, 0, kernel=1)
    assert net.relu("relu", net.input) == "relu"


def test_an_image_is_flattened_before_a_linear_layer_and_a_vector_is_not() -> None:
    net = GraphWriter((3, 2, 2))
    graph = net.finish(net.linear("fc2", net.linear("fc1", net.input, 5), 2, bias=False))
    assert [(n.name, n.op) for n in graph.nodes[1:]] == [
        ("fc1_flatten", Flatten()),
        ("fc1", Linear(width=5)),
        ("fc2", Linear(width=2, bias=False)),
    ]


def test_shapes_are_known_while_writing() -> None:
    net = GraphWriter((3, 8, 6))
    assert net.shape(net.conv("conv", net.input, 4, kernel=3, stride=2)) == Shape.of(4, (4, 3))


def test_a_shape_that_does_not_fit_is_told_at_once() -> None:
    net = GraphWriter((3, 8, 8))
    with pytest.raises(ShapeError, match="Add needs inputs of one shape"):
        net.join("add", net.input, net.conv("conv", net.input, 4, kernel=3))


def test_a_source_that_was_never_written_is_told() -> None:
    net = GraphWriter((3, 8, 8))
    for method in (net.relu, net.select_all):
        with pytest.raises(GraphError, match="no value 'conv' has been written yet"):
            method("name", "conv")


def test_what_the_output_does_not_need_is_left_out() -> None:
    net = GraphWriter((3, 8, 8))
    conv = net.conv("conv", net.input, 4, kernel=3)
    net.relu("unused", conv)
    graph = net.finish(conv)
    assert [node.name for node in graph.nodes] == ["input", "conv"]
    assert graph.output == "conv"


def test_one_writer_may_finish_twice() -> None:
    net = GraphWriter((3, 8, 8))
    conv = net.conv("conv", net.input, 4, kernel=3)
    short = net.finish(conv)
    assert net.finish(net.relu("relu", conv)) != short
    assert net.finish(conv) == short


def test_a_name_given_twice_is_refused() -> None:
    net = GraphWriter((3, 8, 8))
    x = net.relu("relu", net.relu("relu", net.input))
    with pytest.raises(GraphError, match="'relu' occurs 2 times"):
        net.finish(x)


def test_the_init_is_kept() -> None:
    net = GraphWriter((3, 8, 8))
    assert net.finish(net.input).init == Init()
    assert net.finish(net.input, Init(conv="torch", scale=0.5)).init.scale == 0.5
