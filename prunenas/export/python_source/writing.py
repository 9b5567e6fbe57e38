"""The bodies of a class: the statements that declare its modules, and those of its forward."""

from collections.abc import Mapping
from dataclasses import replace

from prunenas.export.python_source.classes import BlockClass, Classes, Parameter
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
from prunenas.export.python_source.text import Expression, lines, literal

_WEIGHTED = {"Conv2d", "Depthwise2d", "Linear"}
_DICT_METHODS = {"clear", "items", "keys", "pop", "update", "values"}


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
                    empty = "nn.ModuleDict()" if _is_numbered(scope, space) else "nn.Module()"
                    written += lines(*_target(scope, space, empty), indent=indent)
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
        called = inline or f"{reach(scope, unit.shares or unit.path)}({reads})"
        step = Step(
            expression=called,
            reads=unit.reads,
            gives=unit.gives,
            # A whole chain or block has a line of its own.
            depth=DEEPEST if unit.kind == "module" and not inline else 1,
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
    depth = len(space)
    inside = [u for u in scope.units if space and u.path[:depth] == space and u.path[depth:]]
    names = {unit.path[depth] for unit in inside}
    numbered = {unit.path[depth] for unit in inside if unit.module and not unit.inline}
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
