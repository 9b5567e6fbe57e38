"""Looking at a run that another process works on, and asking that process to stop."""

import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from prunenas.cli.progress import TITLES, epoch_text, time_text, worth_a_line
from prunenas.cli.resolve import plain_console, print_json
from prunenas.errors import InputError
from prunenas.ir.canonical import encode
from prunenas.report.run_state import RunState, RunWatch
from prunenas.training.keeping.journal import Entry
from prunenas.training.keeping.run_folder import holder

_EVERY = 0.5
"""Seconds between two looks."""


def run_watch(run: Path, *, once: bool, as_json: bool) -> None:
    """Show where ``run`` stands, now or until it ends.

    Raises:
        RunFolderError: It is no run folder.
    """
    following = RunWatch(run)
    try:
        state = _look(following) if once else _follow(following, quiet=as_json)
    except KeyboardInterrupt:
        # The run does not hear it: it goes on.
        raise typer.Exit(1 if as_json else 0) from None
    if as_json:
        print_json(encode(state))
    elif once:
        for line in state_lines(state):
            plain_console().print(line, soft_wrap=True)


def run_stop(run: Path, *, as_json: bool) -> None:
    """Ask the process that works on ``run`` to stop.

    Raises:
        RunFolderError: It is no run folder.
        InputError: No process of this machine, or of this user, works on it.
    """
    RunWatch(run)
    pid = holder(run)
    if pid is None:
        raise InputError(f"no process works on {run}: there is nothing to stop")
    _ask(run, pid)
    if as_json:
        print_json({"run": str(run), "pid": pid})
    else:
        plain_console().print(f"asked process {pid} to stop after its step", soft_wrap=True)


def _ask(run: Path, pid: int) -> None:
    """Send SIGTERM to ``pid``, but only if it is the process that has the folder's lock open."""
    opened = Path("/proc") / str(pid) / "fd"
    try:
        if Path("/proc/self/fd").is_dir():
            lock = (run / "lock").resolve()
            if not any(_leads_to(link, lock) for link in opened.iterdir()):
                raise ProcessLookupError
        os.kill(pid, signal.SIGTERM)
    except (ProcessLookupError, FileNotFoundError):
        raise InputError(
            f"process {pid}, which works on {run}, is not on this machine: stop it there"
        ) from None
    except PermissionError:
        raise InputError(f"process {pid}, which works on {run}, is another user's") from None


def _leads_to(link: Path, target: Path) -> bool:
    try:
        return link.readlink() == target
    except FileNotFoundError:
        # Files are closed while they are looked through.
        return False


def _look(following: RunWatch) -> RunState:
    """Return where the run stands, when it has said so."""
    while (state := following.look(datetime.now(UTC))[0]) is None:
        time.sleep(_EVERY)
    return state


def _follow(following: RunWatch, *, quiet: bool) -> RunState:
    """Show the run until it ends, and return where it stands then."""
    console = Console(markup=False, emoji=False, highlight=False)
    live = Live(console=console, auto_refresh=False)
    drawn = console.is_terminal and not quiet
    if drawn:
        live.start()
    try:
        while True:
            state, events = following.look(datetime.now(UTC))
            if state is not None:
                if drawn:
                    live.update(Text("\n".join(state_lines(state))), refresh=True)
                elif not quiet:
                    for line in _lines(events, state):
                        console.print(line, soft_wrap=True)
                if state.standing != "running":
                    return state
            time.sleep(_EVERY)
    finally:
        live.stop()


def _lines(events: list[Entry], state: RunState) -> list[str]:
    """Return what is said of ``events`` where lines are printed, and of the end."""
    lines = []
    for entry in events:
        if entry["event"] == "trained":
            title = TITLES.get(entry["phase"], entry["phase"])
            judged = f"{entry['part']} {100 * entry['accuracy']:.2f} %"
            lines.append(f"{title} {entry['done']}/{entry['total']}  {entry['of']}: {judged}")
        elif entry["event"] == "epoch" and state.work == "training":
            epoch, epochs = entry["epoch"], entry["epochs"]
            if worth_a_line(epoch, epochs):
                note = epoch_text(entry["loss"], entry["accuracy"], entry["images_per_second"])
                lines.append(f"{entry['of']}, epoch {epoch}/{epochs}: {note}")
    return lines if state.standing == "running" else [*lines, *state_lines(state)]


def state_lines(state: RunState) -> list[str]:
    """Return where a run stands, for people."""
    by = f" by process {state.pid}" if state.pid is not None else ""
    why = {
        "running": by,
        "killed": ": its process ended without a word; the same command goes on",
    }.get(state.standing, "" if state.message is None else f": {state.message}")
    lines = [f"{state.work} {state.run}: {state.standing}{why}, {time_text(state.seconds)}"]
    if state.phase is not None and state.total is not None:
        left = "" if state.seconds_left is None else f", {time_text(state.seconds_left)} left"
        title = TITLES.get(state.phase, state.phase)
        lines.append(f"{title} {state.done}/{state.total}{left}")
    if state.training is not None:
        lines.append(_training_line(state))
    if state.best is not None:
        lines.append(f"best: {state.part} {100 * state.best:.2f} % ({state.best_of})")
    return lines


def _training_line(state: RunState) -> str:
    if state.epoch is None or state.loss is None:
        return f"last: {state.training}"
    note = epoch_text(state.loss, None, state.images_per_second)
    return f"last: {state.training}, epoch {state.epoch}/{state.epochs}: {note}"
