"""Random graphs on which the law speaks: batch norms, activations that map 0 to 0; and what to cut.

Wherever a removed channel would be zero in the reference, nothing downstream can tell it from one
that is not there. Norms over channels, and activations that make something of nothing, can.
"""

import numpy as np
from hypothesis import strategies as st

from prunenas.arch.descriptor import Descriptor
from prunenas.generators.base import Proposal
from prunenas.generators.base.fit import fitted
from prunenas.ir.canonical import digest
from prunenas.ir.coupling import couple
from prunenas.ir.graph import Graph
from prunenas.ir.ops import Activation, GroupNorm, Shuffle
from tests import image_pieces as pieces
from tests.graphs import deep_head, flat_head, pooled_head
from tests.sketch import Draw, Sketch

QUIET = ("relu", "relu6", "leaky_relu", "silu", "hardswish", "tanh", "gelu", "elu", "mish", "sin")
"""Activations that map 0 to 0."""


def quiet(s: Sketch, x: str) -> str:
    """A convolution, a batch norm, and any activation that maps 0 to 0."""
    x = s.net.batch_norm("bn", s.net.conv("conv", x, s.width(), kernel=3, bias=s.flag()))
    return s.net.activation("act", x, s.one_of(QUIET))


def preactivated_norm(s: Sketch, x: str) -> str:
    """A batch norm that only a selection reads, as in PreResNet and DenseNet."""
    branch = s.net.select_all("select", s.net.batch_norm("bn", x))
    branch = s.conv("conv", s.net.relu("relu", branch), s.channels(x))
    return s.net.join("add", branch, x)


SPOKEN_OF = (
    quiet,
    preactivated_norm,
    pieces.plain,
    pieces.residual,
    pieces.projected,
    pieces.dense,
    pieces.select,
    pieces.preactivated,
    pieces.depthwise,
    pieces.grouped,
    pieces.squeeze_excite,
    pieces.shuffled,
    pieces.split,
    pieces.cut_differently,
    pieces.pool,
    pieces.adaptive_pool,
    pieces.shared,
)


@st.composite
def silent_graphs(draw: Draw) -> Graph:
    """Residual, dense, depthwise, concatenating, gated and shuffled networks, mixed."""
    s = Sketch(draw, draw(st.tuples(st.integers(1, 3), st.integers(4, 8), st.integers(4, 8))))
    x = s.net.input
    for i, piece in enumerate(draw(st.lists(st.sampled_from(SPOKEN_OF), min_size=2, max_size=4))):
        with s.net.scope(f"piece{i}"):
            x = piece(s, x)
    with s.net.scope("head"):
        graph = s.graph(s.one_of((flat_head, pooled_head, deep_head))(s, x))
    assert not any(isinstance(node.op, GroupNorm) for node in graph.nodes)
    for node in graph.nodes:
        if isinstance(node.op, Activation) and node.op.function not in QUIET:
            # What is removed of the gated image is zero whatever the gate says of it.
            assert [type(r.op).__name__ for r in graph.readers[node.name]] == ["Gate"]
    return graph


def cut_by_chance(graph: Graph, seed: int) -> Descriptor:
    """Return a descriptor that keeps channels drawn by chance, each group at a rate of its own."""
    groups, chance = couple(graph), np.random.default_rng(seed)
    kept = {}
    for group in groups.free:
        there = chance.random(group.width) < chance.uniform(0.2, 1.0)
        there[chance.integers(group.width)] = True
        kept[group.name] = tuple(np.flatnonzero(there).tolist())
    # Shuffles interleave groups, whose parts must then lose the same places: one draw for all.
    if any(isinstance(node.op, Shuffle) for node in graph.nodes):
        scores = {g.name: np.arange(g.width) * 0.6180339887 % 1 for g in groups.free}
    else:
        scores = {g.name: chance.random(g.width) for g in groups.free}
    widths, selections = fitted(graph, groups, Proposal(selections=kept, scores=scores))
    return Descriptor(reference=digest(graph), widths=widths, selections=selections)
