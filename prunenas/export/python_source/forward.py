"""The lines of a forward: calls nested a little, variables used again when their value is done."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import final

from prunenas.export.python_source.structure import ENTRY

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
    """

    expression: str
    reads: tuple[str, ...]
    gives: str
    depth: int = 1
    weighted: bool = False


def forward(steps: Sequence[Step], returns: str) -> list[str]:
    """Return the statements that compute ``returns`` from the argument ``x``."""
    folded = _folded(steps, returns)
    last_read = {value: i for i, step in enumerate(folded) for value in step.reads}
    last_read[returns] = len(folded)
    names = {ENTRY: "x"}
    statements: list[str] = []
    for i, step in enumerate(folded):
        text = step.expression.format(*(names[value] for value in step.reads))
        if step.gives == returns and i == len(folded) - 1:
            return [*statements, f"return {text}"]
        done = [names.pop(v) for v in dict.fromkeys(step.reads) if last_read[v] == i]
        free = (name for name in _names() if name not in names.values())
        names[step.gives] = min(done, key=_rank, default=None) or next(free)
        statements.append(f"{names[step.gives]} = {text}")
    return [*statements, f"return {names[returns]}"]


def _folded(steps: Sequence[Step], returns: str) -> list[Step]:
    """Put a step into the next one that alone reads it, while the line stays readable."""
    readers = Counter(chain([returns], *(step.reads for step in steps)))
    folded: list[Step] = []
    for step in steps:
        inner = folded[-1] if folded else None
        if inner and step.reads == (inner.gives,) and readers[inner.gives] == 1:
            both = replace(
                step,
                expression=step.expression.replace("{0}", inner.expression),
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


def _names() -> Iterator[str]:
    yield from ("x", "y", "z", "u", "v", "w")
    for number in count(1):
        yield f"t{number}"


def _rank(name: str) -> tuple[int, int, str]:
    # The oldest name first, so that the trunk stays x.
    single = "xyzuvw".find(name)
    return (0, single, name) if single >= 0 else (1, int(name[1:]), name)
