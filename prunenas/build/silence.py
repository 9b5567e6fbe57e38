"""Silence: channels that compute nothing any more, in a network that keeps its shape."""

from collections.abc import Collection, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunenas.build.inherit import tensor_axes
from prunenas.build.network import Network
from prunenas.ir.coupling import ChannelGroups, GroupAxis, axis_width, channel_places
from prunenas.ir.graph import Node
from prunenas.ir.ops import Conv1d, Conv2d, Linear


@torch.no_grad()
def silence(network: Network, groups: ChannelGroups, gone: Mapping[str, Collection[int]]) -> None:
    """Set what belongs to the channels in ``gone`` to zero, in place.

    These are their filters, biases, scales and shifts, and what layers behind read of them. The
    network then computes what it would compute without these channels, except behind norms over
    channels, which count zeros too.

    Args:
        network: To be changed.
        groups: Of its graph.
        gone: Removed channels by group.
    """
    for node in network.graph.nodes:
        if node.weights is not None:
            continue
        module = network.node(node.name)
        parameters = dict(module.named_parameters(recurse=False))
        if not parameters:
            continue
        read: list[GroupAxis] = [*tensor_axes(node, groups)]
        dense = isinstance(node.op, Conv2d | Conv1d | Linear)
        for tensor in parameters.values():
            for dim, axis in enumerate(read[: tensor.dim()]):
                places = _places(axis, groups, gone)
                if dense and dim == 1:
                    _silence_inputs(tensor, places, node, axis_width(axis, groups.widths))
                else:
                    tensor.index_fill_(dim, torch.from_numpy(places).to(tensor.device), 0.0)


def _places(
    axis: GroupAxis, groups: ChannelGroups, gone: Mapping[str, Collection[int]]
) -> NDArray[np.int64]:
    found = [
        places[[*gone[name]]].reshape(-1)
        for name, places in channel_places(axis, groups.widths)
        if gone.get(name)
    ]
    return np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.int64)


def _silence_inputs(
    tensor: Tensor | nn.Parameter, places: NDArray[np.int64], node: Node, full: int
) -> None:
    """Set the columns that read ``places`` to zero; those of a grouped kernel count by part."""
    parts = node.op.groups if isinstance(node.op, Conv2d | Conv1d) else 1
    into, out = full // parts, len(tensor) // parts
    for place in places.tolist():
        part = place // into
        tensor[part * out : (part + 1) * out, place % into] = 0.0
