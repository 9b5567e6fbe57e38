"""Stored tensors and frozen calls are written so that the exported network gives our bits."""

import ast

import numpy as np
import pytest

from prunenas.build.initialise import build
from prunenas.errors import GraphError
from prunenas.ir.graph import Graph
from prunenas.ir.ops import (
    Add,
    Arithmetic,
    Constant,
    Filled,
    Join,
    Linear,
    Opaque,
    Parameter,
    Reduce,
    Reshape,
    Slice,
    Spread,
    Take,
)
from prunenas.ir.writer import GraphWriter
from tests.export.source import assert_same_function, networks, source_of


def constant(values: object, dtype: str) -> Constant:
    array = np.array(values, dtype=dtype)
    return Constant(sizes=array.shape, dtype=dtype, data=Constant.packed(array.tobytes()))


@pytest.mark.parametrize("start", ["normal", "ones", "zeros"])
def test_a_trained_tensor_starts_as_told(start):
    net = GraphWriter((4, 6, 6))
    shift = net.add("shift", Parameter(sizes=(40, 6, 6), start=start))
    shift = net.add("first", Slice(dim=0, start=3, stop=7), shift)
    graph = net.finish(net.add("sum", Arithmetic(), net.input, shift))
    (kind,) = networks(source_of(graph))
    value, ours = kind().shift.value.detach(), build(graph).state_dict()["shift.value"]
    assert value.std().item() == pytest.approx(ours.std().item(), rel=0.1)
    assert value.mean().item() == pytest.approx(ours.mean().item(), abs=0.01)
    assert_same_function(graph, counts=(1, 3))


def test_trained_tensors_can_be_shared_and_single_numbers():
    net = GraphWriter((4, 6, 6))
    one = net.add("one", Parameter(sizes=(), start="ones"))
    x = net.add("times", Arithmetic(function="multiply"), net.input, one)
    two = net.add("two", Parameter(sizes=(), start="ones"))
    graph = net.finish(net.add("again", Arithmetic(function="divide"), x, two))
    nodes = [*graph.nodes]
    place = next(i for i, node in enumerate(nodes) if node.name == "two")
    nodes[place] = type(nodes[place])(name="two", op=nodes[place].op, weights="one")
    shared = Graph(nodes=tuple(nodes), output=graph.output)
    assert assert_same_function(shared).state_dict().keys() == {"one.value"}
    assert assert_same_function(graph).state_dict().keys() == {"one.value", "two.value"}


def test_a_token_is_put_before_the_others():
    net = GraphWriter((4, 6, 6))
    token = net.add("token", Parameter(sizes=(1, 1, 36)))
    x = net.add("tokens", Reshape(sizes=(4, 36)), net.input)
    token = net.add("spread", Spread(), token, x)
    graph = net.finish(net.add("join", Join(dim=1), token, x))
    source = source_of(graph)
    assert "self.token().expand(x.shape[0], -1, -1)" in source
    assert_same_function(graph, source=source, counts=(1, 3))


INDICES = [5, 0, 0, 3, 2, 1, 4, 4] * 4


@pytest.mark.parametrize(
    ("indices", "text"),
    [
        ([2, 0, 2], "ConstantTensor(torch.tensor([2, 0, 2]))"),
        ([0, 1, 2], "ConstantTensor(torch.arange(3))"),
        ([4, 4, 4], "ConstantTensor(torch.full((3,), 4))"),
        (INDICES, 'ConstantTensor(stored("indices"))'),
    ],
)
def test_entries_are_taken_by_number(indices, text):
    net = GraphWriter((4, 6, 6))
    chosen = net.add("indices", constant(indices, "int64"))
    graph = net.finish(net.add("take", Take(dim=2), net.input, chosen))
    source = source_of(graph)
    assert text in source
    assert "x.index_select(2, self.indices())" in source
    theirs = assert_same_function(graph, source=source, counts=(1, 3))
    assert theirs.indices.value.tolist() == indices
    assert not theirs.state_dict()


ODD = np.random.default_rng(0).normal(size=(7, 6, 6)).astype("float32")


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (0.1, "float32"),
        ([1.0, float("inf"), float("-inf"), 0.0, -0.0, 1e-45], "float32"),
        ([float("nan")], "float32"),
        ([0.0, -0.0], "float32"),
        (ODD[0, :2, :2], "float32"),
        (ODD, "float32"),
        (np.zeros((7, 6, 6)), "float32"),
        ([[True, False]], "bool"),
        (ODD > 0, "bool"),
        (-(2**63), "int64"),
        (np.arange(200)[::-1], "int64"),
    ],
)
def test_constants_keep_every_bit(values, dtype):
    net = GraphWriter((1, 2, 2))
    x = net.add("held", constant(values, dtype))
    x = net.add("flat", Reshape(sizes=(net.shape(x).numel,)), x)
    x = net.add("sum", Reduce(function="max", dims=(0,)), x)
    graph = net.finish(net.add("mixed", Arithmetic(function="maximum"), net.input, x))
    (kind,) = networks(source_of(graph))
    value = kind().held.value.numpy()
    assert value.dtype == dtype
    assert value.shape == np.shape(values)
    assert value.tobytes() == np.array(values, dtype=dtype).tobytes()


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ((), "torch.tensor(0.5)"),
        ((6,), "torch.full((6,), 0.5)"),
        ((4, 1, 6), "torch.full((4, 1, 6), 0.5)"),
    ],
)
def test_one_number_all_over(sizes, text):
    net = GraphWriter((4, 6, 6))
    number = net.add("number", Filled(sizes=sizes, value=0.5))
    graph = net.finish(net.add("product", Arithmetic(function="multiply"), net.input, number))
    source = source_of(graph)
    assert f"self.number = ConstantTensor({text})" in source
    assert_same_function(graph, source=source, counts=(1, 3))


def test_each_block_has_a_constant_of_its_own():
    net = GraphWriter((4, 6, 6))
    shared = net.add("a.0.chosen", constant(INDICES[:6], "int64"))
    x = net.input
    for number in range(3):
        with net.scope(f"a.{number}"):
            y = net.add("take", Take(dim=3), x, shared)
            x = net.add("add", Add(), x, net.add("fc", Linear(width=6), y))
    graph = net.finish(x)
    source = source_of(graph)
    assert source.count("ConstantTensor(") == 2
    assert source.count("ResidualBlock(6)") == 3
    assert_same_function(graph, source=source, counts=(1, 3))


def test_equal_constants_are_stored_once():
    net = GraphWriter((4, 6, 6))
    x = net.input
    for name in ("a", "b"):
        numbers = net.add(f"{name}.indices", constant(INDICES[:32], "int64"))
        x = net.add(f"{name}.take", Take(dim=2), x, numbers)
        x = net.add(f"{name}.cut", Slice(dim=2, start=0, stop=6), x)
    graph = net.finish(x)
    source = source_of(graph)
    assert source.count('stored("a.indices")') == 2
    assert source.count("torch.int64") == 1
    assert_same_function(graph, source=source, counts=(1, 3))


def opaque(call: str, positional: list[object], sizes: tuple[int, ...], **told: object) -> Opaque:
    named = {key: told.pop(key) for key in [*told] if key not in ("item", "lead")}
    return Opaque(call=call, arguments=Opaque.text([positional, named]), sizes=sizes, **told)


X = {"tensor": 0}


def frozen(op: Opaque) -> Graph:
    net = GraphWriter((4, 6, 6))
    return net.finish(net.add("call", op, net.input))


@pytest.mark.parametrize(
    ("op", "text"),
    [
        (opaque("cumsum.default", [X, 1], (4, 6, 6)), "torch.ops.aten.cumsum.default(x, 1)"),
        (
            opaque("topk.default", [X, 2], (4, 6, 2), item=1, sorted=True),
            "torch.ops.aten.topk.default(x, 2, sorted=True)[1]",
        ),
        (opaque("stack.default", [[X, X], 1], (2, 4, 6, 6)), "aten.stack.default([x, x], 1)"),
        (opaque("einsum.default", ["bcij,bcji->bc", [X, X]], (4,)), '"bcij,bcji->bc", [x, x]'),
        (opaque("clamp.default", [X, None, 0.5], (4, 6, 6)), "clamp.default(x, None, 0.5)"),
    ],
    ids=lambda value: getattr(value, "call", ""),
)
def test_a_frozen_call_is_repeated(op, text):
    source = source_of(frozen(op))
    assert text in source
    assert_same_function(frozen(op), source=source, counts=(1, 3))


def test_the_text_of_a_frozen_call_is_harmless():
    odd = '"} {0} (\\\n\u00e9 ' + "'"
    source = source_of(frozen(opaque("einsum.default", [odd, [X]], (4, 6, 6))))
    (call,) = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "{0}" in node.value
    ]
    assert call.value == odd


@pytest.mark.parametrize(
    "op",
    [
        opaque("random.from", [X], (4, 6, 6)),
        opaque("sum.default", [X], (4, 6, 6), **{"dim=0); import os; (": 1}),
    ],
)
def test_a_call_that_python_cannot_spell_is_refused(op):
    with pytest.raises(GraphError, match=r"cannot be written as Python|is never called"):
        source_of(frozen(op))
