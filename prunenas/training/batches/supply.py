"""Which batches a part of a data set gives: of images that are resident, or read from disk."""

from prunenas.arch.metrics import Seeds
from prunenas.data.base import ImageData, ImagePart, ImageSet, Part, StreamedData, StreamedPart
from prunenas.errors import DataError
from prunenas.training.batches.base import ALONE, Batches, ResidentBatches, ResidentPlain, Share
from prunenas.training.batches.streaming import StreamedBatches, StreamedPlain
from prunenas.training.recipe import Recipe

_PLAIN_RESIDENT = 500
_PLAIN_STREAMED = 128
"""Images at a time to judge by. Files hold large images, and several batches are read ahead."""


def batches_of(
    data: ImageSet,
    part: ImagePart,
    recipe: Recipe,
    seeds: Seeds,
    *,
    least: int = 2,
    share: Share = ALONE,
    parts: int = 1,
) -> Batches:
    """Return the training batches of ``part``.

    Args:
        data: The data set, which says how to normalise and which augmentations are legal.
        part: Of it.
        recipe: Says the batch, and which augmentations are wanted.
        seeds: Of order and augmentation.
        least: As in ``Cuts``.
        share: Likewise.
        parts: Likewise.

    Raises:
        DataError: There are too few images for any batch.
    """
    if isinstance(data, StreamedData) and isinstance(part, StreamedPart):
        return StreamedBatches(data, part, recipe, seeds, least=least, share=share, parts=parts)
    if isinstance(data, ImageData) and isinstance(part, Part):
        return ResidentBatches(data, part, recipe, seeds, least=least, share=share, parts=parts)
    raise _unknown(data, part)


def plain_of(
    data: ImageSet, part: ImagePart, *, batch: int | None = None, share: Share = ALONE
) -> Batches:
    """Return the plain images of ``part`` in their order, in batches to judge a network by.

    Args:
        data: The data set, which says how to normalise.
        part: Of it.
        batch: Images at a time, in all processes together.
        share: Whose share of each batch is meant.
    """
    if isinstance(data, StreamedData) and isinstance(part, StreamedPart):
        return StreamedPlain(data, part, batch or _PLAIN_STREAMED, share)
    if isinstance(data, ImageData) and isinstance(part, Part):
        return ResidentPlain(data, part, batch or _PLAIN_RESIDENT, share)
    raise _unknown(data, part)


def _unknown(data: ImageSet, part: ImagePart) -> DataError:
    kinds = f"{type(data).__name__} with a {type(part).__name__}"
    return DataError(
        f"no batches can be made of a {kinds}: data sets are ImageData, with a Part, or "
        "StreamedData, with a StreamedPart"
    )
