"""Registry: from a name to a plug-in, filled by scanning a wing on first look-up."""

import importlib
import pkgutil
from collections.abc import Callable
from difflib import get_close_matches
from typing import Generic, TypeVar

from prunenas.errors import UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """The plug-ins of one wing, by name.

    A plug-in registers itself where it stands, by decorator. The wing's modules are imported
    when a name is first asked for, so nothing has to list them.

    Args:
        kind: What one entry is called in messages, such as ``"family"``.
        wing: The package whose modules hold the plug-ins, such as ``"prunenas.families"``.
    """

    def __init__(self, kind: str, wing: str) -> None:
        self.kind = kind
        self.wing = wing
        self._entries: dict[str, T] = {}
        self._scanned = False

    def register(self, *names: str) -> Callable[[T], T]:
        """Return a decorator that files its argument under each of ``names``.

        Raises:
            ValueError: A name is taken already.
        """

        def file(entry: T) -> T:
            for name in names:
                if name in self._entries:
                    raise ValueError(f"the {self.kind} {name!r} is registered twice")
                self._entries[name] = entry
            return entry

        return file

    def names(self) -> list[str]:
        """Return all registered names, sorted."""
        self._scan()
        return sorted(self._entries)

    def __getitem__(self, name: str) -> T:
        """Return the plug-in called ``name``.

        Raises:
            UnknownNameError: Nobody registered that name; the message lists the known ones.
        """
        self._scan()
        if name not in self._entries:
            near = get_close_matches(name, self._entries, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            known = ", ".join(self.names()) or "none"
            raise UnknownNameError(f"unknown {self.kind} {name!r}{hint}; known: {known}")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        self._scan()
        return name in self._entries

    def _scan(self) -> None:
        if self._scanned:
            return
        # Set first, since a plug-in may look names up while it is imported; taken back on failure,
        # so that a plug-in that cannot be imported says so every time.
        self._scanned = True
        try:
            package = importlib.import_module(self.wing)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self.wing}.{module.name}")
        except BaseException:
            self._scanned = False
            raise
