"""Images of your own: ``folder:PATH``, one sub-folder a class."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from prunenas.data.base import (
    DATASETS,
    ImageData,
    Part,
    own_data,
    read_argument,
    read_flag,
    read_pixels,
)
from prunenas.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
Files = dict[str, list[Path]]


@DATASETS.register("folder")
def image_folder(argument: str, root: Path, download: bool) -> ImageData:
    """Return the images below a folder, as RGB; a class is a sub-folder, classes sorted by name.

    The folder holds ``train/`` and ``test/`` (or ``val/``), each with one sub-folder a class; or
    the classes' folders alone, of which a fixed stratified fifth becomes the test part. All images
    have one size, unless ``?size=64`` has each scaled to that short side and cut to its central
    square. ``?flip=true`` allows mirroring, ``?crop_padding=4`` sets the random crop's padding.

    Raises:
        DataError: The folder, its classes, its images or the options will not do.
    """
    readers = {"size": read_pixels, "flip": read_flag, "crop_padding": read_pixels}
    path, options = read_argument("folder", argument, readers)
    if not path.is_dir():
        raise DataError(f"folder:{path}: there is no such folder")
    side = options.get("size")
    if side is not None and side < 8:
        raise DataError(f"folder:{path}: size must be at least 8 pixels, got {side}")
    test_name = next((name for name in ("test", "val") if (path / name).is_dir()), None)
    if not (path / "train").is_dir() or test_name is None:
        test_name, train, test = None, _class_files(path), {}
    else:
        train, test = _class_files(path / "train"), _class_files(path / test_name)
    _check_classes(path, train, None if test_name is None else test)
    if side is None:
        _check_sizes(path, [file for files in (train, test) for _, file in _labelled(files)])
    return own_data(
        f"folder:{path.resolve().name}",
        _read(train, side),
        _read(test, side) if test_name else None,
        classes=len(train),
        options=options,
        notes=_left_out(path, test_name, train, test),
    )


def _class_files(folder: Path) -> Files:
    """Return the image files of each class, both sorted."""
    return {
        kind.name: sorted(
            file for file in kind.iterdir() if file.is_file() and file.suffix.lower() in SUFFIXES
        )
        for kind in sorted(folder.iterdir())
        if kind.is_dir() and not kind.name.startswith(".")
    }


def _labelled(files: Files) -> Iterable[tuple[int, Path]]:
    return ((label, file) for label, kind in enumerate(files) for file in files[kind])


def _check_classes(path: Path, train: Files, test: Files | None) -> None:
    problems = [
        f"no image in the {part} folder of class {kind!r}"
        for part, files in (("training", train), ("test", test or {}))
        for kind, listed in files.items()
        if not listed
    ]
    if len(train) < 2:
        problems.append(f"at least 2 class folders are needed, found {list(train)}")
    if test is not None:
        problems += [f"class {kind!r} is missing in the test part" for kind in train.keys() - test]
        problems += [f"class {kind!r} is missing in training" for kind in test.keys() - train]
    if problems:
        layout = "the folder holds train/ and test/ (or val/) with a folder a class, or those alone"
        raise DataError("\n  ".join([f"folder:{path}: {layout}, but:", *sorted(problems)]))


def _check_sizes(path: Path, files: list[Path]) -> None:
    first = _size(files[0])
    for file in files:
        if (found := _size(file)) != first:
            raise DataError(
                f"folder:{path}: images differ in size: {files[0]} is {first[0]}x{first[1]}, "
                f"{file} is {found[0]}x{found[1]}; to scale and cut all: folder:{path}?size=64"
            )


def _read(files: Files, side: int | None) -> Part:
    labels = [label for label, _ in _labelled(files)]
    paths = [file for _, file in _labelled(files)]
    width, height = _size(paths[0]) if side is None else (side, side)
    images = np.empty((len(paths), height, width, 3), dtype=np.uint8)
    for index, file in enumerate(paths):
        images[index] = _pixels(file, side)
    return Part(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels))


def _size(file: Path) -> tuple[int, int]:
    """Return width and height, without decoding the pixels."""
    with _opened(file) as image:
        width, height = image.size
    return width, height


def _pixels(file: Path, side: int | None) -> npt.NDArray[np.uint8]:
    """Return an image ``[h w 3]``, its central square scaled to ``side`` if that is given."""
    from PIL import Image

    try:
        with _opened(file) as image:
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{file} has more than 8 bits a channel; convert it first")
            colours = image.convert("RGB")
    except (OSError, EOFError, SyntaxError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file} is damaged: {error}") from error
    if side is not None:
        width, height = colours.size
        scale = side / min(width, height)
        wide, high = max(side, round(width * scale)), max(side, round(height * scale))
        colours = colours.resize((wide, high), Image.Resampling.BILINEAR)
        left, top = (wide - side) // 2, (high - side) // 2
        colours = colours.crop((left, top, left + side, top + side))
    return np.asarray(colours)


def _opened(file: Path) -> Any:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(file)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{file} is damaged or no image: {error}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{file} is refused: {error}") from error


def _left_out(path: Path, test_name: str | None, train: Files, test: Files) -> tuple[str, ...]:
    """Return notes on what stands in the folder but was not read."""
    folders = [path] if test_name is None else [path / "train", path / test_name]
    read = {file for files in (train, test) for _, file in _labelled(files)}
    others = sum(
        1
        for folder in folders
        for kind in folder.iterdir()
        if kind.is_dir() and not kind.name.startswith(".")
        for file in kind.iterdir()
        if file not in read
    )
    notes = (f"{others} files or folders in the class folders are no images and were not read",)
    unread = ("val/ was not read, test/ was",)
    return (
        *(notes if others else ()),
        *(unread if test_name == "test" and (path / "val").is_dir() else ()),
    )
