"""What the source of one node is made of: arguments, layers, expressions."""

from dataclasses import dataclass
from typing import Literal, final

from prunenas.export.python_source.text import Value, literal
from prunenas.ir.shape import Pair, Shape


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Arg:
    """One argument of a layer's constructor, or a number in an expression.

    Args:
        value: What is handed in.
        keyword: The argument's name; None for one that is told by position.
        default: The value at which the argument is left out.
        width: Whether this counts channels, and of which side; None for anything else.
    """

    value: Value
    keyword: str | None = None
    default: Value | None = None
    width: Literal["in", "out"] | None = None

    @property
    def is_default(self) -> bool:
        """Whether the argument can be left out."""
        return self.default is not None and self.value == self.default


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A module: the constructor and all its arguments, in order, defaults included."""

    function: str
    args: tuple[Arg, ...] = ()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """How one node is written.

    Args:
        layer: The module that is declared; None where there is no such module.
        inline: The expression that needs no module, ``{0}`` and so on for the inputs; ``{0}``
            alone where nothing is computed.
        numbers: What ``{a}``, ``{b}`` and so on in ``inline`` stand for. Blocks that differ in
            them only are of one class. There are none where there is a layer.
    """

    layer: Layer | None = None
    inline: str | None = None
    numbers: tuple[Arg, ...] = ()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where an op stands: its node's name, the shapes that it reads and gives."""

    name: str
    inputs: tuple[Shape, ...]
    out: Shape


def square(pair: Pair) -> Value:
    """Return one number for a pair of equal ones, as people write it."""
    return pair[0] if pair[0] == pair[1] else pair


def both(layer: str, function: str, *args: Arg) -> Source:
    """Return a stateless op: a function of torch in a forward, a module in a chain."""
    told = [
        f"{arg.keyword}={literal(arg.value)}" if arg.keyword else str(literal(arg.value))
        for arg in args
        if not arg.is_default
    ]
    inline = f"{function}({', '.join(['{0}', *told])})"
    return Source(layer=Layer(function=layer, args=args), inline=inline)
