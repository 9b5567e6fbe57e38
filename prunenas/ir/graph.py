"""Graph: a network as an immutable tuple of named ops in topological order."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, wraps
from types import MappingProxyType
from typing import Any, ClassVar, Literal, TypeVar, final

import networkx

from prunenas.errors import GraphError, ShapeError
from prunenas.ir.ops import AnyOp, Input
from prunenas.ir.records import Remade, remade
from prunenas.ir.shape import Shape


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Init:
    """How fresh weights are drawn; it changes results, so it is part of what a network is.

    Args:
        conv: Standard deviation of convolutions: ``fan_out`` is sqrt(2 / (kh kw out)), ``fan_in``
            sqrt(2 / (kh kw in)), ``torch`` the framework's default.
        linear: ``normal_0.01`` and ``normal_0.02`` (as transformers start) are normals of that
            deviation with zero bias, ``torch`` the default.
        scale: Start of the batch-norm scales of images.
        vector_scale: Start of the batch-norm scales of vectors.

    Source: the released code of Liu et al. 2019, arXiv:1810.05270 (differs by family).
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    conv: Literal["fan_out", "fan_in", "torch"] = "fan_out"
    linear: Literal["normal_0.01", "normal_0.02", "torch"] = "torch"
    scale: float = 1.0
    vector_scale: float = 1.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One call of an op.

    Args:
        name: Unique and dotted, such as ``layer1.0.conv1``; parameters are filed under it.
        op: What is done.
        inputs: Names of the nodes that are read, in the order of the op's arguments.
        weights: Node whose parameters are used instead of own ones.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    name: str
    # The metadata tells pydantic, which decodes specs, that ``kind`` says which op it is.
    op: AnyOp = field(metadata={"discriminator": "kind"})
    inputs: tuple[str, ...] = ()
    weights: str | None = None


@final
@dataclass(frozen=True, kw_only=True)
class Graph:
    """A whole network.

    Args:
        nodes: In topological order; the first and only ``Input`` comes first.
        output: Name of the node whose value the network returns.
        init: How fresh weights are drawn.

    Raises:
        GraphError: The nodes do not form a network; all faults of one kind are told at once.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    nodes: tuple[Node, ...]
    output: str
    init: Init = field(default_factory=Init)

    def __post_init__(self) -> None:
        for check in (_check_names, _check_wiring, _check_weights):
            faults = check(self)
            if faults:
                raise GraphError("not a network: " + "; ".join(faults))
        self.shapes  # noqa: B018  shapes that do not fit must be told now, not at first use
        if faults := _check_shared(self):
            raise GraphError("not a network: " + "; ".join(faults))

    def __reduce__(self) -> Remade:
        return remade(self)

    @cached_property
    def _by_name(self) -> Mapping[str, Node]:
        return {node.name: node for node in self.nodes}

    def __getitem__(self, name: str) -> Node:
        """Return the node called ``name``.

        Raises:
            GraphError: There is none.
        """
        try:
            return self._by_name[name]
        except KeyError:
            raise GraphError(f"the graph has no node {name!r}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    @property
    def input_size(self) -> tuple[int, ...]:
        """Channels, height and width of the image."""
        shape = self.shapes[self.nodes[0].name]
        return (shape.channels, *shape.spatial)

    @property
    def classes(self) -> int:
        """Number of features of the output."""
        return self.shapes[self.output].channels

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """Shape of each node's value."""
        shapes: dict[str, Shape] = {}
        for node in self.nodes:
            try:
                shapes[node.name] = node.op.checked_shape([shapes[name] for name in node.inputs])
            except ShapeError as error:
                raise GraphError(f"at {node.name}: {error}") from error
        return MappingProxyType(shapes)

    def input_shapes(self, node: Node) -> list[Shape]:
        """Return the shapes of what ``node`` reads."""
        return [self.shapes[name] for name in node.inputs]

    @cached_property
    def readers(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read each node's value."""
        readers: dict[str, list[Node]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                readers[name].append(node)
        return MappingProxyType({name: tuple(nodes) for name, nodes in readers.items()})

    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each trainable tensor by its name in the state dict."""
        return {
            f"{node.name}.{key}": shape
            for node in self.nodes
            if node.weights is None
            for key, shape in node.op.parameters(
                self.input_shapes(node), self.shapes[node.name]
            ).items()
        }

    def networkx(self) -> "networkx.MultiDiGraph[Any]":
        """Return the wiring, with the argument's ``position`` on each edge and ``op`` on nodes."""
        view: networkx.MultiDiGraph[Any] = networkx.MultiDiGraph()
        for node in self.nodes:
            view.add_node(node.name, op=node.op)
            for position, name in enumerate(node.inputs):
                view.add_edge(name, node.name, position=position)
        return view


T = TypeVar("T")


def once(function: Callable[[Graph], T]) -> Callable[[Graph], T]:
    """Compute ``function`` once for each graph object: a graph never changes."""
    key = f"_{function.__module__}.{function.__name__}"

    @wraps(function)
    def remembered(graph: Graph) -> T:
        known: dict[str, Any] = graph.__dict__
        if key not in known:
            known[key] = function(graph)
        result: T = known[key]
        return result

    return remembered


def live(nodes: tuple[Node, ...], output: str) -> tuple[Node, ...]:
    """Return the nodes whose value reaches ``output``, and the input."""
    needed = {output}
    for node in reversed(nodes):
        if node.name in needed:
            needed.update(node.inputs)
            needed.update({node.weights} if node.weights else ())
    return tuple(n for n in nodes if n.name in needed or isinstance(n.op, Input))


_NAME = re.compile(r"\w+(\.\w+)*")


def _check_names(graph: Graph) -> list[str]:
    names = [node.name for node in graph.nodes]
    faults = [f"{name!r} occurs {n} times" for name, n in Counter(names).items() if n > 1]
    known = {*names}
    for name in names:
        if not _NAME.fullmatch(name):
            faults.append(f"{name!r} is not a dotted name of letters, digits and underscores")
        above = name
        while "." in above:
            above = above.rpartition(".")[0]
            if above in known:
                faults.append(f"{name!r} stands below {above!r}, which is a node itself")
    return faults


def _check_wiring(graph: Graph) -> list[str]:
    known = {node.name for node in graph.nodes}
    seen: set[str] = set()
    faults = []
    for position, node in enumerate(graph.nodes):
        if isinstance(node.op, Input) != (position == 0):
            faults.append(f"{node.name!r}: the one Input stands first")
        least, most = node.op.arity
        if len(node.inputs) < least or (most is not None and len(node.inputs) > most):
            wanted = f"{least}" if least == most else f"{least} or more"
            faults.append(
                f"{node.name!r}: {node.op.kind} reads {wanted} values, got {len(node.inputs)}"
            )
        for name in node.inputs:
            if name not in known:
                faults.append(f"{node.name!r} reads {name!r}, which does not exist")
            elif name not in seen:
                faults.append(
                    f"{node.name!r} reads {name!r}, which stands after it: nodes are kept in "
                    "topological order, so there is a cycle or a wrong order"
                )
        seen.add(node.name)
    if graph.output not in known:
        faults.append(f"the output {graph.output!r} does not exist")
    if not faults and len(live(graph.nodes, graph.output)) < len(graph.nodes):
        dead = known - {node.name for node in live(graph.nodes, graph.output)}
        faults.append(f"the output does not depend on {', '.join(sorted(dead))}")
    return faults


def _check_weights(graph: Graph) -> list[str]:
    faults = []
    owners: dict[str, Node] = {}
    for node in graph.nodes:
        if node.weights is None:
            owners[node.name] = node
            continue
        owner = owners.get(node.weights)
        if node.weights not in graph:
            wrong = "does not exist"
        elif graph[node.weights].weights is not None:
            wrong = "has none of its own"
        elif owner is None:
            wrong = "stands after it"
        elif owner.op != node.op:
            wrong = f"is another op: {owner.op} against {node.op}"
        else:
            continue
        faults.append(f"{node.name!r} uses the weights of {node.weights!r}, which {wrong}")
    return faults


def _check_shared(graph: Graph) -> list[str]:
    faults = []
    for node in graph.nodes:
        if node.weights is None:
            continue
        own, shared = (
            n.op.parameters(graph.input_shapes(n), graph.shapes[n.name])
            for n in (node, graph[node.weights])
        )
        if not shared:
            faults.append(
                f"{node.name!r} uses the weights of {node.weights!r}, but {node.op.kind} has none"
            )
        elif own != shared:
            faults.append(
                f"{node.name!r} needs tensors {dict(own)}, but {node.weights!r} has {dict(shared)}"
            )
    return faults
