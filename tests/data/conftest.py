"""Small data sets, made by hand."""

import urllib.error
import urllib.request
from collections.abc import Callable

import pytest
import torch

from prunenas.data.base import ImageData, split_validation

Make = Callable[..., ImageData]


@pytest.fixture
def make() -> Make:
    """Return a maker of well-formed data of 3 classes, any field of which may be overridden."""

    def made(**changes: object) -> ImageData:
        generator = torch.Generator().manual_seed(0)
        labels = torch.arange(60) % 3
        fields = {
            "name": "made",
            "train_images": torch.randint(
                0, 256, (60, 2, 8, 6), dtype=torch.uint8, generator=generator
            ),
            "train_labels": labels,
            "test_images": torch.randint(
                0, 256, (12, 2, 8, 6), dtype=torch.uint8, generator=generator
            ),
            "test_labels": torch.arange(12) % 3,
            "classes": 3,
            "mean": (0.5, 0.4),
            "std": (0.2, 0.3),
            "flip": True,
            "crop_padding": 1,
            "validation": split_validation(labels),
        }
        return ImageData(**{**fields, **changes})

    return made


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every download fail at once, as it does where there is no network."""

    def refuse(*args: object, **options: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
