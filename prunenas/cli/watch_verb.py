"""Verbs for a run that another process works on: look at it, and ask it to stop."""

from pathlib import Path
from typing import Annotated

import typer

from prunenas.cli.options import AsJson, app

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of a training or search.")]


@app.command()
def watch(
    run: Run,
    once: Annotated[
        bool, typer.Option("--once", help="Tell where it stands now.", show_default="until it ends")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Follow a training or a search that runs in another terminal, or ran."""
    from prunenas.cli.run_watch import run_watch

    run_watch(run, once=once, as_json=as_json)


@app.command()
def stop(run: Run, as_json: AsJson = False) -> None:
    """Ask the process that works on a run to stop; the command that began it goes on later."""
    from prunenas.cli.run_watch import run_stop

    run_stop(run, as_json=as_json)
