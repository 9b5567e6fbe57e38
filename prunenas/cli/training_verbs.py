"""Verbs that train. Options are the verbs' own arguments, and no others."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from prunenas.arch.spec import versions
from prunenas.cli.options import (
    AsJson,
    Changes,
    Classes,
    Data,
    DataRoot,
    Depth,
    Device,
    Epochs,
    InputSize,
    Pretrained,
    RecipeChanges,
    RecipeName,
    Seed,
    TimeLimit,
    Unknown,
    Width,
    app,
)
from prunenas.cli.resolve import (
    command_line,
    device_of,
    known_name,
    known_protocol,
    method_options,
    name_arguments,
    plain_console,
    print_json,
    protocol_recipe,
    recipe_of,
    refuse_existing,
    resolve,
    traced,
)
from prunenas.errors import InputError


@app.command()
def generate(
    method: Annotated[str, typer.Argument(metavar="METHOD")],
    reference: Annotated[str, typer.Option(metavar="NAME|SPEC", help="The network.")] = "vgg16",
    data: Data = "digits",
    keep: Annotated[float, typer.Option(help="Fraction of channels to keep, in (0, 1].")] = 0.5,
    out: Annotated[
        Path | None, typer.Option(help="Spec to write.", show_default="METHOD.json")
    ] = None,
    recipe: RecipeName = "fast",
    epochs: Epochs = None,
    recipe_set: RecipeChanges = None,
    changes: Changes = None,
    input_size: InputSize = None,
    classes: Classes = None,
    width: Width = None,
    depth: Depth = None,
    unknown: Unknown = None,
    time_limit: TimeLimit = None,
    pretrained: Pretrained = False,
    seed: Seed = 0,
    device: Device = "auto",
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Let a pruning method find an architecture, and write it as a spec."""
    import prunenas as pn
    from prunenas.cli.progress import Watch
    from prunenas.cli.show import facts, print_facts
    from prunenas.generators.base import GENERATORS

    target = out or Path(f"{method}.json")
    refuse_existing(target)
    trains = GENERATORS[method].looks_at != "graph"
    options = method_options(method, changes or [])
    chosen = recipe_of(recipe, epochs, recipe_set or [])
    known_name(reference)
    arguments = name_arguments(input_size, classes, width, depth, unknown, time_limit)
    network = None
    if pretrained:
        named, with_weights = traced(reference, arguments, pretrained=True)
        network = with_weights().to(device_of(device))
        images = None
    else:
        images = pn.dataset(data, device=device_of(device), root=data_root)
        named = resolve(reference, arguments, input_size=images.input_size, classes=images.classes)
    graph = named.graph
    with Watch() as watch:
        found = pn.generate(
            method,
            graph,
            images if trains else None,
            keep=keep,
            recipe=chosen,
            seed=seed,
            network=network,
            device=device_of(device),
            on_epoch=watch.epoch,
            **options,
        )
    spec = pn.ArchSpec.of(
        graph,
        found,
        name=f"{method} of {named.name}",
        command=command_line(),
        versions=versions(),
    )
    spec.save(target)
    if as_json:
        print_json(facts(spec) | {"out": str(target)})
    else:
        print_facts(spec, plain_console())
        plain_console().print(f"wrote {target}", soft_wrap=True)


@app.command()
def train(
    what: Annotated[str, typer.Argument(metavar="NAME|SPEC")],
    data: Data = "digits",
    protocol: Annotated[
        str,
        typer.Option(help="scratch-e: the recipe's epochs; scratch-b: the reference's compute."),
    ] = "scratch-e",
    seeds: Annotated[int, typer.Option(help="Trainings, each with a seed of its own.")] = 3,
    recipe: RecipeName = "paper",
    epochs: Epochs = None,
    recipe_set: RecipeChanges = None,
    cost: Annotated[
        str, typer.Option(help="scratch-b: ratio of repo_flops (the paper's counter) or macs.")
    ] = "repo_flops",
    cap: Annotated[
        float | None, typer.Option(help="scratch-b: largest ratio.", show_default="none")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Spec with metrics to write.", show_default="none")
    ] = None,
    input_size: InputSize = None,
    classes: Classes = None,
    width: Width = None,
    depth: Depth = None,
    unknown: Unknown = None,
    time_limit: TimeLimit = None,
    seed: Seed = 0,
    device: Device = "auto",
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Train an architecture from scratch with several seeds; the test set is read once a seed."""
    import prunenas as pn
    from prunenas.cli.progress import Watch
    from prunenas.ir.canonical import encode
    from prunenas.report.table import accuracy_text

    if seeds < 1:
        raise InputError(f"--seeds is at least 1, got {seeds}")
    if out is not None:
        refuse_existing(out)
    chosen = recipe_of(recipe, epochs, recipe_set or [])
    known_name(what)
    known_protocol(protocol)
    images = pn.dataset(data, device=device_of(device), root=data_root)
    spec = resolve(
        what,
        name_arguments(input_size, classes, width, depth, unknown, time_limit),
        input_size=images.input_size,
        classes=images.classes,
    )
    base = chosen.epochs
    chosen = protocol_recipe(protocol, chosen, spec, cost, cap)
    with Watch() as watch:
        if chosen.epochs != base:
            watch.say(f"{protocol}: {base} -> {chosen.epochs} epochs by {cost}")
        metrics = pn.train_seeds(
            spec.graph,
            images,
            chosen,
            seeds=range(seed, seed + seeds),
            device=device_of(device),
            on_epoch=watch.epoch,
        )
    provenance = dict(spec.provenance) | {
        "training": {
            "command": command_line(),
            "protocol": protocol,
            "recipe": encode(chosen),
            "versions": versions(),
        }
    }
    if out is not None:
        replace(spec, metrics=metrics, provenance=provenance).save(out)
    if as_json:
        print_json(
            {
                "name": spec.name,
                "digest": spec.digest,
                "protocol": protocol,
                "epochs": chosen.epochs,
                "accuracy": metrics.accuracy,
                "top5": metrics.top5,
                "std": metrics.std if metrics.n > 1 else None,
                "n": metrics.n,
                "metrics": encode(metrics),
                "out": None if out is None else str(out),
            }
        )
        return
    plain_console().print(
        f"{spec.name} on {metrics.data}, {protocol}, {chosen.epochs} epochs: test accuracy "
        f"{accuracy_text(metrics)}, {metrics.params:,} params, {metrics.macs:,} MACs, "
        f"{metrics.seconds:.1f} s, {metrics.device}",
        soft_wrap=True,
    )


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
        quiet=as_json,
    )
    if as_json:
        print_json(result)
