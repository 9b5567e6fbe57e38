"""The lines of a forward: calls nested a little, variables used again when their value is done."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import final

from prunenas.export.python_source.structure import ENTRY
from prunenas.export.python_source.text import is_loose, lines, parsed

DEEPEST = 3
"""Calls that may be nested in one statement."""

_COLUMNS = 90


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One expression of a forward.

    Args:
        expression: With ``{0}`` and so on for the values that are read.
        reads: The values it reads.
        gives: The value it gives.
        depth: How many calls are nested in it.
        weighted: Whether a convolution or a linear layer is among them.
        stored: Whether this is a module that holds a tensor and reads nothing.
    """

    expression: str
    reads: tuple[str, ...]
    gives: str
    depth: int = 1
    weighted: bool = False
    stored: bool = False


def forward(steps: Sequence[Step], returns: str) -> list[str]:
    """Return the lines that compute ``returns`` from the argument ``x``."""
    # A stored tensor is written where it is read.
    stored = {step.gives: step.expression for step in steps if step.stored}
    others = [_with_stored(step, stored) for step in steps if not step.stored]
    folded = _folded(others, returns)
    last_read = {value: i for i, step in enumerate(folded) for value in step.reads}
    last_read[returns] = len(folded)
    names = {ENTRY: "x", **stored}
    statements: list[str] = []
    for i, step in enumerate(folded):
        text = step.expression.format(*(names[value] for value in step.reads))
        if step.gives == returns and i == len(folded) - 1:
            return [*statements, *lines("return ", parsed(text), indent=8)]
        done = [names.pop(v) for v in {*step.reads} if last_read[v] == i]
        free = (name for name in _names() if name not in names.values())
        names[step.gives] = min(done, key=_rank, default=None) or next(free)
        statements += lines(f"{names[step.gives]} = ", parsed(text), indent=8)
    return [*statements, f"        return {names[returns]}"]


def _with_stored(step: Step, stored: Mapping[str, str]) -> Step:
    """Return ``step`` with the stored tensors that it reads written into it."""
    reads = tuple(value for value in step.reads if value not in stored)
    places = {value: f"{{{place}}}" for place, value in enumerate(reads)}
    texts = [stored.get(value) or places[value] for value in step.reads]
    return replace(step, expression=step.expression.format(*texts), reads=reads)


def _folded(steps: Sequence[Step], returns: str) -> list[Step]:
    """Put a step into the next one that alone reads it, while the line stays readable."""
    readers = Counter(chain([returns], *(step.reads for step in steps)))
    folded: list[Step] = []
    for step in steps:
        inner = folded[-1] if folded else None
        once = step.expression.count("{0}") == 1
        if inner and once and step.reads == (inner.gives,) and readers[inner.gives] == 1:
            both = replace(
                step,
                expression=nested(step.expression, inner.expression),
                reads=inner.reads,
                depth=step.depth + inner.depth,
                weighted=step.weighted or inner.weighted,
            )
            heavy = step.weighted and inner.weighted
            if not heavy and both.depth <= DEEPEST and len(both.expression) <= _COLUMNS:
                folded[-1] = both
                continue
        folded.append(step)
    return folded


def nested(outer: str, inner: str) -> str:
    """Return ``outer`` with ``inner`` for ``{0}``, in brackets where it would fall apart."""
    enclosed = "({0})" in outer or "({0}, " in outer
    return outer.replace("{0}", f"({inner})" if is_loose(inner) and not enclosed else inner)


def _names() -> Iterator[str]:
    yield from ("x", "y", "z", "u", "v", "w")
    for number in count(1):
        yield f"t{number}"


def _rank(name: str) -> tuple[int, int, str]:
    # The oldest name first, so that the trunk stays x.
    single = "xyzuvw".find(name)
    return (0, single, name) if single >= 0 else (1, int(name[1:]), name)
