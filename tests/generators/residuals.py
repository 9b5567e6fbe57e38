"""Two small residual networks, by where their branches end; and images for any network."""

import torch

from prunenas.ir.writer import GraphWriter


def preact():
    """Two blocks whose branches end in a convolution with a bias; the first projects."""
    net = GraphWriter((3, 8, 8))
    x = net.conv("stem", net.input, 4, kernel=3)
    active = net.relu("relu1", net.batch_norm("bn1", x))
    y = net.batch_norm("bn1b", net.conv("branch1a", active, 3, kernel=3, stride=2))
    y = net.conv("branch1", net.relu("relu1b", y), 6, kernel=3, bias=True)
    x = net.join("add1", y, net.conv("shortcut", active, 6, kernel=1, stride=2, bias=True))
    y = net.relu("relu2", net.batch_norm("bn2", x))
    y = net.relu("relu2b", net.batch_norm("bn2b", net.conv("branch2a", y, 5, kernel=3)))
    x = net.join("add2", net.conv("branch2b", y, 6, kernel=3, bias=True), x)
    return net.finish(net.linear("fc", net.global_pool("pool", net.relu("last", x)), 5))


def postact():
    """A block whose branch ends in a batch norm and dropout, of blocks with a ReLU behind."""
    net = GraphWriter((3, 8, 8))
    x = net.relu("relu", net.batch_norm("bn", net.conv("stem", net.input, 6, kernel=3)))
    y = net.relu("relu1", net.batch_norm("bn1", net.conv("a", x, 4, kernel=3)))
    y = net.dropout("dropout", net.batch_norm("bn2", net.conv("b", y, 6, kernel=3)), 0.2)
    x = net.relu("relu2", net.join("add", x, y))
    return net.finish(net.linear("fc", net.global_pool("pool", x), 5))


def some(graph, count=4, seed=0):
    return torch.randn(count, *graph.input_size, generator=torch.Generator().manual_seed(seed))
