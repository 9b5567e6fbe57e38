"""DenseNet for small images, plain and with bottlenecks.

Source: Huang et al. 2017, arXiv:1608.06993; channel selection after Liu et al. 2017,
arXiv:1708.06519, whose stem is twice the growth wide for the plain network too.
"""

import math

from prunenas.errors import InputError
from prunenas.families.base import CIFAR_SIZE, family, need_depth, scaled
from prunenas.ir.graph import Graph, Init
from prunenas.ir.writer import GraphWriter

_STAGES = 3


@family("densenet", input_size=CIFAR_SIZE, classes=10)
@family(
    "densenet40", input_size=CIFAR_SIZE, classes=10, depth=40, bottleneck=False, compression=1.0
)
@family(
    "densenetbc100", input_size=CIFAR_SIZE, classes=10, depth=100, bottleneck=True, compression=0.5
)
def densenet(
    net: GraphWriter,
    classes: int,
    width: float,
    *,
    depth: int = 40,
    growth: int = 12,
    bottleneck: bool = False,
    compression: float = 1.0,
    selection: bool = True,
) -> Graph:
    """Return a DenseNet of three dense blocks.

    Args:
        net: Where to write.
        classes: Number of classes.
        width: Factor for the growth, and so for all widths.
        depth: 3n + 4, with bottlenecks 6n + 4: n layers in each dense block.
        growth: Channels that each layer appends.
        bottleneck: Squeeze to four times the growth before each 3x3 convolution.
        compression: Part of the channels that a transition lets through, in (0, 1].
        selection: Choose among the channels where a layer, a transition or the head reads them
            (Network Slimming; scales start at 0.5). False is the network of the weight-level
            experiments (scales start at 1).

    Raises:
        InputError: The depth is not of that form, or ``growth`` or ``compression`` is illegal.
    """
    if bottleneck:
        layers = need_depth(depth, rule="6n + 4 with bottlenecks", base=4, step=6)
    else:
        layers = need_depth(depth, rule="3n + 4", base=4, step=3)
    if growth < 1 or not 0 < compression <= 1:
        raise InputError(
            f"growth is from 1 on and compression in (0, 1], got {growth=}, {compression=}"
        )
    step = scaled(growth, width)
    x = net.conv("conv1", net.input, 2 * step, kernel=3)
    for stage in range(1, _STAGES + 1):
        for layer in range(layers):
            with net.scope(f"dense{stage}.{layer}"):
                x = _layer(net, x, step, bottleneck=bottleneck, selection=selection)
        if stage < _STAGES:
            with net.scope(f"trans{stage}"):
                x = _transition(net, x, compression, selection=selection)
    x = net.global_pool("avgpool", _activated(net, x, "bn", "relu", selection=selection))
    return net.finish(net.linear("fc", x, classes), Init(scale=0.5 if selection else 1.0))


def _activated(net: GraphWriter, x: str, bn: str, relu: str, *, selection: bool) -> str:
    x = net.batch_norm(bn, x)
    return net.relu(relu, net.select_all("select", x) if selection else x)


def _layer(net: GraphWriter, x: str, growth: int, *, bottleneck: bool, selection: bool) -> str:
    y = _activated(net, x, "bn1", "relu1", selection=selection)
    if bottleneck:
        y = net.batch_norm("bn2", net.conv("conv1", y, 4 * growth, kernel=1))
        y = net.conv("conv2", net.relu("relu2", y), growth, kernel=3)
    else:
        y = net.conv("conv1", y, growth, kernel=3)
    return net.concat("concat", x, y)


def _transition(net: GraphWriter, x: str, compression: float, *, selection: bool) -> str:
    width = max(1, math.floor(net.shape(x).channels * compression))
    x = _activated(net, x, "bn1", "relu1", selection=selection)
    return net.average_pool("pool", net.conv("conv1", x, width, kernel=1), kernel=2)
