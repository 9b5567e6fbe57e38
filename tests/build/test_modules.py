"""Modules whose rule is our own; torch's are taken at their word."""

from typing import get_args

import pytest
import torch
from torch.testing import assert_close

from prunenas.build.modules import ACTIVATIONS, MODULES, make_module
from prunenas.ir import ops
from prunenas.ir.ops.plain import ActivationName
from prunenas.ir.shape import Shape


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_every_op_and_every_activation_has_a_module():
    assert {*MODULES} == {*get_args(ops.AnyOp)}
    assert {*ACTIVATIONS} == {*get_args(ActivationName)}


def pad(**options):
    op = ops.PadChannels(stride=2, **options)
    return make_module(op, [Shape.of(2, (4, 6)), Shape.of(5, (2, 3))], Shape.of(5, (2, 3)))


def test_a_padded_shortcut_subsamples_and_appends_zeros():
    x = drawn(3, 2, 4, 6)
    out = pad()(x, torch.zeros(3, 5, 2, 3))
    assert torch.equal(out[:, :2], x[:, :, ::2, ::2])
    assert not out[:, 2:].any()
    assert out.shape == (3, 5, 2, 3)


def test_a_padded_shortcut_may_average_instead():
    x = drawn(3, 2, 4, 6)
    out = pad(function="average")(x, torch.zeros(3, 5, 2, 3))
    assert_close(out[:, :2], x.view(3, 2, 2, 2, 3, 2).mean(dim=(3, 5)))
    assert not out[:, 2:].any()


@pytest.mark.parametrize("function", ["subsample", "average"])
def test_the_gradient_flows_through_a_padded_shortcut(function):
    x = drawn(3, 2, 4, 6).requires_grad_()
    pad(function=function)(x, torch.zeros(3, 5, 2, 3)).sum().backward()
    expected = torch.zeros(4, 6)
    expected[::2, ::2] = 1
    expected = expected if function == "subsample" else torch.full((4, 6), 0.25)
    assert_close(x.grad, expected.expand(3, 2, 4, 6))


@pytest.mark.parametrize("function", ["subsample", "average"])
def test_a_detached_shortcut_lets_no_gradient_through_and_is_the_same_function(function):
    x = drawn(3, 2, 4, 6).requires_grad_()
    like = torch.zeros(3, 5, 2, 3)
    out = pad(function=function, detach=True)(x, like)
    assert not out.requires_grad
    assert torch.equal(out, pad(function=function)(x, like))


def test_a_shuffle_interleaves_its_groups():
    module = make_module(ops.Shuffle(groups=2), [Shape.of(6, (1, 1))], Shape.of(6, (1, 1)))
    channels = torch.arange(6.0).view(1, 6, 1, 1)
    assert module(channels).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    last = channels.to(memory_format=torch.channels_last)
    assert module(last).flatten().tolist() == [0, 3, 1, 4, 2, 5]


def test_a_split_returns_its_part():
    part = make_module(ops.Split(parts=3, index=1), [Shape.of(6)], Shape.of(2))
    assert part(torch.arange(6.0).view(1, 6)).flatten().tolist() == [2, 3]


def test_a_selection_takes_its_channels_in_order():
    select = make_module(ops.Select(indices=(1, 4)), [Shape.of(5)], Shape.of(2))
    assert select(torch.arange(5.0).view(1, 5)).flatten().tolist() == [1, 4]


def test_a_gate_scales_each_channel():
    gate = make_module(ops.Gate(), [Shape.of(2, (2, 2)), Shape.of(2, (1, 1))], Shape.of(2, (2, 2)))
    image, factors = drawn(3, 2, 2, 2), drawn(3, 2, 1, 1, seed=1)
    out = gate(image, factors)
    for n in range(3):
        for c in range(2):
            assert torch.equal(out[n, c], image[n, c] * factors[n, c].item())


def drop_path(p):
    return make_module(ops.DropPath(p=p), [Shape.of(2, (3, 3))], Shape.of(2, (3, 3)))


def test_drop_path_zeroes_whole_images_and_keeps_the_mean():
    torch.manual_seed(0)
    x = torch.ones(4000, 2, 3, 3)
    out = drop_path(0.25)(x)
    each = out.view(4000, -1)
    assert (each == each[:, :1]).all()
    assert each.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert out.mean() == pytest.approx(1.0, abs=0.05)


def test_drop_path_does_nothing_in_evaluation_or_at_zero():
    x = drawn(4, 2, 3, 3)
    assert torch.equal(drop_path(0.5).eval()(x), x)
    assert torch.equal(drop_path(0.0)(x), x)


def test_drop_path_of_probability_one_leaves_nothing():
    assert torch.equal(drop_path(1.0)(drawn(4, 2, 3, 3)), torch.zeros(4, 2, 3, 3))
