"""The log of a run: what happened, a line of JSON an event, for people and programs to follow."""

import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, final

from prunenas.errors import DivergenceError, RunError, SpecError, StoppedError
from prunenas.ir.canonical import encode

Entry = Mapping[str, Any]
"""A line of a journal: ``time`` (UTC, ISO 8601), ``event``, and what the event has to say."""


ENDS = ("finished", "stopped", "diverged", "failed")
"""Events that a run ends with; one that was killed has none."""


class Log(Protocol):
    """Is told every event of a run."""

    def write(self, event: str, **facts: Any) -> None:
        """Take note of an event and what is to be said of it, as JSON values."""


@final
class Journal:
    """A file that each event is appended to as a line of JSON.

    A line is written at once and as a whole. What a killed process left of its last line is removed
    when the file is opened again, so it is only for who holds the run's folder.

    Args:
        path: Made with the first event.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        mend(path)

    def write(self, event: str, **facts: Any) -> None:
        """Append an event.

        Raises:
            RunError: The file cannot be written, as on a full disk.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = (json.dumps({"time": now, "event": event} | encode(facts)) + "\n").encode()
        try:
            with self._path.open("ab", buffering=0) as file:
                before = file.tell()
                if file.write(line) < len(line):
                    file.truncate(before)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise RunError(f"the log {self._path} cannot be written: {error}") from None


@final
class Logs:
    """Several logs as one.

    Args:
        every: Each is told every event, in this order.
    """

    def __init__(self, every: Iterable[Log]) -> None:
        self._every = tuple(every)

    def write(self, event: str, **facts: Any) -> None:
        """Let every log take note of an event."""
        for log in self._every:
            log.write(event, **facts)


@contextmanager
def logged(log: Log, **facts: Any) -> Iterator[None]:
    """Log that a run has ``begun``, and if it ends by an error which it was.

    That it is ``finished`` is for the run itself to say, with what came out.
    """
    log.write("begun", pid=os.getpid(), **facts)
    try:
        yield
    except BaseException as error:
        # The log may be what failed.
        with suppress(RunError):
            log.write(_ending(error), message=str(error) or type(error).__name__)
        raise


def _ending(error: BaseException) -> str:
    if isinstance(error, StoppedError | KeyboardInterrupt):
        return "stopped"
    return "diverged" if isinstance(error, DivergenceError) else "failed"


@final
class Tail:
    """Reads a journal while another process may be writing it.

    Args:
        path: The file; it may not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._read = path, 0

    def new(self) -> list[Entry]:
        """Return the events since the last call. A line that is not whole yet waits for the next.

        Raises:
            SpecError: A line is no event.
        """
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                text = file.read()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        return [self._entry(line) for line in whole.splitlines()]

    def _entry(self, line: bytes) -> Entry:
        try:
            entry = json.loads(line)
            datetime.fromisoformat(entry["time"])
            if not isinstance(entry["event"], str):
                raise TypeError("its event is no text")
        except (ValueError, TypeError, KeyError) as error:
            shown = line[:60].decode(errors="replace")
            raise SpecError(
                f"{self._path} is damaged: {shown!r} is no event of a run ({error!r})"
            ) from None
        assert isinstance(entry, dict)
        return entry


def mend(path: Path) -> None:
    """Remove a last line that a killed process left cut short, from a file of lines if it is there.

    Only for who holds the folder.
    """
    if path.exists():
        whole = path.read_bytes().rfind(b"\n") + 1
        if whole < path.stat().st_size:
            os.truncate(path, whole)
