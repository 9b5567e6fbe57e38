"""Small references of every kind that methods meet, and trained networks that cost nothing."""

import copy
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from prunenas.arch.descriptor import Descriptor
from prunenas.build.initialise import build
from prunenas.build.network import Network
from prunenas.families.base import reference
from prunenas.ir.coupling import ChannelGroups, GroupAxis, couple
from prunenas.ir.graph import Graph
from prunenas.ir.ops import (
    Attention,
    BatchNorm,
    Gate,
    Index,
    Linear,
    Permute,
    Reduce,
    Reshape,
    Select,
)
from prunenas.ir.writer import GraphWriter


def grouped() -> Graph:
    """Two convolutions side by side, one of them grouped; a grouped one on what joins them."""
    net = GraphWriter((3, 8, 8))
    x = net.relu("relu", net.batch_norm("bn", net.conv("stem", net.input, 8, kernel=3)))
    left = net.relu("relu1", net.batch_norm("bn1", net.conv("left", x, 12, kernel=1)))
    right = net.relu("relu2", net.batch_norm("bn2", net.conv("right", x, 8, kernel=3, groups=2)))
    x = net.concat("concat", left, right)
    x = net.relu("relu3", net.batch_norm("bn3", net.conv("mixed", x, 12, kernel=1)))
    x = net.conv("grouped", x, 16, kernel=3, groups=4)
    x = net.relu("relu4", net.batch_norm("bn4", x))
    return net.finish(net.linear("fc", net.global_pool("pool", x), 5))


def gated() -> Graph:
    """A squeeze-excite gate on a residual branch."""
    net = GraphWriter((3, 8, 8))
    x = net.relu("relu", net.batch_norm("bn", net.conv("stem", net.input, 12, kernel=3)))
    y = net.relu("relu1", net.batch_norm("bn1", net.conv("body", x, 12, kernel=3)))
    factors = net.relu("relu2", net.conv("reduce", net.global_pool("mean", y), 6, kernel=1))
    factors = net.conv("expand", factors, 12, kernel=1, bias=True)
    y = net.add("gate", Gate(), y, net.activation("sigmoid", factors, "sigmoid"))
    x = net.join("add", x, y)
    return net.finish(net.linear("fc", net.global_pool("pool", x), 5))


def attending() -> Graph:
    """Attention of four heads on tokens, and a perceptron, both with a shortcut; no norms.

    The scale of the products is given, so that it does not follow the width of the heads.
    """
    net = GraphWriter((3, 8, 8))
    x = net.conv("embed", net.input, 8, kernel=4, stride=4, padding=0)
    x = net.add("tokens", Permute(order=(0, 2, 1)), net.add("row", Reshape(sizes=(8, 4)), x))
    y = net.add("heads", Reshape(sizes=(4, 3, 4, 6)), net.add("qkv", Linear(width=3 * 4 * 6), x))
    y = net.add("first", Permute(order=(0, 2, 3, 1, 4)), y)
    parts = [net.add(f"part{i}", Index(dim=1, index=i), y) for i in range(3)]
    y = net.add(
        "back", Permute(order=(0, 2, 1, 3)), net.add("attend", Attention(scale=0.4), *parts)
    )
    y = net.add("proj", Linear(width=8), net.add("merged", Reshape(sizes=(4, 24)), y))
    x = net.join("add1", x, y)
    y = net.add("fc1", Linear(width=10), x)
    y = net.add("fc2", Linear(width=8), net.activation("gelu", y, "gelu"))
    x = net.add("mean", Reduce(dims=(1,)), net.join("add2", x, y))
    return net.finish(net.add("fc", Linear(width=5), x))


GRAPHS: Mapping[str, Callable[[], Graph]] = {
    "vgg11": lambda: reference("vgg11", (3, 16, 16), 5, width=0.25),
    "vgg11_l1": lambda: reference("vgg11_l1", (3, 16, 16), 5, width=0.125),
    "resnet20": lambda: reference("resnet20", (3, 8, 8), 5, width=0.5),
    "preresnet": lambda: reference("preresnet", (3, 8, 8), 5, width=0.5, depth=11),
    "densenet": lambda: reference("densenet", (3, 8, 8), 5, width=0.5, depth=13),
    "densenet_plain": lambda: reference(
        "densenet", (3, 8, 8), 5, width=0.5, depth=13, selection=False
    ),
    "mobilenet_v2": lambda: reference("mobilenet_v2", (3, 16, 16), 5, width=0.1),
    "grouped": grouped,
    "gated": gated,
}


def trained(graph: Graph, *, seed: int = 0) -> Network:
    """Return a network whose batch norms look trained: all values distinct, none at its start."""
    network = build(graph, seed=seed).eval()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, scale in network.scales():
            norm = network.node(name)
            signs = torch.randint(0, 2, scale.shape, generator=generator) * 2 - 1
            scale.uniform_(0.05, 1.0, generator=generator).mul_(signs)
            norm.bias.normal_(0.0, 0.3, generator=generator)
            norm.running_mean.normal_(0.0, 0.3, generator=generator)
            norm.running_var.uniform_(0.5, 1.5, generator=generator)
    return network


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

    A batch norm that only selections read is zero wherever none of them selects.

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
