"""Data sets: the value all of them become, the registry, and the verb ``dataset``."""

import importlib
import os
from collections.abc import Callable
from pathlib import Path

import platformdirs
import torch

from prunenas.data.base.fetch import download_files, open_torchvision
from prunenas.data.base.image_data import ImageData, Part, usable_device
from prunenas.data.base.image_file import SUFFIXES, augmented, image_size, plain, rgb
from prunenas.data.base.image_set import ImagePart, ImageSet, PartName
from prunenas.data.base.own import (
    channel_statistics,
    hold_out,
    own_data,
    read_argument,
    read_count,
    read_flag,
    read_parts,
    read_pixels,
    refuse_argument,
)
from prunenas.data.base.splits import split_validation
from prunenas.data.base.streamed import StreamedData, StreamedPart
from prunenas.errors import DataError, PruneNASError, UnknownNameError
from prunenas.registry import Registry

__all__ = [
    "DATASETS",
    "SUFFIXES",
    "AnyData",
    "ImageData",
    "ImagePart",
    "ImageSet",
    "Loader",
    "Part",
    "PartName",
    "StreamedData",
    "StreamedPart",
    "augmented",
    "channel_statistics",
    "dataset",
    "download_files",
    "hold_out",
    "image_size",
    "open_torchvision",
    "own_data",
    "plain",
    "read_argument",
    "read_count",
    "read_flag",
    "read_parts",
    "read_pixels",
    "refuse_argument",
    "rgb",
    "split_validation",
]

AnyData = ImageData | StreamedData

Loader = Callable[[str, Path, bool], AnyData]
"""From (argument, root, download) to a data set on the CPU.

``argument`` is the text behind the colon of a name such as ``folder:PATH``, else empty; ``root``
is where public sets are kept; with ``download`` false nothing is fetched. A loader raises
``DataError`` for what is absent, damaged or illegal, and leaves no half-written file behind.
"""

DATASETS: Registry[Loader] = Registry("data set", "prunenas.data")


def dataset(
    name: str,
    *,
    device: str | torch.device = "cpu",
    root: str | Path | None = None,
    download: bool = True,
) -> AnyData:
    """Return the data set called ``name``, on ``device``.

    Args:
        name: A registered name; ``folder:PATH`` or ``npz:FILE`` for images of your own; or
            ``module:function`` for a function without arguments that returns an ``ImageData`` or a
            ``StreamedData``.
        device: Where its tensors shall lie.
        root: Where public sets are kept; else the environment variable ``PRUNENAS_DATA``, else
            the user's cache folder.
        download: Whether an absent public set may be fetched.

    Raises:
        UnknownNameError: No data set has that name.
        DataError: The data set or the device cannot be had.

    >>> dataset("digits").input_size
    (1, 16, 16)
    """
    target = usable_device(device)
    folder = Path(
        root or os.environ.get("PRUNENAS_DATA") or platformdirs.user_cache_path("prunenas") / "data"
    ).expanduser()
    prefix, colon, argument = name.partition(":")
    try:
        loader = DATASETS[prefix]
    except UnknownNameError as unknown:
        if not colon:
            raise
        return _call(prefix, argument, str(unknown)).to(target)
    return loader(argument, folder, download).to(target)


def _call(module_name: str, function_name: str, unknown: str) -> AnyData:
    where = f"{module_name}:{function_name}"
    if not all(piece.isidentifier() for piece in module_name.split(".")):
        raise DataError(f"{unknown}; nor can {module_name!r} be the name of a module")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise DataError(f"importing {module_name!r} failed: {error}") from error
        raise DataError(
            f"{unknown}; nor is there a module {module_name!r} for {where!r}: {error} "
            "(is its folder on PYTHONPATH?)"
        ) from error
    except Exception as error:
        raise DataError(
            f"importing {module_name!r} failed: {type(error).__name__}: {error}"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        found = "nothing" if function is None else f"a {type(function).__name__}"
        raise DataError(
            f"{where!r} must be a function; the module {module_name!r} has {found} there"
        )
    try:
        data = function()
    except PruneNASError:
        raise
    except Exception as error:
        raise DataError(f"{where!r} failed: {type(error).__name__}: {error}") from error
    if not isinstance(data, ImageData | StreamedData):
        raise DataError(
            f"{where!r} must return an ImageData or a StreamedData, got a {type(data).__name__}"
        )
    return data
