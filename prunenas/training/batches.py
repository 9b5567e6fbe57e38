"""Batches of an epoch: what is drawn for each, and the images that follow from the draws."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

from prunenas.arch.metrics import Seeds
from prunenas.data.base import ImageData, Part
from prunenas.errors import DataError
from prunenas.training.augment import Normaliser, mirror, punch, windows
from prunenas.training.randomness import stream
from prunenas.training.recipe import Recipe

Draw = tuple[Tensor, ...]
"""What one batch is made of, on the device: tensors whose first dimension is the batch."""


class Batches(ABC):
    """The training batches of one run.

    An epoch is a sequence of draws, which follow from the seeds and the epoch alone, so that a
    training can go on in the middle of one. ``load`` makes images of a draw: tensor code without
    any look at a value, so that it can be captured.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    @abstractmethod
    def draws(self, epoch: int, *, first: int = 0) -> Iterator[Draw]:
        """Yield the draws of ``epoch``, counted from 1, but for its ``first`` batches."""

    @abstractmethod
    def load(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Return images ``[b c h w]``, augmented and normalised, and labels ``[b]``."""


def split(draw: Draw, parts: int) -> Iterator[Draw]:
    """Yield a draw in parts, in order, whose sizes differ by one at most."""
    if parts == 1:
        yield draw
    else:
        yield from zip(*(tensor.tensor_split(parts) for tensor in draw), strict=True)


@final
class ResidentBatches(Batches):
    """Batches of images that lie on the device as a whole.

    Args:
        data: Says what augmentations are legal and how to normalise.
        part: The images to train on.
        recipe: Says the batch, and which augmentations are wanted.
        seeds: Of order and augmentation.
        least: Images of the smallest batch. A shorter one at the end of an epoch is left out: no
            batch norm can train on a single image.

    Raises:
        DataError: There are too few images for any batch.
    """

    def __init__(
        self, data: ImageData, part: Part, recipe: Recipe, seeds: Seeds, *, least: int = 2
    ) -> None:
        self.part, self._batch, self._seeds, self._least = part, recipe.batch, seeds, least
        self._side = part.images.shape[2:]
        self._padding = data.crop_padding if recipe.augment else 0
        self._flips = recipe.augment and data.flip
        self._hole = recipe.cutout if recipe.augment else 0
        self._normalise = Normaliser(data, part.images.device)
        self._images = windows(part.images, self._padding) if self._padding else part.images
        if len(self) == 0:
            raise DataError(f"{data.name}: {len(part)} training images make no batch")

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        whole, rest = divmod(len(self.part), self._batch)
        return whole + (rest >= self._least)

    def draws(self, epoch: int, *, first: int = 0) -> Iterator[Draw]:
        """Yield places in the part and what augmentation needs of each batch."""
        columns = [column.to(self.part.labels.device) for column in self._drawn(epoch)]
        for step in range(first, len(self)):
            yield tuple(c[step * self._batch : (step + 1) * self._batch] for c in columns)

    def _drawn(self, epoch: int) -> Iterator[Tensor]:
        count = len(self.part)
        yield torch.randperm(count, generator=stream(self._seeds.order, f"order {epoch}"))
        drawn = stream(self._seeds.augmentation, f"augmentation {epoch}")
        if self._padding:
            yield torch.randint(0, 2 * self._padding + 1, (count, 2), generator=drawn)
        if self._flips:
            yield torch.rand(count, generator=drawn) < 0.5
        if self._hole:
            spots = torch.rand(count, 2, generator=drawn) * torch.tensor(self._side)
            yield spots.long()

    def load(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Return images ``[b c h w]``, augmented and normalised, and labels ``[b]``."""
        places, *others = draw
        if self._padding:
            shifts = others.pop(0)
            images = self._images[places, :, shifts[:, 0], shifts[:, 1]]
        else:
            images = self._images[places]
        if self._flips:
            images = mirror(images, others.pop(0))
        floats = self._normalise(images)
        if self._hole:
            floats = punch(floats, others.pop(0), self._hole)
        return floats, self.part.labels[places]
