"""ImageData: a data set, whole, checked and resident on one device."""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import final

import numpy as np
import torch
from torch import Tensor

from prunenas.data.base.image_set import PartName, named_part
from prunenas.data.base.splits import draw
from prunenas.errors import DataError

_TENSORS = ("train_images", "train_labels", "test_images", "test_labels", "validation")


@final
@dataclass(frozen=True, eq=False, slots=True)
class Part:
    """Images ``[n c h w]`` (uint8) and their labels ``[n]`` (int64), to be read only."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, places: Tensor) -> Tensor:
        """Return the images at ``places``."""
        return self.images[places]

    def chosen(self, places: Tensor) -> "Part":
        """Return the part of the images at ``places``, in that order."""
        return Part(self.images[places], self.labels[places])


@final
@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class ImageData:
    """A classification data set, whole and resident on one device. Its tensors are read only.

    Args:
        name: What it is called in reports; no part of its identity.
        train_images: ``[n c h w]``, uint8; the validation part is among them.
        train_labels: ``[n]``, int64, from 0 to ``classes - 1``.
        test_images: ``[m c h w]``, uint8.
        test_labels: ``[m]``, int64.
        classes: Number of classes, at least 2.
        mean: Mean of each channel, for pixels scaled to 0..1.
        std: Standard deviation of each channel, for pixels scaled to 0..1.
        flip: Whether a mirrored image keeps its label.
        crop_padding: Zero padding, in pixels, of the random crop; 0 means no crop.
        validation: Indices of the validation part in the training set, int64, ascending.
        notes: What a reader of results should know, such as how a test part was drawn.

    Raises:
        DataError: The pieces do not fit each other; all violations are listed.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool
    crop_padding: int
    validation: Tensor
    notes: tuple[str, ...] = ()
    _parts: dict[str, Part] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        problems = [
            *_part_problems("train", self.train_images, self.train_labels, self.classes),
            *_part_problems("test", self.test_images, self.test_labels, self.classes),
            *_common_problems(self),
        ]
        if problems:
            raise DataError("\n  ".join([f"data set {self.name!r} is not well formed:", *problems]))

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.input_size))
        return (
            f"ImageData({self.name!r}, {shape}, {self.classes} classes, "
            f"{len(self.train_labels)} train ({len(self.validation)} of them validation), "
            f"{len(self.test_labels)} test, on {self.device})"
        )

    @property
    def input_size(self) -> tuple[int, int, int]:
        """Return channels, height and width of an image."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width

    @property
    def device(self) -> torch.device:
        """Return where the tensors lie."""
        return self.train_images.device

    @cached_property
    def digest(self) -> str:
        """Return 16 hex digits of the content: pixels, labels, split, normalisation, what is legal.

        Name, notes and device are left out, so that a renamed set finds its old results.
        """
        tensors = [getattr(self, name) for name in _TENSORS]
        facts = {
            "shapes": [list(tensor.shape) for tensor in tensors],
            "classes": self.classes,
            "normalisation": [list(self.mean), list(self.std)],
            "augmentation": [self.flip, self.crop_padding],
        }
        content = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        for tensor in tensors:
            content.update(tensor.cpu().contiguous().numpy())
        return content.hexdigest()[:16]

    def part(self, name: PartName) -> Part:
        """Return one part; asked for again, the same tensors.

        Args:
            name: ``"train"`` is the whole training set, ``"fit"`` is it less ``"validation"``.

        Raises:
            DataError: There is no such part, or no image in it.
        """
        return named_part(
            name,
            self._parts,
            train=Part(self.train_images, self.train_labels),
            test=Part(self.test_images, self.test_labels),
            validation=self.validation,
            of=self.name,
        )

    def to(self, device: str | torch.device) -> "ImageData":
        """Return the same data set on ``device``.

        Raises:
            DataError: There is no such device here.
        """
        target = usable_device(device)
        if target == self.device:
            return self
        return replace(self, **{name: getattr(self, name).to(target) for name in _TENSORS})

    def small(self, train: int, test: int, seed: int = 0) -> "ImageData":
        """Return a stratified subset, the same for the same seed.

        Its validation images come from this set's, so nothing fitted on the subset has seen
        an image that this set keeps for validation.

        Args:
            train: Training images to keep, validation included.
            test: Test images to keep.
            seed: Which subset.

        Raises:
            DataError: More images are asked for than there are, or fewer than 2 and 1.
        """
        if not (2 <= train <= len(self.train_labels) and 1 <= test <= len(self.test_labels)):
            raise DataError(
                f"cannot take {train=} and {test=} images of {self!r}; "
                "at least 2 and 1, at most what there is"
            )
        labels = self.train_labels.cpu().numpy()
        held = self.validation.cpu().numpy()
        rest = np.setdiff1d(np.arange(len(labels)), held)
        share = min(train - 1, math.ceil(train * len(held) / len(labels)))
        kept_held = held[draw(labels[held], share, seed)]
        kept_rest = rest[draw(labels[rest], train - share, seed)]
        kept = np.sort(np.concatenate([kept_held, kept_rest]))
        kept_test = torch.from_numpy(draw(self.test_labels.cpu().numpy(), test, seed))
        chosen, chosen_test = torch.from_numpy(kept).to(self.device), kept_test.to(self.device)
        return replace(
            self,
            name=f"{self.name} ({train}+{test})",
            train_images=self.train_images[chosen],
            train_labels=self.train_labels[chosen],
            test_images=self.test_images[chosen_test],
            test_labels=self.test_labels[chosen_test],
            validation=torch.from_numpy(np.searchsorted(kept, kept_held)).to(self.device),
            notes=(*self.notes, f"stratified subset of {self.name}, {seed=}"),
        )


def usable_device(device: str | torch.device) -> torch.device:
    """Return ``device``, tried; raise ``DataError`` if it is unknown or not here."""
    try:
        target = torch.device(device)
    except RuntimeError as error:
        raise DataError(f"unknown device {device!r}: {error}") from error
    if target.type == "cuda" and (target.index or 0) >= torch.cuda.device_count():
        raise DataError(
            f"the device {str(target)!r} is not here: torch sees {torch.cuda.device_count()} CUDA "
            "devices; use device='cpu'"
        )
    try:
        torch.zeros(1, device=target).item()  # a device torch can spell may still hold no value
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise DataError(f"the device {str(target)!r} cannot be used: {error}") from error
    return target


def _part_problems(part: str, images: Tensor, labels: Tensor, classes: int) -> Iterator[str]:
    if images.dtype != torch.uint8 or images.ndim != 4 or not images.numel():
        yield f"{part}_images must be uint8 [n c h w], not empty, got {_described(images)}"
    if labels.dtype != torch.int64 or labels.ndim != 1:
        yield f"{part}_labels must be int64 [n], got {_described(labels)}"
        return
    if images.ndim and len(images) != len(labels):
        yield f"{len(images)} {part}_images but {len(labels)} {part}_labels"
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        found = f"{int(labels.min())} to {int(labels.max())}"
        yield f"{part}_labels must lie in 0 to {classes - 1}, got {found}"


def _common_problems(data: ImageData) -> Iterator[str]:
    train, validation = data.train_images, data.validation
    if train.shape[1:] != data.test_images.shape[1:]:
        yield f"train images are {_described(train)}, test images {_described(data.test_images)}"
    if len({getattr(data, name).device for name in _TENSORS}) > 1:
        yield "the tensors lie on more than one device"
    if data.classes < 2:
        yield f"classes must be at least 2, got {data.classes}"
    channels = train.shape[1] if train.ndim == 4 else len(data.mean)
    if len(data.mean) != channels or not all(0 <= value <= 1 for value in data.mean):
        yield f"mean must be {channels} numbers in 0..1, one a channel, got {data.mean}"
    if len(data.std) != channels or not all(0 < value <= 1 for value in data.std):
        yield f"std must be {channels} numbers in 0..1, above 0, one a channel, got {data.std}"
    if data.crop_padding < 0 or (train.ndim == 4 and data.crop_padding >= min(train.shape[2:])):
        yield f"crop_padding must be 0 or more and below the image's sides, got {data.crop_padding}"
    if validation.dtype != torch.int64 or validation.ndim != 1:
        yield f"validation must be int64 [k], got {_described(validation)}"
    elif len(validation):
        inside = int(validation[0]) >= 0 and int(validation[-1]) < len(data.train_labels)
        if not inside or not bool((validation.diff() > 0).all()):
            yield "validation must be ascending indices into the training set, each once"
        elif len(validation) >= len(data.train_labels):
            yield "validation leaves no training image to fit on"


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
