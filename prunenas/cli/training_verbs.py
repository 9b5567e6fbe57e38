"""Verbs that train. Options are the verbs' own arguments, and no others."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from prunenas.arch.spec import versions
from prunenas.cli.method_help import MethodCommand
from prunenas.cli.options import (
    LARGEST_SEED,
    AsJson,
    Changes,
    Classes,
    Data,
    DataIfNeeded,
    DataRoot,
    Depth,
    Device,
    Epochs,
    InputSize,
    MethodRecipe,
    Pretrained,
    RecipeChanges,
    RecipeName,
    SaveWeights,
    Seed,
    TimeLimit,
    Unknown,
    Width,
    app,
)
from prunenas.cli.resolve import (
    check_start,
    command_line,
    descriptor_of,
    device_of,
    known_name,
    method_options,
    name_arguments,
    plain_console,
    print_json,
    protocol_recipe,
    recipe_of,
    reference_of,
    refuse_existing,
    refuse_weights,
    resolve,
    traced,
)
from prunenas.errors import InputError, MethodError


@app.command(cls=MethodCommand)
def generate(
    method: Annotated[str, typer.Argument(metavar="METHOD")],
    reference: Annotated[str, typer.Option(metavar="NAME|SPEC", help="The network.")] = "vgg16",
    data: DataIfNeeded = None,
    keep: Annotated[
        float | None,
        typer.Option(
            help="Fraction to keep, in (0, 1], of what the method counts.",
            show_default="0.5, or what an option of the method says",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Spec to write.", show_default="METHOD.json")
    ] = None,
    recipe: MethodRecipe = None,
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
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.safetensors",
            help="Look at these weights of the reference.",
            show_default="train it here",
        ),
    ] = None,
    save_weights: SaveWeights = None,
    seed: Seed = 0,
    device: Device = "auto",
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Let a pruning method find an architecture, and write it as a spec.

    --save-weights writes the reference's weights that the method looked at, or those that it fitted
    anew: where `prunenas train --protocol fine-tune --weights` starts.
    """
    import prunenas as pn
    from prunenas.cli.progress import Watch
    from prunenas.cli.show import drawn, facts, print_facts
    from prunenas.generators.base import make_generator

    target = out or Path(f"{method}.json")
    refuse_existing(target)
    refuse_weights(save_weights)
    options = method_options(method, changes or [])
    generator = make_generator(method, **options)
    if keep is None and generator.says_how_much is None:
        keep = 0.5
    if pretrained and weights is not None:
        raise InputError("the reference's weights are --pretrained or --weights, not both")
    if generator.looks_at == "graph" and (weights or save_weights):
        raise InputError(f"{method} looks at no weights: leave --weights and --save-weights away")
    if keep == 1 and save_weights and not (pretrained or weights):
        raise InputError("to keep all looks at no weights: leave --save-weights away")
    own_recipe = recipe is None and epochs is None and not recipe_set
    chosen = None if own_recipe else recipe_of(recipe or "paper", epochs, recipe_set or [])
    known_name(reference)
    arguments = name_arguments(input_size, classes, width, depth, unknown, time_limit)
    trains = generator.looks_at == "trained" and not pretrained and weights is None
    sees = trains or generator.reads or generator.looks_at == "own"
    images = None
    if sees or data is not None:
        images = pn.dataset(data or "digits", device=device_of(device), root=data_root)
    network = None
    if pretrained:
        named, with_weights = traced(reference, arguments, pretrained=True)
        network = with_weights().to(device_of(device))
    else:
        size, count = (images.input_size, images.classes) if images else (None, None)
        named = resolve(reference, arguments, input_size=size, classes=count)
    if weights is not None:
        network = pn.load_weights(named.graph, weights, device_of(device))
    with Watch() as watch:
        found = pn.prune(
            method,
            named.graph,
            images if sees else None,
            keep=keep,
            recipe=chosen,
            seed=seed,
            network=network,
            device=device_of(device),
            on_epoch=watch.epoch,
            **options,
        )
    spec = pn.ArchSpec.of(
        named.graph,
        found.descriptor,
        name=f"{method} of {named.name}",
        command=command_line(),
        versions=versions(),
    )
    spec.save(target)
    picture = drawn(spec, target.with_suffix(".png"))
    if save_weights is not None:
        trained = found.refit or found.reference
        if trained is None:
            raise MethodError(
                f"{method} hands out no trained weights: {target} is written, {save_weights} is not"
            )
        pn.save_weights(trained, save_weights)
    if as_json:
        written = {"weights": str(save_weights)} if save_weights else {}
        print_json(facts(spec) | {"out": str(target)} | written)
    else:
        print_facts(spec, plain_console(), layers=True)
        for path in filter(None, (target, save_weights, picture)):
            plain_console().print(f"wrote {path}", soft_wrap=True)


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
    save_weights: SaveWeights = None,
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
    """Train an architecture with several seeds; the test set is read once a seed."""
    import prunenas as pn
    from prunenas.cli.progress import Watch
    from prunenas.ir.canonical import encode
    from prunenas.report.table import accuracy_text, costs_text

    if seeds < 1:
        raise InputError(f"--seeds is at least 1, got {seeds}")
    if save_weights is not None and seeds != 1:
        raise InputError("--save-weights writes one network: say --seeds 1 with it")
    if out is not None:
        refuse_existing(out)
    refuse_weights(save_weights)
    way = check_start(protocol, weights, initial_seed)
    tuned = protocol == "fine-tune"
    base = recipe_of(recipe, epochs, recipe_set or [], fine_tuning=tuned)
    known_name(what)
    images = pn.dataset(data, device=device_of(device), root=data_root)
    spec = resolve(
        what,
        name_arguments(input_size, classes, width, depth, unknown, time_limit),
        input_size=images.input_size,
        classes=images.classes,
    )
    chosen = base if tuned else protocol_recipe(protocol, base, spec, cost, cap)
    begin = None if weights is None else pn.load_weights(reference_of(spec), weights)

    def save(_: int, network: pn.Network) -> None:
        if save_weights is not None:
            pn.save_weights(network, save_weights)

    with Watch() as watch:
        if chosen.epochs != base.epochs:
            watch.say(f"{protocol}: {base.epochs} -> {chosen.epochs} epochs by {cost}")
        metrics = pn.train_descriptor(
            reference_of(spec),
            descriptor_of(spec),
            images,
            base,
            protocol=way,
            network=begin,
            initial_seed=initial_seed,
            fine_tuning=base if tuned else None,
            cost=cost,
            cap=cap,
            seeds=range(seed, seed + seeds),
            device=device_of(device),
            on_epoch=watch.epoch,
            on_trained=save,
        )
    provenance = dict(spec.provenance) | {
        "training": {
            "command": command_line(),
            "protocol": protocol,
            "start": metrics.start,
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
                "start": metrics.start,
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
        f"{spec.name} on {metrics.data}, {protocol} from {metrics.start}, {chosen.epochs} epochs: "
        f"test accuracy {accuracy_text(metrics)}, {costs_text(metrics)}, "
        f"{metrics.seconds:.1f} s, {metrics.device}",
        soft_wrap=True,
    )
