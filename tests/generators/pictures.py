"""Images of noise that fit any graph, and what a method looks at."""

import torch

from prunenas.data.base import ImageData, split_validation
from prunenas.generators.base import Subject
from prunenas.ir.coupling import couple


def pictures(graph, *, train=60, test=10, seed=0):
    """Return images of noise of the graph's input size and classes."""
    generator = torch.Generator().manual_seed(seed)
    size = (train + test, *graph.input_size)
    images = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)
    labels = torch.arange(train + test) % graph.classes
    channels = graph.input_size[0]
    return ImageData(
        name="noise",
        train_images=images[:train],
        train_labels=labels[:train],
        test_images=images[train:],
        test_labels=labels[train:],
        classes=graph.classes,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        flip=False,
        crop_padding=0,
        validation=split_validation(labels[:train]),
    )


def seen(data):
    """Return all images that methods may look at, normalised, and their labels."""
    part = data.part("fit")
    return (part.images.float() / 255 - 0.5) / 0.25, part.labels


def subject_of(network, data=None, *, keep=0.5, seed=0):
    """Return what a method looks at that is called by hand."""
    groups = couple(network.graph)
    return Subject(
        graph=network.graph, groups=groups, asked=keep, seed=seed, network=network, data=data
    )
