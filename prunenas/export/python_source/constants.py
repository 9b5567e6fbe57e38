"""Tensors that are not trained: where they stand, and how their numbers are written."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunenas.export.python_source.pieces import Arg, Layer, Site, Source
from prunenas.export.python_source.text import literal, wrapped
from prunenas.ir.graph import Graph, Node
from prunenas.ir.ops import Constant, Filled

_LONGEST = 60
"""Characters of a constant that is written where it is made."""

_DTYPES = {"float32": "<f4", "int64": "<i8", "bool": "u1"}


def with_own_constants(graph: Graph) -> Graph:
    """Return ``graph`` with a copy of each constant beside those that read it.

    Constants are in no state dict, so they may stand anywhere; and only what reads nothing else
    from outside can be a class of its own.
    """
    constants = {n.name: n for n in graph.nodes if isinstance(n.op, Constant | Filled)}
    if not constants or graph.output in constants:
        return graph
    others = [node for node in graph.nodes if node.name not in constants]
    # No copy may be called as a node is, or as what nodes stand below.
    parts = [node.name.split(".") for node in others]
    taken = {".".join(part[:depth]) for part in parts for depth in range(1, len(part) + 1)}
    copies: dict[tuple[str, str], str] = {}
    nodes: list[Node] = []
    for node in others:
        space = node.name.rpartition(".")[0]
        for name in node.inputs:
            if name in constants and (name, space) not in copies:
                copies[name, space] = copy = _free(space, name.rpartition(".")[2], taken)
                taken.add(copy)
                nodes.append(replace(constants[name], name=copy))
        inputs = tuple(copies.get((name, space), name) for name in node.inputs)
        nodes.append(replace(node, inputs=inputs))
    return replace(graph, nodes=tuple(nodes))


def filled(op: Filled, site: Site) -> Source:
    """Return a tensor of one number."""
    number = literal(op.value)
    text = f"torch.full({literal(op.sizes)}, {number})" if op.sizes else f"torch.tensor({number})"
    return Source(layer=Layer(function="ConstantTensor", args=(Arg(value=text),)))


def constant(op: Constant, site: Site) -> Source:
    """Return a tensor, written out or taken from the table at the file's end."""
    value = _written(op) or f'stored("{site.name}")'
    return Source(layer=Layer(function="ConstantTensor", args=(Arg(value=value),)))


def stored_as(graph: Graph, op: Constant) -> str:
    """Return the first node that holds the numbers of ``op``: equal ones are stored once."""
    return next(node.name for node in graph.nodes if node.op == op)


def table(graph: Graph) -> Iterator[tuple[str, str, tuple[int, ...], str]]:
    """Yield name, type, sizes and data of each constant that is too long for its place."""
    for node in graph.nodes:
        if not isinstance(node.op, Constant) or stored_as(graph, node.op) != node.name:
            continue
        if _written(node.op) is None:
            # Packed anew: a bool may be any byte in a spec, but not in torch.
            text = Constant.packed(_numbers(node.op).tobytes())
            yield node.name, node.op.dtype, node.op.sizes, wrapped(text)


def _free(space: str, last: str, taken: set[str]) -> str:
    """Return a name in ``space`` that is not ``taken``: ``last``, perhaps with a number."""
    stem = f"{space}.{last}" if space else last
    return next(n for n in chain([stem], (f"{stem}_{i}" for i in count(1))) if n not in taken)


def _numbers(op: Constant) -> NDArray[Any]:
    stored = np.frombuffer(op.bytes(), dtype=_DTYPES[op.dtype])
    return stored.astype(op.dtype).reshape(op.sizes)


def _written(op: Constant) -> str | None:
    """Return the expression that makes the tensor; None if that would be long."""
    array = _numbers(op)
    flat = array.reshape(-1)
    bits = flat.view(f"u{flat.itemsize}")  # a zero is not its negative
    text = ""
    if flat.size > 1 and (bits == bits[0]).all():
        text = f"torch.full({literal(array.shape)}, {_number(flat[0].item())})"
    elif op.dtype == "int64" and array.ndim == 1 and (flat == np.arange(flat.size)).all():
        text = f"torch.arange({flat.size})"
    elif flat.size <= _LONGEST:
        text = f"torch.tensor({_listed(array)})"
    return text if 0 < len(text) <= _LONGEST else None


def _listed(array: NDArray[Any]) -> str:
    if array.ndim:
        return f"[{', '.join(map(_listed, array))}]"
    return _number(array.item())


def _number(number: float) -> str:
    """Return a number as briefly as it can be told from its neighbours."""
    if not isinstance(number, float):
        return repr(number)
    brief = float(str(np.float32(number)))
    return str(literal(brief if np.float32(brief) == np.float32(number) else number))
