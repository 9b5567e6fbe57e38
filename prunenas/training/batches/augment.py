"""Augmentation of whole batches on their device, by draws that are handed in."""

import torch
from torch import Tensor

from prunenas.data.base import ImageSet


class Normaliser:
    """Turns uint8 images ``[n c h w]`` into floats with the data set's mean and deviation.

    Its two tensors are made once: to make them for each batch would wait for the device.

    Args:
        data: Says mean and deviation.
        device: Where the images are.
    """

    def __init__(self, data: ImageSet, device: torch.device) -> None:
        self._mean = torch.tensor(data.mean, device=device).view(1, -1, 1, 1) * 255
        self._scale = 1 / (torch.tensor(data.std, device=device).view(1, -1, 1, 1) * 255)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the floats."""
        return images.float().sub_(self._mean).mul_(self._scale)


def normalise(images: Tensor, data: ImageSet) -> Tensor:
    """Return uint8 images ``[n c h w]`` as floats with the data set's mean and deviation."""
    return Normaliser(data, images.device)(images)


def windows(images: Tensor, padding: int) -> Tensor:
    """Return every crop of zero-padded images, as a view.

    Args:
        images: ``[n c h w]``.
        padding: Pixels on each side.

    Returns:
        ``[n c s s h w]`` with ``s = 2 * padding + 1``: image, channel, shift down and to the
        right, and the crop. Only the padded images take memory.
    """
    h, w = images.shape[2:]
    padded = torch.nn.functional.pad(images, (padding,) * 4)
    return padded.unfold(2, h, 1).unfold(3, w, 1)


def mirror(images: Tensor, mirrored: Tensor) -> Tensor:
    """Return images ``[n c h w]``, those where ``mirrored`` ``[n]`` is true left to right."""
    return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)


def punch(images: Tensor, centres: Tensor, side: int) -> Tensor:
    """Return normalised images ``[n c h w]`` with a square of zeros, the mean colour, in each.

    Args:
        images: What to change.
        centres: Row and column of the squares' centres ``[n 2]``; what sticks out is cut off.
        side: Of the square, in pixels.

    Source: DeVries and Taylor 2017, arXiv:1708.04552, section 3.2 (cutout).
    """
    inside = []
    for dimension, centre in ((2, centres[:, :1]), (3, centres[:, 1:])):
        places = torch.arange(images.shape[dimension], device=images.device)
        start = centre - side // 2
        inside.append((places >= start) & (places < start + side))
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images.masked_fill(hole, 0.0)
