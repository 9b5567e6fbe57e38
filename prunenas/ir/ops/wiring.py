"""Ops that join, cut and reorder channels: where the equations between widths come from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

from prunenas.errors import ShapeError
from prunenas.ir.axis import Axes, Axis, constant, times
from prunenas.ir.cuts import parts, reshape
from prunenas.ir.ops.base import ChannelOp, Op
from prunenas.ir.shape import Shape, need_positive, window
from prunenas.ir.unifier import Unifier


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Flatten(ChannelOp):
    """An image as a vector: the positions of each channel in a row."""

    kind: Literal["Flatten"] = "Flatten"

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return channels x positions."""
        return Shape.of(inputs[0].channels * inputs[0].positions, lead=inputs[0].lead)

    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """Return each channel repeated once a position, or the product where channels are last."""
        batch, channels, *sides = inputs[0]
        if any(True for side in sides for _ in unifier.variables(side)):
            return (batch, *reshape(unifier, inputs[0][1:], out.dims, node=node))
        return batch, times(channels, shapes[0].positions)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Add(Op):
    """Sum of two or more tensors of one shape."""

    arity: ClassVar[tuple[int, int | None]] = (2, None)
    kind: Literal["Add"] = "Add"

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the shape that all inputs share."""
        if len(set(inputs)) > 1:
            raise ShapeError(f"Add needs inputs of one shape, got {', '.join(map(str, inputs))}")
        return inputs[0]

    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """State that all axes are equal."""
        for other in inputs[1:]:
            for mine, its in zip(inputs[0], other, strict=True):
                unifier.unify(mine, its, node=node)
        return inputs[0]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Gate(ChannelOp):
    """An image times one factor a channel (squeeze-excite); inputs: image, factors [c 1 1]."""

    arity: ClassVar[tuple[int, int | None]] = (2, 2)
    kind: Literal["Gate"] = "Gate"

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the image's shape."""
        image, factors = inputs
        # A vector [c] will not do for an image: it would be spread along the width.
        if factors != Shape.of(image.channels, (1,) * len(image.spatial), lead=image.lead):
            raise ShapeError(f"Gate needs one factor a channel of {image}, got {factors}")
        return image

    def channels(
        self, axes: Sequence[Axis], shapes: Sequence[Shape], unifier: Unifier, node: str
    ) -> Axis:
        """State that image and factors have the same channels."""
        return unifier.unify(axes[0], axes[1], node=node)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Concat(ChannelOp):
    """Inputs of one size, one after another along the channels."""

    arity: ClassVar[tuple[int, int | None]] = (2, None)
    kind: Literal["Concat"] = "Concat"

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the sum of the channels."""
        if len({(shape.lead, *shape.spatial) for shape in inputs}) > 1:
            raise ShapeError(f"Concat needs inputs of one size, got {', '.join(map(str, inputs))}")
        channels = sum(shape.channels for shape in inputs)
        return Shape.of(channels, inputs[0].spatial, lead=inputs[0].lead)

    def channels(
        self, axes: Sequence[Axis], shapes: Sequence[Shape], unifier: Unifier, node: str
    ) -> Axis:
        """Append the segments."""
        return tuple(segment for axis in axes for segment in axis)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Split(ChannelOp):
    """Part number ``index`` of ``parts`` equally wide parts of the channels."""

    kind: Literal["Split"] = "Split"
    parts: int
    index: int

    def __post_init__(self) -> None:
        need_positive(self.kind, parts=self.parts)
        if not 0 <= self.index < self.parts:
            raise ShapeError(f"Split into {self.parts} parts has no part {self.index}")

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return one part of the channels."""
        if inputs[0].channels % self.parts:
            raise ShapeError(f"{inputs[0].channels} channels do not split into {self.parts}")
        return Shape((inputs[0].channels // self.parts, *inputs[0].spatial), inputs[0].lead)

    def channels(
        self, axes: Sequence[Axis], shapes: Sequence[Shape], unifier: Unifier, node: str
    ) -> Axis:
        """Return one part; the parts must stay equal."""
        part = parts(unifier, axes[0], self.parts, node=node)
        if part is not None:
            return part
        reason = f"{node} cuts between segment borders"
        unifier.fix(axes[0], reason)
        return constant(shapes[0].channels // self.parts)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Shuffle(ChannelOp):
    """Interleave ``groups`` equal parts of the channels (ShuffleNet)."""

    kind: Literal["Shuffle"] = "Shuffle"
    groups: int

    def __post_init__(self) -> None:
        need_positive(self.kind, groups=self.groups)

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the input's shape; its channels must divide into the groups."""
        if inputs[0].channels % self.groups:
            raise ShapeError(f"{inputs[0].channels} channels do not divide into {self.groups}")
        return inputs[0]

    def channels(
        self, axes: Sequence[Axis], shapes: Sequence[Shape], unifier: Unifier, node: str
    ) -> Axis:
        """Equal parts become one part whose channels repeat; other axes are fixed."""
        part = parts(unifier, axes[0], self.groups, node=node)
        if part is not None:
            return times(part, self.groups)
        unifier.fix(axes[0], f"{node} shuffles across segment borders")
        return axes[0]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Select(ChannelOp):
    """The source's channels at ``indices``, in ascending order (channel selection).

    Source: Liu et al. 2017, arXiv:1708.06519, section 4.1 (pre-activation networks).
    """

    kind: Literal["Select"] = "Select"
    indices: tuple[int, ...]

    def __post_init__(self) -> None:
        ascending = all(a < b for a, b in zip(self.indices, self.indices[1:], strict=False))
        if not self.indices or self.indices[0] < 0 or not ascending:
            raise ShapeError(f"Select needs ascending indices from 0 on, got {self.indices}")

    @property
    def width(self) -> int:
        """Number of selected channels."""
        return len(self.indices)

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return as many channels as there are indices."""
        if self.indices[-1] >= inputs[0].channels:
            raise ShapeError(f"Select asks channel {self.indices[-1]} of {inputs[0].channels}")
        return Shape((len(self.indices), *inputs[0].spatial), inputs[0].lead)

    def channels(
        self, axes: Sequence[Axis], shapes: Sequence[Shape], unifier: Unifier, node: str
    ) -> Axis:
        """Return a fresh variable, never wider than its source."""
        axis = unifier.fresh(len(self.indices), node, solid=True)
        unifier.bound(axis, axes[0], node=node)
        return axis


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PadChannels(ChannelOp):
    """A parameter-free shortcut: subsample ``x``, append zero channels up to ``like``'s shape.

    Inputs: ``x``, ``like``. ``detach`` cuts the gradient, as the released code of Liu et al. does.

    Source: He et al. 2016, arXiv:1512.03385, section 4.2, shortcut A.
    """

    arity: ClassVar[tuple[int, int | None]] = (2, 2)
    kind: Literal["PadChannels"] = "PadChannels"
    stride: int = 1
    function: Literal["subsample", "average"] = "subsample"
    detach: bool = False

    def __post_init__(self) -> None:
        need_positive(self.kind, stride=self.stride)

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return ``like``'s shape, which ``x`` must fit into."""
        x, like = inputs
        cell = (1, 1) if self.function == "subsample" else (self.stride, self.stride)
        size = window(x.size(), kernel=cell, stride=(self.stride, self.stride), padding=(0, 0))
        if size != like.spatial or x.channels > like.channels:
            raise ShapeError(f"PadChannels cannot bring {x} to {like} with stride {self.stride}")
        return like

    def channels(
        self, axes: Sequence[Axis], shapes: Sequence[Shape], unifier: Unifier, node: str
    ) -> Axis:
        """Return ``like``'s axis, which bounds the source's."""
        unifier.bound(axes[0], axes[1], node=node)
        return axes[1]
