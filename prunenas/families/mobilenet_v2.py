"""MobileNetV2 under torchvision's names.

Source: Sandler et al. 2018, arXiv:1801.04381, table 2.
"""

from prunenas.families.base import IMAGENET_SIZE, family
from prunenas.ir.graph import Graph, Init
from prunenas.ir.writer import GraphWriter

_STAGES = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]
"""Expansion, width, blocks, stride of the first block."""

_STEM, _LAST = 32, 1280


@family("mobilenet_v2", input_size=IMAGENET_SIZE, classes=1000)
def mobilenet_v2(net: GraphWriter, classes: int, width: float) -> Graph:
    """Return MobileNetV2; scaled widths are multiples of 8, the last one never shrinks."""
    x = net.conv("features.0.0", net.input, divisible(_STEM * width), kernel=3, stride=2)
    x = net.activation("features.0.2", net.batch_norm("features.0.1", x), "relu6")
    position = 1
    for expansion, channels, blocks, stride in _STAGES:
        for block in range(blocks):
            with net.scope(f"features.{position}"):
                step = stride if block == 0 else 1
                x = _block(net, x, divisible(channels * width), expansion=expansion, stride=step)
            position += 1
    with net.scope(f"features.{position}"):
        x = net.conv("0", x, divisible(_LAST * max(1.0, width)), kernel=1)
        x = net.activation("2", net.batch_norm("1", x), "relu6")
    x = net.dropout("classifier.0", net.global_pool("avgpool", x), 0.2)
    return net.finish(net.linear("classifier.1", x, classes), Init(linear="normal_0.01"))


def divisible(width: float, divisor: int = 8) -> int:
    """Return the multiple of ``divisor`` nearest to ``width``, not below 90 % of it.

    Example:
        >>> divisible(32 * 0.35), divisible(24 * 0.35)
        (16, 8)
    """
    nearest = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return nearest if nearest >= 0.9 * width else nearest + divisor


def _block(net: GraphWriter, x: str, channels: int, *, expansion: int, stride: int) -> str:
    y, source = x, net.shape(x).channels
    if expansion > 1:
        y = net.conv("conv.0.0", y, source * expansion, kernel=1)
        y = net.activation("conv.0.2", net.batch_norm("conv.0.1", y), "relu6")
    at = 1 if expansion > 1 else 0
    y = net.depthwise(f"conv.{at}.0", y, kernel=3, stride=stride)
    y = net.activation(f"conv.{at}.2", net.batch_norm(f"conv.{at}.1", y), "relu6")
    y = net.conv(f"conv.{at + 1}", y, channels, kernel=1)
    y = net.batch_norm(f"conv.{at + 2}", y)
    return net.join("add", x, y) if stride == 1 and channels == source else y
