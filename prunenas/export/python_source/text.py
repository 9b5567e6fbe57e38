"""Python expressions as small trees, and how they are broken into lines."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

COLUMNS = 100

Value = int | float | bool | str | tuple[int, ...]
"""What an argument may be; a string stands for itself, as source."""


@final
@dataclass(frozen=True, slots=True)
class Expression:
    """A call or a tuple: ``head``, its items, and the closing bracket.

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
        comma = "," if self.head == "(" and len(self.items) == 1 else ""
        return f"{self.head}{inner}{comma})"


def literal(value: Value) -> Expression | str:
    """Return the source of ``value``."""
    if isinstance(value, tuple):
        return Expression("(", tuple(map(str, value)))
    return value if isinstance(value, str) else repr(value)


def lines(before: str, expression: Expression | str, *, indent: int, after: str = "") -> list[str]:
    """Return ``before expression after``, broken where it is too long for a line."""
    margin = " " * indent
    flat = f"{margin}{before}{expression}{after}"
    if isinstance(expression, str) or (len(flat) <= COLUMNS and not _is_tall(expression)):
        return [flat]
    inner = indent + 4
    if expression.head == "(":
        body = _filled(expression.items, inner)
    else:
        # One line for all items, if there is room; else one for each.
        together = " " * inner + ", ".join(map(str, expression.items))
        if len(together) <= COLUMNS and not _is_tall(expression):
            body = [together]
        else:
            body = [
                line
                for item in expression.items
                for line in lines("", item, indent=inner, after=",")
            ]
    return [f"{margin}{before}{expression.head}", *body, f"{margin}){after}"]


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


def _is_tall(expression: Expression | str) -> bool:
    return isinstance(expression, Expression) and (
        (expression.tall and len(expression.items) > 1)
        or any(_is_tall(item) for item in expression.items)
    )


def _filled(items: Sequence[Expression | str], indent: int) -> list[str]:
    margin = " " * indent
    text = ", ".join(map(str, items)) + ","
    return textwrap.wrap(text, COLUMNS, initial_indent=margin, subsequent_indent=margin)
