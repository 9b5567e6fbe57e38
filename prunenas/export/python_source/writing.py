"""The bodies of a class: the statements that declare its modules, and those of its forward."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from string import ascii_lowercase

from prunenas.export.python_source.classes import BlockClass, Classes, Parameter
from prunenas.export.python_source.forward import DEEPEST, Step, forward
from prunenas.export.python_source.pieces import Arg, Layer
from prunenas.export.python_source.structure import (
    Chain,
    Module,
    Path,
    Scope,
    Unit,
    args,
    is_plain,
    signature,
    unit_args,
)
from prunenas.export.python_source.text import Expression, lines, literal

_WEIGHTED = {"Attention", "Conv1d", "Conv2d", "Depthwise2d", "Linear"}
_DICT_METHODS = {"clear", "items", "keys", "pop", "update", "values"}


def declarations(
    scope: Scope, classes: Classes, block: BlockClass | None, indent: int
) -> list[str]:
    """Return the statements that keep numbers and declare all modules of ``scope``."""
    told = _told(block)
    numbered = _numbered(scope)
    kept: dict[str, None] = {}
    written: list[str] = []
    spaces: set[Path] = set()
    slot = 0
    for unit in scope.units:
        size = len([*unit_args(unit)])
        if unit.module is None:
            numbers = [told[at].name for at in range(slot, slot + size) if at in told]
            kept |= dict.fromkeys(numbers)
        elif not _is_inline(unit, told, slot):
            for depth in range(1, len(unit.path)):
                space = unit.path[:depth]
                if space not in spaces:
                    spaces.add(space)
                    empty = "nn.ModuleDict()" if space in numbered else "nn.Module()"
                    written += lines(*_target(numbered, space, empty), indent=indent)
            made = _made(unit.module, classes, told, slot)
            written += lines(*_target(numbered, unit.path, made), indent=indent)
        slot += size
    return [f"{' ' * indent}self.{name} = {name}" for name in kept] + written


def statements(scope: Scope, classes: Classes, block: BlockClass | None) -> list[str]:
    """Return the statements of the forward of ``scope``."""
    told = _told(block)
    numbered = _numbered(scope)
    steps = []
    slot = 0
    for unit in scope.units:
        reads = ", ".join(f"{{{i}}}" for i in range(len(unit.reads)))
        inline = _filled(unit, told, slot) if _is_inline(unit, told, slot) else None
        called = inline or f"{reach(numbered, unit.shares or unit.path)}({reads})"
        step = Step(
            expression=called,
            reads=unit.reads,
            gives=unit.gives,
            # A whole chain or block has a line of its own.
            depth=DEEPEST if unit.kind == "module" and not inline else 1,
            weighted=unit.kind in _WEIGHTED,
            stored=not unit.reads and inline is None,
        )
        steps.append(step)
        slot += len([*unit_args(unit)])
    return forward(steps, scope.returns)


def reach(numbered: Collection[Path], path: Path) -> str:
    """Return the expression for the module at ``path`` in a method of the class around it."""
    text = "self"
    for depth, part in enumerate(path):
        if path[:depth] in numbered:
            text += f'["{part}"]'
        elif is_plain(part):
            text += f".{part}"
        else:
            text += f'.get_submodule("{part}")'
    return text


def _target(
    numbered: Collection[Path], path: Path, made: Expression | str
) -> tuple[str, Expression | str]:
    """Return the start of the statement that files ``made`` at ``path``, and its expression."""
    if is_plain(path[-1]) or path[:-1] in numbered:
        return f"{reach(numbered, path)} = ", made
    return "", Expression(f"{reach(numbered, path[:-1])}.add_module(", (f'"{path[-1]}"', made))


def _numbered(scope: Scope) -> set[Path]:
    """Return the namespaces whose weighted modules have numbers for names."""
    inside: dict[Path, set[str]] = {}
    weighted: dict[Path, set[str]] = {}
    for unit in scope.units:
        for depth in range(1, len(unit.path)):
            inside.setdefault(unit.path[:depth], set()).add(unit.path[depth])
            if unit.module and not unit.inline:
                weighted.setdefault(unit.path[:depth], set()).add(unit.path[depth])
    return {
        space
        for space, names in weighted.items()
        if all(name.isascii() and name.isdecimal() for name in names)
        and inside[space].isdisjoint(_DICT_METHODS)
    }


def _told(block: BlockClass | None) -> dict[int, Parameter]:
    return {slot: p for p in block.parameters for slot in p.slots} if block else {}


def _is_inline(unit: Unit, told: Mapping[int, Parameter], slot: int) -> bool:
    """Return whether ``unit`` is written without a module: its arguments are all constant here."""
    if unit.inline is None or unit.module is None:
        return unit.inline is not None
    return not any(slot + i in told for i, _ in enumerate(args(unit.module)))


def _filled(unit: Unit, told: Mapping[int, Parameter], slot: int) -> str:
    """Return the expression of ``unit`` with its numbers, whose first is number ``slot``."""
    text = unit.inline or ""
    for i, number in enumerate(unit.numbers):
        value = f"self.{told[slot + i].name}" if slot + i in told else str(literal(number.value))
        text = text.replace(f"{{{ascii_lowercase[i]}}}", value)
    return text


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
        told_by = None if vector[at].width else parameter.name
        arg = replace(vector[at], default=parameter.default, keyword=told_by)
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
