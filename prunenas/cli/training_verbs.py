"""The verb that trains. Its options are the arguments of ``train_descriptor``, and no others."""

from pathlib import Path
from typing import Annotated

import typer

from prunenas.cli.options import (
    LARGEST_SEED,
    AsJson,
    Classes,
    Data,
    DataRoot,
    Depth,
    Device,
    Epochs,
    InputSize,
    Quiet,
    RecipeChanges,
    RecipeName,
    SaveWeights,
    Seed,
    Tensorboard,
    TimeLimit,
    Unknown,
    Width,
    app,
)
from prunenas.cli.resolve import (
    check_start,
    device_of,
    known_name,
    name_arguments,
    recipe_of,
    refuse_no_reference,
    resolve,
)
from prunenas.errors import InputError


@app.command()
def train(
    what: Annotated[str, typer.Argument(metavar="NAME|SPEC")],
    data: Data = "digits",
    protocol: Annotated[
        str,
        typer.Option(
            help="scratch-e: fresh weights, the recipe's epochs; scratch-b: fresh weights, the "
            "reference's compute; fine-tune: from --weights, 40 epochs at 0.001; rewind: from the "
            "weights that the reference began with, the recipe's epochs."
        ),
    ] = "scratch-e",
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.safetensors",
            help="fine-tune: the trained reference. rewind: the reference before its training.",
            show_default="none",
        ),
    ] = None,
    initial_seed: Annotated[
        int | None,
        typer.Option(
            help="rewind: seed that the reference was built from.",
            show_default="the spec's, if generate trained it",
            min=0,
            max=LARGEST_SEED,
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Trainings, each with a seed of its own.")] = 3,
    held_out: Annotated[
        bool,
        typer.Option(
            "--held-out",
            help="Leave the test set unread: train without the validation part, and judge by it "
            "after every epoch.",
            show_default="train on all, read the test set",
        ),
    ] = False,
    recipe: RecipeName = "paper",
    epochs: Epochs = None,
    recipe_set: RecipeChanges = None,
    cost: Annotated[
        str,
        typer.Option(
            help="scratch-b: ratio of repo_flops (the paper's counter), macs, or measured seconds "
            "of a training step."
        ),
    ] = "repo_flops",
    cap: Annotated[
        float | None, typer.Option(help="scratch-b: largest ratio.", show_default="none")
    ] = None,
    count_fine_tuning: Annotated[
        int,
        typer.Option(
            help="scratch-e, scratch-b: epochs that fine-tuning would have had, added to the "
            "budget.",
            min=0,
        ),
    ] = 0,
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Run folder; the same call continues there.",
            show_default="runs/NAME-DIGEST",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Spec with metrics to write.", show_default="none")
    ] = None,
    save_weights: SaveWeights = None,
    input_size: InputSize = None,
    classes: Classes = None,
    width: Width = None,
    depth: Depth = None,
    unknown: Unknown = None,
    time_limit: TimeLimit = None,
    seed: Seed = 0,
    device: Device = "auto",
    accumulate: Annotated[
        str,
        typer.Option(
            metavar="N|auto",
            help="Parts of each batch, whose gradients add up: less memory. auto: as many as "
            "memory asks for.",
        ),
    ] = "1",
    layout: Annotated[
        str, typer.Option(help="Tensors in memory: contiguous, channels_last or auto.")
    ] = "auto",
    no_capture: Annotated[
        bool,
        typer.Option(
            "--no-capture", help="On CUDA: do each step anew, record none.", show_default="recorded"
        ),
    ] = False,
    compile_: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the network first: for long trainings.",
            show_default="as it is",
        ),
    ] = False,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            help="On CUDA: same seed, same bits. A CPU does so anyway.",
            show_default="the fastest",
        ),
    ] = False,
    sync_norms: Annotated[
        bool,
        typer.Option(
            "--sync-norms",
            help="Under torchrun, on CUDA: batch norms see the images of all processes.",
            show_default="each its own",
        ),
    ] = False,
    data_root: DataRoot = None,
    tensorboard: Tensorboard = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train an architecture with several seeds; the test set is read once a seed.

    All is kept in the run folder: the same command goes on there after Ctrl-C or a kill, and tells
    the result at once when all is done. `prunenas watch` follows it from elsewhere. Under torchrun
    several processes train one network together.
    """
    import prunenas as pn
    from prunenas.cli.run_training import Outputs, run_training, tell
    from prunenas.cli.training_order import Order, engine_of
    from prunenas.training.execution.distributed import joined, leader_first
    from prunenas.training.execution.engine import settle

    with joined(device_of(device)) as (team, place):
        if seeds < 1:
            raise InputError(f"--seeds is at least 1, got {seeds}")
        if save_weights is not None and seeds != 1:
            raise InputError("--save-weights writes one network: say --seeds 1 with it")
        way = check_start(protocol, weights, initial_seed)
        engine = engine_of(
            accumulate=accumulate,
            layout=layout,
            capture=not no_capture,
            compile_=compile_,
            deterministic=deterministic,
            sync_norms=sync_norms,
        )
        base = recipe_of(recipe, epochs, recipe_set or [], fine_tuning=protocol == "fine-tune")
        known_name(what)
        # What has to be fetched is fetched once.
        with leader_first(team):
            images = pn.dataset(data, device=place, root=data_root)
        spec = resolve(
            what,
            name_arguments(input_size, classes, width, depth, unknown, time_limit),
            input_size=images.input_size,
            classes=images.classes,
        )
        refuse_no_reference(protocol, spec)
        order = Order(
            spec=spec,
            data=images,
            recipe=settle(base, place),
            protocol=way,
            weights=weights,
            initial_seed=initial_seed,
            cost=cost,
            cap=cap,
            count_fine_tuning=count_fine_tuning,
            seeds=range(seed, seed + seeds),
            held_out=held_out,
            device=place,
            engine=engine,
            team=team,
        )
        outputs = Outputs(spec=out, weights=save_weights, scalars=tensorboard)
        done = run_training(order, outputs, folder=run, quiet=quiet)
        if team.leads:
            tell(done, out=out, as_json=as_json)
