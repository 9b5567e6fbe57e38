"""What the tests of this floor share: lively statistics, positions of channels, small nets."""

from collections.abc import Mapping, Sequence

import torch

from prunenas.build.initialise import build
from prunenas.families.base import reference
from prunenas.ir.coupling import ChannelGroups, GroupAxis
from prunenas.ir.graph import Graph, Node
from prunenas.ir.ops import Constant, Conv1d, Conv2d, Filled, LayerNorm, Linear, Parameter

FAMILIES = {
    "vgg16": lambda: reference("vgg16", width=0.125),
    "vgg16_l1": lambda: reference("vgg16_l1", width=0.125),
    "lenet5": lambda: reference("lenet5"),
    "resnet20": lambda: reference("resnet20"),
    "resnet18": lambda: reference("resnet18", (3, 64, 64), 10, width=0.25),
    "resnet50": lambda: reference("resnet50", (3, 64, 64), 10, width=0.125),
    "preresnet20": lambda: reference("preresnet", depth=20),
    "densenet13": lambda: reference("densenet", depth=13),
    "densenetbc": lambda: reference("densenet", depth=16, bottleneck=True, compression=0.5),
    "mobilenet_v2": lambda: reference("mobilenet_v2", (3, 64, 64), 10, width=0.35),
    "alexnet": lambda: reference("alexnet", (3, 64, 64), 10, width=0.05),
}


def lively(graph: Graph, seed: int = 0):
    """Return a network in eval mode, in double precision, whose norms all differ."""
    network = build(graph, seed=seed).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
            if name.endswith("running_mean") or (tensor.dim() == 1 and name.endswith("bias")):
                tensor.normal_(0.0, 0.5, generator=generator)
            elif name.endswith("running_var") or (tensor.dim() == 1 and name.endswith("weight")):
                tensor.uniform_(0.5, 1.5, generator=generator)
    return network


def images(graph: Graph, count: int = 2, seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *graph.input_size, generator=generator, dtype=torch.float64)


def positions(axis: GroupAxis, channels: Mapping[str, Sequence[int]], full: Mapping[str, int]):
    """Return where on ``axis`` the ``channels`` of each group stand, in their order."""
    found, start = [], 0
    for segment in axis:
        places = [0]
        for factor in segment.factors:
            size = factor if isinstance(factor, int) else full[factor]
            chosen = channels.get(factor, range(size)) if isinstance(factor, str) else range(size)
            places = [place * size + i for place in places for i in chosen]
        found += [start + place for place in places]
        start += segment.width(full)
    return found


def tensor_axes(node: Node, groups: ChannelGroups) -> list[GroupAxis]:
    """Return what the first dimensions of a node's tensors are made of."""
    if isinstance(node.op, Parameter | Filled | Constant):
        return [*groups.dims[node.name]]
    if isinstance(node.op, LayerNorm):
        return [*groups.dims[node.name][-node.op.dims :]]
    weighted = isinstance(node.op, Conv1d | Conv2d | Linear) and getattr(node.op, "groups", 1) == 1
    return [groups.axes[node.name], *([groups.read(node)] if weighted else [])]
