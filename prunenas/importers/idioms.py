"""Several nodes that are one op: what a network's author wrote out."""

from dataclasses import replace

from prunenas.ir.graph import Graph, Node, live
from prunenas.ir.ops import Permute, Reshape, Shuffle


def simplified(graph: Graph) -> Graph:
    """Return ``graph`` with idioms put in their one word."""
    nodes = live(_shuffles(graph), graph.output)
    return graph if nodes == graph.nodes else replace(graph, nodes=nodes)


def _shuffles(graph: Graph) -> tuple[Node, ...]:
    """Channels laid out in groups, groups and channels exchanged, laid out in a row again."""
    result = []
    for node in graph.nodes:
        source = _shuffled(graph, node)
        result.append(node if source is None else replace(node, op=source[1], inputs=(source[0],)))
    return tuple(result)


def _shuffled(graph: Graph, node: Node) -> tuple[str, Shuffle] | None:
    if not isinstance(node.op, Reshape):
        return None
    turned = graph[node.inputs[0]]
    if not isinstance(turned.op, Permute) or turned.op.order != (0, 2, 1, 3, 4):
        return None
    apart = graph[turned.inputs[0]]
    if not isinstance(apart.op, Reshape) or len(apart.op.sizes) != 4:
        return None
    source = apart.inputs[0]
    if graph.shapes[source] != graph.shapes[node.name] or len(graph.shapes[source].dims) != 3:
        return None
    return source, Shuffle(groups=apart.op.sizes[0])
