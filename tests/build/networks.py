"""What the tests of this floor share: lively statistics, positions of channels, small nets."""

from collections.abc import Mapping

import torch

from prunenas.build.initialise import build
from prunenas.families.base import reference
from prunenas.ir.coupling import GroupAxis
from prunenas.ir.graph import Graph

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


def positions(axis: GroupAxis, channels: Mapping[str, list[int]], full: Mapping[str, int]):
    """Return where on ``axis`` the ``channels`` of each group stand, in their order."""
    found, start = [], 0
    for segment in axis:
        for channel in channels.get(segment.group, range(full[segment.group])):
            found += range(start + channel * segment.repeat, start + (channel + 1) * segment.repeat)
        start += full[segment.group] * segment.repeat
    return found
