"""Batches of images that are read from disk while the network trains."""

from collections.abc import Iterator
from typing import final

from torch import Tensor

from prunenas.arch.metrics import Seeds
from prunenas.data.base import StreamedData, StreamedPart
from prunenas.ir.draw import stream_seed
from prunenas.training.batches.augment import Normaliser, punch
from prunenas.training.batches.base import (
    ALONE,
    Batches,
    Cuts,
    Draw,
    Share,
    order_of,
    refuse_no_batch,
    spots_of,
)
from prunenas.training.batches.reading import BatchReader, Readers, Wanted, workers_of
from prunenas.training.randomness import stream
from prunenas.training.recipe import Recipe


@final
class StreamedBatches(Batches):
    """Training batches of images that are read from disk: random parts, mirrored at random.

    What is drawn for an image follows from the augmentation seed, the epoch and the image's place
    in it alone, and not from how many processes read.

    Args:
        data: Says how to normalise, what is legal, and how many processes read.
        part: The images to train on.
        recipe: Says the batch, and which augmentations are wanted.
        seeds: Of order and augmentation.
        least: As in ``Cuts``; so are the others.

    Raises:
        DataError: There are too few images for any batch.
    """

    def __init__(
        self,
        data: StreamedData,
        part: StreamedPart,
        recipe: Recipe,
        seeds: Seeds,
        *,
        least: int = 2,
        share: Share = ALONE,
        parts: int = 1,
    ) -> None:
        self.part, self._seeds, self._augment = part, seeds, recipe.augment
        self._cuts = Cuts(
            count=len(part), batch=recipe.batch, least=least, share=share, parts=parts
        )
        refuse_no_batch(data.name, self._cuts)
        self._hole = recipe.cutout if recipe.augment else 0
        self._device, self._labels = data.device, part.labels.cpu()
        self._normalise = Normaliser(data, data.device)
        reader = BatchReader(part, flip=data.flip)
        self._readers = Readers(reader, workers=workers_of(data), device=data.device)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self._cuts)

    def images(self, step: int) -> int:
        """Return how many images a batch has in all processes together."""
        return self._cuts.images(step)

    def draws(self, epoch: int, *, first: int = 0) -> Iterator[Draw]:
        """Yield images as they were read, labels, and what augmentation needs besides."""
        count, steps = len(self.part), range(first, len(self))
        order = order_of(count, self._seeds, epoch)
        drawn = stream(self._seeds.augmentation, f"augmentation {epoch}")
        sides = (self.part.side, self.part.side)
        others = [spots_of(count, sides, drawn).to(self._device)] if self._hole else []
        wanted = (self._wanted(order, epoch, self._cuts.own(step)) for step in steps)
        for step, found in zip(steps, self._readers.read(wanted), strict=True):
            brought = (tensor.to(self._device, non_blocking=True) for tensor in found)
            yield (*brought, *(column[self._cuts.own(step)] for column in others))

    def load(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Return images ``[b 3 h w]``, normalised, and labels ``[b]``."""
        images, labels, *others = draw
        floats = self._normalise(images)
        return (punch(floats, others[0], self._hole) if self._hole else floats), labels

    def close(self) -> None:
        """End the processes that read."""
        self._readers.close()

    def _wanted(self, order: Tensor, epoch: int, own: slice) -> Wanted:
        places = order[own]
        seeds = (
            stream_seed(self._seeds.augmentation, f"augmentation {epoch} {place}")
            for place in range(own.start, own.stop)
        )
        return Wanted(
            files=tuple(self.part.files[place] for place in places.tolist()),
            labels=self._labels[places],
            seeds=tuple(seeds) if self._augment else None,
        )


@final
class StreamedPlain(Batches):
    """Plain images that are read from disk, in their order, to judge a network by.

    Args:
        data: Says how to normalise, and how many processes read.
        part: The images.
        batch: Images at a time, in all processes together.
        share: Whose share of each batch is drawn.
    """

    def __init__(
        self, data: StreamedData, part: StreamedPart, batch: int, share: Share = ALONE
    ) -> None:
        self._part, self._labels, self._device = part, part.labels.cpu(), data.device
        self._cuts = Cuts(count=len(part), batch=batch, share=share)
        self._normalise = Normaliser(data, data.device)
        # Those that read for the training wait meanwhile: as many more need not stay beside them.
        self._readers = Readers(
            BatchReader(part, flip=False), workers=workers_of(data), device=data.device, stay=False
        )

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._cuts)

    def images(self, step: int) -> int:
        """Return how many images a batch has in all processes together."""
        return self._cuts.images(step)

    def draws(self, epoch: int = 1, *, first: int = 0) -> Iterator[Draw]:
        """Yield images as they were read, and labels, alike in each epoch."""
        own = (self._cuts.own(step) for step in range(first, len(self)))
        wanted = (Wanted(files=self._part.files[o], labels=self._labels[o]) for o in own)
        for found in self._readers.read(wanted):
            yield tuple(tensor.to(self._device, non_blocking=True) for tensor in found)

    def load(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Return images ``[b 3 h w]``, normalised, and labels ``[b]``."""
        images, labels = draw
        return self._normalise(images), labels

    def close(self) -> None:
        """End the processes that read."""
        self._readers.close()
