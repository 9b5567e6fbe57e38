"""Batches from resident images: random crop, flip, and normalisation, all at once on the device."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from prunenas.data.base import ImageData, Part


def normalise(images: Tensor, data: ImageData) -> Tensor:
    """Return uint8 images ``[n c h w]`` as floats with the data set's mean and deviation."""
    mean = torch.tensor(data.mean, device=images.device).view(1, -1, 1, 1) * 255
    scale = 1 / (torch.tensor(data.std, device=images.device).view(1, -1, 1, 1) * 255)
    return images.float().sub_(mean).mul_(scale)


def random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Return each image ``[n c h w]`` shifted by up to ``padding`` pixels, zeros moving in."""
    n, c, h, w = images.shape
    padded = functional.pad(images, (padding,) * 4)
    shifts = torch.randint(0, 2 * padding + 1, (2, n, 1), generator=generator).to(images.device)
    rows = shifts[0] + torch.arange(h, device=images.device)
    columns = shifts[1] + torch.arange(w, device=images.device)
    places = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
    flat = padded.view(n, c, -1)
    return flat.gather(2, places.view(n, 1, -1).expand(n, c, h * w)).view(n, c, h, w)


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return each image ``[n c h w]`` mirrored left to right with probability one half."""
    mirrored = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)
    return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)


@final
@dataclass(frozen=True, kw_only=True)
class Batches:
    """The training batches of one run; every draw comes from its own generator.

    Args:
        data: Says what augmentations are legal and how to normalise.
        part: The images to train on.
        batch: Images a step; a last batch of a single image is left out, since no batch norm can
            train on it.
        augment: Whether to crop and flip at all.
        generator: On the CPU, so that a seed gives the same batches on every device.
    """

    data: ImageData
    part: Part
    batch: int
    augment: bool
    generator: torch.Generator

    def __len__(self) -> int:
        whole, rest = divmod(len(self.part), self.batch)
        return whole + (rest > 1)

    def epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images ``[b c h w]``, normalised, and labels ``[b]``, in a fresh random order."""
        order = torch.randperm(len(self.part), generator=self.generator)
        order = order.to(self.part.labels.device)
        for step in range(len(self)):
            chosen = order[step * self.batch : (step + 1) * self.batch]
            images = self.part.images[chosen]
            if self.augment and self.data.crop_padding:
                images = random_crop(images, self.data.crop_padding, self.generator)
            if self.augment and self.data.flip:
                images = random_flip(images, self.generator)
            yield normalise(images, self.data), self.part.labels[chosen]
