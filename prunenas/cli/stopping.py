"""Ctrl-C and SIGTERM while a run is at work: it ends cleanly, or at once when asked twice."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stopping(*, quiet: bool = False) -> Iterator[Callable[[], bool]]:
    """Yield what returns whether the run has been asked to stop.

    The first signal asks, which a line on stderr acknowledges unless all is to be ``quiet``; the
    next one ends the process as if nobody listened. Signals that were ignored stay ignored. All is
    given back at the end.
    """
    asked = False
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    heard = [number for number in _SIGNALS if before[number] not in (signal.SIG_IGN, None)]

    def give_back() -> None:
        for number in heard:
            signal.signal(number, before[number])

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        give_back()
        if not quiet:
            # Past Python's buffers: the signal may have come in the middle of a write to them.
            with suppress(OSError):
                os.write(2, b"stopping after this step; once more ends it at once\n")

    for number in heard:
        signal.signal(number, ask)
    try:
        yield lambda: asked
    finally:
        give_back()
