"""Layers fitted anew: which outputs read the same places, and where the fit is put."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunenas.build.network import Network
from prunenas.generators.base.readers import lost_places
from prunenas.ir.coupling import ChannelGroups, axis_width
from prunenas.ir.graph import Node
from prunenas.ir.ops import BatchNorm, Conv1d, Conv2d


@final
@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Piece:
    """Outputs of a layer that read the same places: one group of a grouped kernel.

    Args:
        outputs: The outputs.
        first: The first place on the axis that they read.
        places: The places of channels that are left.
    """

    outputs: slice
    first: int
    places: NDArray[np.int64]


def pieces_of(
    node: Node, groups: ChannelGroups, gone: Mapping[str, tuple[int, ...]]
) -> list[Piece]:
    """Return the parts of a layer that are fitted each by itself."""
    axis = groups.read(node)
    full, out = axis_width(axis, groups.widths), axis_width(groups.axes[node.name], groups.widths)
    left = np.setdiff1d(np.arange(full), [*lost_places(groups, axis, gone)])
    count = node.op.groups if isinstance(node.op, Conv2d | Conv1d) else 1
    return [
        Piece(
            outputs=slice(part * out // count, (part + 1) * out // count),
            first=part * full // count,
            places=left[left * count // full == part],
        )
        for part in range(count)
    ]


def intercept_taker(network: Network, layer: str) -> nn.Module | None:
    """Return what takes a layer's intercept: the layer, or the batch norm that alone reads it."""
    graph, module = network.graph, network.node(layer)
    if isinstance(module.bias, Tensor):
        return module
    calls = [node.name for node in graph.nodes if layer in (node.name, node.weights)]
    readers = graph.readers[layer]
    if len(calls) > 1 or len(readers) != 1 or not isinstance(readers[0].op, BatchNorm):
        return None
    norm = readers[0]
    shared = norm.weights is not None or any(node.weights == norm.name for node in graph.nodes)
    return None if shared or layer == graph.output else network.node(norm.name)


@torch.no_grad()
def add_to_layer(
    network: Network, layer: str, piece: Piece, change: Tensor, taker: nn.Module | None
) -> None:
    """Add fitted changes ``[columns outputs]`` to a layer in place; the last is the intercept's."""
    weight = network.weight(layer)
    if taker is not None:
        intercept = change[-1].to(weight.dtype)
        change = change[:-1]
        if taker is network.node(layer):
            taker.get_parameter("bias")[piece.outputs] += intercept
        else:
            # A batch norm takes its running mean away.
            taker.get_buffer("running_mean")[piece.outputs] -= intercept
    columns = torch.from_numpy(piece.places - piece.first).to(weight.device)
    kernel = weight.view(*weight.shape[:2], -1)[piece.outputs]
    fitted = change.T.reshape(len(kernel), len(columns), -1).to(weight.dtype)
    kernel.index_add_(1, columns, fitted)
