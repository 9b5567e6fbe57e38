"""A search space on disk: TOML, the only format that people write by hand.

This is one of the two places where untrusted input is decoded (the other is ``ir.canonical``).
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, final

from prunenas.arch.profile import StageProfile
from prunenas.arch.spec import load
from prunenas.errors import RecipeError, SpaceError
from prunenas.families.base import reference
from prunenas.ir.canonical import decode, encode
from prunenas.ir.graph import Graph
from prunenas.ir.stages import HEAD, stages
from prunenas.search.space import SearchSpace
from prunenas.search.worker import ObjectiveName
from prunenas.training.recipe import Recipe, named_recipe

SPACE_SCHEMA = 1
_STRICT: dict[str, object] = {"extra": "forbid", "strict": True}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceTable:
    """Which graph is narrowed: a family with its arguments, or a spec's graph.

    Args:
        family: Name of a family.
        input_size: Channels, height, width; the family's own by default.
        classes: Number of classes; the family's own by default.
        width: Multiplier of all widths.
        options: The family's own options.
        spec: Path of a spec, instead of a family; relative to the file.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    family: str | None = None
    input_size: tuple[int, int, int] | None = None
    classes: int | None = None
    width: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)
    spec: str | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GuideTable:
    """A guide written in place.

    Args:
        keeps: Keep of each stage, or a single one for all stages.
        head: Keep of the layers without spatial size; 1 where it is not told.
        source: Where the numbers come from.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    keeps: tuple[float, ...] | float
    head: float = 1.0
    source: str = "written in the space"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class KeepTable:
    """How far from the guide a search may go: see ``SearchSpace.around``."""

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    radius: float = 0.15
    floor: float = 0.1
    step: float = 0.05


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RunTable:
    """How to search: see ``search``.

    Args:
        data: Name of the data set.
        recipe: Name of a recipe, or a table with ``name`` and changed fields.
        strategy: Name of a strategy.
        objectives: What it improves.
        trials: Finished trials in all.
        confirm_seeds: Trainings of each confirmed architecture.
        front_size: Most Pareto points to confirm.
        seed: Of the strategy and of every trial.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    data: str | None = None
    recipe: str | dict[str, Any] = "paper"
    strategy: str = "tpe"
    objectives: tuple[ObjectiveName, ...] = ("accuracy",)
    trials: int = 50
    confirm_seeds: int = 3
    front_size: int = 5
    seed: int = 0

    def resolved_recipe(self) -> Recipe:
        """Return the recipe.

        Raises:
            RecipeError: The name or a field is unknown, or it cannot be followed.
        """
        if isinstance(self.recipe, str):
            return named_recipe(self.recipe)
        changes = dict(self.recipe)
        return changed_recipe(str(changes.pop("name", "paper")), changes, "run.recipe")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceFile:
    """A whole file, decoded but not resolved.

    Args:
        schema: 1.
        reference: The target.
        guide: Path of a profile relative to the file, or the guide itself.
        transferred: A second guide, likewise.
        keep: The intervals.
        round_to: Widths become multiples of it.
        max_macs: Budget of multiply-accumulates.
        max_params: Budget of parameters.
        run: How to search.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    schema: int
    reference: ReferenceTable
    guide: str | GuideTable
    transferred: str | GuideTable | None = None
    keep: KeepTable = field(default_factory=KeepTable)
    round_to: int = 1
    max_macs: int | None = None
    max_params: int | None = None
    run: RunTable = field(default_factory=RunTable)


def changed_recipe(name: str, changes: Mapping[str, Any], where: str) -> Recipe:
    """Return the recipe called ``name`` with ``changes`` that were typed by hand.

    Raises:
        RecipeError: The name or a field is unknown, a value has a wrong type, or the result cannot
            be followed; ``where`` says whose it is.
    """
    # None leaves a field as it is: this refuses unknown fields, and lists the known ones.
    try:
        recipe = named_recipe(name, **{key: None for key in changes if key != "name"})
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}") from None
    return decode(Recipe, encode(recipe) | dict(changes), where, error=RecipeError)


def load_space(
    path: str | os.PathLike[str], **changes: str | int | None
) -> tuple[SearchSpace, RunTable]:
    """Return the search space and the run table in the TOML file at ``path``.

    Args:
        path: The file.
        changes: ``guide`` and ``transferred`` (paths of profiles, as seen from here), ``max_macs``
            or ``max_params`` instead of the file's; None leaves the file's.

    Raises:
        SpaceError: The file is missing, is not TOML, has unknown keys or wrong types (each path is
            named), or a newer schema.
        InputError: What it names does not exist or does not fit together.
    """
    file = Path(path)
    try:
        value = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SpaceError(f"{file} cannot be read: {error}") from None
    schema = value.get("schema")
    if isinstance(schema, int) and schema > SPACE_SCHEMA:
        # First of all: what a newer schema means by its keys is not known here.
        raise SpaceError(
            f"{file} has schema {schema}, this version reads {SPACE_SCHEMA}: upgrade prunenas"
        )
    try:
        decoded = decode(SpaceFile, value, str(file), error=SpaceError)
    except TypeError as error:
        # TOML has dates, which no key here takes.
        raise SpaceError(f"{file} holds a value of a type that is not used here: {error}") from None
    if decoded.schema != SPACE_SCHEMA:
        raise SpaceError(f"{file} has schema {decoded.schema}, this version reads {SPACE_SCHEMA}")
    # What is typed is seen from the working folder, what stands in the file from the file's.
    given = {
        key: str(Path(value).absolute()) if isinstance(value, str) else value
        for key, value in changes.items()
        if value is not None
    }
    decoded = replace(decoded, **given)  # type: ignore[arg-type]
    target = _target(decoded.reference, file)
    transferred = decoded.transferred
    space = SearchSpace.around(
        _guide(decoded.guide, target, file),
        target=target,
        radius=decoded.keep.radius,
        floor=decoded.keep.floor,
        step=decoded.keep.step,
        round_to=decoded.round_to,
        max_macs=decoded.max_macs,
        max_params=decoded.max_params,
        transferred=None if transferred is None else _guide(transferred, target, file),
    )
    return space, decoded.run


def _target(table: ReferenceTable, file: Path) -> Graph:
    if (table.family is None) == (table.spec is None):
        raise SpaceError(f"{file}: reference names either a family or a spec")
    if table.spec is not None:
        alone = ReferenceTable(spec=table.spec)
        given = [f.name for f in fields(table) if getattr(table, f.name) != getattr(alone, f.name)]
        if given:
            raise SpaceError(
                f"{file}: a reference's spec says itself what {', '.join(given)} would"
            )
        return load(file.parent / table.spec).graph
    assert table.family is not None
    return reference(
        table.family,
        table.input_size,
        table.classes,
        width=table.width,
        **table.options,
    )


def _guide(guide: str | GuideTable, target: Graph, file: Path) -> StageProfile:
    if isinstance(guide, str):
        return StageProfile.load(file.parent / guide)
    names = [stage.name for stage in stages(target)]
    wanted = [name for name in names if name != HEAD]
    keeps = [guide.keeps] * len(wanted) if isinstance(guide.keeps, float) else [*guide.keeps]
    if len(keeps) != len(wanted):
        raise SpaceError(
            f"{file}: the guide has {len(keeps)} keeps, the target {len(wanted)} stages "
            f"({', '.join(wanted)})"
        )
    by_stage = dict(zip(wanted, keeps, strict=True))
    if HEAD in names:
        by_stage[HEAD] = guide.head
    return StageProfile(keeps=by_stage, source=guide.source)
