"""Random legal graphs and random legal widths for them, as hypothesis strategies.

Example:
    >>> @given(st.data(), graphs())
    ... def test_a_promise(data, graph):
    ...     narrow = with_widths(graph, data.draw(legal_widths(graph)))
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from prunenas.ir.coupling import ChannelGroups, axis_width, couple, resized
from prunenas.ir.graph import Graph, Node
from prunenas.ir.ops import BatchNorm, ExactMask, Flatten, KernelOp, Linear, Select
from tests.image_pieces import IMAGE_PIECES
from tests.layout_pieces import LAYOUT_PIECES
from tests.sketch import Draw, Sketch
from tests.token_pieces import TOKEN_PIECES, token_head

PIECES = (*IMAGE_PIECES, *LAYOUT_PIECES, *TOKEN_PIECES)


def flat_head(s: Sketch, x: str) -> str:
    """Flatten with all positions that are left."""
    return s.net.linear("fc", s.net.add("flatten", Flatten(), x), s.integer(2, 5))


def pooled_head(s: Sketch, x: str) -> str:
    return s.net.linear("fc", s.net.global_pool("pool", x), s.integer(2, 5), bias=s.flag())


def deep_head(s: Sketch, x: str) -> str:
    """Two linear layers with a norm of vectors between them."""
    size = s.integer(1, 2)
    x = s.net.linear("fc1", s.net.global_pool("pool", x, size=size), s.width())
    x = s.net.add("bn", BatchNorm(), x)
    x = s.net.dropout("dropout", s.net.relu("relu", x), p=s.one_of([0.0, 0.5]))
    return s.net.add("fc2", Linear(width=s.integer(2, 5)), x)


def convolutional_head(s: Sketch, x: str) -> str:
    x = s.net.global_pool("pool", s.net.conv("classes", x, s.integer(2, 5), kernel=1))
    return s.net.add("flatten", Flatten(), x)


HEADS = (flat_head, pooled_head, deep_head, convolutional_head, token_head)


@st.composite
def graphs(draw: Draw) -> Graph:
    """Small legal classifiers: one to three pieces of any kind, and a head."""
    size = draw(st.tuples(st.integers(1, 4), st.integers(4, 16), st.integers(4, 16)))
    s = Sketch(draw, size)
    pieces = draw(st.lists(st.sampled_from(PIECES), min_size=1, max_size=3))
    x = s.net.input
    for i, piece in enumerate(pieces):
        with s.net.scope(f"piece{i}"):
            x = piece(s, x)
    with s.net.scope("head"):
        return s.graph(s.one_of(HEADS)(s, x))


@st.composite
def legal_widths(draw: Draw, graph: Graph, *, least: int = 1) -> dict[str, int]:
    """A width for each free group: at most its own, divisors and bounds obeyed.

    No width falls below ``least`` that was not below it before.
    """
    groups = couple(graph)
    widths = groups.widths
    for group in groups.free:
        most = group.width // group.divisor
        steps = st.integers(min(most, -(-least // group.divisor)), most)
        widths[group.name] = group.divisor * draw(steps)
    _obey_bounds(groups, widths)
    return {group.name: widths[group.name] for group in groups.free}


def _obey_bounds(groups: ChannelGroups, widths: dict[str, int]) -> None:
    """Give the full width back to what is narrower than something that it bounds."""
    full = groups.widths
    while broken := [b for b in groups.bounds if b.excess(widths) > 0]:
        for bound in broken:
            widths |= {name: full[name] for s in bound.upper for name in s.groups}


def with_widths(graph: Graph, widths: Mapping[str, int]) -> Graph:
    """Return ``graph`` with the widths of groups replaced; selections take the first channels."""
    groups = couple(graph)
    every = groups.widths | dict(widths)

    def narrowed(node: Node) -> Node:
        if not isinstance(node.op, Select):
            return node
        width = every[groups.axes[node.name][0].group]
        return replace(node, op=replace(node.op, indices=tuple(range(width))))

    return replace(graph, nodes=tuple(narrowed(node) for node in resized(graph, widths)))


def sizes_under(graph: Graph, widths: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Return the sizes that every value of ``graph`` has where some groups have these widths."""
    groups = couple(graph)
    every = groups.widths | dict(widths)
    return {
        name: tuple(axis_width(axis, every) for axis in axes) for name, axes in groups.dims.items()
    }


def sizes_of(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Return the sizes of every value of ``graph``."""
    return {name: shape.sizes for name, shape in graph.shapes.items()}


@st.composite
def kernel_masks(draw: Draw, graph: Graph) -> dict[str, NDArray[np.bool_]]:
    """A mask for some of the kernels of ``graph``, each keeping at least one weight."""
    masks = {}
    for node in graph.nodes:
        if isinstance(node.op, KernelOp) and node.weights is None and draw(st.booleans()):
            shape = graph.parameters()[f"{node.name}.weight"]
            rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
            kept = rng.random(shape) < draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
            kept.flat[rng.integers(kept.size)] = True
            masks[node.name] = kept
    return masks


def with_exact_masks(graph: Graph, masks: Mapping[str, NDArray[np.bool_]]) -> Graph:
    """Return ``graph`` with these masks on its kernels, also where others read their weights."""

    def masked(node: Node) -> Node:
        owner = node.weights or node.name
        if owner not in masks:
            return node
        return replace(node, op=replace(node.op, sparsity=ExactMask.of(masks[owner])))

    return replace(graph, nodes=tuple(masked(node) for node in graph.nodes))
