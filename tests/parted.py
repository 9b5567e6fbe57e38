"""Small networks of grouped convolutions: a reduced ResNeXt, and cuts that are tied together."""

from dataclasses import replace

from prunenas.ir.graph import Graph
from prunenas.ir.ops import Depthwise2d
from prunenas.ir.writer import GraphWriter


def resnext() -> Graph:
    """Two residual blocks: 1x1, grouped 3x3, 1x1.

    ``a.mid`` has 4 parts, of 2 inputs and 3 outputs; ``b.mid`` has 2, of 3 and 3.
    """
    net = GraphWriter((3, 8, 8))
    x = net.relu("relu", net.batch_norm("bn", net.conv("stem", net.input, 8, kernel=3)))
    for block, into, out, parts in (("a", 8, 12, 4), ("b", 6, 6, 2)):
        with net.scope(block):
            y = net.relu("relu1", net.batch_norm("bn1", net.conv("low", x, into, kernel=1)))
            y = net.conv("mid", y, out, kernel=3, groups=parts)
            y = net.relu("relu2", net.batch_norm("bn2", y))
            y = net.batch_norm("bn3", net.conv("high", y, 8, kernel=1))
            x = net.relu("relu3", net.join("add", y, x))
    return net.finish(net.linear("fc", net.global_pool("pool", x), 5))


def chained() -> Graph:
    """Two grouped convolutions in a row, both in 3 parts, and a depthwise one behind them."""
    net = GraphWriter((3, 8, 8))
    x = net.relu("relu", net.batch_norm("bn", net.conv("low", net.input, 6, kernel=3)))
    x = net.conv("one", x, 9, kernel=3, groups=3)
    x = net.relu("relu1", net.batch_norm("bn1", x))
    x = net.conv("two", x, 6, kernel=1, groups=3)
    deep = Depthwise2d(multiplier=2, kernel=(3, 3), padding=(1, 1))
    x = net.relu("relu2", net.batch_norm("bn2", net.add("deep", deep, x)))
    return net.finish(net.linear("fc", net.global_pool("pool", x), 5))


def shared() -> Graph:
    """A grouped convolution of 4 parts that is called twice, each behind its own layer."""
    net = GraphWriter((3, 8, 8))
    ends = []
    for i in range(2):
        y = net.relu(f"relu{i}", net.conv(f"low{i}", net.input, 8, kernel=3, bias=True))
        ends.append(net.relu(f"end{i}", net.conv(f"mid{i}", y, 12, kernel=3, groups=4)))
    x = net.join("add", *ends)
    graph = net.finish(net.linear("fc", net.global_pool("pool", x), 5))
    nodes = (replace(n, weights="mid0" if n.name == "mid1" else None) for n in graph.nodes)
    return replace(graph, nodes=tuple(nodes))


def tied() -> Graph:
    """Parts that must stay: cut differently, read elsewhere, of an input, of a joined axis."""
    net = GraphWriter((4, 8, 8))
    x = net.relu("relu", net.conv("first", net.input, 8, kernel=3, groups=2))
    x = net.relu("relu1", net.conv("fours", x, 8, kernel=3, groups=4))
    x = net.relu("relu2", net.conv("halves", x, 8, kernel=3, groups=2))
    y = net.relu("relu3", net.conv("low", x, 8, kernel=1))
    y = net.concat("concat", net.conv("mid", y, 8, kernel=3, groups=2), y)
    y = net.relu("relu4", net.conv("joined", y, 8, kernel=3, groups=2))
    return net.finish(net.linear("fc", net.global_pool("pool", y), 5))
