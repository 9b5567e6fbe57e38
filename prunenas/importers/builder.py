"""Builder: writes the graph while the calls of a module are gone through."""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, final

import torch
from torch import nn

from prunenas.build.network import Network
from prunenas.importers.values import BATCH, Site, UnsupportedError, Value, Weight
from prunenas.ir.graph import Node
from prunenas.ir.ops import (
    AnyOp,
    Arithmetic,
    Constant,
    Filled,
    Index,
    Input,
    Parameter,
    Permute,
    Reshape,
    Spread,
    Tile,
)
from prunenas.ir.shape import Shape

_TAKEN_BELOW = frozenset(dir(nn.Module()))
"""Names that torch keeps for itself in every module."""

_TAKEN = _TAKEN_BELOW | {*dir(Network), "graph", "_steps", "_output", "_modules_in_order"}
"""The same, and those that the network's own module keeps."""

_DTYPES: dict[torch.dtype, Any] = {
    torch.float32: "float32",
    torch.int64: "int64",
    torch.bool: "bool",
}


@final
class Builder:
    """The graph so far: nodes, their shapes, and which of the module's tensors each weight is.

    Args:
        input_size: Channels, height and width of the image.
        buffers: Name in the module's state of each tensor that is not trained, by its id.

    Attributes:
        nodes: In the order of the calls.
        state: Name of a tensor in the module's state dict, by its name in the graph's.
        site: The call that is being gone through.
        replaced: Node that stands for another one since a part of that one was overwritten.
    """

    def __init__(self, input_size: Sequence[int], buffers: Mapping[int, str]) -> None:
        self.buffers = buffers
        self.nodes: list[Node] = []
        self.state: dict[str, str] = {}
        self.site = Site("", "input")
        self.replaced: dict[str, str] = {}
        self._shapes: dict[str, Shape] = {}
        self._places: dict[str, int] = {}
        self._owners: dict[int, str] = {}
        self._layers: dict[tuple[int, ...], str] = {}
        self._constants: dict[tuple[str, tuple[int, ...], str], Value] = {}
        self.input = self.add(
            Input(width=input_size[0], spatial=tuple(input_size[1:])), name="input"
        )

    # Asking

    def shape(self, value: Value | str) -> Shape:
        """Return the shape of a node's value."""
        return self._shapes[value if isinstance(value, str) else value.node]

    def sizes(self, value: Any) -> tuple[int, ...]:
        """Return the sizes of the traced tensor, the batch as so many images."""
        if isinstance(value, Weight):
            return tuple(value.tensor.shape)
        if isinstance(value, torch.Tensor):
            return tuple(value.shape)
        shape = self.shape(value)
        real = [*shape.sizes]
        if shape.lead is not None:
            real[0] *= BATCH
        return tuple(real[i] for i in value.order)

    def batched(self, value: Value) -> bool:
        """Return whether the tensor differs from image to image."""
        return self.shape(value).lead is not None

    # Writing

    def add(
        self,
        op: AnyOp,
        *inputs: str,
        name: str | None = None,
        weights: str | None = None,
    ) -> Value:
        """Add a node below the present site; refuse what the op refuses."""
        shape = op.checked_shape([self._shapes[source] for source in inputs])
        path = self.unique(name or self._below(op.kind))
        self.nodes.append(Node(name=path, op=op, inputs=inputs, weights=weights))
        self._shapes[path] = shape
        self._places[path] = len(self._places)
        return Value(path, tuple(range(len(shape.sizes))))

    def layer(
        self,
        op: AnyOp,
        x: str,
        weights: Mapping[str, Any],
        *,
        extra: Mapping[str, str] | None = None,
    ) -> Value:
        """Add a layer whose tensors are the module's: its name is theirs without the last part.

        Args:
            op: The layer.
            x: What it reads.
            weights: A ``Weight`` for each name of the op's parameters.
            extra: Names in the module's state of other tensors, such as running means.

        Raises:
            UnsupportedError: A tensor is computed instead of stored, or another layer has it, but
                not all of them.
        """
        given = {key: weight for key, weight in weights.items() if weight is not None}
        computed = [key for key, weight in given.items() if not isinstance(weight, Weight)]
        if computed:
            raise UnsupportedError(f"its {' and '.join(computed)} are computed, not stored")
        names = {key: weight.name for key, weight in given.items()}
        # One tensor may have several names: what counts is which it is.
        identity = tuple(id(weight.tensor) for weight in given.values())
        if identity and identity in self._layers:
            owner = self._layers[identity]
            return self.add(op, x, name=f"{owner}_again", weights=owner)
        shared = [key for key, weight in given.items() if id(weight.tensor) in self._owners]
        if shared:
            owner = self._owners[id(given[shared[0]].tensor)]
            raise UnsupportedError(f"it shares its {' and '.join(shared)} with {owner}, not all")
        name = next(iter(names.values()), "").rpartition(".")[0] or self._below(op.kind)
        value = self.add(op, x, name=name)
        self._layers[identity] = value.node
        self._owners.update(dict.fromkeys(identity, value.node))
        for key, original in (names | dict(extra or {})).items():
            self.state[f"{value.node}.{key}"] = original
        return value

    def value(self, x: Any) -> Value:
        """Return ``x`` as a tensor of the graph: weights and constants become nodes."""
        if isinstance(x, Value):
            return Value(self.replaced.get(x.node, x.node), x.order)
        if isinstance(x, Weight):
            if id(x.tensor) not in self._owners:
                value = self.add(Parameter(sizes=tuple(x.tensor.shape)), name=x.name)
                self._owners[id(x.tensor)] = value.node
                self.state[f"{value.node}.value"] = x.name
            node = self._owners[id(x.tensor)]
            if not isinstance(self[node].op, Parameter):
                raise UnsupportedError(f"the weights {x.name} of a layer are used outside of it")
            node = self.replaced.get(node, node)
            return Value(node, tuple(range(len(self.shape(node).sizes))))
        if isinstance(x, torch.Tensor):
            return self._constant(x)
        raise UnsupportedError(f"a tensor is needed, got {type(x).__name__}")

    def plain(self, x: Any) -> str:
        """Return the node whose value is the traced tensor, dimension by dimension."""
        value = self.value(x)
        if value.order == tuple(range(len(value.order))):
            return value.node
        if self.batched(value) and value.order[0] != 0:
            raise UnsupportedError("the batch is not the first dimension here")
        return self.add(Permute(order=value.order), value.node).node

    def reshape(self, x: Any, sizes: Sequence[int]) -> Value:
        """Add a reshape to ``sizes``, the batch counted as it was traced."""
        value = self.value(x)
        old = self.sizes(value)
        wanted = _filled(sizes, old)
        if wanted == old:
            return value
        if self.batched(value) and (value.order[0] != 0 or wanted[:1] == (1,)):
            if [size for size in old if size != 1] != [size for size in wanted if size != 1]:
                return self._behind(value, wanted)
            return self._with_ones(value, wanted)
        node = self.plain(value)
        if not self.batched(value):
            return self.add(Reshape(sizes=wanted), node)
        if not wanted or wanted[0] % BATCH:
            raise UnsupportedError("the batch is mixed with other dimensions")
        return self.add(Reshape(sizes=wanted[1:]), node)

    def _behind(self, value: Value, wanted: tuple[int, ...]) -> Value:
        """Lay out what follows the batch; dimensions before it stay, such as queries and keys."""
        place = value.order.index(0)
        old = self.sizes(value)
        if old[:place] != wanted[:place] or wanted[place] % BATCH:
            raise UnsupportedError("the batch is not the first dimension here")
        # What the batch takes in must stand right behind it.
        end, taken = place + 1, old[place]
        while taken < wanted[place] and end < len(old):
            taken *= old[end]
            end += 1
        if taken != wanted[place]:
            raise UnsupportedError("the batch is mixed with other dimensions")
        fixed = range(place)
        order = [place, *range(place + 1, end), *fixed, *range(end, len(old))]
        node = self.plain(Value(value.node, tuple(value.order[d] for d in order)))
        new = self.add(Reshape(sizes=(*wanted[:place], *wanted[place + 1 :])), node)
        rest = range(place + 1, len(wanted))
        return Value(new.node, (*range(1, place + 1), 0, *rest))

    def _with_ones(self, value: Value, wanted: tuple[int, ...]) -> Value:
        """Drop and add dimensions of size 1 while the batch stands elsewhere than first."""
        while 1 in self.sizes(value):
            value = self.index(value, self.sizes(value).index(1), 0)
        shape = self.shape(value)
        ones = wanted.count(1)
        new = self.add(Reshape(sizes=(*shape.dims, *[1] * ones)), value.node)
        following, spare = iter(value.order), itertools.count(len(value.order))
        return Value(new.node, tuple(next(spare if s == 1 else following) for s in wanted))

    def index(self, x: Any, dim: int, position: int) -> Value:
        """Add the choice of one entry of dimension ``dim``, which goes."""
        value = self.value(x)
        place = value.order[dim]
        if place == 0 and self.batched(value):
            raise UnsupportedError("it picks one image of the batch")
        size = self.sizes(value)[dim]
        new = self.add(Index(dim=place, index=position % size), value.node)
        order = [d - (d > place) for d in value.order if d != place]
        return Value(new.node, tuple(order))

    def alike(self, x: Any, y: Any) -> tuple[str, str, tuple[int, ...]]:
        """Return two tensors' nodes ready for arithmetic, and the order of the result."""
        one, other = self.value(x), self.value(y)
        if one.order == other.order and self.batched(one) == self.batched(other):
            return one.node, other.node, one.order
        first, second = self.plain(one), self.plain(other)
        length = max(len(one.order), len(other.order))
        return first, second, tuple(range(length))

    def arithmetic(self, function: Any, x: Any, y: Any) -> Value:
        """Add element by element arithmetic."""
        first, second, order = self.alike(x, y)
        new = self.add(Arithmetic(function=function), first, second)
        return Value(new.node, order)

    def start(self, x: Any, how: Any) -> None:
        """State how a stored tensor is drawn afresh, where ``x`` is one."""
        if isinstance(x, Weight):
            name = self.plain(x)
            self._replace(name, replace(self[name].op, start=how))

    def __getitem__(self, name: str) -> Node:
        """Return the node called ``name``."""
        return self.nodes[self._places[name]]

    def _replace(self, name: str, op: AnyOp) -> None:
        place = self._places[name]
        self.nodes[place] = replace(self.nodes[place], op=op)

    def _constant(self, tensor: torch.Tensor) -> Value:
        tensor = tensor.detach().cpu()
        if tensor.dim() and tensor.shape[0] == BATCH:
            if not bool((tensor == tensor[:1]).all()):
                raise UnsupportedError("a constant that differs from image to image")
            one = self._constant(tensor[:1])
            return self.add(Spread(), one.node, self.input.node)
        if tensor.dim() > 1 and tensor.shape[0] > 1 and bool((tensor == tensor[:1]).all()):
            # The same for each entry: as many as what it meets.
            one = self._constant(tensor[:1])
            return self.add(Tile(dim=0, times=tensor.shape[0]), one.node)
        if tensor.dtype not in _DTYPES:
            tensor = tensor.to(torch.float32 if tensor.is_floating_point() else torch.int64)
        tensor = tensor.contiguous()
        sizes, dtype = tuple(tensor.shape), _DTYPES[tensor.dtype]
        first = tensor.reshape(-1)[0].item()
        if dtype == "float32" and math.isfinite(first) and bool((tensor == first).all()):
            # One number all over is as wide as what it meets, each time another thing.
            return self.add(Filled(sizes=sizes, value=float(first)))
        data = Constant.packed(tensor.numpy().astype(f"<{_letter(tensor)}").tobytes())
        key = (dtype, sizes, data)
        if key not in self._constants:
            self._constants[key] = self.add(Constant(sizes=sizes, dtype=dtype, data=data))
        return self._constants[key]

    # Names

    def _below(self, kind: str) -> str:
        word = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind).lower()
        return f"{self.site.path}.{word}" if self.site.path else word

    def unique(self, name: str) -> str:
        """Return ``name``, numbered if it is taken."""
        parts = [re.sub(r"\W", "_", part) or "_" for part in name.split(".")]
        clean = ".".join(
            f"{part}_" if part in (_TAKEN_BELOW if depth else _TAKEN) else part
            for depth, part in enumerate(parts)
        )
        names = itertools.chain([clean], (f"{clean}_{i}" for i in itertools.count(1)))
        return next(n for n in names if n not in self._shapes)


def _letter(tensor: torch.Tensor) -> str:
    return {torch.float32: "f4", torch.int64: "i8", torch.bool: "?"}[tensor.dtype]


def _filled(sizes: Sequence[int], old: Sequence[int]) -> tuple[int, ...]:
    """Return ``sizes`` with the one that is -1 worked out."""
    total = 1
    for size in old:
        total *= size
    known = 1
    for size in sizes:
        known *= size if size != -1 else 1
    return tuple(total // known if size == -1 else int(size) for size in sizes)
