"""Canonical JSON of graphs, both ways; digests; upgrades of old schemas.

This is one of the two places where untrusted input is decoded (the other is the search space).
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_args

from pydantic import TypeAdapter, ValidationError

from prunenas.errors import SpecError
from prunenas.ir.graph import Graph
from prunenas.ir.ops import AnyOp

SCHEMA = 1

T = TypeVar("T")
Json = dict[str, Any]

_UPGRADES: Mapping[int, Callable[[Json], Json]] = {}
"""From a schema to the next: pure functions on the decoded JSON."""


def encode(value: object) -> Any:
    """Return ``value`` as JSON types; dataclasses become objects, defaults written out.

    Equal values become equal JSON: a whole float is written as an integer, since 1.0 == 1.
    """
    if is_dataclass(value):
        return {f.name: encode(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def canonical_json(value: object) -> str:
    """Return ``value`` as JSON with sorted keys, no spaces and shortest round-trip floats."""
    return json.dumps(encode(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_of(value: object) -> str:
    """Return the first 16 hex digits of the SHA-256 of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def digest(graph: Graph) -> str:
    """Return the digest of ``graph``: same digest, same network and same state-dict keys."""
    return digest_of({"schema": SCHEMA} | encode(graph))


def graph_to_json(graph: Graph) -> str:
    """Return the canonical JSON of ``graph``."""
    return canonical_json({"schema": SCHEMA} | encode(graph))


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
        SpecError: It is not JSON, or not an object.
    """
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


def decode(kind: type[T], value: Json, where: str) -> T:
    """Return ``value`` as a ``kind``, every field checked.

    Raises:
        SpecError: Unknown keys, missing keys, wrong types, or values that the type refuses.
    """
    try:
        if unnamed := [*_ops_without_kind(value, [])]:
            raise SpecError(f"{where} cannot be read:\n  " + "\n  ".join(unnamed[:10]))
        # Through JSON text: only there does strict decoding take a list for a tuple.
        return TypeAdapter(kind).validate_json(json.dumps(value))
    except ValidationError as error:
        faults = [*dict.fromkeys(_readable(error, value))]
        shown = faults[:10] + ([f"and {len(faults) - 10} more"] if len(faults) > 10 else [])
        raise SpecError(f"{where} cannot be read:\n  " + "\n  ".join(shown)) from None
    except RecursionError:
        raise SpecError(f"{where} is nested too deeply") from None


def _ops_without_kind(value: Any, path: list[int | str]) -> Iterator[str]:
    """Return one line for each op that does not say what it is: several could fit it."""
    if isinstance(value, dict):
        op = value.get("op")
        if isinstance(op, dict) and "kind" not in op:
            yield f"{_dotted([*path, 'op'])}: needs a 'kind'"
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        if isinstance(item, dict | list):
            yield from _ops_without_kind(item, [*path, key])


def _readable(error: ValidationError, value: Json) -> list[str]:
    """Return one line a fault; of the faults of an op only those of its own kind."""
    kinds = {op.__name__ for op in get_args(AnyOp)}
    lines = []
    for fault in error.errors(include_url=False, include_context=False):
        location = [*fault["loc"]]
        path = location
        if "op" in location and location.index("op") + 1 < len(location):
            at = location.index("op") + 1
            kind = _kind(value, location[:at])
            if not isinstance(kind, str) or kind not in kinds:
                path = location[:at]
                lines.append(
                    f"{_dotted(path)}: unknown op {kind!r}; known: {', '.join(sorted(kinds))}"
                )
                continue
            if location[at] != kind:
                continue
            path = location[:at] + location[at + 1 :]
        message = fault["msg"].removeprefix("Value error, ")
        lines.append(f"{_dotted(path)}: {message}" if path else message)
    return lines


def _dotted(path: list[int | str]) -> str:
    return ".".join(map(str, path))


def _kind(value: Any, path: list[int | str]) -> object:
    for key in path:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value.get("kind") if isinstance(value, dict) else value
