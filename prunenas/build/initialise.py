"""Fresh weights by a named scheme: every build starts here."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from prunenas.build.masks import mask_tensor
from prunenas.build.modules import (
    ChannelSelection,
    ConstantTensor,
    Masked,
    TrainableTensor,
)
from prunenas.build.network import Network
from prunenas.ir.graph import Graph, Init

_LINEAR_DEVIATION = {"normal_0.01": 0.01, "normal_0.02": 0.02}
_TENSOR_DEVIATION = 0.02


DrawOn = Literal["cpu", "device"]


def build(
    graph: Graph,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    draw_on: DrawOn = "cpu",
) -> Network:
    """Return a fresh network: weights drawn from ``seed`` by the graph's scheme.

    Weights are drawn on the CPU, so a seed gives the same network on every device. The global
    random state is neither read nor changed.

    Args:
        graph: The network to build.
        seed: Seed of all draws.
        device: Where the network is put.
        draw_on: ``device`` draws where the network is put: faster on CUDA, and other numbers than
            on a CPU. Such a network does not know its seed (``init_seed`` is None), since the seed
            alone does not give its weights again.

    Source: the released code of Liu et al. 2019, arXiv:1810.05270 (schemes); He et al. 2015,
        arXiv:1502.01852 (fan-in and fan-out).
    """
    # On the meta device torch's own constructors draw nothing.
    with torch.device("meta"):
        network = Network(graph)
    place = torch.device(device if draw_on == "device" else "cpu")
    network.to_empty(device=place)
    generator = torch.Generator(place).manual_seed(seed)
    with torch.no_grad():
        for node in graph.nodes:
            if node.weights is None:
                _fill(network.node(node.name), node.name, graph.init, generator)
    network.init_seed = seed if place.type == "cpu" else None
    return network.to(device)


def _fill(module: nn.Module, name: str, init: Init, generator: torch.Generator) -> None:
    if isinstance(module, Masked):
        module.mask.copy_(mask_tensor(module.sparsity, tuple(module.weight.shape), name))
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        _fill_conv(module, init, generator)
    elif isinstance(module, nn.Linear):
        if deviation := _LINEAR_DEVIATION.get(init.linear):
            module.weight.normal_(0.0, deviation, generator=generator)
            _zero(module.bias)
        else:
            _torch_default(module.weight, module.bias, generator)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        vector = isinstance(module, nn.BatchNorm1d)
        module.reset_running_stats()
        module.weight.fill_(init.vector_scale if vector else init.scale)
        _zero(module.bias)
    elif isinstance(module, nn.GroupNorm | nn.LayerNorm | nn.RMSNorm):
        for key, tensor in module.named_parameters():
            tensor.fill_(1.0 if key == "weight" else 0.0)
    elif isinstance(module, ChannelSelection):
        module.indices.copy_(torch.tensor(module.chosen))
    elif isinstance(module, TrainableTensor):
        _fill_tensor(module, generator)
    elif isinstance(module, ConstantTensor):
        module.value.copy_(module.stored())
    if isinstance(module, Masked):
        module.weight.mul_(module.mask)


def _fill_tensor(module: TrainableTensor, generator: torch.Generator) -> None:
    if module.start == "normal":
        module.value.normal_(0.0, _TENSOR_DEVIATION, generator=generator)
    else:
        module.value.fill_(1.0 if module.start == "ones" else 0.0)


def _fill_conv(conv: nn.Conv1d | nn.Conv2d, init: Init, generator: torch.Generator) -> None:
    area = math.prod(conv.kernel_size)
    fan = conv.out_channels if init.conv == "fan_out" else conv.weight.shape[1]
    fan_area: float = area * fan
    if isinstance(conv, Masked):
        # The surviving fan counts, so the deviation grows as the mask gets sparser.
        fan_area *= float(conv.mask.mean())
    if init.conv == "torch":
        _torch_default(conv.weight, conv.bias, generator)
    else:
        conv.weight.normal_(0.0, math.sqrt(2.0 / fan_area), generator=generator)
        _zero(conv.bias)


def _torch_default(weight: Tensor, bias: Tensor | None, generator: torch.Generator) -> None:
    bound = 1.0 / math.sqrt(weight[0].numel())
    weight.uniform_(-bound, bound, generator=generator)
    if bias is not None:
        bias.uniform_(-bound, bound, generator=generator)


def _zero(tensor: Tensor | None) -> None:
    if tensor is not None:
        tensor.zero_()
