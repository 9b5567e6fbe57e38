"""Dense-sparse-dense training: what the loop does in the sparse phase of a recipe."""

from collections.abc import Callable, Mapping
from typing import final

import torch
from torch import Tensor
from torch.optim import Optimizer

from prunenas.build.modules import Masked
from prunenas.build.network import Network
from prunenas.ir.ops import KernelOp
from prunenas.training.holding import hold, set_to_zero
from prunenas.training.hooks import Moment
from prunenas.training.recipe import Recipe


@final
class SparseTraining:
    """Holds a network's smallest weights at zero while the recipe's sparse phase lasts.

    The loop tells when an epoch begins, when gradients are there and when a step is done. What is
    held has no gradient and no momentum either, so that it starts from rest when it is let go.

    Args:
        network: What is trained.
        optimizer: With the network's momentum.
        recipe: With or without a sparse phase.

    ``masks`` are true where a weight may live, by layer; there are none outside of the phase.
    """

    def __init__(self, network: Network, optimizer: Optimizer, recipe: Recipe) -> None:
        self._network, self._optimizer, self._recipe = network, optimizer, recipe
        self.masks: Mapping[str, Tensor] = {}
        self._hold: Callable[[Network, Moment], None] = hold({})

    def restore(self, masks: Mapping[str, Tensor]) -> None:
        """Go on with ``masks``, which are those of an interrupted training."""
        device = next(self._network.parameters()).device
        self.masks = {name: mask.to(device) for name, mask in masks.items()}
        self._hold = hold(self.masks)

    def begin(self, epoch: int) -> None:
        """Start or end the phase, where ``epoch``, counted from 1, is its first or comes after."""
        phase = self._recipe.sparse
        inside = epoch - 1 in self._recipe.sparse_epochs
        if phase is not None and inside and not self.masks:
            self.restore(largest_weights(self._network, phase.keep))
            set_to_zero(self._network, self.masks)
            self._still("momentum_buffer")
        elif not inside and self.masks:
            self.masks = {}

    def after_backward(self) -> None:
        """Take the gradient of what is held away."""
        self._still("grad")

    def after_step(self, moment: Moment) -> None:
        """Set what is held to zero, whatever a hook did to it."""
        if self.masks:
            self._hold(self._network, moment)

    @torch.no_grad()
    def _still(self, what: str) -> None:
        """Set the gradients or the momentum of what is held to zero."""
        for name, mask in self.masks.items():
            weight = self._network.node(name).weight
            assert isinstance(weight, Tensor)
            found = weight.grad if what == "grad" else self._optimizer.state[weight].get(what)
            if found is not None:
                found.masked_fill_(~mask, 0.0)


def largest_weights(network: Network, keep: float) -> dict[str, Tensor]:
    """Return masks of the largest weights of each convolution and linear layer, by their size.

    ``round(keep * n)`` of a layer's ``n`` weights are true, at least one, and of equal ones those
    that come first. Weights that a mask of the architecture removes do not count, and are false.

    Args:
        network: What is looked at.
        keep: Fraction of each layer's weights.
    """
    masks = {}
    for node in network.graph.nodes:
        if not isinstance(node.op, KernelOp) or node.weights is not None:
            continue
        module, weight = network.node(node.name), network.weight(node.name)
        size = weight.abs().flatten()
        count = size.numel()
        if isinstance(module, Masked):
            size = size.masked_fill(module.mask.flatten() == 0, -1.0)
            count = int(module.mask.count_nonzero())
        order = size.argsort(descending=True, stable=True)
        mask = torch.zeros_like(size, dtype=torch.bool)
        mask[order[: min(count, max(1, round(keep * count)))]] = True
        masks[node.name] = mask.reshape(weight.shape)
    return masks
