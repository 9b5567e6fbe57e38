"""Records that go to other processes, or are copied, and come back as they were."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any

Remade = tuple[Callable[..., Any], tuple[Any, ...]]
"""What ``__reduce__`` returns: a function, and what to call it with."""


def remade(record: Any) -> Remade:
    """Return what makes a record anew, from the fields it was made of.

    Read-only mappings, which Python does not pickle, travel as dictionaries and are read-only again
    at the other end. What was derived and is remembered stays behind. The record is made by its own
    class, so it is checked again.

    Args:
        record: A dataclass; a class uses this as its ``__reduce__``.
    """
    values = {f.name: getattr(record, f.name) for f in fields(record) if f.init}
    locked = [name for name, value in values.items() if isinstance(value, MappingProxyType)]
    return _make, (type(record), values | {name: dict(values[name]) for name in locked}, locked)


def _make(kind: type, values: Mapping[str, Any], locked: list[str]) -> Any:
    return kind(**{**values, **{name: MappingProxyType(values[name]) for name in locked}})
