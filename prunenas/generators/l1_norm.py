"""L1-norm filter pruning."""

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunenas.arch.allocate import best
from prunenas.build.network import Network
from prunenas.errors import ShapeError
from prunenas.generators.base import GENERATORS, Generator, Proposal, Subject
from prunenas.ir.coupling import ChannelGroup, ChannelGroups, channel_places
from prunenas.ir.ops import Convolve


def filter_l1(weight: Tensor) -> Tensor:
    """Score each filter by the sum of its absolute weights.

    Args:
        weight: Kernel of a convolution ``[out in kh kw]`` or of a linear layer ``[out in]``.

    Returns:
        Scores ``[out]``, non-negative; a larger score is kept longer.

    Raises:
        ShapeError: ``weight`` has fewer than 2 dimensions.

    Source: Li et al. 2017, arXiv:1608.08710, section 3.1.
    """
    if weight.dim() < 2:
        raise ShapeError(f"filters have at least 2 dimensions, got {list(weight.shape)}")
    return weight.abs().flatten(1).sum(dim=1)


@GENERATORS.register("l1_norm")
@final
@dataclass(frozen=True, slots=True, kw_only=True)
class L1Norm(Generator):
    """Keep the filters with the largest absolute sums of every layer.

    The keep holds for every free group by itself, and a group of ``w`` keeps ``int(w * keep)`` (57
    of 64 at 0.9), as the source counts; at least its divisor. A coupled group's score is the sum
    over all its producing layers, a head's the sum over its rows of each of them. Filters are
    scored on the unpruned input (the source's "independent" variant). Channel selections have no
    filters: they follow their source.

    Source: Li et al. 2017, arXiv:1608.08710, section 3.1.
    """

    def propose(self, subject: Subject) -> Proposal:
        """Return the kept filters of every free group."""
        selections, all_scores = {}, {}
        emptied = []
        for group in subject.groups.free:
            if group.select:
                continue
            count = int(group.width * subject.keep) // group.divisor * group.divisor
            if count == 0:
                emptied.append(group.name)
            scores = _scores(subject.trained, subject.groups, group)
            all_scores[group.name] = scores
            selections[group.name] = best(scores, max(count, group.divisor))
        return Proposal(selections=selections, scores=all_scores, kept_best=tuple(emptied))


def _scores(network: Network, groups: ChannelGroups, group: ChannelGroup) -> NDArray[np.float64]:
    # A layer that is called twice is one layer.
    layers = {network.graph[member].weights or member for member in group.members}
    scores = []
    for layer in sorted(layers):
        filters = filter_l1(_kernel(network, layer))
        scores += [
            filters[torch.from_numpy(places).to(filters.device)].sum(dim=1)
            for name, places in channel_places(groups.axes[layer], groups.widths)
            if name == group.name
        ]
    return torch.stack(scores).sum(dim=0).double().cpu().numpy()


def _kernel(network: Network, name: str) -> Tensor:
    node = network.graph[name]
    return (
        _stored(network, node.inputs[1]) if isinstance(node.op, Convolve) else network.weight(name)
    )


def _stored(network: Network, name: str) -> Tensor:
    """Return a value that is the same for all images."""
    with torch.no_grad():
        read = [_stored(network, source) for source in network.graph[name].inputs]
        value: Tensor = network.node(name)(*read)
    return value
