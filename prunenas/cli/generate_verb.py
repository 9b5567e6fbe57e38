"""The verb that lets a pruning method look for an architecture."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from prunenas.arch.spec import versions
from prunenas.cli.method_help import MethodCommand
from prunenas.cli.options import (
    AsJson,
    Changes,
    Classes,
    DataIfNeeded,
    DataRoot,
    Depth,
    Device,
    Epochs,
    InputSize,
    MethodRecipe,
    Pretrained,
    Quiet,
    RecipeChanges,
    SaveWeights,
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
    method_options,
    name_arguments,
    plain_console,
    print_json,
    recipe_of,
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
    checkpoints: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep trainings there, one process at a time: the same command goes on after "
            "Ctrl-C or a kill.",
            show_default="nothing is kept",
        ),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    data_root: DataRoot = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Let a pruning method find an architecture, and write it as a spec.

    --save-weights writes the reference's weights that the method looked at, or those that it fitted
    anew: where `prunenas train --protocol fine-tune --weights` starts.
    """
    import prunenas as pn
    from prunenas.cli.progress import Display
    from prunenas.cli.show import drawn, facts, print_facts
    from prunenas.cli.stopping import stopping
    from prunenas.generators.base import make_generator
    from prunenas.training.keeping.checkpoint import Checkpoints

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
    # Where nothing is kept there is nothing to end cleanly: Ctrl-C ends it at once.
    listening = nullcontext() if checkpoints is None else stopping(quiet=quiet)
    with Display(quiet=quiet) as display, listening as stop:
        found = pn.prune(
            method,
            named.graph,
            images if sees else None,
            keep=keep,
            recipe=chosen,
            seed=seed,
            network=network,
            device=device_of(device),
            checkpoints=None if checkpoints is None else Checkpoints(checkpoints),
            stop=stop,
            on_epoch=display.epoch,
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
