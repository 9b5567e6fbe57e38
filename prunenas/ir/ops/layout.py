"""Ops that lay out the entries of a tensor anew. Dimensions count as torch's do: the batch is 0."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

from prunenas.errors import ShapeError
from prunenas.ir.axis import ONE, Axes, constant
from prunenas.ir.cuts import cut, reshape
from prunenas.ir.ops.base import Op, dimension, need_finite
from prunenas.ir.shape import Shape, need_positive
from prunenas.ir.unifier import Unifier

_LARGEST_TILING = 1 << 30
"""Elements an image: what is repeated takes no room in a file, but it does in memory."""


class LayoutOp(Op):
    """An op whose output is its own only in the last dimension's sense: channels stand last."""

    __slots__ = ()
    channel: ClassVar[int] = -1


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Reshape(LayoutOp):
    """The same entries in order under other sizes; the batch takes what is left over.

    Args:
        sizes: Sizes without the batch.
    """

    kind: Literal["Reshape"] = "Reshape"
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        need_positive(self.kind, sizes=self.sizes)

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return ``sizes``, with as many batch entries an image as they need."""
        numel, each = inputs[0].numel, math.prod(self.sizes)
        if numel % each or (inputs[0].lead is None and numel != each):
            raise ShapeError(f"{inputs[0]} cannot be laid out in {list(self.sizes)}")
        return Shape(self.sizes, None if inputs[0].lead is None else numel // each)

    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """Take products apart and put them together."""
        axes = reshape(unifier, inputs[0], out.sizes, node=node)
        unifier.store_sizes(node, axes if out.lead is None else axes[1:])
        return axes


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Permute(LayoutOp):
    """Dimension ``order[i]`` of the input becomes dimension ``i``; a batch stays first."""

    kind: Literal["Permute"] = "Permute"
    order: tuple[int, ...]

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the sizes in their new order."""
        sizes = inputs[0].sizes
        batched = inputs[0].lead is not None
        if sorted(self.order) != [*range(len(sizes))] or (batched and self.order[0] != 0):
            raise ShapeError(f"Permute cannot put {inputs[0]} in the order {list(self.order)}")
        return Shape.from_sizes(tuple(sizes[i] for i in self.order), batched=batched)

    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """Return the axes in their new order."""
        return tuple(inputs[0][i] for i in self.order)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Index(LayoutOp):
    """Entry ``index`` of dimension ``dim``, which goes."""

    kind: Literal["Index"] = "Index"
    dim: int
    index: int

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the sizes without ``dim``."""
        sizes = [*inputs[0].sizes]
        if not 0 <= self.index < sizes[dimension(self.kind, self.dim, inputs[0])]:
            raise ShapeError(
                f"Index asks for entry {self.index} of dimension {self.dim} of {inputs[0]}"
            )
        del sizes[self.dim]
        return Shape.from_sizes(tuple(sizes), batched=inputs[0].lead is not None)

    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """Fix the dimension that one entry is picked of."""
        unifier.fix(inputs[0][self.dim], f"{node} picks entry {self.index}")
        return tuple(axis for i, axis in enumerate(inputs[0]) if i != self.dim)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Slice(LayoutOp):
    """Entries ``start`` up to ``stop`` of dimension ``dim``, every ``step``-th."""

    kind: Literal["Slice"] = "Slice"
    dim: int
    start: int
    stop: int
    step: int = 1

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the sizes with that of ``dim`` cut down."""
        sizes = [*inputs[0].sizes]
        full = sizes[dimension(self.kind, self.dim, inputs[0])]
        if not 0 <= self.start < self.stop <= full or self.step < 1:
            raise ShapeError(
                f"Slice {self.start}:{self.stop}:{self.step} does not fit dimension {self.dim} of "
                f"{inputs[0]}"
            )
        sizes[self.dim] = -(-(self.stop - self.start) // self.step)
        return Shape.from_sizes(tuple(sizes), batched=inputs[0].lead is not None)

    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """Cut the axis; of every second entry and the like, fix it."""
        axes = [*inputs[0]]
        source = axes[self.dim]
        if self.step > 1:
            unifier.fix(source, f"{node} takes every entry number {self.step}")
            axes[self.dim] = constant(out.sizes[self.dim])
        else:
            before = cut(unifier, source, 0, self.start, node=node) if self.start else ()
            axes[self.dim] = cut(unifier, source, self.start, self.stop, node=node)
            through = (*before, *axes[self.dim])
            unifier.store(node, start=before, stop=through)
        return tuple(axes)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Join(LayoutOp):
    """Tensors one after another along ``dim``; of an image's channels, ``Concat`` says so."""

    arity: ClassVar[tuple[int, int | None]] = (2, None)
    kind: Literal["Join"] = "Join"
    dim: int

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the sum of the sizes along ``dim``."""
        dimension(self.kind, self.dim, inputs[0])
        others = {
            (len(s.sizes), s.lead is None, *s.sizes[: self.dim], -1, *s.sizes[self.dim + 1 :])
            for s in inputs
        }
        if len(others) > 1:
            raise ShapeError(
                f"Join along {self.dim} needs one size elsewhere, got {', '.join(map(str, inputs))}"
            )
        sizes = [*inputs[0].sizes]
        sizes[self.dim] = sum(shape.sizes[self.dim] for shape in inputs)
        return Shape.from_sizes(tuple(sizes), batched=inputs[0].lead is not None)

    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """Append the axes along ``dim``, unify the others."""
        axes = [*inputs[0]]
        for other in inputs[1:]:
            for dim, axis in enumerate(other):
                if dim != self.dim:
                    unifier.unify(axes[dim], axis, node=node)
        axes[self.dim] = tuple(segment for other in inputs for segment in other[self.dim])
        return tuple(axes)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Spread(LayoutOp):
    """What is the same for all images, once for each image of the second input.

    The first dimension, of size 1, becomes the batch.
    """

    arity: ClassVar[tuple[int, int | None]] = (2, 2)
    kind: Literal["Spread"] = "Spread"

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the first input's shape, with the second's batch."""
        one, like = inputs
        if one.lead is not None or like.lead is None or one.dims[:1] != (1,):
            raise ShapeError(f"Spread cannot give {one} the batch of {like}")
        return Shape(one.dims[1:], like.lead)

    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """Return the axes of the one behind the batch of the other."""
        unifier.fix(inputs[0][0], f"{node} makes it the batch")
        return (inputs[1][0], *inputs[0][1:])


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Tile(LayoutOp):
    """The whole of dimension ``dim`` ``times`` times over, one after another."""

    kind: Literal["Tile"] = "Tile"
    dim: int
    times: int

    def __post_init__(self) -> None:
        need_positive(self.kind, times=self.times)

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the sizes with that of ``dim`` multiplied."""
        sizes = [*inputs[0].sizes]
        sizes[dimension(self.kind, self.dim, inputs[0])] *= self.times
        if math.prod(sizes) > _LARGEST_TILING:
            raise ShapeError(f"{self.times} times {inputs[0]} is too large")
        return Shape.from_sizes(tuple(sizes), batched=inputs[0].lead is not None)

    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """Repeat the axis as a whole."""
        axes = [*inputs[0]]
        axis = unifier.resolve(axes[self.dim])
        if axis == ONE:
            # How often one entry is repeated is what the tensors say that it is joined with.
            axis = unifier.weak((self.times,), node)[0]
            unifier.store(node, times=axis)
            axes[self.dim] = axis
        else:
            axes[self.dim] = axis * self.times
        return tuple(axes)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Roll(LayoutOp):
    """Entries moved on by ``shift`` along ``dim``, those that fall off put in front."""

    kind: Literal["Roll"] = "Roll"
    dim: int
    shift: int

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the input's shape."""
        dimension(self.kind, self.dim, inputs[0])
        return inputs[0]

    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """Fix the dimension that is rolled."""
        unifier.fix(inputs[0][self.dim], f"{node} rolls it")
        return inputs[0]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Pad(LayoutOp):
    """Entries put before and after those of ``dim``; negative numbers crop.

    They are all ``value``, or, by ``reflect`` along the sides of an image, the nearest ones in
    turned order.
    """

    kind: Literal["Pad"] = "Pad"
    dim: int
    before: int = 0
    after: int = 0
    function: Literal["constant", "reflect"] = "constant"
    value: float = 0.0

    def __post_init__(self) -> None:
        need_finite(self.kind, value=self.value)

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the sizes with that of ``dim`` enlarged."""
        sizes = [*inputs[0].sizes]
        full = sizes[dimension(self.kind, self.dim, inputs[0])]
        if min(self.before, self.after) < -full:
            raise ShapeError(f"Pad crops more than there is of {inputs[0]}")
        if self.function == "reflect":
            image = inputs[0].lead is not None and len(inputs[0].dims) == 3 and self.dim > 1
            if not image or max(self.before, self.after) >= full:
                raise ShapeError(f"Pad cannot reflect dimension {self.dim} of {inputs[0]}")
        sizes[self.dim] += self.before + self.after
        need_positive(self.kind, size=sizes[self.dim])
        return Shape.from_sizes(tuple(sizes), batched=inputs[0].lead is not None)

    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """Fix the dimension that is padded."""
        axes = [*inputs[0]]
        unifier.fix(axes[self.dim], f"{node} pads it")
        axes[self.dim] = constant(out.sizes[self.dim])
        return tuple(axes)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Take(LayoutOp):
    """The entries of dimension ``dim`` at the indices that the second input holds, ``[k]``."""

    arity: ClassVar[tuple[int, int | None]] = (2, 2)
    kind: Literal["Take"] = "Take"
    dim: int

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the sizes with as many entries along ``dim`` as there are indices."""
        source, indices = inputs
        sizes = [*source.sizes]
        if indices.lead is not None or len(indices.dims) != 1:
            raise ShapeError(f"Take needs a row of indices, got {indices}")
        sizes[dimension(self.kind, self.dim, source)] = indices.dims[0]
        return Shape.from_sizes(tuple(sizes), batched=source.lead is not None)

    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """Fix the dimension that entries are taken of."""
        axes = [*inputs[0]]
        unifier.fix(axes[self.dim], f"{node} takes entries by number")
        axes[self.dim] = constant(out.sizes[self.dim])
        return tuple(axes)
