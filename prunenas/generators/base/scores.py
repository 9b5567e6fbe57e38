"""From scores of filters to scores of groups, and from these to kept channels."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunenas.arch.allocate import Scores, best, whole_count
from prunenas.build.network import Network
from prunenas.ir.coupling import ChannelGroup, ChannelGroups, channel_places
from prunenas.ir.ops import Convolve, Select

Reduction = Literal["sum", "mean", "max", "min", "first"]
"""How the scores of a group's members become the group's: elementwise, or the first member's."""

REDUCTIONS = get_args(Reduction)


def reduced(scores: Sequence[NDArray[np.float64]], reduction: Reduction) -> NDArray[np.float64]:
    """Return one score a channel ``[width]`` from those of several members."""
    rows = np.stack(scores)
    if reduction == "first":
        first: NDArray[np.float64] = rows[0]
        return first
    how: Mapping[str, Callable[..., NDArray[np.float64]]] = {
        "sum": np.sum,
        "mean": np.mean,
        "max": np.max,
        "min": np.min,
    }
    return how[reduction](rows, axis=0)


def layers_of(network: Network, group: ChannelGroup) -> list[str]:
    """Return the layers that produce a group, each once however often it is called, in order."""
    members = [network.graph[member].weights or member for member in group.members]
    return [m for m in dict.fromkeys(members) if not isinstance(network.graph[m].op, Select)]


def group_scores(
    network: Network,
    groups: ChannelGroups,
    group: ChannelGroup,
    filters: Callable[[str], Tensor],
    reduction: Reduction,
) -> NDArray[np.float64]:
    """Return the score of each channel of a group ``[width]``.

    Args:
        network: The reference.
        groups: Its groups.
        group: No channel selection: these have no filters.
        filters: Score of each output ``[out]`` of the layer of that name. A channel that has
            several outputs there (a head of attention, say) scores their sum.
        reduction: Over the members, and over the places that the group has in one member.
    """
    scores = []
    for layer in layers_of(network, group):
        of_layer = filters(layer).double().cpu().numpy()
        scores += [
            of_layer[places].sum(axis=1)
            for name, places in channel_places(groups.axes[layer], groups.widths)
            if name == group.name
        ]
    return reduced(scores, reduction)


def kernel(network: Network, name: str) -> Tensor:
    """Return the kernel ``[out ...]`` of a producing layer, without gradient.

    That of a ``Convolve`` is computed from what it reads.
    """
    node = network.graph[name]
    return (
        _stored(network, node.inputs[1]) if isinstance(node.op, Convolve) else network.weight(name)
    )


def _stored(network: Network, name: str) -> Tensor:
    """Return a value that is the same for all images."""
    with torch.no_grad():
        read = [_stored(network, source) for source in network.graph[name].inputs]
        value: Tensor = network.node(name)(*read)
    return value.detach()


def best_of_each(
    groups: Iterable[ChannelGroup], scores: Scores, keeps: Mapping[str, float]
) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...]]:
    """Return the best channels of each group by itself: a local criterion.

    A group of ``w`` keeps ``int(w * keep)``, cut to a multiple of its divisor, as the released
    codes count (57 of 64 at 0.9); at least its divisor.

    Returns:
        Kept channels by group, and the groups that would have been emptied.
    """
    kept, emptied = {}, []
    for group in groups:
        count = whole_count(group.width, keeps[group.name]) // group.divisor * group.divisor
        if count == 0:
            emptied.append(group.name)
        kept[group.name] = best(scores[group.name], max(count, group.divisor))
    return kept, tuple(emptied)
