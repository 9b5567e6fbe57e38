"""Batches of an epoch: what is drawn for each, and the images that follow from the draws."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from prunenas.arch.metrics import Seeds
from prunenas.data.base import ImageData, Part
from prunenas.errors import DataError
from prunenas.training.batches.augment import Normaliser, mirror, punch, windows
from prunenas.training.randomness import stream
from prunenas.training.recipe import Recipe

Draw = tuple[Tensor, ...]
"""What one batch is made of, on the device: tensors whose first dimension is the batch."""

Share = tuple[int, int]
"""Rank and number of the processes that train together."""

ALONE: Share = (0, 1)
"""One process, which does all."""


class Batches(ABC):
    """The training batches of one run.

    An epoch is a sequence of draws, which follow from the seeds and the epoch alone, so that a
    training can go on in the middle of one. ``load`` makes images of a draw: tensor code without
    any look at a value, so that it can be captured.

    Where several processes train together, each draws its own share of every batch only: the
    same images, augmented alike, as one process draws there.
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

    @abstractmethod
    def images(self, step: int) -> int:
        """Return how many images the batch at ``step``, from 0, has in all processes together."""

    def close(self) -> None:
        """End what runs beside the training; the next draws would begin it anew."""
        return None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Cuts:
    """How the images of an epoch, in their order, are cut into batches, and these into shares.

    Args:
        count: Images in an epoch.
        batch: Images of a batch in all processes together; the last one may have fewer.
        least: Images of the smallest batch. A shorter one at the end is left out: no batch norm
            can train on a single image.
        share: Whose share of each batch is meant.
        parts: Parts that each process cuts its share into by ``split``. A batch is cut into as
            many for each process, whose sizes differ by one at most; a share is those of one.
    """

    count: int
    batch: int
    least: int = 1
    share: Share = ALONE
    parts: int = 1

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        whole, rest = divmod(self.count, self.batch)
        return whole + (rest >= self.least)

    def images(self, step: int) -> int:
        """Return how many images the batch at ``step``, from 0, has in all processes together."""
        return min(self.batch, self.count - step * self.batch)

    def own(self, step: int) -> slice:
        """Return which places in the epoch's order are this process's share of a batch."""
        rank, world = self.share
        each, more = divmod(self.images(step), world * self.parts)
        pieces = (rank * self.parts, (rank + 1) * self.parts)
        start, end = (step * self.batch + each * piece + min(piece, more) for piece in pieces)
        return slice(start, end)


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
        least: As in ``Cuts``; so are the others.

    Raises:
        DataError: There are too few images for any batch.
    """

    def __init__(
        self,
        data: ImageData,
        part: Part,
        recipe: Recipe,
        seeds: Seeds,
        *,
        least: int = 2,
        share: Share = ALONE,
        parts: int = 1,
    ) -> None:
        self.part, self._seeds = part, seeds
        self._cuts = Cuts(
            count=len(part), batch=recipe.batch, least=least, share=share, parts=parts
        )
        self._side = part.images.shape[2:]
        self._padding = data.crop_padding if recipe.augment else 0
        self._flips = recipe.augment and data.flip
        self._hole = recipe.cutout if recipe.augment else 0
        self._normalise = Normaliser(data, part.images.device)
        self._images = windows(part.images, self._padding) if self._padding else part.images
        refuse_no_batch(data.name, self._cuts)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self._cuts)

    def images(self, step: int) -> int:
        """Return how many images a batch has in all processes together."""
        return self._cuts.images(step)

    def draws(self, epoch: int, *, first: int = 0) -> Iterator[Draw]:
        """Yield places in the part and what augmentation needs of each batch."""
        columns = [column.to(self.part.labels.device) for column in self._drawn(epoch)]
        for step in range(first, len(self)):
            own = self._cuts.own(step)
            yield tuple(column[own] for column in columns)

    def _drawn(self, epoch: int) -> Iterator[Tensor]:
        count = len(self.part)
        yield order_of(count, self._seeds, epoch)
        drawn = stream(self._seeds.augmentation, f"augmentation {epoch}")
        if self._padding:
            yield torch.randint(0, 2 * self._padding + 1, (count, 2), generator=drawn)
        if self._flips:
            yield torch.rand(count, generator=drawn) < 0.5
        if self._hole:
            yield spots_of(count, self._side, drawn)

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


@final
class ResidentPlain(Batches):
    """Plain images that lie on the device as a whole, in their order, to judge a network by.

    Args:
        data: Says how to normalise.
        part: The images.
        batch: Images at a time, in all processes together.
        share: Whose share of each batch is drawn.
    """

    def __init__(self, data: ImageData, part: Part, batch: int, share: Share = ALONE) -> None:
        self._part = part
        self._cuts = Cuts(count=len(part), batch=batch, share=share)
        self._normalise = Normaliser(data, part.images.device)

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._cuts)

    def images(self, step: int) -> int:
        """Return how many images a batch has in all processes together."""
        return self._cuts.images(step)

    def draws(self, epoch: int = 1, *, first: int = 0) -> Iterator[Draw]:
        """Yield places in the part, alike in each epoch."""
        places = torch.arange(len(self._part), device=self._part.labels.device)
        for step in range(first, len(self)):
            yield (places[self._cuts.own(step)],)

    def load(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Return images ``[b c h w]``, normalised, and labels ``[b]``."""
        (places,) = draw
        return self._normalise(self._part.images[places]), self._part.labels[places]


def order_of(count: int, seeds: Seeds, epoch: int) -> Tensor:
    """Return the places of ``count`` images in the order of ``epoch``."""
    return torch.randperm(count, generator=stream(seeds.order, f"order {epoch}"))


def spots_of(count: int, side: Sequence[int], drawn: torch.Generator) -> Tensor:
    """Return centres of cutout's squares ``[count 2]`` in images of height and width ``side``."""
    return (torch.rand(count, 2, generator=drawn) * torch.tensor(side)).long()


def refuse_no_batch(name: str, cuts: Cuts) -> None:
    """Raise ``DataError`` where ``cuts`` make no batch of the data set called ``name``."""
    if not len(cuts):
        raise DataError(f"{name}: {cuts.count} training images make no batch")
