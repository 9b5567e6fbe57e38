"""The verbs of the command line. Options are the verbs' own arguments, and no others."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

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
    RecipeChanges,
    RecipeName,
    Seed,
    Width,
)
from prunenas.cli.resolve import (
    NameArguments,
    command_line,
    descriptor_of,
    parse_options,
    protocol_recipe,
    reference_of,
    resolve,
)
from prunenas.errors import InputError

app = typer.Typer(
    name="prunenas",
    help="Pruning as architecture search.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command("list")
def list_names(as_json: AsJson = False) -> None:
    """List everything that has a name."""
    from prunenas.data.base import DATASETS
    from prunenas.export.base import EXPORTERS
    from prunenas.families.base import FAMILIES
    from prunenas.generators.base import GENERATORS
    from prunenas.search.strategies.base import STRATEGIES
    from prunenas.training.recipe import RECIPES

    names = {
        "families": FAMILIES.names(),
        "datasets": DATASETS.names(),
        "generators": GENERATORS.names(),
        "strategies": STRATEGIES.names(),
        "exporters": EXPORTERS.names(),
        "recipes": sorted(RECIPES),
    }
    if as_json:
        _print_json(names)
        return
    for kind, known in names.items():
        Console().print(f"[bold]{kind}[/bold]: {', '.join(known)}", highlight=False)


@app.command()
def inspect(
    what: Annotated[str, typer.Argument(metavar="NAME|SPEC")],
    input_size: InputSize = None,
    classes: Classes = None,
    width: Width = None,
    depth: Depth = None,
    as_json: AsJson = False,
) -> None:
    """Show cost, groups and stages of an architecture."""
    from prunenas.cli.show import facts, print_facts

    spec = resolve(what, _name(input_size, classes, width, depth))
    if as_json:
        _print_json(facts(spec))
    else:
        print_facts(spec, Console())


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
    seed: Seed = 0,
    device: Device = "auto",
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Let a pruning method find an architecture, and write it as a spec."""
    import prunenas as pn
    from prunenas.cli.progress import Watch
    from prunenas.cli.show import facts, print_facts
    from prunenas.generators.base import GENERATORS, make_generator

    target = out or Path(f"{method}.json")
    _refuse_existing(target)
    trains = GENERATORS[method].trains
    options = parse_options(changes or [])
    make_generator(method, **options)
    chosen = pn.named_recipe(recipe, epochs=epochs, **parse_options(recipe_set or []))
    images = pn.dataset(data, device=_device(device), root=data_root)
    named = resolve(reference, _name(input_size, classes, width, depth), images)
    graph = named.graph
    with Watch() as watch:
        found = pn.generate(
            method,
            graph,
            images if trains else None,
            keep=keep,
            recipe=chosen,
            seed=seed,
            device=_device(device),
            on_epoch=watch.epoch,
            **options,
        )
    spec = pn.ArchSpec.of(graph, found, name=f"{method} of {named.name}", command=command_line())
    spec.save(target)
    if as_json:
        _print_json(facts(spec) | {"out": str(target)})
    else:
        print_facts(spec, Console())
        Console().print(f"wrote {target}", highlight=False, soft_wrap=True)


@app.command()
def profile(
    specs: Annotated[list[Path], typer.Argument(metavar="SPEC...")],
    out: Annotated[Path, typer.Option(help="Profile to write.")] = Path("profile.json"),
    as_json: AsJson = False,
) -> None:
    """Average the keep of each stage over specs of one reference."""
    import prunenas as pn

    _refuse_existing(out)
    loaded = [pn.load(path) for path in specs]
    found = pn.StageProfile.of(reference_of(loaded[0]), *(descriptor_of(s) for s in loaded))
    found.save(out)
    _print_profile(found, out, as_json)


@app.command()
def transfer(
    source: Annotated[Path, typer.Argument(metavar="PROFILE")],
    to: Annotated[str, typer.Option(metavar="NAME|SPEC", help="The network.")] = "vgg16",
    out: Annotated[Path, typer.Option(help="Spec to write.")] = Path("transferred.json"),
    keep: Annotated[
        float | None, typer.Option(help="Scale to this overall keep.", show_default="as it is")
    ] = None,
    max_macs: Annotated[
        float | None, typer.Option(help="Scale to this many MACs.", show_default="as it is")
    ] = None,
    max_params: Annotated[
        float | None, typer.Option(help="Scale to this many parameters.", show_default="as it is")
    ] = None,
    round_to: Annotated[int, typer.Option(help="Widths become multiples of it.")] = 1,
    resample: Annotated[
        bool, typer.Option(help="Interpolate over another number of stages.")
    ] = False,
    head: Annotated[
        float | None,
        typer.Option(help="With --resample: keep of the head.", show_default="the profile's"),
    ] = None,
    input_size: InputSize = None,
    classes: Classes = None,
    width: Width = None,
    depth: Depth = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Put a profile on another network, and write the result as a spec."""
    import prunenas as pn
    from prunenas.cli.show import facts, print_facts

    _refuse_existing(out)
    loaded = pn.StageProfile.load(source)
    named = resolve(to, _name(input_size, classes, width, depth))
    graph = named.graph
    if resample:
        loaded = loaded.resample(graph, head=head)
    elif head is not None:
        raise InputError("--head goes with --resample")
    if keep is None and max_macs is None and max_params is None:
        found = loaded.descriptor(graph, round_to=round_to, seed=seed)
    else:
        found = pn.allocate(
            graph,
            loaded,
            keep=keep,
            max_macs=max_macs,
            max_params=max_params,
            round_to=round_to,
            seed=seed,
        )
    spec = pn.ArchSpec.of(graph, found, name=f"{named.name}, transferred", command=command_line())
    spec.save(out)
    if as_json:
        _print_json(facts(spec) | {"out": str(out)})
    else:
        print_facts(spec, Console())
        Console().print(f"wrote {out}", highlight=False, soft_wrap=True)


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
        _refuse_existing(out)
    chosen = pn.named_recipe(recipe, epochs=epochs, **parse_options(recipe_set or []))
    images = pn.dataset(data, device=_device(device), root=data_root)
    spec = resolve(what, _name(input_size, classes, width, depth), images)
    chosen = protocol_recipe(protocol, chosen, spec, cost, cap)
    with Watch() as watch:
        metrics = pn.train_seeds(
            spec.graph,
            images,
            chosen,
            seeds=range(seed, seed + seeds),
            device=_device(device),
            on_epoch=watch.epoch,
        )
    provenance = dict(spec.provenance) | {
        "training": {"command": command_line(), "protocol": protocol, "recipe": encode(chosen)}
    }
    if out is not None:
        replace(spec, metrics=metrics, provenance=provenance).save(out)
    if as_json:
        _print_json(
            {
                "name": spec.name,
                "digest": spec.digest,
                "protocol": protocol,
                "epochs": chosen.epochs,
                "accuracy": metrics.accuracy,
                "std": metrics.std,
                "n": metrics.n,
                "metrics": encode(metrics),
                "out": None if out is None else str(out),
            }
        )
        return
    Console().print(
        f"{spec.name} on {metrics.data}, {protocol}, {chosen.epochs} epochs: test accuracy "
        f"{accuracy_text(metrics)}, {metrics.params:,} params, {metrics.macs:,} MACs, "
        f"{metrics.seconds:.1f} s, {metrics.device}",
        highlight=False,
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
        overrides=overrides,
        epochs=epochs,
        device=_device(device),
        data_root=data_root,
        quiet=as_json,
    )
    if as_json:
        _print_json(result)


@app.command()
def export(
    what: Annotated[str, typer.Argument(metavar="NAME|SPEC")],
    exporter: Annotated[str, typer.Argument(metavar="EXPORTER")] = "python",
    out: Annotated[
        Path | None, typer.Option(help="File to write.", show_default="NAME.py or NAME.json")
    ] = None,
    input_size: InputSize = None,
    classes: Classes = None,
    width: Width = None,
    depth: Depth = None,
    as_json: AsJson = False,
) -> None:
    """Write an architecture down: plain Python without prunenas, or a spec."""
    import prunenas as pn
    from prunenas.search.study import slug

    spec = resolve(what, _name(input_size, classes, width, depth))
    suffix = ".py" if exporter == "python" else f".{exporter}"
    target = out or Path(slug(spec.name) + suffix)
    written = pn.export(spec, exporter, path=target)
    if as_json:
        _print_json({"out": str(written), "digest": spec.digest})
    else:
        Console().print(f"wrote {written}", highlight=False, soft_wrap=True)


def _name(
    input_size: str | None, classes: int | None, width: float | None, depth: int | None
) -> NameArguments:
    return NameArguments(input_size=input_size, classes=classes, width=width, depth=depth)


def _device(name: str) -> str:
    import torch

    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def _refuse_existing(path: Path) -> None:
    from prunenas.errors import OutputExistsError

    if path.exists():
        raise OutputExistsError(f"{path} exists: choose another --out or remove it first")


def _print_profile(found: Any, out: Path, as_json: bool) -> None:
    if as_json:
        _print_json({"keeps": dict(found.keeps), "source": found.source, "out": str(out)})
        return
    console = Console()
    for stage, keep in found.keeps.items():
        console.print(f"{stage}  {keep:.4f}", highlight=False)
    console.print(f"wrote {out}", highlight=False, soft_wrap=True)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1))
