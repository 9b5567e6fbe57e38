"""What every op must say of itself, and the ops that leave shapes alone."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from prunenas.ir.axis import Axis, Unifier
from prunenas.ir.shape import Shape


class Op(ABC):
    """What a node does. Immutable, compared by value."""

    __slots__ = ()
    # pydantic reads this when a spec is decoded: unknown keys and wrong types are refused.
    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    kind: str
    arity: ClassVar[tuple[int, int | None]] = (1, 1)
    """Least and greatest number of inputs; None is no limit."""

    @abstractmethod
    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the shape of the output.

        Raises:
            ShapeError: The inputs do not fit.
        """

    def channels(
        self, axes: Sequence[Axis], shapes: Sequence[Shape], unifier: Unifier, node: str
    ) -> Axis:
        """Return the output's axis; state equations, divisors and bounds on ``unifier``."""
        return axes[0]

    def macs(self, inputs: Sequence[Shape], out: Shape) -> int:
        """Return multiply-accumulates for one image; bias, norm and pooling are not counted."""
        return 0

    def parameters(self, inputs: Sequence[Shape], out: Shape) -> Mapping[str, tuple[int, ...]]:
        """Return the shape of each trainable tensor, by its name below the node."""
        return {}


class Pointwise(Op):
    """An op that leaves shape and channels as they are."""

    __slots__ = ()

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the input's shape."""
        return inputs[0]
