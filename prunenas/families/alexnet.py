"""AlexNet as in torchvision, under its names.

Source: Krizhevsky 2014, arXiv:1404.5997 (one column).
"""

from prunenas.families.base import IMAGENET_SIZE, family, scaled
from prunenas.ir.graph import Graph, Init
from prunenas.ir.ops import Flatten
from prunenas.ir.writer import GraphWriter

_HIDDEN = 4096


@family("alexnet", input_size=IMAGENET_SIZE, classes=1000)
def alexnet(net: GraphWriter, classes: int, width: float) -> Graph:
    """Return AlexNet: five convolutions, three linear layers, each hidden one after a dropout."""
    with net.scope("features"):
        x = net.conv("0", net.input, scaled(64, width), kernel=11, stride=4, padding=2, bias=True)
        x = net.max_pool("2", net.relu("1", x), kernel=3, stride=2)
        x = net.relu("4", net.conv("3", x, scaled(192, width), kernel=5, bias=True))
        x = net.max_pool("5", x, kernel=3, stride=2)
        for position, channels in ((6, 384), (8, 256), (10, 256)):
            x = net.conv(str(position), x, scaled(channels, width), kernel=3, bias=True)
            x = net.relu(str(position + 1), x)
        x = net.max_pool("12", x, kernel=3, stride=2)
    x = net.add("flatten", Flatten(), net.global_pool("avgpool", x, size=6))
    with net.scope("classifier"):
        x = net.linear("1", net.dropout("0", x), scaled(_HIDDEN, width))
        x = net.dropout("3", net.relu("2", x))
        x = net.relu("5", net.linear("4", x, scaled(_HIDDEN, width)))
        x = net.linear("6", x, classes)
    return net.finish(x, Init(conv="torch"))
