"""Block classes: which arguments they take, and the source of declarations."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

from prunenas.export.python_source.forward import DEEPEST, Step, forward
from prunenas.export.python_source.sources import Arg, Layer
from prunenas.export.python_source.structure import (
    Chain,
    Module,
    Path,
    Scope,
    Unit,
    args,
    is_plain,
    signature,
)
from prunenas.export.python_source.text import Expression, Value, lines, literal

_WEIGHTED = {"Conv2d", "Depthwise2d", "Linear"}
_DICT_METHODS = {"clear", "items", "keys", "pop", "update", "values"}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """An argument of a block class.

    Args:
        name: What it is called.
        slots: Which of the block's layer arguments it decides.
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
    if "Add" in kinds and "" in kinds["Add"].reads:
        return "ResidualBlock", "A residual block around the identity."
    if "Add" in kinds and "PadChannels" in kinds:
        return "PaddedBlock", "A residual block around a shortcut without parameters."
    if "Add" in kinds:
        return "ProjectionBlock", "A residual block around a shortcut with parameters."
    if "Gate" in kinds:
        return "SqueezeExcite", "Channels scaled by factors that are computed from their means."
    if "Concat" in kinds and "" in kinds["Concat"].reads:
        return "DenseLayer", "Appends new channels to those that come in."
    words = [part for part in scope.prefix if not part.isdecimal()] or ["inner"]
    camel = "".join(w[:1].upper() + w[1:] for w in words[-1].split("_") if w)
    fine = camel.isascii() and camel.isidentifier()
    return f"{camel}Block" if fine else "Block", f"One part of {'.'.join(words)}."


def _parameters(scopes: Sequence[Scope]) -> tuple[Parameter, ...]:
    """Return what the class of ``scopes`` must be told: all widths, and whatever else differs."""
    vectors = [[*args(scope)] for scope in scopes]
    first = vectors[0]
    groups: dict[object, list[int]] = {}
    for slot, arg in enumerate(first):
        values = tuple(vector[slot].value for vector in vectors)
        if arg.width or len(set(values)) > 1:
            groups.setdefault(("" if arg.width else arg.keyword, values), []).append(slot)
    names = _names([*groups.values()], first, _layer_names(scopes[0]))
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
            return "tuple[int, ...]"
        return type(value).__name__

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
            if unit.module is not None:
                yield from named(unit.module, before + "_".join(unit.path))

    return [name if is_plain(name) else "" for name in inside(scope, "")]


def _names(
    groups: Sequence[Sequence[int]], slots: Sequence[Arg], layers: Sequence[str]
) -> list[str]:
    """Return a name for each group of slots, no two alike."""
    widths = [group for group in groups if slots[group[0]].width]
    names: list[str] = []
    for group in groups:
        arg = slots[group[0]]
        decides = next((slot for slot in group if slots[slot].width == "out"), group[0])
        layer = layers[decides]
        if arg.width and len(widths) == 1:
            name = "width"
        elif arg.width and group is widths[0]:
            name = "in_width"
        elif arg.width and len(widths) == 2:
            name = "width"
        elif arg.width:
            name = f"{layer}_width" if layer else "width1"
        else:
            name = arg.keyword or "size"
            if name in names and layer:
                name = f"{layer}_{name}"
        number = 2
        stem = name.rstrip("0123456789")
        while name in names:
            name, number = f"{stem}{number}", number + 1
        names.append(name)
    return names


def declarations(
    scope: Scope, classes: Classes, block: BlockClass | None, indent: int
) -> list[str]:
    """Return the statements that declare all modules of ``scope``."""
    told = _told(block)
    written: list[str] = []
    spaces: set[Path] = set()
    slot = 0
    for unit in scope.units:
        if unit.module is None:
            continue
        size = len([*args(unit.module)])
        if not _is_inline(unit, told, slot):
            for depth in range(1, len(unit.path)):
                space = unit.path[:depth]
                if space not in spaces:
                    spaces.add(space)
                    made = "nn.ModuleDict()" if _is_numbered(scope, space) else "nn.Module()"
                    written += lines(*_target(scope, space, made), indent=indent)
            made = _made(unit.module, classes, told, slot)
            written += lines(*_target(scope, unit.path, made), indent=indent)
        slot += size
    return written


def statements(scope: Scope, classes: Classes, block: BlockClass | None) -> list[str]:
    """Return the statements of the forward of ``scope``."""
    told = _told(block)
    steps = []
    slot = 0
    for unit in scope.units:
        reads = ", ".join(f"{{{i}}}" for i in range(len(unit.reads)))
        inline = unit.inline if _is_inline(unit, told, slot) else None
        called = f"{reach(scope, unit.shares or unit.path)}({reads})"
        step = Step(
            expression=inline or called,
            reads=unit.reads,
            gives=unit.gives,
            # A whole chain or block has a line of its own.
            depth=DEEPEST if unit.kind == "module" else 1,
            weighted=unit.kind in _WEIGHTED,
        )
        steps.append(step)
        slot += len([*args(unit.module)])
    return forward(steps, scope.returns)


def reach(scope: Scope, path: Path) -> str:
    """Return the expression for the module at ``path`` in a method of the class of ``scope``."""
    text = "self"
    for depth, part in enumerate(path):
        if depth and _is_numbered(scope, path[:depth]):
            text += f'["{part}"]'
        elif is_plain(part):
            text += f".{part}"
        else:
            text += f'.get_submodule("{part}")'
    return text


def _target(scope: Scope, path: Path, made: Expression | str) -> tuple[str, Expression | str]:
    """Return the start of the statement that files ``made`` at ``path``, and its expression."""
    if is_plain(path[-1]) or _is_numbered(scope, path[:-1]):
        return f"{reach(scope, path)} = ", made
    return "", Expression(f"{reach(scope, path[:-1])}.add_module(", (f'"{path[-1]}"', made))


def _is_numbered(scope: Scope, space: Path) -> bool:
    """Return whether the weighted modules right below ``space`` have numbers for names."""
    inside = [unit for unit in scope.units if space and unit.path[: len(space)] == space]
    names = {unit.path[len(space)] for unit in inside}
    numbered = {unit.path[len(space)] for unit in inside if unit.module and not unit.inline}
    return (
        bool(numbered)
        and all(name.isascii() and name.isdecimal() for name in numbered)
        and names.isdisjoint(_DICT_METHODS)
    )


def _told(block: BlockClass | None) -> dict[int, Parameter]:
    return {slot: p for p in block.parameters for slot in p.slots} if block else {}


def _is_inline(unit: Unit, told: Mapping[int, Parameter], slot: int) -> bool:
    """Return whether ``unit`` is written without a module: its arguments are all constant here."""
    if unit.inline is None:
        return False
    return not any(slot + i in told for i, _ in enumerate(args(unit.module)))


def _made(
    module: Module, classes: Classes, told: Mapping[int, Parameter], slot: int
) -> Expression | str:
    """Return the expression that makes ``module``, whose first argument is number ``slot``."""
    if isinstance(module, Layer):
        items = [
            _item(arg, told.get(slot + i))
            for i, arg in enumerate(module.args)
            if slot + i in told or not arg.is_default
        ]
        return Expression(f"{module.function}(", tuple(items))
    if isinstance(module, Chain):
        return _sequential(module, classes, told, slot)
    block = classes[signature(module)]
    vector = [*args(module)]
    items = []
    for parameter in block.parameters:
        at = parameter.slots[0]
        arg = replace(vector[at], default=parameter.default)
        if parameter.default is not None or not arg.width:
            arg = replace(arg, keyword=parameter.name)
        if slot + at in told or not arg.is_default:
            items.append(_item(arg, told.get(slot + at)))
    return Expression(f"{block.name}(", tuple(items))


def _sequential(
    chain: Chain, classes: Classes, told: Mapping[int, Parameter], slot: int
) -> Expression:
    items: list[Expression | str] = []
    for number, part in chain.parts:
        items += ["nn.Identity()"] * (number - len(items))
        items.append(_made(part, classes, told, slot))
        slot += len([*args(part)])
    return Expression("nn.Sequential(", tuple(items), tall=True)


def _item(arg: Arg, parameter: Parameter | None) -> Expression | str:
    value: Expression | str = parameter.name if parameter else literal(arg.value)
    if not arg.keyword:
        return value
    if isinstance(value, str):
        return f"{arg.keyword}={value}"
    return replace(value, head=f"{arg.keyword}={value.head}")
