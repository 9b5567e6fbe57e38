"""Images of your own: ``folder:PATH``, one sub-folder a class."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from prunenas.data.base import (
    DATASETS,
    SUFFIXES,
    ImageData,
    Part,
    StreamedData,
    StreamedPart,
    hold_out,
    image_size,
    own_data,
    read_argument,
    read_count,
    read_flag,
    read_parts,
    read_pixels,
    rgb,
    split_validation,
)
from prunenas.errors import DataError

Files = dict[str, list[str]]
"""Paths of the image files of each class, both sorted."""

_STREAMED_ONLY = ("mean", "std", "workers")


@DATASETS.register("folder")
def image_folder(argument: str, root: Path, download: bool) -> ImageData | StreamedData:
    """Return the images below a folder, as RGB; a class is a sub-folder, classes sorted by name.

    The folder holds ``train/`` and ``test/`` (or ``val/``), each with one sub-folder a class; or
    the classes' folders alone, of which a fixed stratified fifth becomes the test part. All images
    have one size, unless ``?size=64`` has each scaled to that short side and cut to its central
    square. ``?flip=true`` allows mirroring, ``?crop_padding=4`` sets the random crop's padding.

    ``?stream=true&size=224`` leaves the images on disk: see ``StreamedData``. Mirroring is then
    allowed unless ``flip=false``; ``mean`` and ``std`` (``mean=0.5,0.5,0.5``) are ImageNet's by
    default; ``workers`` is the number of processes that read.

    Raises:
        DataError: The folder, its classes, its images or the options will not do.
    """
    readers = {
        "size": read_pixels,
        "flip": read_flag,
        "crop_padding": read_pixels,
        "stream": read_flag,
        "mean": read_parts,
        "std": read_parts,
        "workers": read_count,
    }
    path, options = read_argument("folder", argument, readers)
    if not path.is_dir():
        raise DataError(f"folder:{path}: there is no such folder")
    side = options.get("size")
    _check_options(path, options)
    test_name = next((name for name in ("test", "val") if (path / name).is_dir()), None)
    if not (path / "train").is_dir() or test_name is None:
        test_name, train, test = None, _class_files(path), {}
    else:
        train, test = _class_files(path / "train"), _class_files(path / test_name)
    _check_classes(path, train, None if test_name is None else test)
    name, notes = f"folder:{path.resolve().name}", _left_out(path, test_name, train, test)
    if options.get("stream"):
        return _streamed(name, path, train, test if test_name else None, options, notes)
    if side is None:
        _check_sizes(path, [file for files in (train, test) for _, file in _labelled(files)])
    return own_data(
        name,
        _read(train, side),
        _read(test, side) if test_name else None,
        classes=len(train),
        options=options,
        notes=notes,
    )


def _check_options(path: Path, options: Mapping[str, Any]) -> None:
    side, streams = options.get("size"), options.get("stream", False)
    problems = []
    if side is not None and side < 8:
        problems.append(f"size must be at least 8 pixels, got {side}")
    if streams and side is None:
        problems.append("stream=true needs the size that a network is given, such as size=224")
    if streams and "crop_padding" in options:
        problems.append("crop_padding is not for stream=true, which trains on random parts")
    if not streams:
        problems += [f"{key} is for stream=true only" for key in _STREAMED_ONLY if key in options]
    if problems:
        raise DataError(f"folder:{path}: " + "; ".join(problems))


def _streamed(
    name: str,
    path: Path,
    train: Files,
    test: Files | None,
    options: Mapping[str, Any],
    notes: tuple[str, ...],
) -> StreamedData:
    """Return the data set that is read from its files when they are needed."""
    whole = _part(path, train, options["size"])
    if test is None:
        fit, judge = hold_out(whole)
        notes = (*notes, f"no test part given: {len(judge)} images held out, stratified, seed=0")
    else:
        fit, judge = whole, _part(path, test, options["size"])
    given = {key: options[key] for key in _STREAMED_ONLY if key in options}
    return StreamedData(
        name=name,
        train=fit,
        test=judge,
        classes=len(train),
        flip=options.get("flip", True),
        validation=split_validation(fit.labels),
        notes=notes,
        **given,
    )


def _part(path: Path, files: Files, side: int) -> StreamedPart:
    listed = [file for _, file in _labelled(files)]
    lengths = tuple(os.stat(file).st_size for file in listed)
    empty = [file for file, length in zip(listed, lengths, strict=True) if not length]
    if empty:
        raise DataError(f"{len(empty)} files are empty, the first is {empty[0]}")
    below = len(str(path / "x")) - 1
    return StreamedPart(
        folder=path.resolve(),
        files=tuple(file[below:] for file in listed),
        lengths=lengths,
        labels=torch.tensor([label for label, _ in _labelled(files)]),
        side=side,
    )


def _class_files(folder: Path) -> Files:
    """Return the image files of each class."""
    return {
        kind.name: sorted(
            entry.path
            for entry in os.scandir(kind)
            if entry.name.lower().endswith(SUFFIXES) and entry.is_file()
        )
        for kind in sorted(folder.iterdir())
        if kind.is_dir() and not kind.name.startswith(".")
    }


def _labelled(files: Files) -> Iterable[tuple[int, str]]:
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


def _check_sizes(path: Path, files: list[str]) -> None:
    first = image_size(Path(files[0]))
    for file in files:
        if (found := image_size(Path(file))) != first:
            raise DataError(
                f"folder:{path}: images differ in size: {files[0]} is {first[0]}x{first[1]}, "
                f"{file} is {found[0]}x{found[1]}; to scale and cut all: folder:{path}?size=64"
            )


def _read(files: Files, side: int | None) -> Part:
    labels = [label for label, _ in _labelled(files)]
    paths = [file for _, file in _labelled(files)]
    width, height = image_size(Path(paths[0])) if side is None else (side, side)
    images = np.empty((len(paths), height, width, 3), dtype=np.uint8)
    for index, file in enumerate(paths):
        images[index] = _pixels(Path(file), side)
    return Part(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels))


def _pixels(file: Path, side: int | None) -> npt.NDArray[np.uint8]:
    """Return an image ``[h w 3]``, its central square scaled to ``side`` if that is given."""
    from PIL import Image

    colours = rgb(file)
    if side is not None:
        width, height = colours.size
        scale = side / min(width, height)
        wide, high = max(side, round(width * scale)), max(side, round(height * scale))
        colours = colours.resize((wide, high), Image.Resampling.BILINEAR)
        left, top = (wide - side) // 2, (high - side) // 2
        colours = colours.crop((left, top, left + side, top + side))
    return np.asarray(colours)


def _left_out(path: Path, test_name: str | None, train: Files, test: Files) -> tuple[str, ...]:
    """Return notes on what stands in the folder but was not read."""
    folders = [path] if test_name is None else [path / "train", path / test_name]
    read = {file for files in (train, test) for _, file in _labelled(files)}
    others = sum(
        1
        for folder in folders
        for kind in folder.iterdir()
        if kind.is_dir() and not kind.name.startswith(".")
        for file in os.scandir(kind)
        if file.path not in read
    )
    notes = (f"{others} files or folders in the class folders are no images and were not read",)
    unread = ("val/ was not read, test/ was",)
    return (
        *(notes if others else ()),
        *(unread if test_name == "test" and (path / "val").is_dir() else ()),
    )
