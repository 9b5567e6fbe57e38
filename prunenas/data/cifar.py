"""CIFAR-10 and CIFAR-100, read and fetched by torchvision."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prunenas.data.base import (
    DATASETS,
    ImageData,
    open_torchvision,
    refuse_argument,
    split_validation,
)


@DATASETS.register("cifar10")
def cifar10(argument: str, root: Path, download: bool) -> ImageData:
    """Return CIFAR-10: 50,000 and 10,000 colour images of 32x32, 10 classes.

    Source: Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images.
    """
    refuse_argument("cifar10", argument)
    return _cifar("cifar10", "CIFAR10", 10, root, download)


@DATASETS.register("cifar100")
def cifar100(argument: str, root: Path, download: bool) -> ImageData:
    """Return CIFAR-100: 50,000 and 10,000 colour images of 32x32, 100 classes.

    Source: Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images.
    """
    refuse_argument("cifar100", argument)
    return _cifar("cifar100", "CIFAR100", 100, root, download)


def _cifar(name: str, class_name: str, classes: int, root: Path, download: bool) -> ImageData:
    from torchvision import datasets

    kind = getattr(datasets, class_name)
    listed = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    train, test = open_torchvision(
        name,
        root,
        {f"{kind.base_folder}/{file}": md5 for file, md5 in listed},
        lambda folder, fetch: (kind(folder, True, download=fetch), kind(folder, False)),
        download=download,
        command=f'import torchvision; torchvision.datasets.{class_name}("{root}", download=True)',
    )
    labels = torch.tensor(train.targets)
    return ImageData(
        name=name,
        train_images=_images(train),
        train_labels=labels,
        test_images=_images(test),
        test_labels=torch.tensor(test.targets),
        classes=classes,
        # CIFAR-10's customary numbers, for both: the pruning literature trains CIFAR-100 with them.
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
        flip=True,
        crop_padding=4,
        validation=split_validation(labels),
    )


def _images(opened: Any) -> Tensor:
    return torch.from_numpy(opened.data).permute(0, 3, 1, 2).contiguous()
