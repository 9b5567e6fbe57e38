"""The folder of one run: who it belongs to, and that only one process works in it."""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from prunenas.arch.files import read_text, write_text
from prunenas.errors import RunFolderError
from prunenas.ir.canonical import encode, parse

MARK = "run.json"
"""Says what the run is."""

LOG = "log.jsonl"
"""Says what happened in it, a line an event."""

_ASKED = 5
"""How often the lock is asked for: who looks whether it is held has it for a moment."""


@contextmanager
def claim(folder: Path, facts: Mapping[str, Any], *, work: str) -> Iterator[Path]:
    """Hold ``folder`` for the run that ``facts`` describe.

    A new folder is marked with the facts; one that bears the same facts is continued. The claim
    ends with the process, however it ends.

    Args:
        folder: Made where there is none.
        facts: What the run is, as JSON values.
        work: What kind of run it is, in a word, for messages.

    Raises:
        RunFolderError: The folder belongs to another run, holds other things, or another
            process is working in it. Nothing is changed then.
    """
    mark = folder / MARK
    wanted = json.loads(json.dumps(encode(facts)))
    if not mark.exists():
        if folder.is_file() or (folder.is_dir() and any(map(_foreign, folder.iterdir()))):
            raise RunFolderError(f"{folder} holds other things than a run: choose another folder")
        # The mark comes first: a process that ends right here leaves a folder that is continued.
        write_text(mark, json.dumps(wanted, indent=1, sort_keys=True) + "\n")
    _refuse_another(folder, mark, wanted, work)
    with (folder / "lock").open("a") as lock:
        if not _locked(lock):
            raise RunFolderError(
                f"another process is working in {folder}: `prunenas watch {folder}` shows it"
            )
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield folder


def _locked(lock: TextIO) -> bool:
    for again in reversed(range(_ASKED)):
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if again:
            time.sleep(0.02)
    return False


def holder(folder: Path) -> int | None:
    """Return the id of the process that holds ``folder``; None where none does."""
    for _ in range(_ASKED):
        try:
            with (folder / "lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        except FileNotFoundError:
            return None
        except BlockingIOError:
            text = (folder / "lock").read_text()
            if text.isdecimal():
                return int(text)
        # The lock is taken a moment before the number is written.
        time.sleep(0.02)
    return None


def _foreign(path: Path) -> bool:
    # A process killed while it wrote the mark leaves a part of it.
    return not path.name.startswith(f".{MARK}.")


def _refuse_another(folder: Path, mark: Path, wanted: Any, work: str) -> None:
    other = differences(parse(read_text(mark), str(mark)), wanted)
    if other:
        raise RunFolderError(
            f"{folder} belongs to another {work}; it differs in\n  "
            + "\n  ".join(other)
            + "\nchoose another folder"
        )


def differences(found: Any, wanted: Any, path: str = "") -> list[str]:
    """Return in words every fact that ``found``, of a folder, and ``wanted`` do not agree in."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return [
            line
            for key in sorted(found.keys() | wanted.keys())
            for line in differences(
                found.get(key), wanted.get(key), f"{path}.{key}" if path else str(key)
            )
        ]
    return [] if found == wanted else [f"{path}: the folder has {found!r}, asked for {wanted!r}"]
