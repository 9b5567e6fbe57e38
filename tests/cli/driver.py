"""The command line in a process of its own, whose trainings are a formula and may be stopped.

Run as ``python driver.py LOG KILL_AT WAIT_AT ARGUMENTS...``: each training appends a line to LOG;
the KILL_AT-th ends the process as ``kill -9`` does, the WAIT_AT-th waits to be stopped.
"""

import importlib
import os
import signal
import sys
import time
from pathlib import Path

from prunenas.cli import main
from prunenas.errors import StoppedError
from tests.search.fakes import FakeTraining


class Stoppable(FakeTraining):
    def __init__(self, log: Path, kill_at: int, wait_at: int) -> None:
        super().__init__()
        self.log, self.kill_at, self.wait_at = log, kill_at, wait_at

    def __call__(self, graph, data, recipe, **options):
        metrics = super().__call__(graph, data, recipe, **options)
        number = len(self.calls)
        if number == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == self.wait_at:
            self.log.with_suffix(".waiting").touch()
            wait_until(options["stop"])
        with self.log.open("a") as file:
            file.write(f"{self.calls[-1]}\n")
        return metrics


def wait_until(asked):
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        if asked():
            raise StoppedError("stopped at epoch 1, batch 1 of 5")
        time.sleep(0.02)


if __name__ == "__main__":
    # A shell starts what runs in the background with Ctrl-C ignored, and that is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log, kill_at, wait_at, *arguments = sys.argv[1:]
    fake = Stoppable(Path(log), int(kill_at), int(wait_at))
    importlib.import_module("prunenas.search.objective").train_seeds = fake
    sys.argv = ["prunenas", *arguments]
    main()
