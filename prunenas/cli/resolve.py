"""From what is typed to values: NAME|SPEC, sizes, options."""

import json
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, final

from rich.console import Console

from prunenas.arch.descriptor import Descriptor
from prunenas.arch.masks_file import masks_path
from prunenas.arch.spec import ArchSpec, load
from prunenas.errors import InputError, MethodError, OutputExistsError
from prunenas.families.base import FAMILIES, reference
from prunenas.ir.canonical import decode, digest
from prunenas.ir.graph import Graph
from prunenas.training.protocols.budgets import Protocol, fine_tune, known_protocol
from prunenas.training.recipe import Recipe


@final
@dataclass(frozen=True, kw_only=True)
class NameArguments:
    """What a NAME takes besides: None is the data set's, or the network's own.

    ``width`` and ``depth`` go with families, ``unknown`` and ``time_limit`` with what is traced.
    """

    input_size: str | None = None
    classes: int | None = None
    width: float | None = None
    depth: int | None = None
    unknown: str | None = None
    time_limit: float | None = None

    def __post_init__(self) -> None:
        if self.unknown not in (None, "refuse", "freeze"):
            raise InputError(f"--unknown is refuse or freeze, got {self.unknown!r}")


def resolve(
    text: str,
    arguments: NameArguments,
    *,
    input_size: tuple[int, int, int] | None = None,
    classes: int | None = None,
) -> ArchSpec:
    """Return the architecture that NAME|SPEC names; a NAME's is a spec without reference.

    Args:
        text: Name of a family, ``torchvision:``, ``timm:`` or ``package.module:`` and the name of
            a network, or path of a spec.
        arguments: Only a NAME takes them.
        input_size: Default for a family, such as the data set's; else the family's own. What is
            traced brings its own.
        classes: Likewise.

    Raises:
        InputError: There is no such family or file, a SPEC is given arguments of a NAME, or a
            family those of tracing.
    """
    given = {k: v for k, v in vars(arguments).items() if v is not None}
    if _is_source(text):
        return traced(text, arguments)[0]
    if text not in FAMILIES and (text.endswith(".json") or Path(text).exists()):
        if given:
            flags = ", ".join("--" + name.replace("_", "-") for name in given)
            raise InputError(f"{text} is a spec and says itself what {flags} would")
        return load(text)
    if text in FAMILIES and (arguments.unknown is not None or arguments.time_limit is not None):
        raise InputError(f"--unknown and --time-limit go with PLACE:NETWORK, {text} is a family")
    size = parse_size(arguments.input_size) if arguments.input_size else None
    options = {} if arguments.depth is None else {"depth": arguments.depth}
    graph = reference(
        text,
        size or input_size,
        classes if arguments.classes is None else arguments.classes,
        width=1.0 if arguments.width is None else arguments.width,
        **options,
    )
    return ArchSpec(name=text, graph=graph, provenance={"family": text, **given})


def _is_source(text: str) -> bool:
    if ":" not in text or Path(text).exists():
        return False
    from prunenas.importers.sources import is_source

    return is_source(text)


def traced(
    text: str, arguments: NameArguments, *, pretrained: bool = False
) -> tuple[ArchSpec, Callable[[], Any]]:
    """Return the architecture of ``package:network``, and the network with its weights.

    Raises:
        InputError: There is no such network, it cannot be traced, or it is given arguments of
            families.
    """
    from prunenas.importers.trace import import_network

    if not _is_source(text):
        raise InputError(f"--pretrained goes with torchvision:NAME or timm:NAME, not with {text}")
    if arguments.width is not None or arguments.depth is not None:
        raise InputError(f"--width and --depth go with families, {text} is traced as it is")
    size = parse_size(arguments.input_size) if arguments.input_size else None
    found = import_network(
        text,
        size,
        classes=arguments.classes,
        pretrained=pretrained,
        unknown="freeze" if arguments.unknown == "freeze" else "refuse",
        time_limit=60.0 if arguments.time_limit is None else arguments.time_limit,
    )
    provenance = {
        "source": text,
        "front_end": found.front_end,
        "difference": found.certificate.difference,
        **({"dropped": dict(found.dropped)} if found.dropped else {}),
        **({"frozen": list(found.frozen)} if found.frozen else {}),
        **({"weights": "published"} if pretrained else {}),
    }
    return ArchSpec(name=text, graph=found.graph, provenance=provenance), found.network


def known_name(text: str) -> None:
    """Refuse what is no family, no traced network and no file, before anything is done for it.

    Raises:
        InputError: It is none of them.
    """
    if not _is_source(text) and not (text.endswith(".json") or Path(text).exists()):
        FAMILIES[text]


def parse_size(text: str) -> tuple[int, int, int]:
    """Return ``text`` such as ``3,32,32`` as channels, height and width.

    Raises:
        InputError: It is something else.
    """
    try:
        channels, height, width = (int(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"--input-size is channels,height,width such as 3,32,32, got {text!r}"
        ) from None
    return channels, height, width


def parse_options(pairs: list[str]) -> dict[str, Any]:
    """Return ``name=value`` pairs as a dictionary; values are JSON, or text where they are not.

    Raises:
        InputError: A pair has no ``=``.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise InputError(f"an option is name=value, got {pair!r}")
        try:
            options[name.strip()] = json.loads(text)
        except ValueError:
            options[name.strip()] = text
    return options


def recipe_of(
    name: str, epochs: int | None, pairs: list[str], *, fine_tuning: bool = False
) -> Recipe:
    """Return the recipe called ``name`` with the fields of ``pairs``, and with ``epochs`` if given.

    For fine-tuning, what is not given is the recipe's under ``fine_tune``.

    Raises:
        RecipeError: The name or a field is unknown, a value has a wrong type, or the result cannot
            be followed.
    """
    from prunenas.search.space_file import changed_recipe

    changes = parse_options(pairs) | ({} if epochs is None else {"epochs": epochs})
    recipe = changed_recipe(name, changes, "--recipe-set")
    if not fine_tuning:
        return recipe
    return replace(fine_tune(recipe), **{field: getattr(recipe, field) for field in changes})


def method_options(method: str, pairs: list[str]) -> dict[str, Any]:
    """Return the options in ``pairs`` of a pruning method.

    Raises:
        UnknownNameError: No such method.
        MethodError: An option is unknown, or a value is none that it takes.
    """
    from prunenas.generators.base import GENERATORS, make_generator

    options = parse_options(pairs)
    kind = GENERATORS[method]
    if {*options} <= {f.name for f in fields(kind)}:
        decode(kind, options, "--set", error=MethodError)
    make_generator(method, **options)
    return options


def reference_of(spec: ArchSpec) -> Graph:
    """Return the graph that a spec was derived from, or its own."""
    return spec.graph if spec.reference is None else spec.reference


def descriptor_of(spec: ArchSpec) -> Descriptor:
    """Return the delta of a spec; the empty one where it has none."""
    return spec.descriptor or Descriptor(reference=digest(spec.graph))


def refuse_no_reference(protocol: str, spec: ArchSpec) -> None:
    """Refuse Scratch-B of a spec that no reference is known of.

    Raises:
        InputError: It is asked for.
    """
    if protocol == "scratch-b" and spec.reference is None:
        raise InputError(
            f"scratch-b spends the compute of a reference, and {spec.name} has none: give a spec "
            "that generate, transfer or search wrote"
        )


def check_start(protocol: str, weights: Path | None, initial_seed: int | None) -> Protocol:
    """Return the protocol, if it has what it needs and nothing that it cannot use.

    Raises:
        InputError: No such protocol, or it lacks weights, or cannot use those that are given.
    """
    way = known_protocol(protocol)
    if weights is not None and protocol not in ("fine-tune", "rewind"):
        raise InputError(f"--weights goes with --protocol fine-tune or rewind, not {protocol}")
    if initial_seed is not None and protocol != "rewind":
        raise InputError(f"--initial-seed goes with --protocol rewind, not {protocol}")
    if weights is None and protocol == "fine-tune":
        raise InputError("fine-tune starts from the trained reference: give its --weights")
    if weights is not None and initial_seed is not None:
        raise InputError("the initial weights are --weights or an --initial-seed, not both")
    return way


def command_line() -> str:
    """Return the command that this process was called with."""
    return shlex.join(["prunenas", *sys.argv[1:]])


def name_arguments(
    input_size: str | None,
    classes: int | None,
    width: float | None,
    depth: int | None,
    unknown: str | None = None,
    time_limit: float | None = None,
) -> NameArguments:
    """Return what a verb was given besides NAME."""
    return NameArguments(
        input_size=input_size,
        classes=classes,
        width=width,
        depth=depth,
        unknown=unknown,
        time_limit=time_limit,
    )


def device_of(name: str) -> str:
    """Return the device that ``auto`` stands for, or ``name``."""
    import torch

    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def refuse_weights(path: Path | None) -> None:
    """Refuse a file of weights that cannot be written, before any work is done for it.

    Raises:
        OutputExistsError: It exists.
        InputError: Its name or its folder is no good.
    """
    if path is None:
        return
    if path.suffix != ".safetensors":
        raise InputError(f"--save-weights takes a file called NAME.safetensors, got {path}")
    refuse_existing(path, "--save-weights")


def refuse_existing(path: Path, option: str = "--out") -> None:
    """Refuse an output that is there or cannot be written, before any work is done for it.

    Raises:
        OutputExistsError: It exists.
        InputError: Its folder cannot be written to.
    """
    # Only a spec may have masks beside it, in a file that is not to be replaced either.
    for one in (path, *([masks_path(path)] if path.suffix == ".json" else [])):
        if one.exists():
            raise OutputExistsError(f"{one} exists: choose another {option} or remove it first")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise InputError(
            f"{path} cannot be written: {above} is not a folder that can be written to"
        )


def plain_console() -> Console:
    """Return a console on stdout that prints names as they are: they may hold brackets."""
    return Console(markup=False, emoji=False, highlight=False)


def print_json(value: Any) -> None:
    """Print ``value`` as the one JSON object on stdout."""
    print(json.dumps(value, indent=1))
