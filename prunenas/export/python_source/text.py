"""Python expressions as small trees, and how they are broken into lines."""

import math
import re
import textwrap
from dataclasses import dataclass
from typing import final

COLUMNS = 100

Value = int | float | bool | str | tuple[int, ...]
"""What an argument may be; a string stands for itself, as source."""


@final
@dataclass(frozen=True, slots=True)
class Expression:
    """A call or a pair: ``head``, its items, and the closing bracket.

    Args:
        head: Everything up to the opening bracket, the bracket included.
        items: What stands inside.
        tall: Give each item a line of its own, also where one line would do.
    """

    head: str
    items: "tuple[Expression | str, ...]"
    tall: bool = False

    def __str__(self) -> str:
        inner = ", ".join(map(str, self.items))
        return f"{self.head}{inner})"


def literal(value: Value) -> Expression | str:
    """Return the source of ``value``."""
    if isinstance(value, tuple):
        return Expression("(", tuple(map(str, value))) if len(value) != 1 else f"({value[0]},)"
    if isinstance(value, float) and not math.isfinite(value):
        return "torch.nan" if math.isnan(value) else "torch.inf" if value > 0 else "-torch.inf"
    return value if isinstance(value, str) else repr(value)


def lines(before: str, expression: Expression | str, *, indent: int, after: str = "") -> list[str]:
    """Return ``before expression after``, broken where it is too long for a line."""
    margin = " " * indent
    flat = f"{margin}{before}{expression}{after}"
    if len(flat) <= COLUMNS and not _is_tall(expression):
        return [flat]
    inner = indent + 4
    if isinstance(expression, str):
        return _broken_string(before, expression, indent=indent, after=after) or [flat]
    # One line for all items, if there is room; else one for each.
    together = " " * inner + ", ".join(map(str, expression.items))
    if len(together) <= COLUMNS and not _is_tall(expression):
        body = [together]
    else:
        body = [
            line for item in expression.items for line in lines("", item, indent=inner, after=",")
        ]
    return [f"{margin}{before}{expression.head}", *body, f"{margin}){after}"]


def parsed(source: str) -> Expression | str:
    """Return a call, such as ``f(x, g(y))``, as a tree; any other source as it is."""
    if not source.endswith(")") or source.endswith("()") or is_loose(source):
        return source
    depth, start, items = 0, 0, []
    end = len(source) - 1
    for start in reversed(range(len(source))):
        depth += (source[start] in ")]}") - (source[start] in "([{")
        if depth == 0:
            break
        if depth == 1 and source.startswith(", ", start):
            items.append(source[start + 2 : end])
            end = start
    items.append(source[start + 1 : end])
    return Expression(source[: start + 1], tuple(parsed(item) for item in reversed(items)))


def is_loose(source: str) -> bool:
    """Return whether ``source`` must stand in brackets before more is done with it."""
    depth = 0
    for character in source:
        depth += (character in "([{") - (character in ")]}")
        if character == " " and depth == 0:
            return True
    return False


def paragraph(text: str, *, indent: int = 0) -> list[str]:
    """Return ``text`` as lines of a docstring: nothing in it can end the string or escape."""
    safe = " ".join(text.split()).replace("\\", "/").replace('"""', "'''")
    safe = "".join(c if c.isprintable() else "?" for c in safe)
    return textwrap.wrap(
        safe,
        COLUMNS - indent,
        break_on_hyphens=False,
        subsequent_indent="  " * text.startswith("-"),
    )


def wrapped(text: str) -> str:
    """Return base64 as lines."""
    return "\n".join(text[i : i + 96] for i in range(0, len(text), 96))


def _is_tall(expression: Expression | str) -> bool:
    return isinstance(expression, Expression) and (
        (expression.tall and len(expression.items) > 1)
        or any(_is_tall(item) for item in expression.items)
    )


def _broken_string(before: str, source: str, *, indent: int, after: str) -> list[str]:
    """Return a long string, perhaps a keyword's, as several; nothing if it is no such string."""
    found = re.fullmatch(r'(\w+=)?"([^"]* [^"]*)"', source)
    if found is None:
        return []
    margin = " " * indent
    room = COLUMNS - indent - 4 - len('" "')
    parts = textwrap.wrap(found[2], room, break_on_hyphens=False, break_long_words=False)
    body = [f'{margin}    "{part} "' for part in parts[:-1]] + [f'{margin}    "{parts[-1]}"']
    return [f"{margin}{before}{found[1] or ''}(", *body, f"{margin}){after}"]
