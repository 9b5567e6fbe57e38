"""Which batch-norm scales stand for which channels, and what they score."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from prunenas.build.network import Network
from prunenas.generators.base.scores import Reduction, reduced
from prunenas.ir.coupling import ChannelGroup, ChannelGroups, channel_places
from prunenas.ir.graph import Graph, Node
from prunenas.ir.ops import BatchNorm, Select

WITHOUT_SCALES = "no batch norm decides on it"
"""Why a method that reads scales leaves a group alone."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ScalePlaces:
    """Where the channels of a group stand among the scales of one batch norm.

    Args:
        norm: The batch norm that owns the scales.
        places: ``[width places]``: several where a channel stands there more than once.
    """

    norm: str
    places: NDArray[np.int64]


def scale_places(graph: Graph, groups: ChannelGroups) -> dict[str, list[ScalePlaces]]:
    """Return the batch norms that decide on each free group; groups without any are not named.

    A batch norm whose values go into channel selections alone decides on the selections, not on
    their source. Scales that several calls share are named once.
    """
    free = {group.name for group in groups.free}
    found: dict[str, list[ScalePlaces]] = {}
    seen: set[tuple[str, str, bytes]] = set()
    for node in graph.nodes:
        if not isinstance(node.op, BatchNorm):
            continue
        norm = node.weights or node.name
        for name, places in _decided(graph, groups, node):
            key = (name, norm, places.tobytes())
            if name in free and key not in seen:
                seen.add(key)
                found.setdefault(name, []).append(ScalePlaces(norm=norm, places=places))
    return found


def _decided(
    graph: Graph, groups: ChannelGroups, node: Node
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield the groups that one batch norm decides on, with the places of their channels."""
    readers = graph.readers[node.name]
    selects = [(r.name, r.op) for r in readers if isinstance(r.op, Select)]
    if selects and len(selects) == len(readers):
        for name, op in selects:
            yield groups.axes[name][0].group, np.array(op.indices, dtype=np.int64)[:, None]
        return
    yield from channel_places(groups.axes[node.name], groups.widths)


def scale_scores(
    network: Network, groups: ChannelGroups, reduction: Reduction = "mean"
) -> dict[str, NDArray[np.float64]]:
    """Return the absolute batch-norm scale of each channel ``[width]`` by group.

    Args:
        network: Whose scales are read.
        groups: Of its graph.
        reduction: Over all scales that a channel has: of several batch norms, and of several
            places in one.
    """
    return {
        name: reduced([row for each in found for row in _rows(network, each)], reduction)
        for name, found in scale_places(network.graph, groups).items()
    }


def _rows(network: Network, where: ScalePlaces) -> NDArray[np.float64]:
    scale = network.weight(where.norm).abs().double().cpu().numpy()
    rows: NDArray[np.float64] = scale[where.places].T
    return rows


def scale_weights(
    graph: Graph, groups: ChannelGroups, costs: Mapping[str, float]
) -> dict[str, NDArray[np.float64]]:
    """Return the cost of the channel behind each scale ``[c]``, by batch norm.

    A scale that stands for channels of several groups has the sum of their costs; one that decides
    on no free group has none.
    """
    weights = {
        node.name: np.zeros(graph.shapes[node.name].channels)
        for node in graph.nodes
        if isinstance(node.op, BatchNorm) and node.weights is None
    }
    for name, found in scale_places(graph, groups).items():
        for where in found:
            weights[where.norm][where.places] += costs[name]
    return weights


def left_alone(groups: ChannelGroups, scored: Mapping[str, object]) -> dict[str, str]:
    """Return why each free group is left alone that has no scales."""
    free: tuple[ChannelGroup, ...] = groups.free
    return {group.name: WITHOUT_SCALES for group in free if group.name not in scored}
