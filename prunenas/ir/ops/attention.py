"""Matrix products and attention."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

from prunenas.errors import ShapeError
from prunenas.ir.axis import ONE, Axes
from prunenas.ir.ops.arithmetic import broadcast, met
from prunenas.ir.ops.layout import LayoutOp
from prunenas.ir.shape import Shape
from prunenas.ir.unifier import Unifier


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MatMul(LayoutOp):
    """Matrix product of the last two dimensions, ``[... n k] x [... k m]``."""

    arity: ClassVar[tuple[int, int | None]] = (2, 2)
    kind: Literal["MatMul"] = "MatMul"

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the product's shape."""
        left, right = inputs
        if min(len(left.dims), len(right.dims)) < 2 or left.dims[-1] != right.dims[-2]:
            raise ShapeError(f"MatMul cannot multiply {left} by {right}")
        rows, columns = left.sizes[-2], right.sizes[-1]
        stacks = [Shape((*s.dims[:-2], 1, 1), s.lead) for s in inputs]
        out = broadcast(self.kind, stacks)
        return Shape((*out.dims[:-2], rows, columns), out.lead)

    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """Unify what is summed over, and the stacks of matrices."""
        left, right = inputs
        unifier.unify(left[-1], right[-2], node=node)
        stacks = [(*axes[:-2], ONE, ONE) for axes in inputs]
        plain = [Shape((*s.dims[:-2], 1, 1), s.lead) for s in shapes]
        stacked = met(stacks, plain, unifier, node)[:-2]
        for axis in stacked[1:]:
            unifier.label(axis, "heads")
        return (*stacked, left[-2], right[-1])

    def macs(self, inputs: Sequence[Shape], out: Shape) -> int:
        """Return the summed size x output elements."""
        return inputs[0].sizes[-1] * out.numel


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Attention(LayoutOp):
    """Softmax of scaled query-key products, times values; a fourth input is added before it.

    Inputs: queries ``[... n d]``, keys ``[... m d]``, values ``[... m v]``, bias or mask
    ``[... n m]``.

    Args:
        scale: Of the products; None is 1 / sqrt(d), whatever width d has.
        dropout: Probability of the weights' dropout while training.

    Source: Vaswani et al. 2017, arXiv:1706.03762, equation 1.
    """

    arity: ClassVar[tuple[int, int | None]] = (3, 4)
    kind: Literal["Attention"] = "Attention"
    scale: float | None = None
    dropout: float = 0.0

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return ``[... n v]``."""
        query, key, value = inputs[:3]
        fits = (
            len({len(shape.sizes) for shape in inputs[:3]}) == 1
            and len({(shape.lead, *shape.dims[:-2]) for shape in (key, value)}) == 1
            and query.lead == key.lead
            and len(query.dims) >= 2
            # Keys and values may be one for all heads.
            and all(k in (1, q) for q, k in zip(query.dims[:-2], key.dims[:-2], strict=True))
            and query.dims[-1] == key.dims[-1]
            and key.dims[-2] == value.dims[-2]
        )
        if not fits:
            raise ShapeError(f"Attention does not fit {', '.join(map(str, inputs))}")
        if len(inputs) == 4:
            if len(inputs[3].sizes) < 2:
                raise ShapeError(f"Attention cannot add {inputs[3]}")
            scores = Shape((*query.dims[:-1], key.dims[-2]), query.lead)
            if broadcast(self.kind, [scores, inputs[3]]) != scores:
                raise ShapeError(f"Attention cannot add {inputs[3]} to {scores}")
        return Shape((*query.dims[:-1], value.dims[-1]), query.lead)

    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """Unify heads, lengths, and the width of queries with that of keys."""
        query, key, value = inputs[:3]
        for place in range(len(query) - 2):
            unifier.unify(key[place], value[place], node=node)
            if shapes[0].sizes[place] == shapes[1].sizes[place]:
                unifier.unify(query[place], key[place], node=node)
            else:
                unifier.fix(key[place], f"{node} spreads it over the heads")
            if place:
                unifier.label(query[place], "heads")
        unifier.unify(query[-1], key[-1], node=node)
        unifier.unify(key[-2], value[-2], node=node)
        if len(inputs) == 4:
            scores = (*query[:-1], key[-2])
            shape = Shape((*shapes[0].dims[:-1], shapes[1].dims[-2]), shapes[0].lead)
            met([scores, inputs[3]], [shape, shapes[3]], unifier, node)
        return (*query[:-1], value[-1])

    def macs(self, inputs: Sequence[Shape], out: Shape) -> int:
        """Return both products: scores, and their sum over the values."""
        query, key = inputs[:2]
        return query.numel * key.dims[-2] + out.numel * key.dims[-2]
