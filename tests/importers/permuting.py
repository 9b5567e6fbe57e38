"""Permuting the channels of every group, in all tensors of a network: nothing may change."""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from prunenas.build.network import Network
from prunenas.importers.verify import drawn_anew
from prunenas.ir.coupling import ChannelGroups, GroupAxis, couple
from prunenas.ir.graph import Node
from prunenas.ir.ops import Constant, Conv2d, Convolve, GroupNorm
from tests.build.networks import positions, tensor_axes

Orders = dict[str, Sequence[int]]


def lively(network: Network, dtype: torch.dtype = torch.float64) -> Network:
    """Return ``network`` in another precision, without silent branches."""
    network.load_state_dict(drawn_anew(network.state_dict()))
    return network.to(dtype).eval()


def drawn_orders(network: Network, seed: int = 0) -> tuple[Orders, dict[str, str]]:
    """Return a new order of each free group's channels, and the reasons where there is none.

    What must divide into parts is permuted within each part.
    """
    groups = couple(network.graph)
    generator = torch.Generator().manual_seed(seed)
    kept = {group.name: group.ordered for group in groups.free if group.ordered}
    orders: Orders = {}
    for group in groups.free:
        if group.name not in kept:
            part = group.width // group.divisor
            orders[group.name] = [
                start + int(i)
                for start in range(0, group.width, part)
                for i in torch.randperm(part, generator=generator)
            ]
    for node in network.graph.nodes:
        parts = node.op.groups if isinstance(node.op, Conv2d | Convolve | GroupNorm) else 1
        for axis in (groups.axes[node.name], groups.read(node)) if parts > 1 else ():
            if not _within(positions(axis, orders, groups.widths), parts):
                for name in (name for segment in axis for name in segment.groups):
                    if orders.pop(name, None):
                        kept[name] = f"{node.name} would read it in other parts"
    return orders, kept


def _within(places: Sequence[int], parts: int) -> bool:
    each = len(places) // parts
    return all(place // each == i // each for i, place in enumerate(places))


def permute(network: Network, orders: Orders, *, but: str = "") -> Network:
    """Return a twin whose channels stand in ``orders`` in every tensor, except of node ``but``."""
    twin = copy.deepcopy(network)
    groups = couple(network.graph)
    for node in network.graph.nodes:
        if node.weights is None and node.name != but and not isinstance(node.op, Constant):
            _reorder(twin.node(node.name), node, groups, orders)
    return twin


def _reorder(module: nn.Module, node: Node, groups: ChannelGroups, orders: Orders) -> None:
    def where(axis: GroupAxis) -> torch.Tensor:
        return torch.tensor(positions(axis, orders, groups.widths))

    for tensor in [*module.parameters(), *module.buffers()]:
        for dim, axis in enumerate(tensor_axes(node, groups)[: tensor.dim()]):
            tensor.data = tensor.data.index_select(dim, where(axis))
    if isinstance(node.op, Conv2d) and node.op.groups > 1:
        weight = module.weight
        each_out, each_in = weight.shape[0] // node.op.groups, weight.shape[1]
        places = where(groups.read(node)).view(node.op.groups, each_in) % each_in
        for part, order in enumerate(places):
            rows = slice(part * each_out, (part + 1) * each_out)
            weight.data[rows] = weight.data[rows].index_select(1, order)
