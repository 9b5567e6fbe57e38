"""Registry: from a name to a plug-in, filled by scanning a wing on first look-up."""

import importlib
import pkgutil
import sys
import warnings
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from prunenas.errors import PluginError, UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """The plug-ins of one wing, by name.

    A plug-in registers itself where it stands, by decorator. The wing's modules are imported
    when a name is first asked for, so nothing has to list them. Then come the plug-ins of other
    packages: the entry points of the group that is called as the wing. An entry point
    ``name = "package.module:object"`` files that object under its name;
    ``name = "package.module"`` imports a module that registers the name by decorator.

    A plug-in of another package that cannot be had harms no other: one warning tells of it, and
    who asks for its name is told why. A name that two have is nobody's, ours included, since
    results must not depend on what else is installed: who asks for it is told of both.

    Args:
        kind: What one entry is called in messages, such as ``"family"``.
        wing: The package whose modules hold the plug-ins, such as ``"prunenas.families"``.
    """

    def __init__(self, kind: str, wing: str) -> None:
        self.kind = kind
        self.wing = wing
        self._entries: dict[str, T] = {}
        self._broken: dict[str, str] = {}
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
        """Return all names that can be looked up, sorted."""
        self._scan()
        return sorted(self._entries)

    def __getitem__(self, name: str) -> T:
        """Return the plug-in called ``name``.

        Raises:
            UnknownNameError: Nobody registered that name; the message lists the known ones.
            PluginError: Another package offers that name and cannot be had, or two have it.
        """
        self._scan()
        if name in self._broken:
            raise PluginError(self._broken[name])
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
        self._load_entry_points()

    def _load_entry_points(self) -> None:
        """File what other packages offer; what cannot be had is remembered and warned of."""
        owners = dict.fromkeys(self._entries, "prunenas")
        # Sorted, so that the same packages clash in the same way wherever they are installed.
        for entry in sorted(entry_points(group=self.wing), key=lambda e: (e.name, _package(e))):
            before = dict(self._entries)
            try:
                self._load(entry, owners)
            except Exception as error:
                self._entries.clear()
                self._entries.update(before)
                self._broken.setdefault(
                    entry.name,
                    f"the {self.kind} {entry.name!r} of {_package(entry)} ({entry.value}) cannot "
                    f"be loaded: {type(error).__name__}: {error}",
                )
            owners |= dict.fromkeys(self._entries.keys() - owners, _package(entry))
        for name in self._broken:
            self._entries.pop(name, None)
        # Last, since a filter may turn a warning into an error.
        for reason in self._broken.values():
            warnings.warn(reason, stacklevel=4)

    def _load(self, entry: EntryPoint, owners: Mapping[str, str]) -> None:
        """File one entry point, or note that its name is taken."""
        # A module that was imported by hand before may have registered its name already.
        taken = entry.name in owners and entry.module not in sys.modules
        if not taken:
            found: Any = entry.load()
            if entry.attr:
                taken = self._entries.setdefault(entry.name, found) is not found
        if taken:
            owner = owners.get(entry.name, "its own module")
            self._broken[entry.name] = (
                f"the {self.kind} {entry.name!r} is offered twice, by {owner} and by "
                f"{_package(entry)} ({entry.value}): rename one, or remove a package"
            )
        elif entry.name not in self._entries:
            raise LookupError(f"the module registers no {self.kind} of that name")


def _package(entry: EntryPoint) -> str:
    """Return which package an entry point is of."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown package"
