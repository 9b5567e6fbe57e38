"""Fetching public sets: each file whole or not at all, each failure with a way out."""

import http.client
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from prunenas.errors import DataError

T = TypeVar("T")


def download_files(
    name: str, root: Path, files: Sequence[str], get: Callable[[Path], object], by_hand: str
) -> None:
    """Fetch ``files`` into ``root``; each arrives whole or not at all.

    Args:
        name: The data set, for messages.
        root: The folder that shall hold them.
        files: Their paths below ``root``.
        get: Fetches them into a folder it is given, at the same paths.
        by_hand: What a user can do instead.

    Raises:
        DataError: They could not be fetched.
    """
    fresh = not root.exists()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as folder:
            get(Path(folder))
            for file in files:
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                os.replace(Path(folder, file), root / file)
    except (OSError, RuntimeError, EOFError, http.client.HTTPException) as error:
        if fresh:
            with suppress(OSError):
                root.rmdir()
        raise DataError(
            f"{name} is not in {root} and cannot be downloaded.\n"
            f"{type(error).__name__}: {str(error).strip()}\n{by_hand}"
        ) from error


def open_torchvision(
    name: str,
    root: Path,
    files: Mapping[str, str],
    open_sets: Callable[[Path, bool], T],
    *,
    download: bool,
    command: str,
) -> T:
    """Return what ``open_sets(root, False)`` opens, after fetching missing files if allowed.

    Args:
        name: The data set, for messages.
        root: The folder that holds, or shall hold, the files.
        files: Their paths below ``root``, each with its MD5 sum.
        open_sets: Opens the sets in a folder; fetches them first if told to.
        download: Whether fetching is allowed.
        command: Python that fetches the files, for messages.

    Raises:
        DataError: Files are absent or damaged.
    """
    by_hand = (
        f"Where there is a network, run: python -c '{command}'\n"
        "and bring the files here, or set PRUNENAS_DATA to the folder that holds them."
    )
    missing = [file for file in files if not (root / file).is_file()]
    if missing and not download:
        raise DataError(f"{name} is not in {root}: no {', '.join(missing)}.\n{by_hand}")
    if missing:
        download_files(name, root, missing, lambda folder: open_sets(folder, True), by_hand)
    try:
        return open_sets(root, False)
    except (RuntimeError, OSError) as error:
        from torchvision.datasets.utils import check_integrity

        damaged = [
            str(root / file) for file in files if not check_integrity(root / file, files[file])
        ]
        raise DataError(
            f"{name} is damaged: {', '.join(damaged) or error}. Delete the files and fetch them "
            f"again.\n{by_hand}"
        ) from error
