"""Dense-sparse-dense training, against a simulation of its own."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from prunenas.arch.descriptor import Descriptor, apply
from prunenas.build.initialise import build
from prunenas.ir.canonical import digest
from prunenas.ir.ops import ExactMask
from prunenas.training.hooks import Hooks
from prunenas.training.loop import train
from prunenas.training.recipe import Recipe, SparsePhase
from prunenas.training.sparse_phase import largest_weights
from tests.training.networks import KERNELS, every_kernel, half_masks, linear, made

RECIPE = Recipe(
    epochs=8,
    batch=8,
    lr=0.1,
    weight_decay=1e-2,
    sparse=SparsePhase(keep=0.5, start=0.25, end=0.75),
)


def recorded(network, data, recipe):
    """Return weights ``fc.weight`` after each step, and the gradients before each, with epochs."""
    weights, gradients, moments = [], [], []

    def after_backward(network):
        gradients.append(network.node("fc").weight.grad.clone())

    def after_step(network, moment):
        weights.append(network.weight("fc").clone())
        moments.append(moment)

    train(network, data, recipe, hooks=Hooks(after_backward=after_backward, after_step=after_step))
    return weights, gradients, moments


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_three_parts_are_what_a_few_lines_of_numpy_make_of_the_gradients(nesterov):
    network = build(linear())
    w = network.weight("fc").double().numpy().copy()
    recipe = replace(RECIPE, nesterov=nesterov)
    weights, gradients, moments = recorded(network, made(), recipe)
    assert len(weights) == 24
    v, held = np.zeros_like(w), np.zeros(w.shape, dtype=bool)
    rate = {epoch: 0.1 if epoch <= 4 else 0.01 if epoch <= 6 else 0.001 for epoch in range(1, 9)}
    for step, (seen, gradient, moment) in enumerate(zip(weights, gradients, moments, strict=True)):
        if step == 6:  # two epochs of three batches are over
            held = np.abs(w) < np.sort(np.abs(w).reshape(-1))[32]
            w[held], v[held] = 0, 0
            assert held.sum() == 32
        if step == 18:
            held = np.zeros_like(held)
        g = np.where(held, 0, gradient.double().numpy() + 1e-2 * w)
        v = g if step == 0 else 0.9 * v + g
        w = w - rate[moment.epoch] * (g + 0.9 * v if nesterov else v)
        np.testing.assert_allclose(seen.numpy(), w, atol=1e-5)
        if 6 <= step < 18:
            assert (seen.numpy()[held] == 0).all()
        else:
            assert seen.all()


def test_every_kind_of_layer_is_held_and_let_go():
    network = build(every_kernel())
    zeros = []

    def after_step(network, moment):
        zeros.append([int((network.weight(name) == 0).sum()) for name in KERNELS])

    recipe = replace(RECIPE, epochs=4)
    train(network, made(size=(2, 4, 4)), recipe, hooks=Hooks(after_step=after_step))
    sizes = [network.weight(name).numel() for name in KERNELS]
    sparse = [size - round(0.5 * size) for size in sizes]
    assert zeros == [*[[0] * 4] * 3, *[sparse] * 6, *[[0] * 4] * 3]


def test_a_phase_that_never_ends_leaves_a_sparse_network():
    network = build(linear())
    recipe = replace(RECIPE, sparse=SparsePhase(keep=0.25, start=0.5, end=1.0))
    train(network, made(), recipe)
    assert int(network.weight("fc").count_nonzero()) == 16


def test_a_hook_cannot_bring_back_what_is_held():
    def fill(network, moment):
        network.weight("fc").add_(1.0)

    network = build(linear())
    recipe = replace(RECIPE, lr=1e-3, sparse=SparsePhase(keep=0.25, start=0.5, end=1.0))
    train(network, made(), recipe, hooks=Hooks(after_step=fill))
    assert int(network.weight("fc").count_nonzero()) == 16


def test_the_largest_of_each_layer_are_kept_and_of_equals_the_first():
    network = build(linear((1, 1, 5), classes=2))
    with torch.no_grad():
        network.node("fc").weight.copy_(
            torch.tensor([[1.0, -3.0, 2.0, -2.0, 0.5], [2.0, 0.1, -2.0, 0.0, 1.0]])
        )
    kept = largest_weights(network, 0.3)["fc"]
    assert kept.nonzero().tolist() == [[0, 1], [0, 2], [0, 3]]
    assert largest_weights(network, 0.01)["fc"].nonzero().tolist() == [[0, 1]]
    assert largest_weights(network, 1.0)["fc"].all()


def test_weights_that_the_architecture_removes_do_not_count():
    graph = every_kernel()
    masks = half_masks(graph)
    exact = {name: ExactMask.of(mask) for name, mask in masks.items()}
    network = build(apply(graph, Descriptor(reference=digest(graph), masks=exact)))
    for name, kept in largest_weights(network, 0.5).items():
        assert not kept.numpy()[~masks[name]].any()
        assert int(kept.sum()) == round(0.5 * masks[name].sum())


def test_the_phase_starts_from_rest_when_it_ends():
    """The momentum of what is held is zero, whatever was gathered before."""
    network = build(linear())
    recipe = replace(RECIPE, weight_decay=0.0, sparse=SparsePhase(keep=0.5, start=0.5, end=0.75))
    before: list[torch.Tensor] = []

    def after_backward(network):
        if len(before) >= 18:  # let go: no gradient from here on
            network.node("fc").weight.grad.zero_()
        before.append(network.weight("fc").clone())

    train(network, made(), recipe, hooks=Hooks(after_backward=after_backward))
    held = before[17] == 0
    assert int(held.sum()) == 32
    assert not network.weight("fc")[held].any()
