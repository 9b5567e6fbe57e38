"""Small networks and data for training in seconds."""

import math

import numpy as np
import torch

from prunenas.data.base import ImageData
from prunenas.ir.graph import Graph
from prunenas.ir.ops import Conv1d, Flatten, Reshape
from prunenas.ir.writer import GraphWriter


def small(size=(3, 16, 16), classes=10, *, widths=(16, 32, 32), dropout=0.0) -> Graph:
    """Three convolutions with norms, and dropout before the last layer where asked for."""
    net = GraphWriter(size)
    x = net.input
    for i, width in enumerate(widths):
        x = net.batch_norm(f"bn{i}", net.conv(f"conv{i}", x, width, kernel=3))
        x = net.relu(f"relu{i}", x)
        x = net.max_pool(f"pool{i}", x, kernel=2) if i < 2 else x
    x = net.global_pool("average", x)
    x = net.dropout("dropout", x, dropout) if dropout else x
    return net.finish(net.linear("fc", x, classes))


def linear(size=(1, 4, 4), classes=4) -> Graph:
    """One linear layer: no norm forgives anything."""
    net = GraphWriter(size)
    return net.finish(net.linear("fc", net.input, classes))


def every_kernel() -> Graph:
    """One layer of each kind that can be masked."""
    net = GraphWriter((2, 4, 4))
    x = net.batch_norm("bn", net.conv("conv", net.input, 8, kernel=3))
    x = net.depthwise("depthwise", net.activation("act", x, "tanh"), kernel=3)
    x = net.add("line", Reshape(sizes=(8, 16)), x)
    x = net.add("conv1d", Conv1d(width=6, kernel=3, padding=1, bias=True), x)
    x = net.add("flatten", Flatten(), net.activation("act1d", x, "tanh"))
    return net.finish(net.linear("fc", x, 4))


KERNELS = ("conv", "depthwise", "conv1d", "fc")


def half_masks(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    """A mask of each kernel, true for half of its weights and then some."""
    draws = np.random.default_rng(seed)
    masks = {}
    for name in KERNELS:
        shape = graph.parameters()[f"{name}.weight"]
        masks[name] = draws.permutation(math.prod(shape)).reshape(shape) % 2 == 0
        masks[name].reshape(len(masks[name]), -1)[:, 0] = True  # no filter is empty
    return masks


def noise(count, size=(1, 4, 4), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *size), dtype=torch.uint8, generator=generator)


def made(train=24, test=8, *, size=(1, 4, 4), classes=4, **changes) -> ImageData:
    """Noise with labels in turn; the first image of each class is held out."""
    fields = {
        "name": "made",
        "train_images": noise(train, size),
        "train_labels": torch.arange(train) % classes,
        "test_images": noise(test, size, seed=1),
        "test_labels": torch.arange(test) % classes,
        "classes": classes,
        "mean": (0.5,) * size[0],
        "std": (0.3,) * size[0],
        "flip": False,
        "crop_padding": 0,
        "validation": torch.arange(classes),
    }
    return ImageData(**{**fields, **changes})
