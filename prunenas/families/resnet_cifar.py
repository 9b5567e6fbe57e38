"""ResNet for small images: basic blocks, shortcuts without parameters.

Source: He et al. 2016, arXiv:1512.03385, section 4.2.
"""

from typing import Literal

from prunenas.families.base import CIFAR_SIZE, family, need_depth, scaled
from prunenas.ir.graph import Graph, Init
from prunenas.ir.writer import GraphWriter


@family("resnet", input_size=CIFAR_SIZE, classes=10)
@family("resnet20", input_size=CIFAR_SIZE, classes=10, depth=20)
@family("resnet32", input_size=CIFAR_SIZE, classes=10, depth=32)
@family("resnet56", input_size=CIFAR_SIZE, classes=10, depth=56)
@family("resnet110", input_size=CIFAR_SIZE, classes=10, depth=110)
def resnet_cifar(
    net: GraphWriter, classes: int, width: float, *, depth: int = 56, detach: bool = False
) -> Graph:
    """Return a ResNet of ``depth`` 6n + 2: three stages of n blocks, widths 16, 32, 64.

    Where size and width change the shortcut subsamples and appends zero channels.

    Args:
        net: Where to write.
        classes: Number of classes.
        width: Factor for all widths.
        depth: 6n + 2.
        detach: Let no gradient through these two shortcuts, and average 2x2 cells in them instead
            of subsampling: what the released code of L1-norm pruning does.

    Raises:
        InputError: The depth is not of that form.
    """
    blocks = need_depth(depth, rule="6n + 2", base=2, step=6)
    x = net.batch_norm("bn1", net.conv("conv1", net.input, scaled(16, width), kernel=3))
    x = net.relu("relu", x)
    for stage, channels in enumerate((16, 32, 64), start=1):
        for block in range(blocks):
            with net.scope(f"layer{stage}.{block}"):
                stride = 2 if stage > 1 and block == 0 else 1
                x = _block(net, x, scaled(channels, width), stride=stride, detach=detach)
    x = net.linear("fc", net.global_pool("avgpool", x), classes)
    return net.finish(x, Init())


def _block(net: GraphWriter, x: str, channels: int, *, stride: int, detach: bool) -> str:
    y = net.batch_norm("bn1", net.conv("conv1", x, channels, kernel=3, stride=stride))
    y = net.relu("relu1", y)
    y = net.batch_norm("bn2", net.conv("conv2", y, channels, kernel=3))
    if stride > 1:
        cell: Literal["subsample", "average"] = "average" if detach else "subsample"
        x = net.pad_channels("shortcut", x, y, stride=stride, function=cell, detach=detach)
    return net.relu("relu2", net.join("add", y, x))
