"""Block classes: one for each structure that occurs, and which arguments it takes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from prunenas.export.python_source.pieces import Arg, Layer
from prunenas.export.python_source.structure import (
    ENTRY,
    Chain,
    Module,
    Scope,
    args,
    is_plain,
    signature,
)
from prunenas.export.python_source.text import Value, literal

_LONGEST_NAME = 30
"""Characters of the name of a layer that an argument is called after."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """An argument of a block class.

    Args:
        name: What it is called.
        slots: Which of the block's arguments, of layers or in expressions, it decides.
        default: The value at which it is left out; None for none.
        kinds: Names of the types of its values.
    """

    name: str
    slots: tuple[int, ...]
    default: Value | None
    kinds: str

    def __str__(self) -> str:
        default = "" if self.default is None else f" = {literal(self.default)}"
        return f"{self.name}: {self.kinds}{default}"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BlockClass:
    """One class for all blocks of one structure."""

    name: str
    doc: str
    scope: Scope
    parameters: tuple[Parameter, ...]


Classes = Mapping[object, BlockClass]
"""Block classes by signature, inner ones before those that use them."""


def block_classes(network: Scope, taken: Sequence[str]) -> dict[object, BlockClass]:
    """Return the classes of all blocks in ``network``; their names avoid ``taken``."""
    instances: dict[object, list[Scope]] = {}
    for scope in _scopes(network):
        instances.setdefault(signature(scope), []).append(scope)
    classes: dict[object, BlockClass] = {}
    used = {*taken}
    for key, scopes in instances.items():
        name, doc = _title(scopes[0])
        numbered = [name, *(f"{name}{i}" for i in range(2, len(instances) + len(used) + 2))]
        free = next(candidate for candidate in numbered if candidate not in used)
        used.add(free)
        classes[key] = BlockClass(
            name=free, doc=doc, scope=scopes[0], parameters=_parameters(scopes)
        )
    return classes


def _scopes(module: Module | None) -> Iterator[Scope]:
    """Yield the blocks inside ``module``, inner ones first."""
    if isinstance(module, Scope):
        inner: list[Module | None] = [unit.module for unit in module.units]
    else:
        inner = [part for _, part in module.parts] if isinstance(module, Chain) else []
    for part in inner:
        yield from _scopes(part)
        if isinstance(part, Scope):
            yield part


def _title(scope: Scope) -> tuple[str, str]:
    """Return a name and a docstring for the class of ``scope``."""
    kinds = {unit.kind: unit for unit in scope.units}
    if any(unit.kind == "Add" and ENTRY in unit.reads for unit in scope.units):
        return "ResidualBlock", "A residual block around the identity."
    if "Add" in kinds and "PadChannels" in kinds:
        return "PaddedBlock", "A residual block around a shortcut without parameters."
    if "Add" in kinds:
        return "ProjectionBlock", "A residual block around a shortcut with parameters."
    if "Gate" in kinds:
        return "SqueezeExcite", "Channels scaled by factors that are computed from their means."
    if "Concat" in kinds and "" in kinds["Concat"].reads:
        return "DenseLayer", "Appends new channels to those that come in."
    if "Attention" in kinds:
        return "Attention", "Tokens that are mixed by attention."
    words = [part for part in scope.prefix if not part.isdecimal()] or ["inner"]
    stem = words[-1].rstrip("0123456789_")
    camel = "".join(word[:1].upper() + word[1:] for word in stem.split("_"))
    plain = camel.isascii() and camel.isidentifier()
    name = f"{camel.removesuffix('Block')}Block" if plain else "Block"
    if scope.prefix[-1].isdecimal():
        return name, f"One of the numbered parts of {stem}."
    return name, f"The part called {stem}." if stem == words[-1] else f"A part called {stem}."


def _parameters(scopes: Sequence[Scope]) -> tuple[Parameter, ...]:
    """Return what the class of ``scopes`` must be told: all widths, and whatever else differs."""
    vectors = [[*args(scope)] for scope in scopes]
    first = vectors[0]
    groups: dict[object, list[int]] = {}
    # Widths first: a size that goes with a width is that width.
    for slot, arg in sorted(enumerate(first), key=lambda item: not item[1].width):
        values = tuple(vector[slot].value for vector in vectors)
        if arg.width or len(set(values)) > 1:
            goes_with = arg.keyword is None and ("", values) in groups
            key = "" if arg.width or goes_with else arg.keyword
            groups.setdefault((key, values), []).append(slot)
    names = _names(scopes[0], [*groups.values()], first)
    found = [
        Parameter(
            name=name,
            slots=tuple(slots),
            default=_default([vector[slots[0]] for vector in vectors]),
            kinds=_kinds([vector[slots[0]].value for vector in vectors]),
        )
        for name, slots in zip(names, groups.values(), strict=True)
    ]
    # As Python wants it: by position, then by keyword, those that may be left out last.
    return tuple(sorted(found, key=lambda p: (p.default is not None, not first[p.slots[0]].width)))


def _default(same: Sequence[Arg]) -> Value | None:
    defaults = {arg.default for arg in same}
    return same[0].default if len(defaults) == 1 and not same[0].width else None


def _kinds(values: Sequence[Value]) -> str:
    def kind(value: Value) -> str:
        if isinstance(value, tuple):
            return f"tuple[{', '.join(['int'] * len(value))}]"
        is_tensor = isinstance(value, str) and value.startswith(("torch.", "stored("))
        return "Tensor" if is_tensor else type(value).__name__

    return " | ".join(sorted({kind(value) for value in values}))


def _layer_names(scope: Scope) -> list[str]:
    """Return for each argument a name of its layer that can stand in an identifier."""

    def named(module: Module, name: str) -> Iterator[str]:
        if isinstance(module, Layer):
            yield from [name] * len(module.args)
        elif isinstance(module, Chain):
            for number, part in module.parts:
                yield from named(part, f"{name}_{number}")
        else:
            yield from inside(module, f"{name}_")

    def inside(scope: Scope, before: str) -> Iterator[str]:
        for unit in scope.units:
            name = before + "_".join(unit.path)
            if unit.module is not None:
                yield from named(unit.module, name)
            else:
                yield from [name] * len(unit.numbers)

    return [name if is_plain(name) else "" for name in map(_short, inside(scope, ""))]


def _short(name: str) -> str:
    """Return a long name without its first words."""
    if len(name) <= _LONGEST_NAME:
        return name
    return _short(name.partition("_")[2].lstrip("_0123456789"))


def _names(scope: Scope, groups: Sequence[Sequence[int]], slots: Sequence[Arg]) -> list[str]:
    """Return a name for each group of slots, no two alike."""
    layers = _layer_names(scope)
    widths = _width_names(scope, [group for group in groups if slots[group[0]].width], slots)
    names: list[str] = []
    # A number in an expression is kept under its name, beside the modules.
    taken = {unit.path[0] for unit in scope.units if unit.path}
    for group in groups:
        decided = widths.get(group[0])
        slot = slots[group[0]]
        name = decided or slot.keyword or ("value" if isinstance(slot.value, str) else "size")
        if name in names and layers[group[0]] and not decided:
            name = f"{layers[group[0]]}_{name}"
        stem, number = name, 2
        while name in names or name in taken:
            name, number = f"{stem}{number}", number + 1
        names.append(name)
    return names


def _width_names(
    scope: Scope, groups: Sequence[Sequence[int]], slots: Sequence[Arg]
) -> dict[int, str]:
    """Return a name for each group of widths, by the group's first slot."""
    if len(groups) == 1:
        return {groups[0][0]: "width"}
    names = {group[0]: "in_width" for group in groups[:1]}
    rest = [*groups[1:]]
    last = [slot for slot, arg in enumerate(slots) if arg.width == "out"][-1:]
    appends = any(unit.kind == "Concat" for unit in scope.units)
    if len(rest) > 1 and not appends:
        ends = [group for group in rest if {*last} & {*group}]
        names |= {group[0]: "out_width" for group in ends}
        rest = [group for group in rest if group not in ends]
    if len(rest) == 1:
        return names | {rest[0][0]: "width"}
    layers = _layer_names(scope)
    for group in rest:
        outs = [slot for slot in group if slots[slot].width == "out"]
        layer, side = (layers[outs[0]], "width") if outs else (layers[group[0]], "in_width")
        names[group[0]] = f"{layer}_{side}" if layer else side
    return names
