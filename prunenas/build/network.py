"""Network: a graph as a torch module. Nothing is cut open; nothing is inherited."""

import copy
from collections.abc import Collection, Iterator
from typing import Any, final

from torch import Tensor, nn

from prunenas.build.modules import make_module
from prunenas.errors import GraphError, ShapeError
from prunenas.ir.graph import Graph


@final
class Network(nn.Module):
    """Evaluates a graph, node by node.

    Each node's module is filed under the node's dotted name, so the state-dict keys are the
    graph's names. Make one with ``build``: the weights here are whatever torch left in them.

    Args:
        graph: What to compute.

    Raises:
        GraphError: A node's name is one that torch keeps for itself.
    """

    init_seed: int | None = None
    """Seed of the fresh weights, told by ``build``; None where they came from elsewhere."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        slots = {node.name: slot for slot, node in enumerate(graph.nodes)}
        last_read = {name: slots[node.name] for node in graph.nodes for name in node.inputs}
        self._steps = [
            (
                node.weights or node.name,
                [slots[name] for name in node.inputs],
                [slots[name] for name in {*node.inputs} if last_read[name] == slots[node.name]],
            )
            for node in graph.nodes
        ]
        self._output = slots[graph.output]
        self._modules_in_order: list[nn.Module] = []
        # Filed when all attributes are there, so that no node can take the name of one.
        for node in graph.nodes:
            if node.weights is None:
                module = make_module(node.op, graph.input_shapes(node), graph.shapes[node.name])
                _file(self, node.name, module)
        # Looking a dotted name up costs more than a small layer's arithmetic, so once is enough.
        self._modules_in_order = [self.get_submodule(name) for name, _, _ in self._steps]

    def forward(self, x: Tensor) -> Tensor:
        """Return the class scores ``[n classes]`` of images ``[n c h w]``.

        Raises:
            ShapeError: The images are not of the graph's input size.
        """
        self._check(x)
        values: list[Tensor | None] = [x]
        for module, (_, reads, done) in zip(
            self._modules_in_order[1:], self._steps[1:], strict=True
        ):
            values.append(module(*[values[slot] for slot in reads]))
            for slot in done:
                values[slot] = None
        result = values[self._output]
        assert result is not None
        return result

    def reads(self, x: Tensor, names: Collection[str]) -> Iterator[tuple[str, list[Tensor]]]:
        """Yield the nodes called ``names`` in order, each with the values that it reads.

        Nothing behind the last of them is computed, and no value is kept longer than ``forward``
        keeps it.

        Raises:
            ShapeError: The images are not of the graph's input size.
        """
        self._check(x)
        left = len({*names})
        values: list[Tensor | None] = [x]
        for node, module, (_, reads, done) in zip(
            self.graph.nodes[1:], self._modules_in_order[1:], self._steps[1:], strict=True
        ):
            read = [value for slot in reads if (value := values[slot]) is not None]
            if node.name in names:
                yield node.name, read
                left -= 1
            if not left:
                return
            values.append(module(*read))
            for slot in done:
                values[slot] = None

    def _check(self, x: Tensor) -> None:
        if tuple(x.shape[1:]) != self.graph.input_size:
            raise ShapeError(
                f"the network takes images {list(self.graph.input_size)}, got {list(x.shape[1:])}"
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> "Network":
        """Return a network with copied tensors; the graph is a value, so both have the same."""
        twin = Network.__new__(Network)
        memo |= {id(self): twin, id(self.graph): self.graph}
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin

    def with_synchronised_norms(self) -> "Network":
        """Return a network of the same tensors whose batch norms see all processes' images.

        Only CUDA can train it; weights and running statistics are this network's own.
        """
        tensors = [*self.parameters(), *self.buffers()]
        twin = copy.deepcopy(self, {id(tensor): tensor for tensor in tensors})
        nn.SyncBatchNorm.convert_sync_batchnorm(twin)  # type: ignore[no-untyped-call]
        twin._modules_in_order = [twin.get_submodule(name) for name, _, _ in twin._steps]
        return twin

    def node(self, name: str) -> nn.Module:
        """Return the module of the node called ``name``."""
        return self.get_submodule(self.graph[name].weights or name)

    def weight(self, name: str) -> Tensor:
        """Return the weight tensor of the node called ``name``, without gradient.

        Raises:
            GraphError: The node has none.
        """
        weight = getattr(self.node(name), "weight", None)
        if not isinstance(weight, Tensor):
            raise GraphError(f"{name} has no weight")
        return weight.detach()

    def scales(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield name and scale ``[c]`` of every batch norm."""
        for node in self.graph.nodes:
            if node.weights is not None:
                continue
            module = self.node(node.name)
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                yield node.name, module.weight


def _file(network: nn.Module, name: str, module: nn.Module) -> None:
    """Put ``module`` at the dotted ``name``, making plain modules on the way."""
    *above, last = name.split(".")
    place = network
    try:
        for part in above:
            if part not in place._modules:
                place.add_module(part, nn.Module())
            place = place.get_submodule(part)
        place.add_module(last, module)
    except KeyError:
        raise GraphError(f"{name!r} cannot name a node: torch uses that name itself") from None
