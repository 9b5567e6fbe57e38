"""Image files: read as RGB, plainly or augmented, each failure with the file's name."""

import struct
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from prunenas.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
"""Endings of the files that are taken for images."""

Pixels = npt.NDArray[np.uint8]


def image_size(file: Path) -> tuple[int, int]:
    """Return width and height, without decoding the pixels.

    Raises:
        DataError: The file is damaged, no image, or far too large.
    """
    with _opened(file) as image:
        width, height = image.size
    return width, height


def rgb(file: Path) -> Any:
    """Return a file's image by PIL, decoded, as RGB; its orientation in EXIF is not looked at.

    Raises:
        DataError: As in ``image_size``, or it has more than 8 bits a channel.
    """
    try:
        with _opened(file) as image:
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{file} has more than 8 bits a channel; convert it first")
            # PIL warns where colours of a palette are transparent and that is left out at once.
            palette = image.mode == "P" and "transparency" in image.info
            return (image.convert("RGBA") if palette else image).convert("RGB")
    except DataError:
        raise
    except (OSError, EOFError, SyntaxError, ValueError, struct.error) as error:
        raise DataError(f"{file} is damaged: {error}") from error


def plain(file: Path, side: int) -> Pixels:
    """Return an image to be judged by, ``[side side 3]``.

    Its short side becomes ``short_side(side)``, of which the central square is left.

    Raises:
        DataError: As in ``rgb``.

    Source: Liu et al. 2019, arXiv:1810.05270, released code for ImageNet.
    """
    from torchvision.transforms.v2 import functional

    image = functional.resize(rgb(file), [short_side(side)])
    return np.asarray(functional.center_crop(image, [side, side]))


def augmented(file: Path, side: int, *, seed: int, flip: bool) -> Pixels:
    """Return an image to be trained on, ``[side side 3]``: a random part of it, perhaps mirrored.

    The part has 8 % to 100 % of the area and a ratio of sides between 3/4 and 4/3.

    Args:
        file: The image.
        side: Height and width of what is returned.
        seed: Of the draws, which are the same in each process; the global random state stays.
        flip: Whether every second one is mirrored.

    Raises:
        DataError: As in ``rgb``.

    Source: Szegedy et al. 2015, arXiv:1409.4842, section 6; as torchvision draws it.
    """
    image = rgb(file)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return np.asarray(_augment(side, flip)(image))


def short_side(side: int) -> int:
    """Return what the short side is scaled to before a central square of ``side`` is cut.

    Source: Krizhevsky et al. 2012, section 2 (256 for 224).
    """
    return round(side * 256 / 224)


@cache
def _augment(side: int, flip: bool) -> Any:
    from torchvision.transforms import v2

    crop = v2.RandomResizedCrop(side)
    return v2.Compose([crop, v2.RandomHorizontalFlip()]) if flip else crop


def _opened(file: Path) -> Any:
    from PIL import Image

    try:
        # PIL warns of huge images before it refuses them: a picture of a bomb is no picture.
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(file)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{file} is damaged or no image: {error}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{file} is refused: {error}") from error
