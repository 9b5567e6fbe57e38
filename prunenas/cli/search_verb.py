"""The verb that searches. Its options are the space file's own, and no others."""

from pathlib import Path
from typing import Annotated

import typer

from prunenas.cli.options import AsJson, DataRoot, Device, Quiet, Tensorboard, app
from prunenas.cli.resolve import device_of, print_json


@app.command()
def search(
    space: Annotated[Path, typer.Argument(metavar="SPACE.toml")],
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder; the same call continues it.", show_default="runs/SPACE"),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="Finished trials in all.", show_default="the file's")
    ] = None,
    guide: Annotated[
        str | None, typer.Option(help="Profile: the middle.", show_default="the file's")
    ] = None,
    transferred: Annotated[
        str | None, typer.Option(help="Profile: a second guide.", show_default="the file's")
    ] = None,
    max_macs: Annotated[
        int | None, typer.Option(help="Budget of MACs.", show_default="the file's")
    ] = None,
    max_params: Annotated[
        int | None, typer.Option(help="Budget of parameters.", show_default="the file's")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Data set.", show_default="the file's")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Named recipe.", show_default="the file's")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs.", show_default="the file's recipe's")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="Strategy.", show_default="the file's")
    ] = None,
    objectives: Annotated[
        str | None,
        typer.Option(help="accuracy, or accuracy,macs, ...", show_default="the file's"),
    ] = None,
    confirm_seeds: Annotated[
        int | None, typer.Option(help="Trainings of the front.", show_default="the file's")
    ] = None,
    front_size: Annotated[
        int | None, typer.Option(help="Pareto points to confirm.", show_default="the file's")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of strategy and trials.", show_default="the file's")
    ] = None,
    device: Device = "auto",
    data_root: DataRoot = None,
    tensorboard: Tensorboard = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Search a space under its budget; confirm the front with several seeds."""
    from prunenas.cli.run_search import run_search

    changes = {
        "guide": guide,
        "transferred": transferred,
        "max_macs": max_macs,
        "max_params": max_params,
    }
    given = {
        "trials": trials,
        "data": data,
        "recipe": recipe,
        "strategy": strategy,
        "objectives": None if objectives is None else tuple(objectives.split(",")),
        "confirm_seeds": confirm_seeds,
        "front_size": front_size,
        "seed": seed,
    }
    overrides = {name: value for name, value in given.items() if value is not None}
    result = run_search(
        space,
        out=out or Path("runs") / space.stem,
        changes={name: value for name, value in changes.items() if value is not None},
        overrides=overrides,
        epochs=epochs,
        device=device_of(device),
        data_root=data_root,
        scalars=tensorboard,
        quiet=quiet,
        tells=not as_json,
    )
    if as_json:
        print_json(result)
