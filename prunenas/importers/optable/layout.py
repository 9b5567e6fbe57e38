"""Views, permutations, slices, joins."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from prunenas.importers.builder import Builder
from prunenas.importers.optable.table import same, spelled
from prunenas.importers.values import BATCH, UnsupportedError, Value, Weight
from prunenas.ir.ops import (
    Concat,
    Flatten,
    Join,
    Pad,
    Reshape,
    Roll,
    Slice,
    Split,
    Spread,
    Take,
    Tile,
)

spelled(
    "contiguous",
    "detach",
    "detach_",
    "float",
    "alias",
    "lift_fresh_copy",
    "_assert_tensor_metadata",
    "requires_grad_",
)(same)


@spelled("clone")
def _clone(g: Builder, x: Any, *args: Any, **kwargs: Any) -> Value:
    # A copy of a weight is there to be changed: no longer the layer's own.
    return g.value(x)


def _list(first: Any, rest: Sequence[Any]) -> list[Any]:
    """Return sizes that were given one by one or as one sequence."""
    return [first, *rest] if isinstance(first, int) else [*first]


def _dim(g: Builder, x: Value, dim: int) -> int:
    return dim % len(x.order)


@spelled("view", "reshape", "_unsafe_view", "_reshape_copy")
def _reshape(g: Builder, x: Any, *shape: Any, **kwargs: Any) -> Value:
    sizes = kwargs.get("shape", kwargs.get("size")) or _list(shape[0], shape[1:])
    return _laid_out(g, x, sizes)


def _laid_out(g: Builder, x: Any, sizes: Sequence[int]) -> Value:
    value = g.value(x)
    old = g.sizes(value)
    known = math.prod(s for s in sizes if s != -1)
    wanted = tuple(math.prod(old) // known if s == -1 else s for s in sizes)
    if g.batched(value) and len(wanted) == 2 and len(old) == 4 and wanted[0] == old[0] == BATCH:
        return g.add(Flatten(), g.plain(value))
    return g.reshape(value, wanted)


@spelled("view_as", "reshape_as")
def _reshape_as(g: Builder, x: Any, other: Any) -> Value:
    return _laid_out(g, x, g.sizes(other))


@spelled("flatten")
def _flatten(g: Builder, x: Any, start_dim: int = 0, end_dim: int = -1) -> Value:
    value = g.value(x)
    sizes = g.sizes(value)
    start, end = _dim(g, value, start_dim), _dim(g, value, end_dim)
    return _laid_out(
        g, value, (*sizes[:start], math.prod(sizes[start : end + 1]), *sizes[end + 1 :])
    )


@spelled("unflatten")
def _unflatten(g: Builder, x: Any, dim: int, sizes: Sequence[int]) -> Value:
    value = g.value(x)
    old = g.sizes(value)
    place = _dim(g, value, dim)
    known = math.prod(s for s in sizes if s != -1)
    filled = [old[place] // known if s == -1 else s for s in sizes]
    return g.reshape(value, (*old[:place], *filled, *old[place + 1 :]))


@spelled("squeeze", "squeeze_")
def _squeeze(g: Builder, x: Any, dim: Any = None) -> Value:
    value = g.value(x)
    sizes = g.sizes(value)
    if dim is None:
        places = {*range(len(sizes))}
    else:
        places = {_dim(g, value, d) for d in ((dim,) if isinstance(dim, int) else dim)}
    return g.reshape(value, [s for i, s in enumerate(sizes) if i not in places or s != 1])


@spelled("unsqueeze", "unsqueeze_")
def _unsqueeze(g: Builder, x: Any, dim: int) -> Value:
    sizes = [*g.sizes(g.value(x))]
    sizes.insert(dim % (len(sizes) + 1), 1)
    return g.reshape(x, sizes)


@spelled("permute")
def permute(g: Builder, x: Any, *dims: Any, **kwargs: Any) -> Value:
    """Return ``x`` with its dimensions in another order; nothing is written yet."""
    order = kwargs.get("dims") or _list(dims[0], dims[1:])
    value = g.value(x)
    return Value(value.node, tuple(value.order[_dim(g, value, d)] for d in order))


@spelled("movedim")
def _movedim(g: Builder, x: Any, source: int, destination: int) -> Value:
    value = g.value(x)
    order = [*value.order]
    moved = order.pop(_dim(g, value, source))
    order.insert(_dim(g, value, destination), moved)
    return Value(value.node, tuple(order))


@spelled("transpose", "transpose_", "swapaxes", "swapdims")
def transpose(g: Builder, x: Any, dim0: int, dim1: int) -> Value:
    """Return ``x`` with two dimensions exchanged; nothing is written yet."""
    value = g.value(x)
    order = [*value.order]
    one, two = _dim(g, value, dim0), _dim(g, value, dim1)
    order[one], order[two] = order[two], order[one]
    return Value(value.node, tuple(order))


@spelled("t", "mT", "T")
def _matrix_transpose(g: Builder, x: Any) -> Value:
    return transpose(g, x, -2, -1)


# Parts


@spelled("select")
def _select(g: Builder, x: Any, dim: int, index: int) -> Value:
    value = g.value(x)
    return g.index(value, _dim(g, value, dim), index)


@spelled("unbind")
def _unbind(g: Builder, x: Any, dim: int = 0) -> tuple[Value, ...]:
    value = g.value(x)
    place = _dim(g, value, dim)
    return tuple(g.index(value, place, i) for i in range(g.sizes(value)[place]))


def _cut(g: Builder, value: Value, dim: int, start: Any, stop: Any, step: int = 1) -> Any:
    """Add entries ``start`` up to ``stop`` of ``dim``; nothing where that is all of them."""
    full = g.sizes(value)[dim]
    start, stop, step = slice(start, stop, step).indices(full)
    if (start, stop, step) == (0, full, 1):
        return value
    if start >= stop:
        sizes = g.sizes(value)
        return torch.zeros(*sizes[:dim], 0, *sizes[dim + 1 :])
    place = value.order[dim]
    if place == 0 and g.batched(value):
        raise UnsupportedError("it cuts the batch")
    new = g.add(Slice(dim=place, start=start, stop=stop, step=step), value.node)
    return Value(new.node, value.order)


@spelled("slice")
def _slice(
    g: Builder, x: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Any:
    value = g.value(x)
    return _cut(g, value, _dim(g, value, dim), start, end, step)


@spelled("narrow")
def _narrow(g: Builder, x: Any, dim: int, start: int, length: int) -> Any:
    value = g.value(x)
    return _cut(g, value, _dim(g, value, dim), start, start + length)


@spelled("chunk")
def _chunk(g: Builder, x: Any, chunks: int, dim: int = 0) -> tuple[Value, ...]:
    value = g.value(x)
    place = _dim(g, value, dim)
    full = g.sizes(value)[place]
    each = -(-full // chunks)
    return _pieces(g, value, place, [min(each, full - i) for i in range(0, full, each)])


@spelled("split", "split_with_sizes")
def _split(g: Builder, x: Any, sizes: Any, dim: int = 0) -> tuple[Value, ...]:
    value = g.value(x)
    place = _dim(g, value, dim)
    full = g.sizes(value)[place]
    if isinstance(sizes, int):
        sizes = [min(sizes, full - i) for i in range(0, full, sizes)]
    return _pieces(g, value, place, sizes)


def _pieces(g: Builder, value: Value, dim: int, sizes: Sequence[int]) -> tuple[Value, ...]:
    if len(sizes) == 1:
        return (value,)
    if len({*sizes}) == 1 and value.order[dim] == 1 and g.batched(value):
        parts = [g.add(Split(parts=len(sizes), index=i), value.node) for i in range(len(sizes))]
        return tuple(Value(part.node, value.order) for part in parts)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return tuple(_cut(g, value, dim, a, a + n) for a, n in zip(starts, sizes, strict=True))


@spelled("getitem")
def _getitem(g: Builder, x: Any, index: Any) -> Any:
    if isinstance(x, tuple | list):
        return x[index]
    value = g.value(x)
    items = [*index] if isinstance(index, tuple | list) else [index]
    if Ellipsis in [item for item in items if not isinstance(item, torch.Tensor)]:
        place = next(i for i, item in enumerate(items) if item is Ellipsis)
        real = sum(item is not None for item in items) - 1
        items[place : place + 1] = [slice(None)] * (len(value.order) - real)
    dim = 0
    for item in items:
        if item is None:
            value = _unsqueeze(g, value, dim)
            dim += 1
        elif isinstance(item, bool | Value | Weight):
            raise UnsupportedError("it is indexed by values that are computed")
        elif isinstance(item, int):
            value = g.index(value, dim, item)
        elif isinstance(item, slice):
            value = _cut(g, value, dim, item.start, item.stop, item.step or 1)
            dim += 1
        else:
            value = _taken(g, value, dim, torch.as_tensor(item))
            dim += torch.as_tensor(item).dim()
    return value


@spelled("index")
def _aten_index(g: Builder, x: Any, indices: Sequence[Any]) -> Value:
    items = [slice(None) if item is None else item for item in indices]
    if sum(not isinstance(item, slice) for item in items) > 1:
        raise UnsupportedError("it is indexed along several dimensions at once")
    result: Value = _getitem(g, x, tuple(items))
    return result


def _taken(g: Builder, value: Value, dim: int, index: torch.Tensor) -> Value:
    if index.dtype == torch.bool:
        index = index.nonzero()[:, 0]
    place = value.order[dim]
    if place == 0 and g.batched(value):
        raise UnsupportedError("it picks images of the batch")
    row = g.value(index.reshape(-1).long() % g.sizes(value)[dim])
    new = Value(g.add(Take(dim=place), value.node, row.node).node, value.order)
    if index.dim() == 1:
        return new
    sizes = g.sizes(new)
    return g.reshape(new, (*sizes[:dim], *index.shape, *sizes[dim + 1 :]))


@spelled("index_select")
def _index_select(g: Builder, x: Any, dim: int, index: Any) -> Value:
    if not isinstance(index, torch.Tensor):
        raise UnsupportedError("it is indexed by values that are computed")
    value = g.value(x)
    return _taken(g, value, _dim(g, value, dim), index)


# Together


@spelled("cat", "concat", "concatenate")
def _cat(g: Builder, tensors: Sequence[Any], dim: int = 0) -> Value:
    values = [g.value(t) for t in tensors if 0 not in g.sizes(t)]
    if len(values) == 1:
        return values[0]
    place = _dim(g, values[0], dim)
    orders = {value.order for value in values}
    if len(orders) > 1:
        values = [Value(g.plain(v), tuple(range(len(v.order)))) for v in values]
    order = values[0].order
    where = order[place]
    shapes = [g.shape(value) for value in values]
    if where == 0 and shapes[0].lead is not None:
        raise UnsupportedError("it joins batches")
    image = where == 1 and all(s.lead is not None and len(s.dims) in (1, 3) for s in shapes)
    op = Concat() if image else Join(dim=where)
    return Value(g.add(op, *(value.node for value in values)).node, order)


@spelled("stack")
def _stack(g: Builder, tensors: Sequence[Any], dim: int = 0) -> Value:
    place = dim % (len(g.sizes(tensors[0])) + 1)
    return _cat(g, [_unsqueeze(g, t, place) for t in tensors], place)


@spelled("expand", "expand_copy", "broadcast_to")
def _expand(g: Builder, x: Any, *sizes: Any, **kwargs: Any) -> Value:
    wanted = kwargs.get("size") or _list(sizes[0], sizes[1:])
    value = g.value(x)
    missing = len(wanted) - len(value.order)
    if missing:
        value = g.reshape(value, (*[1] * missing, *g.sizes(value)))
    old = g.sizes(value)
    for dim, (size, now) in enumerate(zip(wanted, old, strict=True)):
        if size not in (-1, now):
            value = _repeated(g, value, dim, size)
    return value


@spelled("expand_as")
def _expand_as(g: Builder, x: Any, other: Any) -> Value:
    return _expand(g, x, list(g.sizes(other)))


@spelled("repeat", "tile")
def _repeat(g: Builder, x: Any, *times: Any, **kwargs: Any) -> Value:
    wanted = kwargs.get("repeats") or kwargs.get("dims") or _list(times[0], times[1:])
    value = g.value(x)
    missing = len(wanted) - len(value.order)
    if missing > 0:
        value = g.reshape(value, (*[1] * missing, *g.sizes(value)))
    wanted = [1] * -missing + [*wanted] if missing < 0 else wanted
    for dim, count in enumerate(wanted):
        if count != 1:
            value = _repeated(g, value, dim, count)
    return value


def _repeated(g: Builder, value: Value, dim: int, count: int) -> Value:
    """Add ``count`` copies along ``dim``, which may be to become the batch."""
    if not g.batched(value) and count % BATCH == 0:
        if dim != 0 or g.sizes(value)[0] != 1:
            raise UnsupportedError("something other than the first dimension becomes the batch")
        node = g.add(Spread(), g.plain(value), g.input.node)
        value = Value(node.node, tuple(range(len(value.order))))
        count //= BATCH
    place = value.order[dim]
    if count == 1:
        return value
    if place == 0 and g.batched(value):
        raise UnsupportedError("it repeats the batch")
    return Value(g.add(Tile(dim=place, times=count), value.node).node, value.order)


@spelled("repeat_interleave")
def _repeat_interleave(g: Builder, x: Any, repeats: int, dim: int) -> Value:
    value = g.value(x)
    place = _dim(g, value, dim)
    sizes = g.sizes(value)
    one = g.reshape(value, (*sizes[: place + 1], 1, *sizes[place + 1 :]))
    if value.order[place] == 0 and g.batched(value):
        # Each image's entries one after another: what a batch of windows wants.
        many = g.add(Tile(dim=1, times=repeats), g.plain(one))
        return g.add(Reshape(sizes=g.shape(value).dims), many.node)
    many = Value(g.add(Tile(dim=one.order[place + 1], times=repeats), one.node).node, one.order)
    return g.reshape(many, (*sizes[:place], sizes[place] * repeats, *sizes[place + 1 :]))


@spelled("roll")
def _roll(g: Builder, x: Any, shifts: Any, dims: Any) -> Value:
    value = g.value(x)
    pairs = [(shifts, dims)] if isinstance(shifts, int) else zip(shifts, dims, strict=True)
    for shift, dim in pairs:
        place = value.order[_dim(g, value, dim)]
        if shift:
            value = Value(g.add(Roll(dim=place, shift=shift), value.node).node, value.order)
    return value


@spelled("pad", "constant_pad_nd")
def _pad(g: Builder, x: Any, pad: Sequence[int], mode: Any = "constant", value: Any = 0) -> Value:
    if isinstance(mode, int | float):
        mode, value = "constant", mode
    if mode not in ("constant", "reflect"):
        raise UnsupportedError(f"padding of the kind {mode}")
    result = g.value(x)
    last = len(result.order) - 1
    for i in range(len(pad) // 2):
        before, after = pad[2 * i], pad[2 * i + 1]
        if before or after:
            place = result.order[last - i]
            number = max(float(value or 0), torch.finfo(torch.float32).min)
            op = Pad(dim=place, before=before, after=after, function=mode, value=number)
            result = Value(g.add(op, result.node).node, result.order)
    return result
