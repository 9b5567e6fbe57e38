"""Fashion-MNIST: from Debian's package, from a folder, or fetched by torchvision."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prunenas.data.base import (
    DATASETS,
    ImageData,
    Part,
    download_files,
    refuse_argument,
    split_validation,
)
from prunenas.errors import DataError

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FILES = tuple(
    f"{part}-{kind}-ubyte.gz"
    for part in ("train", "t10k")
    for kind in ("images-idx3", "labels-idx1")
)


@DATASETS.register("fashion_mnist")
def fashion_mnist(argument: str, root: Path, download: bool) -> ImageData:
    """Return Fashion-MNIST: 60,000 and 10,000 grey images, 10 classes, padded from 28x28 to 32x32.

    The padding, zeros on all four sides, lets every network of the CIFAR families take it.

    Source: Xiao et al. 2017, arXiv:1708.07747.
    """
    refuse_argument("fashion_mnist", argument)
    folder = _folder(root, download)
    train = _read_part(folder, "train", 60_000)
    test = _read_part(folder, "t10k", 10_000)
    return ImageData(
        name="fashion_mnist",
        train_images=train.images,
        train_labels=train.labels,
        test_images=test.images,
        test_labels=test.labels,
        classes=10,
        mean=(0.2190,),  # measured on the padded training images
        std=(0.3318,),
        flip=True,
        crop_padding=4,
        validation=split_validation(train.labels),
    )


def read_idx(path: Path) -> Tensor:
    """Return the bytes of a gzipped idx file as a uint8 tensor in its own shape.

    The format: two zero bytes, a type (8 is an unsigned byte), the number of sides, each side as
    a big-endian 32-bit number, then the values.

    Raises:
        DataError: The file is not gzip, is cut off, is no idx file or holds another type.
    """
    try:
        with gzip.open(path) as stream:
            content = stream.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    if len(content) < 4 or content[:2] != b"\0\0" or not content[3]:
        raise DataError(
            f"{path} is not an idx file: it begins with {content[:4].hex() or 'nothing'}"
        )
    if content[2] != 8:
        raise DataError(
            f"{path} holds idx type {content[2]:#04x}; only unsigned bytes (0x08) are read"
        )
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise DataError(f"{path} is damaged: it ends inside its header")
    sides = np.frombuffer(content, dtype=">u4", count=content[3], offset=4).tolist()
    if len(content) - start != math.prod(sides):
        raise DataError(
            f"{path} is damaged: its header promises {sides}, which are {math.prod(sides)} bytes, "
            f"it holds {len(content) - start}"
        )
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).copy()).reshape(sides)


def _read_part(folder: Path, part: str, count: int) -> Part:
    image_file, label_file = (folder / file for file in FILES if file.startswith(part))
    images, labels = read_idx(image_file), read_idx(label_file).long()
    if list(images.shape) != [count, 28, 28]:
        raise DataError(f"{image_file} must hold [{count}, 28, 28], got {list(images.shape)}")
    if list(labels.shape) != [count]:
        raise DataError(f"{label_file} must hold [{count}], got {list(labels.shape)}")
    # MNIST has the same file names, types and sizes, but no equal classes.
    counts = torch.bincount(labels).tolist()
    if counts != [count // 10] * 10:
        raise DataError(
            f"{label_file} is not of Fashion-MNIST (perhaps of MNIST?): "
            f"each of 10 classes must have {count // 10} images, got {counts}"
        )
    return Part(torch.nn.functional.pad(images.unsqueeze(1), (2, 2, 2, 2)), labels)


def _folder(root: Path, download: bool) -> Path:
    fetched = root / "FashionMNIST" / "raw"
    folders = (root, fetched, root / "fashion-mnist", DEBIAN_FOLDER)
    for folder in folders:
        if all((folder / file).is_file() for file in FILES):
            return folder
    looked = "".join(f"\n  {folder}: {_lack(folder)}" for folder in folders)
    by_hand = (
        f"Looked for {', '.join(FILES)} in{looked}\n"
        "To get them: apt-get install dataset-fashion-mnist, or, where there is a network, "
        "python -c 'from torchvision.datasets import FashionMNIST; "
        f'FashionMNIST("{root}", download=True)\''
    )
    if not download:
        raise DataError(f"fashion_mnist is not here.\n{by_hand}")
    from torchvision.datasets import FashionMNIST

    below = [str((fetched / file).relative_to(root)) for file in FILES]
    download_files(
        "fashion_mnist", root, below, lambda place: FashionMNIST(place, download=True), by_hand
    )
    return fetched


def _lack(folder: Path) -> str:
    missing = [file for file in FILES if not (folder / file).is_file()]
    return "none of them" if len(missing) == len(FILES) else f"lacks {', '.join(missing)}"
