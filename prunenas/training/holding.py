"""Weights that are held at exactly zero in a live network, and may be let go again."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from prunenas.build.network import Network
from prunenas.errors import GraphError, MaskError
from prunenas.training.hooks import Moment


@torch.no_grad()
def set_to_zero(network: Network, masks: Mapping[str, Tensor]) -> None:
    """Set the weights that ``masks`` leave out to exactly zero, in place and at once.

    Args:
        network: To be changed.
        masks: By layer, of the shape of its weight ``[out in ...]``: true (or not zero) where a
            weight is kept. Layers that are not named stay as they are.

    Raises:
        MaskError: A name is no layer with a weight, or a mask has another shape.
    """
    for name, removed in _removed(network, masks).items():
        network.weight(name).masked_fill_(removed, 0.0)


def hold(masks: Mapping[str, Tensor]) -> Callable[[Network, Moment], None]:
    """Return a hook for ``Hooks.after_step`` that sets what ``masks`` leave out to zero.

    After every step these weights are exactly zero, whatever gradient, momentum and weight decay
    did to them in it. Before the first step nothing is changed: ``set_to_zero`` does that. Leave
    the hook away, and the weights are free again.

    Args:
        masks: As for ``set_to_zero``. They are brought to the network's device once, so make one
            hook for each network.

    Raises:
        MaskError: The hook raises it at its first call, as ``set_to_zero`` does.
    """
    removed: dict[str, Tensor] = {}

    @torch.no_grad()
    def after_step(network: Network, moment: Moment) -> None:
        if not removed:
            removed.update(_removed(network, masks))
        for name, places in removed.items():
            network.weight(name).masked_fill_(places, 0.0)

    return after_step


def _removed(network: Network, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return where each layer's weights are to be zero, on the layer's device."""
    removed, faults = {}, []
    for name, mask in masks.items():
        try:
            weight = network.weight(name)
        except GraphError:
            faults.append(f"{name}: no layer with a weight has this name")
            continue
        if weight.shape != mask.shape:
            faults.append(f"{name}: the weight is {[*weight.shape]}, its mask {[*mask.shape]}")
            continue
        removed[name] = mask.to(weight.device) == 0
    if faults:
        raise MaskError("the masks do not fit the network:\n  " + "\n  ".join(faults))
    return removed
