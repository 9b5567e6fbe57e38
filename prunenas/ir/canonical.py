"""Canonical JSON of graphs, both ways; digests; upgrades of old schemas.

This is one of the two places where untrusted input is decoded (the other is the search space).
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, get_args

from pydantic import TypeAdapter, ValidationError

from prunenas.errors import InputError, SpecError
from prunenas.ir.graph import Graph, once
from prunenas.ir.ops import AnyOp

SCHEMA = 1

T = TypeVar("T")
Json = dict[str, Any]

_LONGEST = 4_000_000
"""Characters; DenseNet-121 has 83 thousand. To find millions of faults would take gigabytes."""

_MOST_FAULTS = 10_000
"""A text with more is no spec: to list what is wrong with it would take minutes."""

_UPGRADES: Mapping[int, Callable[[Json], Json]] = {}
"""From a schema to the next: pure functions on the decoded JSON."""


def encode(value: object) -> Any:
    """Return ``value`` as JSON types; dataclasses become objects, defaults written out.

    Fields that joined later are left out at their default.

    Equal values become equal JSON: a whole float is written as an integer, since 1.0 == 1.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if is_dataclass(kind):
        return {
            name: encode(item)
            for name, omitted in _written(kind)
            if (item := getattr(value, name)) != omitted
        }
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    return value


_PLAIN = frozenset({str, int, bool, type(None)})


_ALWAYS = object()
"""Equal to no value of a field."""


@cache
def _written(kind: type) -> tuple[tuple[str, object], ...]:
    """Return the fields of a dataclass that are written, each with the value that is left out.

    A field that joined after files were written is left out at its default, so that what does not
    use it keeps its digest. What is not told at birth (bits of masks) lies elsewhere.
    """
    return tuple(
        (f.name, _default(f) if f.metadata.get("omit") else _ALWAYS) for f in fields(kind) if f.init
    )


def _default(of: Field[Any]) -> object:
    return of.default if of.default_factory is MISSING else of.default_factory()


def canonical_json(value: object) -> str:
    """Return ``value`` as JSON with sorted keys, no spaces and shortest round-trip floats."""
    return _text(encode(value))


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_of(value: object) -> str:
    """Return the first 16 hex digits of the SHA-256 of the canonical JSON of ``value``."""
    return _hashed(canonical_json(value))


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@once
def digest(graph: Graph) -> str:
    """Return the digest of ``graph``: same digest, same network and same state-dict keys."""
    return _hashed(graph_to_json(graph))


def graph_to_json(graph: Graph) -> str:
    """Return the canonical JSON of ``graph``."""
    return _text({"schema": SCHEMA} | encode(graph))


def graph_from_json(text: str) -> Graph:
    """Return the graph that ``text`` describes.

    Raises:
        SpecError: The text is not JSON, of a newer schema, has unknown keys or wrong types, or is
            not a network; the message names the path to each bad field.
    """
    return decode(Graph, upgrade(parse(text, "graph"), "graph"), "graph")


def parse(text: str | bytes, where: str) -> Json:
    """Return the JSON object in ``text``.

    Raises:
        SpecError: It is not JSON, or not an object, or longer than any spec.
    """
    if len(text) > _LONGEST:
        raise SpecError(f"{where} has {len(text)} characters, a spec at most {_LONGEST}")
    try:
        value = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{where} is not JSON, or was cut short: {error}") from None
    if not isinstance(value, dict):
        raise SpecError(f"{where} must be a JSON object, found {type(value).__name__}")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def upgrade(value: Json, where: str) -> Json:
    """Return ``value`` at the newest schema, without its ``schema`` key.

    Raises:
        SpecError: The schema is missing, not a whole number, or newer than this version reads.
    """
    schema = value.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise SpecError(f"{where} needs a whole number 'schema' from 1 on, found {schema!r}")
    if schema > SCHEMA:
        raise SpecError(
            f"{where} has schema {schema}, this version reads up to {SCHEMA}: upgrade prunenas"
        )
    for step in range(schema, SCHEMA):
        value = _UPGRADES[step](value)
    return {key: item for key, item in value.items() if key != "schema"}


def decode(kind: type[T], value: Json, where: str, *, error: type[InputError] = SpecError) -> T:
    """Return ``value`` as a ``kind``, every field checked.

    Raises:
        InputError: Unknown keys, missing keys, wrong types, or values that the type refuses; of
            the class ``error``.
    """
    try:
        # Through JSON text: only there does strict decoding take a list for a tuple.
        return TypeAdapter(kind).validate_json(json.dumps(value))
    except ValidationError as caught:
        count = caught.error_count()
        if count > _MOST_FAULTS:
            raise error(f"{where} cannot be read: {count} faults, too many to tell") from None
        faults = _told(_readable(caught, value))
        shown = faults[:10] + ([f"and {len(faults) - 10} more"] if len(faults) > 10 else [])
        raise error(f"{where} cannot be read:\n  " + "\n  ".join(shown)) from None
    except RecursionError:
        raise error(f"{where} is nested too deeply") from None


def _told(faults: Iterator[tuple[str, str]]) -> list[str]:
    """Return one line a fault; of a value that may be of several types, those of the likeliest.

    Where a table is given, the type that looked into it knows more than the one that wanted text.
    """
    every = [*dict.fromkeys(faults)]
    return [
        f"{path}: {message}" if path else message
        for path, message in every
        if not any(
            message.startswith("Input should be") and other.startswith(f"{path}.")
            for other, _ in every
        )
    ]


def _readable(error: ValidationError, value: Json) -> Iterator[tuple[str, str]]:
    """Yield the path of each fault as it stands in the text, and what is wrong there."""
    for fault in error.errors(include_url=False, include_context=False):
        path = [*fault["loc"]]
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "unexpected_keyword_argument":
            message = "unknown key"
        if fault["type"].startswith("union_tag"):
            known = ", ".join(sorted(op.__name__ for op in get_args(AnyOp)))
            message = f"unknown op {_short(fault['input'].get('kind'))}; known: {known}"
        yield _dotted(_standing(path, value, missing=fault["type"] == "missing")), message


def _standing(path: list[int | str], value: Any, *, missing: bool) -> list[int | str]:
    """Return ``path`` without the names of types that were tried, which are not in the text."""
    kept: list[int | str] = []
    for place, key in enumerate(path):
        here = isinstance(value, dict) and key in value
        here = here or (isinstance(value, list) and isinstance(key, int) and key < len(value))
        if here:
            value = value[key]
        if here or (missing and place == len(path) - 1):
            kept.append(key)
    return kept


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:80]}..."


def _dotted(path: list[int | str]) -> str:
    return ".".join(map(str, path))
