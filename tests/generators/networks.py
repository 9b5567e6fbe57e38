"""The small references, and channels taken out of them by a second pair of eyes."""

import copy
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from prunenas.arch.descriptor import Descriptor
from prunenas.build.network import Network
from prunenas.ir.coupling import ChannelGroups, GroupAxis, couple
from prunenas.ir.ops import BatchNorm, Select
from prunenas.testing.networks import GRAPHS, attending, gated, grouped, random_images, trained

__all__ = [
    "GRAPHS",
    "attending",
    "gated",
    "grouped",
    "random_images",
    "removed",
    "set_scales",
    "silenced",
    "trained",
]


def set_scales(network: Network, scales: Mapping[str, Iterable[float] | Tensor]) -> None:
    """Set the batch-norm scales of the nodes that are named."""
    with torch.no_grad():
        for name, values in scales.items():
            network.node(name).weight.copy_(torch.as_tensor(values))


def removed(groups: ChannelGroups, descriptor: Descriptor, axis: GroupAxis) -> list[int]:
    """Return the places on ``axis`` that belong to removed channels."""
    gone, start = [], 0
    for segment in axis:
        places = [(0, False)]
        for factor in segment.factors:
            size = factor if isinstance(factor, int) else groups[factor].width
            kept = descriptor.selections.get(str(factor), range(size))
            places = [
                (place * size + i, lost or i not in kept)
                for place, lost in places
                for i in range(size)
            ]
        gone += [start + place for place, lost in places if lost]
        start += len(places)
    return gone


def silenced(network: Network, descriptor: Descriptor, *, filters: bool) -> Network:
    """Return a copy in which removed channels are zero behind each batch norm.

    A batch norm that only selections read is zero wherever none of them selects, and a selection
    is zero in what it no longer selects.

    Args:
        network: The reference.
        descriptor: Tells the kept channels of every narrowed group.
        filters: Zero the filters of removed channels too: values that no batch norm stands behind.
    """
    copied = copy.deepcopy(network)
    graph = network.graph
    groups = couple(graph)
    with torch.no_grad():
        for node in graph.nodes:
            readers = graph.readers[node.name]
            gone = {*removed(groups, descriptor, groups.axes[node.name])}
            if isinstance(node.op, Select) and gone:
                quiet = torch.tensor(sorted(gone))
                copied.node(node.name).register_forward_hook(
                    lambda module, read, out, quiet=quiet: out.index_fill(1, quiet, 0.0)
                )
            if isinstance(node.op, BatchNorm):
                if readers and all(isinstance(reader.op, Select) for reader in readers):
                    chosen = set()
                    for reader in readers:
                        kept = {*range(len(reader.op.indices))}
                        kept -= {*removed(groups, descriptor, groups.axes[reader.name])}
                        chosen |= {reader.op.indices[i] for i in kept}
                    gone |= {*range(graph.shapes[node.name].channels)} - chosen
            elif not (filters and any(node.name in group.members for group in groups.free)):
                continue
            module = copied.node(node.name)
            for tensor in dict(module.named_parameters(recurse=False)).values():
                tensor[sorted(gone)] = 0.0
    return copied
