"""From a flat graph to nested modules: chains, blocks, and what one forward has to do.

A dotted prefix that reads one value and gives one is a module of its own: an ``nn.Sequential``
where its parts are numbered and follow one another, a block class elsewhere. Every other prefix
is only a namespace, and the forward above it reaches through.
"""

import keyword
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from prunenas.export.python_source.pieces import Arg, Layer, Source
from prunenas.export.python_source.sources import source
from prunenas.ir.graph import Graph, Node
from prunenas.ir.ops import Input

ENTRY = ""
"""The value that a scope is called with."""

_LARGEST_BLOCK = 80
"""Units that a block class may have; a longer forward is no easier to read for being apart."""

Path = tuple[str, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Numbered modules, one after another; a number that is missing does nothing."""

    parts: "tuple[tuple[int, Layer | Chain | Scope], ...]"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One step of a forward.

    Args:
        kind: The op's kind; ``module`` for a chain or a block.
        path: Where the module is filed, below the scope; the op's name where there is none.
        reads: The values it reads.
        gives: The value it gives.
        inline: The expression that needs no module.
        numbers: What stands in it and may differ between blocks, where there is no module.
        module: What is declared; None where there is nothing, or where ``shares`` is set.
        shares: Where the module stands whose weights are used again.
    """

    kind: str
    path: Path
    reads: tuple[str, ...]
    gives: str
    inline: str | None = None
    numbers: tuple[Arg, ...] = ()
    module: "Layer | Chain | Scope | None" = None
    shares: Path | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """All that one forward does, with names relative to it.

    Args:
        prefix: Where this instance stands in the graph.
        units: The steps in order.
        returns: The value that comes out.
    """

    prefix: Path
    units: tuple[Unit, ...]
    returns: str


Module = Layer | Chain | Scope


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A prefix that is a module of its own: what it reads and gives, and how it is written."""

    module: Module
    entry: str
    leaves: str
    inline: str | None = None


def args(module: Module) -> Iterator[Arg]:
    """Yield the arguments of all layers and expressions of ``module``, in order."""
    if isinstance(module, Layer):
        yield from module.args
    elif isinstance(module, Chain):
        for _, part in module.parts:
            yield from args(part)
    elif isinstance(module, Scope):
        for unit in module.units:
            yield from unit_args(unit)


def unit_args(unit: Unit) -> Iterator[Arg]:
    """Yield the arguments of ``unit``."""
    yield from args(unit.module) if unit.module else unit.numbers


def signature(module: Module | None) -> object:
    """Return what two modules share that differ in their arguments' values only."""
    if isinstance(module, Layer):
        return (module.function, tuple((arg.keyword, arg.width) for arg in module.args))
    if isinstance(module, Chain):
        return tuple((number, signature(part)) for number, part in module.parts)
    if isinstance(module, Scope):
        units = tuple(
            # With a module to fall back on, the inline form follows from the arguments.
            (u.path, u.reads, u.gives, u.shares, signature(u.module) if u.module else u.inline)
            for u in module.units
        )
        return (units, module.returns)
    return None


def is_plain(name: str) -> bool:
    """Return whether ``name`` can be written as an attribute, and will not be mangled."""
    fine = name.isascii() and name.isidentifier() and not keyword.iskeyword(name)
    return fine and not name.startswith("__")


def root(graph: Graph) -> Scope:
    """Return the whole network as one scope."""
    return _Nesting(graph).scope((), [*graph.nodes[1:]], graph.nodes[0].name)


@final
class _Nesting:
    """Finds the modules of one graph; it lives while they are being found."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.members: dict[Path, list[Node]] = {}
        self.found: dict[Path, _Found | None] = {}
        self.sources: dict[str, Source] = {}
        self.values: dict[str, str] = {}
        self.readers: dict[str, list[str]] = {}
        self.sharing = [node for node in graph.nodes if node.weights is not None]
        for node in graph.nodes:
            self.sources[node.name] = source(graph, node)
            # Where a value is computed: an expression that does nothing computes nothing.
            nothing = self.sources[node.name].inline == "{0}"
            self.values[node.name] = self.values[node.inputs[0]] if nothing else node.name
            for name in node.inputs:
                self.readers.setdefault(self.values[name], []).append(node.name)
            if not isinstance(node.op, Input):
                for space in self._spaces(node):
                    self.members.setdefault(space, []).append(node)

    def _spaces(self, node: Node) -> list[Path]:
        """Return the prefixes that ``node`` stands in, from the outside in."""
        parts = tuple(node.name.split("."))
        # A function among numbered modules, such as "1_flatten", belongs to the forward above.
        strange = not is_plain(parts[-1]) and not parts[-1].isdecimal()
        written = self.sources[node.name]
        told = written.layer.args if written.layer else ()
        above = strange and written.inline is not None and not told
        return [parts[:depth] for depth in range(1, len(parts) - above)]

    def scope(self, prefix: Path, members: list[Node], entry: str) -> Scope:
        """Return the forward over ``members``, which reads ``entry`` and nothing else outside."""
        known = {entry: ENTRY}
        units: dict[str, Unit] = {}
        for node in members:
            unit = self._unit(prefix, node, known)
            if unit is not None:
                units.setdefault(".".join(unit.path), unit)
        output = self._exits({n.name for n in members})
        last = self.values[self.graph.output] if not prefix else output[0]
        return Scope(prefix=prefix, units=tuple(units.values()), returns=known[last])

    def _unit(self, prefix: Path, node: Node, known: dict[str, str]) -> Unit | None:
        """Return the largest module of ``node`` below ``prefix``, or the node by itself."""
        parts = tuple(node.name.split("."))
        for space in self._spaces(node)[len(prefix) :]:
            found = self._module(space)
            if found is not None:
                path = space[len(prefix) :]
                known[found.leaves] = ".".join(path)
                return Unit(
                    kind="module",
                    path=path,
                    reads=(known[found.entry],),
                    gives=known[found.leaves],
                    inline=found.inline,
                    module=found.module,
                )
        if self.values[node.name] != node.name:
            return None
        path = parts[len(prefix) :]
        known[node.name] = ".".join(path)
        written = self.sources[node.name]
        shared = node.weights is not None
        return Unit(
            kind=node.op.kind,
            path=path,
            reads=tuple(known[self.values[name]] for name in node.inputs),
            gives=known[node.name],
            inline=written.inline,
            numbers=written.numbers,
            module=None if shared else written.layer,
            shares=tuple(node.weights.split("."))[len(prefix) :] if node.weights else None,
        )

    def _module(self, path: Path) -> _Found | None:
        """Return the module at ``path``; None where that is only a namespace."""
        if path not in self.found:
            self.found[path] = self._find(path)
        return self.found[path]

    def _find(self, path: Path) -> _Found | None:
        members = self.members[path]
        names = {node.name for node in members}
        entries = {self.values[name] for node in members for name in node.inputs} - names
        exits = self._exits(names)
        if len(entries) != 1 or len(exits) != 1 or self._shares_across(names):
            return None
        entry, leaves = *entries, *exits
        scope = self.scope(path, members, entry)
        functions = _functions(scope)
        if functions is not None:
            module, inline = functions
            return _Found(module=module, entry=entry, leaves=leaves, inline=inline)
        chain = _chain(scope)
        if chain is not None:
            return _Found(module=chain, entry=entry, leaves=leaves)
        has_width = any(arg.width for arg in args(scope))
        if not has_width or len(scope.units) > _LARGEST_BLOCK:
            return None
        return _Found(module=scope, entry=entry, leaves=leaves)

    def _exits(self, names: set[str]) -> list[str]:
        """Return the values computed among ``names`` that are needed elsewhere."""
        last = self.values[self.graph.output]
        return [
            name
            for name in names
            if name == last or any(reader not in names for reader in self.readers.get(name, ()))
        ]

    def _shares_across(self, names: set[str]) -> bool:
        return any((node.name in names) != (node.weights in names) for node in self.sharing)


def _functions(scope: Scope) -> tuple[Layer | Chain, str] | None:
    """Return ``scope`` as modules and as an expression, if it is a row of functions.

    They hold no tensors, so what they are called does not matter.
    """
    inline, value = "{0}", ENTRY
    parts: list[tuple[int, Layer | Chain | Scope]] = []
    for unit in scope.units:
        if unit.module is None or unit.inline is None or unit.reads != (value,):
            return None
        inline = unit.inline.replace("{0}", inline)
        parts.append((len(parts), unit.module))
        value = unit.gives
    module = parts[0][1] if len(parts) == 1 else Chain(parts=tuple(parts))
    return None if isinstance(module, Scope) else (module, inline)


def _chain(scope: Scope) -> Chain | None:
    """Return ``scope`` as numbered modules one after another, None where it is more than that."""
    numbers: list[int] = []
    parts: list[tuple[int, Module]] = []
    value = ENTRY
    for unit in scope.units:
        name = ".".join(unit.path)
        least = numbers[-1] + 1 if numbers else 0
        number = int(name) if name.isascii() and name.isdecimal() else -1
        if unit.module is None or unit.reads != (value,):
            return None
        if str(number) != name or number < least:
            if unit.inline is None:
                return None
            number = least  # a function holds no tensors: it may be called anything
        numbers.append(number)
        parts.append((number, unit.module))
        value = unit.gives
    # Gaps are filled by modules that do nothing: a few read well, many do not.
    if value != scope.returns or not parts or numbers[-1] > 2 * len(parts):
        return None
    return Chain(parts=tuple(parts))
