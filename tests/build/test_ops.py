"""Every op: its module against an expression of its own, and its rules against what torch does."""

from typing import get_args

import pytest
import torch
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from prunenas.build.modules import make_module
from prunenas.errors import GraphError
from prunenas.ir import ops
from prunenas.ir.shape import Shape
from tests.build.examples import EXAMPLES, HEADS, TOKENS, Example, constant, opaque, sizes

READING = [example for example in EXAMPLES if not isinstance(example.op, ops.Input)]
ONE_OF_EACH = {type(e.op): e for e in READING if e.batched}.values()


def test_every_op_has_an_example():
    assert {type(example.op) for example in EXAMPLES} == {*get_args(ops.AnyOp)}


@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.expected], ids=str)
def test_a_module_computes_what_its_op_says(example):
    module, values = example.module(), example.values(3)
    with torch.no_grad():
        assert_close(module(*values), example.expected(module, *values))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("example", READING, ids=str)
def test_stated_shapes_are_the_shapes_that_run(example, batch):
    out = example.module()(*example.values(batch))
    assert out.shape == sizes(example.out, batch)
    if batch == 1:
        assert out.shape == example.out.sizes


@pytest.mark.parametrize("example", READING, ids=str)
def test_stated_parameters_are_the_modules(example):
    shapes = {name: tuple(p.shape) for name, p in example.module().named_parameters()}
    assert shapes == example.op.parameters(example.inputs, example.out)


@pytest.mark.parametrize("example", READING, ids=str)
def test_stated_costs_are_what_torch_counts(example):
    module, values = example.module(), example.values(1)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*values)
    # The counter counts a multiply-accumulate as two.
    assert counter.get_total_flops() == 2 * example.op.macs(example.inputs, example.out)


@pytest.mark.parametrize("example", ONE_OF_EACH, ids=str)
def test_images_do_not_see_one_another(example):
    """A batch is its images one after another, each with ``lead`` entries."""
    module, values = example.module(), example.values(3)
    each = [
        module(
            *(
                value if shape.lead is None else value.view(3, -1, *shape.dims)[i]
                for value, shape in zip(values, example.inputs, strict=True)
            )
        )
        for i in range(3)
    ]
    assert_close(module(*values), torch.cat(each))


@pytest.mark.parametrize("example", [e for e in READING if isinstance(e.op, ops.Affine)], ids=str)
def test_an_affine_op_does_no_needless_work(example):
    x = example.values(1)[0]
    assert (example.module()(x) is x) == (example.op == ops.Affine())


@pytest.mark.parametrize(
    ("op", "inputs"),
    [
        (ops.Tile(dim=1, times=5), (Shape((1, 6)),)),
        (ops.Spread(), (Shape((1, 6), None), TOKENS)),
        (ops.Slice(dim=1, start=1, stop=3), (TOKENS,)),
        (ops.Index(dim=1, index=2), (TOKENS,)),
        (ops.Permute(order=(0, 2, 1)), (TOKENS,)),
        (ops.Reshape(sizes=(24,)), (TOKENS,)),
    ],
)
def test_what_need_not_be_copied_is_not(op, inputs):
    example = Example(op, inputs)
    values = example.values(3)
    shared = example.module()(*values).untyped_storage()
    assert shared.data_ptr() == values[0].untyped_storage().data_ptr()


def test_attention_drops_weights_while_training_only():
    torch.manual_seed(0)
    example = Example(ops.Attention(dropout=0.5), (HEADS, HEADS, HEADS))
    module, values = example.module(), example.values(2)
    assert torch.equal(module(*values), module(*values))
    module.train()
    assert not torch.equal(module(*values), module(*values))
    sure = Example(ops.Attention(), example.inputs).module().train()
    assert_close(sure(*values), module.eval()(*values))


def test_a_boolean_mask_says_which_keys_are_seen():
    seen = torch.tensor([True, False, True, False]).expand(4, 4)
    example = Example(ops.Attention(), (HEADS, HEADS, HEADS, Shape((4, 4), None)))
    query, key, value, _ = example.values(2)
    few = example.module()(query, key[:, :, ::2], value[:, :, ::2])
    assert_close(example.module()(query, key, value, seen), few)


def test_the_gradient_reaches_a_bias_of_attention():
    example = Example(ops.Attention(), (HEADS, HEADS, HEADS, Shape((1, 2, 4, 4), None)))
    *values, bias = example.values(2)
    example.module()(*values, bias.requires_grad_()).square().sum().backward()
    assert bias.grad.isfinite().all()
    assert bias.grad.any()


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool"])
def test_a_constant_is_read_as_its_type(dtype):
    array = torch.tensor([[3, 0], [-1, 7]]).numpy().astype(dtype)
    op = constant(array)
    value = make_module(op, [], op.shape([]))()
    assert value.dtype == getattr(torch, dtype)
    assert value.tolist() == array.tolist()


@pytest.mark.parametrize(
    "call",
    [
        "save.default",
        "from_file.default",
        "relu_.default",
        "add.out",
        "manual_seed.default",
        "set_grad_enabled.default",
        "__class__.mro",
        "add._op",
        "nowhere.default",
    ],
)
def test_a_frozen_call_does_nothing_but_return_tensors(call):
    """A spec may come from anyone, and these are all within reach of a name."""
    with pytest.raises(GraphError, match=call):
        Example(opaque(call, TOKENS, {"tensor": 0}), (TOKENS,)).module()
