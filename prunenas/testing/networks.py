"""Small references of every kind that methods meet, trained networks that cost nothing, images."""

from collections.abc import Callable, Mapping

import torch

from prunenas.build.initialise import build
from prunenas.build.network import Network
from prunenas.data.base import ImageData
from prunenas.families.base import reference
from prunenas.ir.graph import Graph
from prunenas.ir.ops import Attention, Depthwise2d, Gate, Index, Linear, Permute, Reduce, Reshape
from prunenas.ir.writer import GraphWriter


def grouped() -> Graph:
    """Two convolutions side by side, one of them grouped; a grouped one on what joins them."""
    net = GraphWriter((3, 8, 8))
    x = net.relu("relu", net.batch_norm("bn", net.conv("stem", net.input, 8, kernel=3)))
    left = net.relu("relu1", net.batch_norm("bn1", net.conv("left", x, 12, kernel=1)))
    right = net.relu("relu2", net.batch_norm("bn2", net.conv("right", x, 8, kernel=3, groups=2)))
    x = net.concat("concat", left, right)
    x = net.relu("relu3", net.batch_norm("bn3", net.conv("mixed", x, 12, kernel=1)))
    x = net.conv("grouped", x, 16, kernel=3, groups=4)
    x = net.relu("relu4", net.batch_norm("bn4", x))
    return net.finish(net.linear("fc", net.global_pool("pool", x), 5))


def gated() -> Graph:
    """A squeeze-excite gate on a residual branch."""
    net = GraphWriter((3, 8, 8))
    x = net.relu("relu", net.batch_norm("bn", net.conv("stem", net.input, 12, kernel=3)))
    y = net.relu("relu1", net.batch_norm("bn1", net.conv("body", x, 12, kernel=3)))
    factors = net.relu("relu2", net.conv("reduce", net.global_pool("mean", y), 6, kernel=1))
    factors = net.conv("expand", factors, 12, kernel=1, bias=True)
    y = net.add("gate", Gate(), y, net.activation("sigmoid", factors, "sigmoid"))
    x = net.join("add", x, y)
    return net.finish(net.linear("fc", net.global_pool("pool", x), 5))


def inverted() -> Graph:
    """Two inverted residuals: depthwise convolutions, one of two outputs a channel."""
    net = GraphWriter((3, 8, 8))
    x = net.relu("relu", net.batch_norm("bn", net.conv("stem", net.input, 6, kernel=3)))
    for i, multiplier in enumerate((1, 2)):
        y = net.batch_norm(f"bn{i}a", net.conv(f"expand{i}", x, 12, kernel=1))
        y = net.activation(f"act{i}a", y, "relu6")
        op = Depthwise2d(multiplier=multiplier, kernel=(3, 3), padding=(1, 1))
        y = net.batch_norm(f"bn{i}b", net.add(f"depth{i}", op, y))
        y = net.activation(f"act{i}b", y, "relu6")
        y = net.batch_norm(f"bn{i}c", net.conv(f"project{i}", y, 6, kernel=1))
        x = net.join(f"add{i}", x, y)
    return net.finish(net.linear("fc", net.global_pool("pool", x), 5))


def attending() -> Graph:
    """Attention of four heads on tokens, and a perceptron, both with a shortcut; no norms.

    The scale of the products is given, so that it does not follow the width of the heads.
    """
    net = GraphWriter((3, 8, 8))
    x = net.conv("embed", net.input, 8, kernel=4, stride=4, padding=0)
    x = net.add("tokens", Permute(order=(0, 2, 1)), net.add("row", Reshape(sizes=(8, 4)), x))
    y = net.add("heads", Reshape(sizes=(4, 3, 4, 6)), net.add("qkv", Linear(width=3 * 4 * 6), x))
    y = net.add("first", Permute(order=(0, 2, 3, 1, 4)), y)
    parts = [net.add(f"part{i}", Index(dim=1, index=i), y) for i in range(3)]
    y = net.add(
        "back", Permute(order=(0, 2, 1, 3)), net.add("attend", Attention(scale=0.4), *parts)
    )
    y = net.add("proj", Linear(width=8), net.add("merged", Reshape(sizes=(4, 24)), y))
    x = net.join("add1", x, y)
    y = net.add("fc1", Linear(width=10), x)
    y = net.add("fc2", Linear(width=8), net.activation("gelu", y, "gelu"))
    x = net.add("mean", Reduce(dims=(1,)), net.join("add2", x, y))
    return net.finish(net.add("fc", Linear(width=5), x))


def tiny(*, free: bool) -> Graph:
    """Return a graph of its own size with one group that is free, or with none."""
    net = GraphWriter((2, 5, 5))
    x = net.conv("conv", net.input, 4, kernel=3) if free else net.input
    return net.finish(net.linear("fc", net.global_pool("pool", x), 3))


GRAPHS: Mapping[str, Callable[[], Graph]] = {
    "vgg11": lambda: reference("vgg11", (3, 16, 16), 5, width=0.25),
    "vgg11_l1": lambda: reference("vgg11_l1", (3, 16, 16), 5, width=0.125),
    "resnet20": lambda: reference("resnet20", (3, 8, 8), 5, width=0.5),
    "preresnet": lambda: reference("preresnet", (3, 8, 8), 5, width=0.5, depth=11),
    "densenet": lambda: reference("densenet", (3, 8, 8), 5, width=0.5, depth=13),
    "densenet_plain": lambda: reference(
        "densenet", (3, 8, 8), 5, width=0.5, depth=13, selection=False
    ),
    "mobilenet_v2": lambda: reference("mobilenet_v2", (3, 16, 16), 5, width=0.1),
    "grouped": grouped,
    "gated": gated,
    "inverted": inverted,
}


def trained(graph: Graph, *, seed: int = 0) -> Network:
    """Return a network whose batch norms look trained: all values distinct, none at its start."""
    network = build(graph, seed=seed).eval()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, scale in network.scales():
            norm = network.node(name)
            state = dict(norm.named_parameters()) | dict(norm.named_buffers())
            signs = torch.randint(0, 2, scale.shape, generator=generator) * 2 - 1
            scale.uniform_(0.05, 1.0, generator=generator).mul_(signs)
            state["bias"].normal_(0.0, 0.3, generator=generator)
            state["running_mean"].normal_(0.0, 0.3, generator=generator)
            state["running_var"].uniform_(0.5, 1.5, generator=generator)
    return network


def random_images(graph: Graph, *, seed: int = 0, fit: int = 24, held: int = 8) -> ImageData:
    """Return a data set of noise that fits ``graph``: the classes in turn, nothing to be learnt.

    Args:
        graph: Tells size and classes.
        seed: Which noise; that of the test images is another one.
        fit: Training images beside the validation part.
        held: Images of the validation part, and of the test set.
    """
    count = fit + held
    generator = torch.Generator().manual_seed(seed)

    def noise(images: int) -> torch.Tensor:
        size = (images, *graph.input_size)
        return torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)

    return ImageData(
        name="random images",
        train_images=noise(count),
        train_labels=torch.arange(count) % graph.classes,
        test_images=noise(held),
        test_labels=torch.arange(held) % graph.classes,
        classes=graph.classes,
        mean=(0.5,) * graph.input_size[0],
        std=(0.25,) * graph.input_size[0],
        flip=False,
        crop_padding=0,
        validation=torch.arange(fit, count),
    )
