"""What a finished search leaves for people to read."""

import os
from pathlib import Path

from prunenas.arch.files import write_text
from prunenas.report.figures import draw_front
from prunenas.report.table import front_markdown
from prunenas.search.front import Front


def write_report(front: Front, folder: str | os.PathLike[str], *, command: str) -> Path:
    """Write ``table.md``, ``front.png`` and ``reproduce.sh`` into ``folder``, and return it.

    Args:
        front: The confirmed front.
        folder: The search's own folder: an earlier report of the same search is replaced.
        command: The command that made the front.
    """
    target = Path(folder)
    picture = draw_front(front, target / "front.png")
    text = f"# Front and controls\n\n{front_markdown(front)}\n![front]({picture.name})\n"
    write_text(target / "table.md", f"{text}\n```bash\n{command}\n```\n", overwrite=True)
    script = f"#!/usr/bin/env bash\n# Run where the command was first run.\n{command}\n"
    write_text(target / "reproduce.sh", script, overwrite=True)
    return target
