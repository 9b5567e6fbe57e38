"""Verbs that train nothing. Options are the verbs' own arguments, and no others."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from prunenas.cli.options import (
    AsJson,
    Classes,
    Depth,
    InputSize,
    Seed,
    TimeLimit,
    Unknown,
    Width,
    app,
)
from prunenas.cli.resolve import (
    command_line,
    descriptor_of,
    name_arguments,
    plain_console,
    print_json,
    reference_of,
    refuse_existing,
    resolve,
)
from prunenas.errors import InputError


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
        print_json(names)
        return
    for kind, known in names.items():
        plain_console().print(Text.assemble((kind, "bold"), f": {', '.join(known)}"))


@app.command()
def inspect(
    what: Annotated[str, typer.Argument(metavar="NAME|SPEC")],
    input_size: InputSize = None,
    classes: Classes = None,
    width: Width = None,
    depth: Depth = None,
    unknown: Unknown = None,
    time_limit: TimeLimit = None,
    layers: Annotated[
        bool,
        typer.Option(
            "--layers",
            help="Layer by layer what is kept, and its cost.",
            show_default="groups and stages",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show cost, groups and stages of an architecture."""
    from prunenas.cli.show import facts, print_facts

    spec = resolve(what, name_arguments(input_size, classes, width, depth, unknown, time_limit))
    if as_json:
        print_json(facts(spec))
    else:
        print_facts(spec, plain_console(), layers=layers)


@app.command()
def profile(
    specs: Annotated[list[Path], typer.Argument(metavar="SPEC...")],
    out: Annotated[Path, typer.Option(help="Profile to write.")] = Path("profile.json"),
    as_json: AsJson = False,
) -> None:
    """Average the keep of each stage over specs of one reference."""
    import prunenas as pn

    refuse_existing(out)
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
        float | None,
        typer.Option(help="Scale to this many MACs, after masks.", show_default="as it is"),
    ] = None,
    max_params: Annotated[
        float | None,
        typer.Option(help="Scale to this many parameters, after masks.", show_default="as it is"),
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
    unknown: Unknown = None,
    time_limit: TimeLimit = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Put a profile on another network, and write the result as a spec."""
    import prunenas as pn
    from prunenas.cli.show import facts, print_facts

    refuse_existing(out)
    loaded = pn.StageProfile.load(source)
    named = resolve(to, name_arguments(input_size, classes, width, depth, unknown, time_limit))
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
        print_json(facts(spec) | {"out": str(out)})
    else:
        print_facts(spec, plain_console())
        plain_console().print(f"wrote {out}", soft_wrap=True)


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
    unknown: Unknown = None,
    time_limit: TimeLimit = None,
    as_json: AsJson = False,
) -> None:
    """Write an architecture down: plain Python without prunenas, or a spec."""
    import prunenas as pn
    from prunenas.arch.files import file_name

    spec = resolve(what, name_arguments(input_size, classes, width, depth, unknown, time_limit))
    suffix = ".py" if exporter == "python" else f".{exporter}"
    target = out or Path(file_name(spec.name) + suffix)
    written = pn.export(spec, exporter, path=target)
    if as_json:
        print_json({"out": str(written), "digest": spec.digest})
    else:
        plain_console().print(f"wrote {written}", soft_wrap=True)


def _print_profile(found: Any, out: Path, as_json: bool) -> None:
    if as_json:
        from prunenas.ir.canonical import encode

        print_json(encode(found) | {"out": str(out)})
        return
    console = plain_console()
    for stage, keep in found.keeps.items():
        pattern = found.densities.get(stage)
        kernels = f"  3x3 kernels at density {sum(pattern) / len(pattern):.4f}" if pattern else ""
        other = found.other_densities.get(stage)
        others = f"  other kernels at {other:.4f}" if other is not None else ""
        console.print(f"{stage}  {keep:.4f}{kernels}{others}")
    console.print(f"wrote {out}", soft_wrap=True)
