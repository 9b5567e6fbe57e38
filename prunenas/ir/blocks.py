"""Removable residual blocks: a branch, and the shortcut that rejoins it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import final

import networkx

from prunenas.errors import GraphError
from prunenas.ir.graph import Graph, Node, live
from prunenas.ir.ops import Add, Conv2d, Depthwise2d, Linear

_WEIGHTED = (Conv2d, Depthwise2d, Linear)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A residual block whose branch can be left out.

    Args:
        name: The addition that joins branch and shortcut.
        entry: The node that dominates the addition: where the block begins.
        branch: The nodes that go when the block is dropped.
        shortcut: The node whose value stands for the addition's then.
    """

    name: str
    entry: str
    branch: tuple[str, ...]
    shortcut: str


def blocks(graph: Graph) -> tuple[Block, ...]:
    """Return the removable residual blocks of ``graph``, in topological order.

    A block ends in an addition of two values. The one with fewer weighted layers since the
    block's entry is the shortcut; the other's nodes, less the shortcut's, are the branch. A
    shortcut that needs the branch itself (zero-padded to its width) cannot stand alone, and a
    branch that is read elsewhere, or whose weights are, cannot go: such blocks are not removable.
    """
    dominators = networkx.immediate_dominators(graph.networkx(), graph.nodes[0].name)
    found = (
        _block(graph, node, dominators[node.name])
        for node in graph.nodes
        if isinstance(node.op, Add) and len(node.inputs) == 2
    )
    return tuple(block for block in found if block is not None)


def _block(graph: Graph, add: Node, entry: str) -> Block | None:
    first, second = (_since(graph, name, entry) for name in add.inputs)
    weighted = [
        sum(isinstance(graph[name].op, _WEIGHTED) for name in side) for side in (first, second)
    ]
    if weighted[0] == weighted[1]:
        return None
    long, short = (0, 1) if weighted[0] > weighted[1] else (1, 0)
    branch = (first, second)[long] - (first, second)[short]
    # The whole of the longer side must go, save what the shortcut computes anyway.
    if add.inputs[long] not in branch or _is_read_elsewhere(graph, branch, add):
        return None
    return Block(
        name=add.name,
        entry=entry,
        branch=tuple(node.name for node in graph.nodes if node.name in branch),
        shortcut=add.inputs[short],
    )


def _is_read_elsewhere(graph: Graph, branch: set[str], add: Node) -> bool:
    """Return whether a node outside needs a value or the weights of ``branch``."""
    return any(
        node.weights in branch or not branch.isdisjoint(node.inputs)
        for node in graph.nodes
        if node.name not in branch and node.name != add.name
    )


def _since(graph: Graph, name: str, entry: str) -> set[str]:
    """Return the nodes that ``name`` needs, up to and without ``entry``."""
    needed: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current != entry and current not in needed:
            needed.add(current)
            waiting += graph[current].inputs
    return needed


def drop_blocks(graph: Graph, names: Collection[str]) -> Graph:
    """Return ``graph`` without the branches of the named blocks.

    Raises:
        GraphError: A name is not a removable block; all such names are told, and the known ones.
    """
    if not names:
        return graph
    known = {block.name: block for block in blocks(graph)}
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise GraphError(
            f"no removable block {', '.join(unknown)}; removable: {', '.join(known) or 'none'}"
        )
    instead = {name: known[name].shortcut for name in names}
    output = _follow(graph.output, instead)
    nodes = tuple(
        replace(node, inputs=tuple(_follow(name, instead) for name in node.inputs))
        for node in graph.nodes
        if node.name not in instead
    )
    return replace(graph, nodes=live(nodes, output), output=output)


def _follow(name: str, instead: Mapping[str, str]) -> str:
    while name in instead:
        name = instead[name]
    return name
