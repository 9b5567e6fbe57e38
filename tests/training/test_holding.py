"""Weights that are held at zero in a live network."""

import pytest
import torch

from prunenas.build.initialise import build
from prunenas.errors import MaskError
from prunenas.training.holding import hold, set_to_zero
from prunenas.training.hooks import Hooks
from prunenas.training.loop import train
from prunenas.training.recipe import Recipe
from tests.training.networks import KERNELS, every_kernel, half_masks, made

RECIPE = Recipe(epochs=2, batch=8, lr=0.1, weight_decay=1e-2, nesterov=True)


def data():
    return made(size=(2, 4, 4))


def masks_of(graph):
    return {name: torch.from_numpy(mask) for name, mask in half_masks(graph).items()}


@pytest.mark.parametrize("kind", [torch.bool, torch.float32])
def test_what_is_held_is_exactly_zero_after_every_step(kind):
    graph = every_kernel()
    network = build(graph)
    masks = {name: mask.to(kind) for name, mask in masks_of(graph).items()}
    release = hold(masks)
    seen = []

    def after_step(network, moment):
        release(network, moment)
        seen.append([network.weight(name)[masks[name] == 0].abs().max() for name in KERNELS])

    train(network, data(), RECIPE, hooks=Hooks(after_step=after_step))
    assert len(seen) == 6
    assert torch.tensor(seen).count_nonzero() == 0
    assert all(network.weight(name)[masks[name] != 0].all() for name in KERNELS)


def test_without_the_hook_momentum_and_gradients_bring_weights_back():
    graph = every_kernel()
    network = build(graph)
    masks = masks_of(graph)
    train(network, data(), RECIPE, hooks=Hooks(before=lambda n: set_to_zero(n, masks)))
    assert all(network.weight(name)[~masks[name]].any() for name in KERNELS)


def test_setting_to_zero_touches_nothing_else():
    graph = every_kernel()
    network, before = build(graph), build(graph)
    masks = masks_of(graph)
    set_to_zero(network, {"conv": masks["conv"]})
    for key, tensor in before.state_dict().items():
        wanted = tensor * masks["conv"] if key == "conv.weight" else tensor
        assert torch.equal(network.state_dict()[key], wanted)


def test_masks_that_do_not_fit_are_refused_with_all_reasons():
    network = build(every_kernel())
    wrong = {"conv": torch.ones(3), "act": torch.ones(1), "nowhere": torch.ones(1)}
    with pytest.raises(MaskError) as caught:
        set_to_zero(network, wrong)
    for words in ("conv: the weight is [8, 2, 3, 3], its mask [3]", "act: no layer", "nowhere"):
        assert words in str(caught.value)
    with pytest.raises(MaskError):
        train(network, data(), RECIPE, hooks=Hooks(after_step=hold(wrong)))
