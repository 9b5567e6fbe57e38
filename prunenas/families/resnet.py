"""ResNet for large images, under torchvision's names.

Source: He et al. 2016, arXiv:1512.03385, table 1; the stride of a bottleneck stands in its 3x3
convolution, as in torchvision.
"""

from prunenas.families.base import IMAGENET_SIZE, family, scaled
from prunenas.ir.graph import Graph, Init
from prunenas.ir.writer import GraphWriter

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
_TRUNK = (64, 128, 256, 512)
_EXPANSION = 4


@family("resnet18", input_size=IMAGENET_SIZE, classes=1000, depth=18)
@family("resnet34", input_size=IMAGENET_SIZE, classes=1000, depth=34)
def resnet_basic(net: GraphWriter, classes: int, width: float, *, depth: int) -> Graph:
    """Return a ResNet of basic blocks."""
    x = _stem(net, scaled(_TRUNK[0], width))
    for stage, (channels, blocks) in enumerate(zip(_TRUNK, _BLOCKS[depth], strict=True), start=1):
        for block in range(blocks):
            with net.scope(f"layer{stage}.{block}"):
                stride = 2 if stage > 1 and block == 0 else 1
                x = _basic(net, x, scaled(channels, width), stride=stride)
    return _head(net, x, classes)


@family("resnet50", input_size=IMAGENET_SIZE, classes=1000, depth=50, biased=False, selection=False)
@family("resnet50_port", input_size=IMAGENET_SIZE, classes=1000, depth=50, biased=True)
def resnet_bottleneck(
    net: GraphWriter,
    classes: int,
    width: float,
    *,
    depth: int,
    biased: bool,
    selection: bool = False,
) -> Graph:
    """Return a ResNet of bottlenecks, the trunk four times as wide as their inner layers.

    Args:
        net: Where to write.
        classes: Number of classes.
        width: Factor for all widths.
        depth: 50.
        biased: Give the projections a bias that their batch norm makes redundant, as the port of
            the Caffe network does that ThiNet is compared on.
        selection: Choose among the input channels of each branch, as regression-based pruning
            does (He et al. 2017, arXiv:1707.06168, section 3.2); the shortcut reads them all.
    """
    x = _stem(net, scaled(_TRUNK[0], width))
    for stage, (channels, blocks) in enumerate(zip(_TRUNK, _BLOCKS[depth], strict=True), start=1):
        for block in range(blocks):
            with net.scope(f"layer{stage}.{block}"):
                inner, stride = scaled(channels, width), 2 if stage > 1 and block == 0 else 1
                source = net.select_all("select", x) if selection else x
                y = _bottleneck(net, source, inner, stride=stride)
                x = _joined(net, x, y, stride=stride, project=block == 0, biased=biased)
    return _head(net, x, classes)


def _stem(net: GraphWriter, width: int) -> str:
    x = net.batch_norm("bn1", net.conv("conv1", net.input, width, kernel=7, stride=2))
    return net.max_pool("maxpool", net.relu("relu", x), kernel=3, stride=2, padding=1)


def _head(net: GraphWriter, x: str, classes: int) -> Graph:
    return net.finish(net.linear("fc", net.global_pool("avgpool", x), classes), Init())


def _basic(net: GraphWriter, x: str, channels: int, *, stride: int) -> str:
    y = net.batch_norm("bn1", net.conv("conv1", x, channels, kernel=3, stride=stride))
    y = net.relu("relu1", y)
    y = net.batch_norm("bn2", net.conv("conv2", y, channels, kernel=3))
    return _joined(net, x, y, stride=stride, project=stride > 1, biased=False)


def _bottleneck(net: GraphWriter, x: str, channels: int, *, stride: int) -> str:
    y = net.relu("relu1", net.batch_norm("bn1", net.conv("conv1", x, channels, kernel=1)))
    y = net.batch_norm("bn2", net.conv("conv2", y, channels, kernel=3, stride=stride))
    y = net.conv("conv3", net.relu("relu2", y), channels * _EXPANSION, kernel=1)
    return net.batch_norm("bn3", y)


def _joined(net: GraphWriter, x: str, y: str, *, stride: int, project: bool, biased: bool) -> str:
    if project:
        channels = net.shape(y).channels
        x = net.conv("downsample.0", x, channels, kernel=1, stride=stride, bias=biased)
        x = net.batch_norm("downsample.1", x)
    return net.relu("relu", net.join("add", y, x))
