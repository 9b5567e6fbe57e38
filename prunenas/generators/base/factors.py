"""Factors on channels or branches that stand beside a network: multiplied in, and folded away.

They are no part of the network: hooks multiply them in while it trains, and folding puts them into
the weights, so that it computes the same without them.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from prunenas.build.network import Network
from prunenas.ir.blocks import Block, blocks
from prunenas.ir.coupling import ChannelGroup, ChannelGroups, channel_places, couple
from prunenas.ir.graph import Graph, Node
from prunenas.ir.ops import (
    Activation,
    Add,
    Arithmetic,
    BatchNorm,
    Concat,
    Conv1d,
    Conv2d,
    Convolve,
    Depthwise2d,
    Dropout,
    DropPath,
    Flatten,
    Gate,
    GlobalPool,
    GroupNorm,
    Join,
    LayerNorm,
    LeakyRelu,
    Linear,
    Permute,
    Pool2d,
    Reshape,
    Resize,
    RmsNorm,
    Select,
    Shuffle,
)

_MIXING = (Conv2d, Conv1d, Linear, Convolve)
"""Ops that read channels and make others of them."""

_CARRIERS = (Conv2d, Conv1d, Depthwise2d, Linear, BatchNorm, GroupNorm, LayerNorm, RmsNorm)
"""Ops whose tensors can take a factor on their output, channel by channel."""

_HOMOGENEOUS = (
    Add,
    Concat,
    Dropout,
    DropPath,
    Flatten,
    GlobalPool,
    Join,
    LeakyRelu,
    Permute,
    Pool2d,
    Reshape,
    Resize,
    Select,
    Shuffle,
)
"""Ops that pass a factor from 0 on through: f(a x) = a f(x)."""


@dataclass(frozen=True, kw_only=True)
class Factors(ABC):
    """Where factors stand.

    Args:
        sizes: Number of factors by name.
        left_alone: Why others carry none, by name.
    """

    sizes: Mapping[str, int]
    left_alone: Mapping[str, str]

    def ones(self, network: Network) -> dict[str, Tensor]:
        """Return factors of one ``[size]`` by name, where the network lies, with gradient."""
        device = next(network.parameters()).device
        return {
            name: torch.ones(size, device=device, requires_grad=True)
            for name, size in self.sizes.items()
        }

    @contextmanager
    def attached(self, network: Network, values: Mapping[str, Tensor]) -> Iterator[None]:
        """Let ``network`` multiply ``values`` in, until the block is left, however it is left."""
        handles = self._attach(network, values)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @abstractmethod
    def _attach(self, network: Network, values: Mapping[str, Tensor]) -> list[RemovableHandle]: ...

    @abstractmethod
    def fold(self, network: Network, values: Mapping[str, Tensor]) -> None:
        """Multiply ``values`` into the weights of ``network``, in place."""


@final
@dataclass(frozen=True, kw_only=True)
class BlockFactors(Factors):
    """One factor for each removable residual block, on its branch before the addition.

    Args:
        branches: Which input of the block's addition the branch is.
        ends: The layers that the branch's factor is folded into.
    """

    branches: Mapping[str, int]
    ends: Mapping[str, tuple[str, ...]]

    @staticmethod
    def of(graph: Graph) -> "BlockFactors":
        """Return the factors of ``graph``; blocks that could not be folded have none."""
        branches, ends, alone = {}, {}, {}
        for block in blocks(graph):
            found = _branch_ends(graph, block)
            if isinstance(found, str):
                alone[block.name] = found
                continue
            inputs = graph[block.name].inputs
            branches[block.name] = next(i for i, name in enumerate(inputs) if name in block.branch)
            ends[block.name] = found
        return BlockFactors(
            sizes=dict.fromkeys(branches, 1), left_alone=alone, branches=branches, ends=ends
        )

    def _attach(self, network: Network, values: Mapping[str, Tensor]) -> list[RemovableHandle]:
        def scaled(name: str) -> RemovableHandle:
            place, value = self.branches[name], values[name]

            def multiply(_: nn.Module, read: tuple[Any, ...]) -> tuple[Any, ...]:
                branch: Tensor = read[place]
                return (*read[:place], branch * value.to(branch.dtype), *read[place + 1 :])

            return network.node(name).register_forward_pre_hook(multiply)

        return [scaled(name) for name in self.sizes]

    @torch.no_grad()
    def fold(self, network: Network, values: Mapping[str, Tensor]) -> None:
        """Multiply each factor into the last layers of its branch."""
        for name, layers in self.ends.items():
            for layer in layers:
                for tensor in network.node(layer).parameters(recurse=False):
                    tensor.mul_(values[name])


def _branch_ends(graph: Graph, block: Block) -> tuple[str, ...] | str:
    """Return the layers that a factor on the branch can be folded into, or why it cannot be."""
    branch = {*block.branch}
    passed, ends = {block.name}, {}
    waiting = [name for name in graph[block.name].inputs if name in branch]
    # Last first, so that all readers of a node have been passed when it is met.
    for node in reversed(graph.nodes):
        if node.name not in waiting:
            continue
        if node.name not in branch:
            return f"{node.name} stands outside of the branch"
        if any(reader.name not in passed for reader in graph.readers[node.name]):
            return f"{node.name} is read elsewhere too"
        if _carries(node):
            ends[node.name] = node.weights or node.name
            continue
        if not _passes_on(node):
            return f"its factor cannot pass through {node.op.kind} at {node.name}"
        passed.add(node.name)
        waiting += node.inputs[:1] if isinstance(node.op, Gate) else node.inputs
    owners = {*ends.values()}
    shared = [n.name for n in graph.nodes if (n.weights or n.name) in owners and n.name not in ends]
    if shared:
        return f"{', '.join(shared)} has the weights of the branch's last layer"
    return tuple(sorted(owners))


def _carries(node: Node) -> bool:
    if isinstance(node.op, LayerNorm):
        return node.op.scale and node.op.dims == 1
    return isinstance(node.op, _CARRIERS) and getattr(node.op, "scale", True) is True


def _passes_on(node: Node) -> bool:
    if isinstance(node.op, Activation):
        return node.op.function in ("relu", "leaky_relu", "abs")
    return isinstance(node.op, (*_HOMOGENEOUS, Gate))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where the factors of one name stand on the output of one layer: ``[factors places]``."""

    name: str
    places: NDArray[np.int64]


@final
@dataclass(frozen=True, kw_only=True)
class ChannelFactors(Factors):
    """One factor for each channel of each free group, shared by all its members; or for several.

    A factor stands where its channel is last scaled before other layers read it: behind the batch
    norm that follows a convolution, behind the convolution where none does. Earlier, a batch norm
    would undo it.

    Args:
        layers: What stands on the output of which layer.
        channel: The dimension of each such output that holds the channels, and their number.
    """

    layers: Mapping[str, Sequence[_Place]]
    channel: Mapping[str, tuple[int, int]]

    @staticmethod
    def of(graph: Graph) -> "ChannelFactors":
        """Return the factors of ``graph``; groups that no layer can scale have none."""
        groups = couple(graph)
        found = {group.name: carriers(graph, groups, group) for group in groups.free}
        return ChannelFactors.at(
            graph,
            {name: layers for name, layers in found.items() if not isinstance(layers, str)},
            {name: reason for name, reason in found.items() if isinstance(reason, str)},
        )

    @staticmethod
    def at(
        graph: Graph,
        standing: Mapping[str, Mapping[str, NDArray[np.int64]]],
        left_alone: Mapping[str, str],
    ) -> "ChannelFactors":
        """Return factors that stand at given places.

        Args:
            graph: The reference.
            standing: By name, and by layer, the places on its output of each factor,
                ``[factors places]``.
            left_alone: Why others carry none, by name.
        """
        layers: dict[str, list[_Place]] = {}
        sizes = {}
        for name, found in standing.items():
            for layer, places in found.items():
                sizes[name] = len(places)
                layers.setdefault(layer, []).append(_Place(name=name, places=places))
        channel = {
            layer: (graph[layer].op.channel, graph.shapes[layer].sizes[graph[layer].op.channel])
            for layer in layers
        }
        return ChannelFactors(sizes=sizes, left_alone=left_alone, layers=layers, channel=channel)

    def _attach(self, network: Network, values: Mapping[str, Tensor]) -> list[RemovableHandle]:
        def scaled(layer: str) -> RemovableHandle:
            dim, places = self.channel[layer][0], self._indices(layer, values)

            def multiply(_: nn.Module, __: Any, out: Tensor) -> Tensor:
                shape = [1] * out.dim()
                shape[dim] = -1
                return out * self._row(places, values).to(out.dtype).view(shape)

            return network.node(layer).register_forward_hook(multiply)

        return [scaled(layer) for layer in self.layers]

    @torch.no_grad()
    def fold(self, network: Network, values: Mapping[str, Tensor]) -> None:
        """Multiply the factors into the layers' outputs: scales and shifts, filters and biases."""
        for layer in self.layers:
            row = self._row(self._indices(layer, values), values)
            for tensor in network.node(layer).parameters(recurse=False):
                tensor.mul_(row.to(tensor.dtype).view(-1, *[1] * (tensor.dim() - 1)))

    def _indices(self, layer: str, values: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
        """Return by name the factor of every output ``[c]``; one more where it has none."""
        found = []
        for place in self.layers[layer]:
            index = np.full(self.channel[layer][1], self.sizes[place.name], dtype=np.int64)
            index[place.places] = np.arange(self.sizes[place.name])[:, None]
            found.append((place.name, torch.from_numpy(index).to(values[place.name].device)))
        return found

    def _row(self, indices: Sequence[tuple[str, Tensor]], values: Mapping[str, Tensor]) -> Tensor:
        """Return the factor of every output ``[c]``, differentiable."""
        rows = [torch.cat([values[name], values[name].new_ones(1)])[i] for name, i in indices]
        return torch.stack(rows).prod(dim=0)


def carriers(
    graph: Graph, groups: ChannelGroups, group: ChannelGroup
) -> dict[str, NDArray[np.int64]] | str:
    """Return the layers that scale a group's channels last, with the places of these channels.

    The places are ``[width places]`` on a layer's output. Where there is no such layer: why.
    """
    return _Carriers(graph, groups, group).find()


@final
class _Carriers:
    """Finds the layers that scale a group's channels last, from those that read them backwards."""

    def __init__(self, graph: Graph, groups: ChannelGroups, group: ChannelGroup) -> None:
        self.graph, self.groups, self.group = graph, groups, group
        self.found: dict[str, NDArray[np.int64]] = {}

    def find(self) -> dict[str, NDArray[np.int64]] | str:
        """Return the layers with the places of the channels on their outputs, or why none."""
        waiting = []
        for node in self.graph.nodes:
            read = [name for name in node.inputs if self._has(name)]
            if read and isinstance(node.op, Select):
                return f"the selection {node.name} decides which of its channels are read"
            if isinstance(node.op, _MIXING) or not self._has(node.name):
                waiting += read
        seen: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            further = self._behind(self.graph[name])
            if isinstance(further, str):
                return further
            waiting += further
        return self.found or "no layer reads it"

    def _behind(self, node: Node) -> list[str] | str:
        """Return where the channels of a value come from: nothing more to find, values, or why."""
        if isinstance(node.op, Select):
            return self._behind_selection(node, node.op)
        own = [
            places
            for name, places in channel_places(self.groups.axes[node.name], self.groups.widths)
            if name == self.group.name
        ]
        if own and _carries(node):
            self._add(node, np.concatenate(own, axis=1))
            return []
        read = [name for name in node.inputs if self._has(name)]
        if not read or isinstance(node.op, _MIXING):
            return f"{node.op.kind} at {node.name} cannot carry a factor"
        # Of a product one side carries the factor, both would square it: the image, not its gate.
        if isinstance(node.op, Gate):
            return read[:1]
        if isinstance(node.op, Arithmetic) and node.op.function == "multiply":
            return [max(read, key=lambda name: self.graph.shapes[name].numel)]
        return read

    def _behind_selection(self, node: Node, op: Select) -> list[str] | str:
        source = self.graph[node.inputs[0]]
        if not _carries(source) or len(self.graph.readers[source.name]) > 1:
            return f"the selection {node.name} does not follow a layer of its own"
        self._add(source, np.array(op.indices, dtype=np.int64)[:, None])
        return []

    def _add(self, node: Node, places: NDArray[np.int64]) -> None:
        self.found[node.weights or node.name] = places

    def _has(self, name: str) -> bool:
        """Return whether a value is made of the group's channels."""
        return any(
            self.group.name in segment.groups for axis in self.groups.dims[name] for segment in axis
        )
