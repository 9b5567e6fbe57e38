"""Small networks written by hand, one for each rule that a descriptor can break."""

from prunenas.arch.descriptor import Descriptor
from prunenas.ir.canonical import digest
from prunenas.ir.graph import Graph
from prunenas.ir.ops import Select
from prunenas.ir.writer import GraphWriter


def descriptor(graph, **fields) -> Descriptor:
    return Descriptor(reference=digest(graph), **fields)


def chain() -> Graph:
    """Two convolutions of 8 and 6, a hidden vector of 4, five classes."""
    net = GraphWriter((3, 8, 8))
    x = net.relu("relu1", net.batch_norm("bn1", net.conv("conv1", net.input, 8, kernel=3)))
    x = net.relu("relu2", net.conv("conv2", net.max_pool("pool", x, kernel=2), 6, kernel=3))
    x = net.relu("relu3", net.linear("hidden", net.global_pool("average", x), 4))
    return net.finish(net.linear("fc", x, 5))


def residual() -> Graph:
    """A stem and one residual block of one size, a narrower layer after a pooling.

    Groups: ``stem`` (with ``block.conv2``, 8), ``block.conv1`` (10), ``last`` (12).
    """
    net = GraphWriter((3, 8, 8))
    x = net.conv("stem", net.input, 8, kernel=3)
    with net.scope("block"):
        y = net.relu("relu", net.batch_norm("bn1", net.conv("conv1", x, 10, kernel=3)))
        y = net.batch_norm("bn2", net.conv("conv2", y, 8, kernel=3))
        x = net.join("add", y, x)
    x = net.relu("relu", net.conv("last", net.max_pool("pool", x, kernel=2), 12, kernel=3))
    return net.finish(net.linear("fc", net.global_pool("average", x), 5))


def selecting(indices: tuple[int, ...] = tuple(range(8))) -> Graph:
    """A selection ``pick`` stands between ``stem`` (8) and ``body`` (6)."""
    net = GraphWriter((3, 8, 8))
    x = net.batch_norm("bn", net.conv("stem", net.input, 8, kernel=3))
    x = net.relu("relu", net.add("pick", Select(indices=indices), x))
    x = net.conv("body", x, 6, kernel=3)
    return net.finish(net.linear("fc", net.global_pool("average", x), 5))


def everything() -> Graph:
    """A residual block, a grouped convolution, a selection and a padded shortcut."""
    net = GraphWriter((3, 8, 8))
    x = net.conv("stem", net.input, 8, kernel=3)
    with net.scope("block"):
        y = net.conv("conv2", net.relu("relu", net.conv("conv1", x, 10, kernel=3)), 8, kernel=3)
        x = net.join("add", y, x)
    x = net.conv("grouped", net.select_all("pick", x), 12, kernel=3, groups=4)
    with net.scope("padded"):
        y = net.conv("conv", x, 16, kernel=3, stride=2)
        x = net.join("add", y, net.pad_channels("pad", x, y, stride=2, detach=False))
    return net.finish(net.linear("fc", net.global_pool("average", x), 5))
