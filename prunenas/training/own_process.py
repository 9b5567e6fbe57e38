"""Processes of our own: how they end with the one that started them, and the cores they have."""

import multiprocessing
import os
import signal
import threading
from contextlib import suppress


def cores() -> int:
    """Return the number of cores that this process may use."""
    # Not every system can tell a process which cores it is held to.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def live_with_parent() -> None:
    """Let this process live as long as the one that started it: no shorter, and no longer."""
    # Ctrl-C goes to all processes of a terminal; the parent decides what comes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait for the parent's end, and end then, whatever is being done."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "another process started this one"
    with suppress(OSError):
        parent.join()
    os._exit(1)
