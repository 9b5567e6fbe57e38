"""Pre-activation ResNet of bottlenecks, for small and large images.

Source: He et al. 2016, arXiv:1603.05027; channel selection after Liu et al. 2017,
arXiv:1708.06519; the network for large images after Huang and Wang 2018, arXiv:1707.01213.
"""

from prunenas.families.base import CIFAR_SIZE, IMAGENET_SIZE, family, need_depth, scaled
from prunenas.ir.graph import Graph, Init
from prunenas.ir.writer import GraphWriter

_EXPANSION = 4


@family("preresnet", input_size=CIFAR_SIZE, classes=10)
@family("preresnet110", input_size=CIFAR_SIZE, classes=10, depth=110)
@family("preresnet164", input_size=CIFAR_SIZE, classes=10, depth=164)
def preresnet(
    net: GraphWriter, classes: int, width: float, *, depth: int = 164, selection: bool = True
) -> Graph:
    """Return a pre-activation ResNet of ``depth`` 9n + 2: three stages of n bottlenecks.

    The first block of each stage projects its raw input, without batch norm.

    Args:
        net: Where to write.
        classes: Number of classes.
        width: Factor for all widths.
        depth: 9n + 2.
        selection: Choose among the channels after each block's first batch norm and after the
            last one (Network Slimming; scales start at 0.5). False is the network of the
            weight-level experiments (scales start at 1).

    Raises:
        InputError: The depth is not of that form.
    """
    blocks = need_depth(depth, rule="9n + 2", base=2, step=9)
    x = net.conv("conv1", net.input, scaled(16, width), kernel=3)
    for stage, channels in enumerate((16, 32, 64), start=1):
        for block in range(blocks):
            with net.scope(f"layer{stage}.{block}"):
                stride = 2 if stage > 1 and block == 0 else 1
                raw, inner = x, scaled(channels, width)
                x = _activated(net, x, relu="relu1", bn="bn1", selection=selection)
                x = _branch(net, x, inner, stride=stride)
                if block == 0:
                    raw = _projected(net, raw, like=x, stride=stride, name="downsample.0")
                x = net.join("add", x, raw)
    x = _activated(net, x, relu="relu", bn="bn", selection=selection)
    x = net.linear("fc", net.global_pool("avgpool", x), classes)
    return net.finish(x, Init(scale=0.5 if selection else 1.0))


@family("preresnet50_imagenet", input_size=IMAGENET_SIZE, classes=1000)
def preresnet50_imagenet(net: GraphWriter, classes: int, width: float) -> Graph:
    """Return the ResNet-50 of Sparse Structure Selection.

    The first block of each stage projects its activated input, so that with the branch left out
    batch norm, ReLU and projection remain.
    """
    x = net.conv("conv1", net.input, scaled(64, width), kernel=7, stride=2)
    x = net.relu("relu1", net.batch_norm("bn1", x))
    x = net.max_pool("maxpool", x, kernel=3, stride=2, padding=1)
    for stage, (channels, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], start=1):
        for block in range(blocks):
            with net.scope(f"layer{stage}.{block}"):
                stride = 2 if stage > 1 and block == 0 else 1
                raw = x
                active = _activated(net, x, relu="relu1", bn="bn1", selection=False)
                x = _branch(net, active, scaled(channels, width), stride=stride)
                if block == 0:
                    raw = _projected(net, active, like=x, stride=stride, name="downsample")
                x = net.join("add", x, raw)
    x = _activated(net, x, relu="relu", bn="bn", selection=False)
    x = net.linear("fc", net.global_pool("avgpool", x), classes)
    return net.finish(x, Init())


def _activated(net: GraphWriter, x: str, *, relu: str, bn: str, selection: bool) -> str:
    x = net.batch_norm(bn, x)
    return net.relu(relu, net.select_all("select", x) if selection else x)


def _branch(net: GraphWriter, x: str, channels: int, *, stride: int) -> str:
    x = net.batch_norm("bn2", net.conv("conv1", x, channels, kernel=1))
    x = net.conv("conv2", net.relu("relu2", x), channels, kernel=3, stride=stride)
    x = net.relu("relu3", net.batch_norm("bn3", x))
    return net.conv("conv3", x, channels * _EXPANSION, kernel=1)


def _projected(net: GraphWriter, x: str, *, like: str, stride: int, name: str) -> str:
    return net.conv(name, x, net.shape(like).channels, kernel=1, stride=stride)
