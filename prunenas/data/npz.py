"""Arrays of your own: ``npz:FILE``, a file written by ``numpy.savez``."""

from collections.abc import Iterator
from pathlib import Path

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

Arrays = dict[str, npt.NDArray[np.generic]]
NEEDED = ("train_images", "train_labels")
OPTIONAL = ("test_images", "test_labels")


@DATASETS.register("npz")
def npz(argument: str, root: Path, download: bool) -> ImageData:
    """Return the images in a ``.npz`` file.

    It holds ``train_images`` (uint8, ``[n h w c]``, ``[n c h w]`` or ``[n h w]``) and
    ``train_labels`` (whole numbers ``[n]`` or ``[n 1]``, from 0, no gaps), and may hold
    ``test_images`` and ``test_labels``; else a fixed stratified fifth becomes the test part. The
    number of channels is 1 or 3; where that does not tell which side it is, or it is another
    number, ``?layout=nhwc`` or ``?layout=nchw`` does. ``?flip=true`` allows mirroring,
    ``?crop_padding=4`` sets the random crop's padding.

    Raises:
        DataError: The file, its arrays or the options will not do.
    """
    readers = {"flip": read_flag, "crop_padding": read_pixels, "layout": _read_layout}
    path, options = read_argument("npz", argument, readers)
    arrays, unread = _arrays(path)
    problems = list(_problems(arrays))
    if not problems:
        layouts = {name: _layout(arrays[name], options.get("layout")) for name in _images(arrays)}
        problems = [
            f"{name} {list(arrays[name].shape)} may be [n h w c] or [n c h w]: say which by "
            "?layout=nhwc or ?layout=nchw"
            for name, layout in layouts.items()
            if layout is None
        ]
    if problems:
        raise DataError("\n  ".join([f"npz:{path} cannot be used:", *problems]))
    labels = arrays["train_labels"]
    return own_data(
        f"npz:{path.name}",
        _part(arrays, "train", layouts["train_images"]),
        _part(arrays, "test", layouts["test_images"]) if "test_images" in arrays else None,
        classes=int(labels.max()) + 1,
        options=options,
        notes=(f"arrays not read: {', '.join(unread)}",) if unread else (),
    )


def _read_layout(text: str) -> str:
    if text not in ("nhwc", "nchw"):
        raise ValueError("must be nhwc or nchw")
    return text


def _arrays(path: Path) -> tuple[Arrays, list[str]]:
    """Return the arrays that have a meaning here, and the names of the others."""
    if not path.is_file():
        raise DataError(f"npz:{path}: there is no such file")
    try:
        # Never unpickled: an array of objects in a file one was sent may run code.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            known = [name for name in (*NEEDED, *OPTIONAL) if name in stored.files]
            unread = [name for name in stored.files if name not in known]
            return {name: stored[name] for name in known}, unread
    except Exception as error:  # damage surfaces in numpy as whatever its parsers stumble over
        raise DataError(
            f"npz:{path} is damaged or was not written by numpy.savez "
            f"({type(error).__name__}: {error})"
        ) from error


def _images(arrays: Arrays) -> list[str]:
    return [name for name in arrays if name.endswith("_images")]


def _problems(arrays: Arrays) -> Iterator[str]:
    missing = [name for name in NEEDED if name not in arrays]
    if len([name for name in OPTIONAL if name in arrays]) == 1:
        missing += [name for name in OPTIONAL if name not in arrays]
    yield from (f"the array {name} is missing" for name in missing)
    for name in _images(arrays):
        found = f"{arrays[name].dtype} {list(arrays[name].shape)}"
        if (
            arrays[name].dtype != np.uint8
            or arrays[name].ndim not in (3, 4)
            or not arrays[name].size
        ):
            yield f"{name} must be uint8 [n h w c], [n c h w] or [n h w], not empty, got {found}"
        labels = arrays.get(name.replace("_images", "_labels"))
        if labels is not None and labels.ndim and len(labels) != len(arrays[name]):
            yield f"{name} has {len(arrays[name])} images, but there are {len(labels)} labels"
    for name in sorted(arrays.keys() - _images(arrays)):
        yield from _label_problems(name, arrays[name], arrays.get("train_labels"))


def _label_problems(
    name: str, labels: npt.NDArray[np.generic], train: npt.NDArray[np.generic] | None
) -> Iterator[str]:
    flat = labels.ndim == 1 or (labels.ndim == 2 and labels.shape[1] == 1)
    if labels.dtype.kind not in "iu" or not flat or not labels.size:
        found = f"{labels.dtype} {list(labels.shape)}"
        yield f"{name} must be whole numbers [n] or [n 1], not empty, got {found}"
    elif name == "train_labels":
        seen = np.unique(labels)
        if len(seen) < 2 or seen[0] != 0 or int(seen[-1]) != len(seen) - 1:
            some = ", ".join(map(str, seen[:12].tolist()))
            yield f"{name} must be 0 to k-1, each in use, k at least 2, got {some}"
    elif train is not None and train.size and train.dtype.kind in "iu":
        strange = np.setdiff1d(labels, train).tolist()
        if strange:
            yield f"{name} has classes that training has not: {strange[:12]}"


def _layout(images: npt.NDArray[np.generic], stated: str | None) -> str | None:
    """Return where the channels stand, or None if that cannot be told."""
    if images.ndim == 3 or stated:
        return stated or "nhw"
    first, last = images.shape[1] in (1, 3), images.shape[3] in (1, 3)
    if first == last:
        return None
    return "nchw" if first else "nhwc"


def _part(arrays: Arrays, part: str, layout: str | None) -> Part:
    images = torch.from_numpy(arrays[f"{part}_images"])
    labels = torch.from_numpy(arrays[f"{part}_labels"].astype(np.int64)).reshape(-1)
    if images.ndim == 3:
        return Part(images.unsqueeze(1), labels)
    ordered = images.permute(0, 3, 1, 2) if layout == "nhwc" else images
    return Part(ordered.contiguous(), labels)
