"""What training and the methods read of a data set, be it resident or streamed."""

from typing import Protocol, Self

import torch
from torch import Tensor

from prunenas.data.base.image_data import PartName


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
