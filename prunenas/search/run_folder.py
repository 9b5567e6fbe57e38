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
    if not mark.exists():
        if folder.is_file() or (folder.is_dir() and any(map(_foreign, folder.iterdir()))):
            raise RunFolderError(f"{folder} holds other things than a run: choose another folder")
        # The mark comes first: a process that ends right here leaves a folder that is continued.
        write_text(mark, json.dumps(wanted, indent=1, sort_keys=True) + "\n")
    _refuse_another(folder, mark, wanted)
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunFolderError(f"another process is working in {folder}") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield folder


def mend_journal(path: Path) -> None:
    """Remove what a killed process left of its last write to the journal at ``path``.

    Its lock would be waited for without end, and a line cut short would spoil the next one. Only
    for who holds the folder.
    """
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    if path.exists():
        whole = path.read_bytes().rfind(b"\n") + 1
        if whole < path.stat().st_size:
            os.truncate(path, whole)


def _foreign(path: Path) -> bool:
    # A process killed while it wrote the mark leaves a part of it.
    return not path.name.startswith(".run.json.")


def _refuse_another(folder: Path, mark: Path, wanted: Any) -> None:
    other = _differences(parse(read_text(mark), str(mark)), wanted)
    if other:
        raise RunFolderError(
            f"{folder} belongs to another search; it differs in\n  "
            + "\n  ".join(other)
            + "\nchoose another folder"
        )


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
