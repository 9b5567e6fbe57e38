"""The folder of one search: who it belongs to, and that only one process works in it."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prunenas.arch.files import read_text, write_text
from prunenas.errors import RunFolderError
from prunenas.ir.canonical import encode, parse


@contextmanager
def claim(folder: Path, facts: Mapping[str, Any]) -> Iterator[Path]:
    """Hold ``folder`` for the search that ``facts`` describe.

    A new folder is marked with the facts; one that bears the same facts is continued. The claim
    ends with the process, however it ends.

    Raises:
        RunFolderError: The folder belongs to another search, holds other things, or another
            process is working in it. Nothing is changed then.
    """
    mark = folder / "run.json"
    wanted = json.loads(json.dumps(encode(facts)))
    if mark.exists():
        found = parse(read_text(mark), str(mark))
        other = _differences(found, wanted)
        if other:
            raise RunFolderError(
                f"{folder} belongs to another search; it differs in\n  "
                + "\n  ".join(other)
                + "\nchoose another folder"
            )
    elif folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise RunFolderError(f"{folder} holds other things than a run: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunFolderError(f"another process is working in {folder}") from None
        lock.write(str(os.getpid()))
        lock.flush()
        if not mark.exists():
            write_text(mark, json.dumps(wanted, indent=1, sort_keys=True) + "\n")
        yield folder


def _differences(found: Any, wanted: Any, path: str = "") -> list[str]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        return [
            line
            for key in sorted(found.keys() | wanted.keys())
            for line in _differences(
                found.get(key), wanted.get(key), f"{path}.{key}" if path else str(key)
            )
        ]
    return [] if found == wanted else [f"{path}: the folder has {found!r}, asked for {wanted!r}"]
