"""What a method says of itself: its docstring, taken apart."""

import inspect
import re
from dataclasses import MISSING, dataclass, fields
from typing import Any, final

from docstring_parser.google import parse

from prunenas.generators.base.method import GENERATORS, Generator

_LOOKS_AT = {
    "graph": "the graph alone",
    "initial": "a fresh network",
    "trained": "a trained network",
    "own": "networks that it trains by itself",
}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of a method: its name, type and default as text, and what it means."""

    name: str
    kind: str
    default: str
    meaning: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a method says of itself.

    Args:
        name: Its name.
        summary: One sentence.
        text: What it does, in paragraphs.
        needs: What it looks at, in words.
        options: Its options.
        source: Paper, section, equation.
    """

    name: str
    summary: str
    text: str
    needs: str
    options: tuple[Option, ...]
    source: str


def about(name: str) -> About:
    """Return what the method called ``name`` says of itself.

    Raises:
        UnknownNameError: No such method.
    """
    kind = GENERATORS[name]
    # Our "Source:" goes on in its own line, which is no section to a parser of docstrings.
    text, _, source = (inspect.getdoc(kind) or "").rpartition("\nSource: ")
    parsed = parse(text or source)
    meanings = {param.arg_name: _joined(param.description) for param in parsed.params}
    return About(
        name=name,
        summary=_joined(parsed.short_description),
        text=parsed.long_description or "",
        needs=_needs(kind),
        options=tuple(
            Option(
                name=f.name,
                kind=_kind(f.type),
                default=_default(f),
                meaning=meanings.get(f.name, ""),
            )
            for f in fields(kind)
        ),
        source=_joined(source) if text else "",
    )


def _needs(kind: type[Generator]) -> str:
    # What is no plain value is decided by the options, unless it is what every method inherits.
    reads: object = vars(Generator)["reads"]
    own: object = next(vars(c)["reads"] for c in kind.__mro__ if "reads" in vars(c))
    images = ", and images" if own is True else ", and images for some options"
    return _LOOKS_AT[kind.looks_at] + ("" if own is reads or own is False else images)


def _kind(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    text = text.replace("typing.", "").replace("collections.abc.", "")
    return re.sub(r"Literal\[([^]]*)\]", lambda choice: _choices(choice[1]), text)


def _choices(values: str) -> str:
    return values.replace("'", "").replace(", ", " | ")


def _default(of: Any) -> str:
    if of.default is not MISSING:
        return repr(of.default)
    return "none" if of.default_factory is MISSING else repr(of.default_factory())


def _joined(text: str | None) -> str:
    return " ".join((text or "").split())
