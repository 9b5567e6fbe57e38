"""Frozen calls and stored tensors of specs that nobody vouches for."""

import pytest
import torch

from prunenas.build.modules import AtenCall, ConstantTensor
from prunenas.build.modules.opaque import aten
from prunenas.errors import GraphError
from prunenas.ir.ops import Filled, Opaque

X, STATE, WEIGHT = ({"tensor": i} for i in range(3))


def frozen(call, arguments, sizes, **fields):
    return AtenCall(
        Opaque(call=call, arguments=Opaque.text([arguments, {}]), sizes=sizes, **fields)
    )


@pytest.mark.parametrize(
    "call",
    [
        *("_sparse_coo_tensor_unsafe.default", "empty_strided.default", "empty.memory_format"),
        *("from_file.default", "rand.default", "as_strided.default", "copy_.default"),
        "max_pool2d_with_indices_backward.default",
    ],
)
def test_only_known_calls_are_made(call):
    with pytest.raises(GraphError, match=r"is never called|has no aten op"):
        aten(call)


@pytest.mark.parametrize(
    "call",
    ["cumsum.default", "lstm.input", "conv_transpose2d.input", "where.self", "prelu.default"],
)
def test_calls_of_networks_are_made(call):
    assert str(aten(call)) == f"aten.{call}"


def test_a_call_returns_the_sizes_that_were_said():
    with pytest.raises(GraphError, match=r"is said to return \[5\], it returns \[3\]"):
        frozen("cumsum.default", [X, 1], (5,))(torch.ones(2, 3))


def test_a_call_that_would_be_too_large_takes_no_memory():
    with pytest.raises(GraphError, match="is said to return"):
        frozen("repeat.default", [X, [10**6, 10**6]], (3,))(torch.ones(2, 3))


def test_weights_of_wrong_sizes_are_not_read_beyond_their_end():
    call = frozen(
        "lstm.input",
        [X, [STATE, STATE], [WEIGHT, WEIGHT], False, 1, 0.0, False, False, False],
        (3, 64),
        item=0,
    )
    with torch.no_grad(), pytest.raises(RuntimeError, match="same reduction dim"):
        call(torch.ones(5, 3, 4), torch.zeros(1, 3, 64), torch.ones(2, 2))


def test_a_constant_takes_no_memory_on_the_meta_device():
    with torch.device("meta"):
        assert ConstantTensor(Filled(sizes=(2, 3))).value.is_meta
