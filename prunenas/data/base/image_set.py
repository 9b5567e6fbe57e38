"""What training and the methods read of a data set, be it resident or streamed."""

from typing import Literal, Protocol, Self, TypeVar, get_args

import torch
from torch import Tensor

from prunenas.errors import DataError

PartName = Literal["fit", "validation", "train", "test"]


class ImagePart(Protocol):
    """Some images of a data set, in an order, and what they show."""

    @property
    def labels(self) -> Tensor:
        """Labels ``[n]``, int64, on the data set's device."""
        ...

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def read(self, places: Tensor) -> Tensor:
        """Return the plain images at ``places`` ``[k]``: ``[k c h w]``, uint8, on the device."""
        ...

    def chosen(self, places: Tensor) -> Self:
        """Return the part of the images at ``places``, in that order."""
        ...


class ImageSet(Protocol):
    """A classification data set: ``ImageData``, which is resident, or ``StreamedData``."""

    @property
    def name(self) -> str:
        """What it is called in reports."""
        ...

    @property
    def classes(self) -> int:
        """Number of classes."""
        ...

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel, for pixels scaled to 0..1."""
        ...

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel, likewise."""
        ...

    @property
    def flip(self) -> bool:
        """Whether a mirrored image keeps its label."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of results should know."""
        ...

    @property
    def input_size(self) -> tuple[int, int, int]:
        """Channels, height and width of the images that a network is given."""
        ...

    @property
    def device(self) -> torch.device:
        """Where a network is given them."""
        ...

    @property
    def digest(self) -> str:
        """16 hex digits by which results are filed."""
        ...

    def part(self, name: PartName) -> ImagePart:
        """Return one part; ``train`` is ``fit`` and ``validation`` together."""
        ...

    def to(self, device: str | torch.device) -> Self:
        """Return the same data set for ``device``."""
        ...


P = TypeVar("P", bound=ImagePart)


def named_part(
    name: PartName, known: dict[str, P], *, train: P, test: P, validation: Tensor, of: str
) -> P:
    """Return one part of a data set; asked for again, the same.

    Args:
        name: ``"train"`` is the whole training set, ``"fit"`` is it less ``"validation"``.
        known: The parts that were asked for, to be added to.
        train: The whole training set.
        test: The test set.
        validation: Places of the validation part in the training set.
        of: The data set's name.

    Raises:
        DataError: There is no such part, or no image in it.
    """
    if name not in get_args(PartName):
        raise DataError(f"no part {name!r}; parts: {', '.join(get_args(PartName))}")
    if name not in known:
        known[name] = _gathered(name, train, test, validation)
    if not len(known[name]):
        raise DataError(f"data set {of!r} has no image in its part {name!r}")
    return known[name]


def _gathered(name: PartName, train: P, test: P, validation: Tensor) -> P:
    if name == "test":
        return test
    if name == "train" or (name == "fit" and not len(validation)):
        return train
    chosen = torch.zeros(len(train), dtype=torch.bool, device=validation.device)
    chosen[validation] = True
    return train.chosen((chosen if name == "validation" else ~chosen).nonzero()[:, 0])
