"""Torch-Pruning as an oracle of coupling: which layers must lose their channels together."""

import pytest
import torch
import torchvision
from torch import nn

from prunenas.importers.trace import import_network
from prunenas.ir.coupling import couple
from prunenas.ir.ops import Conv2d, Linear

SIZE = (3, 96, 96)
NAMES = (
    "alexnet",
    "squeezenet1_1",
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "densenet121",
    "googlenet",
    "inception_v3",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "regnet_y_400mf",
    "convnext_tiny",
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
]


def made(name):
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    module = torchvision.models.get_model(name, weights=None, num_classes=10, **options).eval()
    for head in ("aux1", "aux2", "AuxLogits"):
        if hasattr(module, head):
            setattr(module, head, None)
    return module


def by_torch_pruning(module):
    """Return the sets of dense layers whose output channels go together."""
    pruning = pytest.importorskip("torch_pruning")
    names = {part: name for name, part in module.named_modules()}
    last = [part for part in module.modules() if isinstance(part, nn.Linear | nn.Conv2d)][-1]
    with torch.enable_grad():
        graph = pruning.DependencyGraph().build_dependency(module, torch.randn(1, *SIZE))
    found = set()
    for group in graph.get_all_groups(
        ignored_layers=[last], root_module_types=[nn.Conv2d, nn.Linear]
    ):
        found.add(
            frozenset(
                names[dep.target.module]
                for dep, _ in group
                if graph.is_out_channel_pruning_fn(dep.handler)
                and isinstance(dep.target.module, nn.Conv2d | nn.Linear)
                and not _is_depthwise(dep.target.module)
            )
        )
    return found - {frozenset()}


def _is_depthwise(part):
    return isinstance(part, nn.Conv2d) and part.groups > 1 and part.groups == part.in_channels


def by_us(imported):
    """Return the same of our groups, by the module's names."""
    graph = imported.graph
    return {
        frozenset(
            imported.state[f"{member}.weight"].removesuffix(".weight")
            for member in group.members
            if isinstance(graph[member].op, Conv2d | Linear)
        )
        for group in couple(graph).free
    }


@pytest.mark.parametrize("name", NAMES)
def test_groups_are_torch_prunings(name):
    module = made(name)
    ours = by_us(import_network(module, SIZE))
    assert len(ours) > 1
    assert ours == by_torch_pruning(module)
