"""The table itself: from spellings to functions that write ops."""

from collections.abc import Callable
from typing import Any, TypeVar

from prunenas.importers.builder import Builder

Handler = Callable[..., Any]
H = TypeVar("H", bound=Handler)

FUNCTIONS: dict[str, Handler] = {}
"""By bare name: functions, methods and aten ops that are called alike mean the same.

Where an aten op takes its arguments in another order, its name here begins with ``aten.``.
"""

MODULES: dict[str, Handler] = {}
"""By the class's name: modules of torch that the front end does not look into."""


def spelled(*names: str) -> Callable[[H], H]:
    """Return a decorator that files a function under each of ``names``."""

    def file(handler: H) -> H:
        FUNCTIONS.update(dict.fromkeys(names, handler))
        return handler

    return file


def layer(*names: str) -> Callable[[H], H]:
    """Return a decorator that files a function under names of module classes."""

    def file(handler: H) -> H:
        MODULES.update(dict.fromkeys(names, handler))
        return handler

    return file


def same(g: Builder, x: Any, *args: Any, **kwargs: Any) -> Any:
    """Return ``x``: calls that change nothing while a network is evaluated."""
    return x
