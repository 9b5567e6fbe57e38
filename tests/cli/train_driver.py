"""``prunenas train`` in a process of its own, which ends as ``kill -9`` does after some epochs.

Run as ``python train_driver.py KILL_AFTER ARGUMENTS...``; with 0 it is left alone.
"""

import os
import signal
import sys

from prunenas.cli import main
from prunenas.training.keeping.journal import Journal


def deadly(write, kill_after):
    told = []

    def written(self, event, **facts):
        write(self, event, **facts)
        told.append(event)
        if event == "epoch" and told.count("epoch") == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    return written


if __name__ == "__main__":
    # A shell starts what runs in the background with Ctrl-C ignored, and that is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    kill_after, *arguments = sys.argv[1:]
    Journal.write = deadly(Journal.write, int(kill_after))
    sys.argv = ["prunenas", *arguments]
    main()
