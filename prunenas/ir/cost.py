"""Parameters and multiply-accumulates, from the ops' own rules and nowhere else.

``params`` and ``macs`` are integers for one graph, and dense; ``nonzero_params`` and
``effective_macs`` are the same after masks. ``CostModel`` is all four as polynomials of the group
widths: the ops' rules are evaluated once on polynomials instead of integers, and the result on
thousands of candidates at a time.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import cast, final

import numpy as np
from numpy.typing import NDArray

from prunenas.errors import GraphError
from prunenas.ir.coupling import ChannelGroups, GroupAxis, couple
from prunenas.ir.graph import Graph, Node, once
from prunenas.ir.masks import kept_weights, sparsity_of
from prunenas.ir.ops import (
    Activation,
    BatchNorm,
    Conv2d,
    Depthwise2d,
    ExactMask,
    GlobalPool,
    Linear,
    Pool2d,
)
from prunenas.ir.polynomial import Factor, Monomial, Polynomial, Terms, total
from prunenas.ir.shape import Shape


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCost:
    """Cost of one node: trainable parameters, multiply-accumulates for one image.

    Args:
        name: The node.
        params: Dense.
        macs: Dense.
        nonzero_params: Parameters that no mask sets to zero.
        effective_macs: Multiply-accumulates with weights that no mask sets to zero. Inputs that an
            emptied filter in front makes zero are counted still.
    """

    name: str
    params: int
    macs: int
    nonzero_params: int
    effective_macs: int


def node_costs(graph: Graph) -> tuple[NodeCost, ...]:
    """Return the cost of each node, in topological order."""
    return _node_costs(graph, graph.shapes)


def _node_costs(
    graph: Graph, shapes: Mapping[str, Shape], share: "Share | None" = None
) -> tuple[NodeCost, ...]:
    """Return the costs of nodes; ``share`` tells what part of a sparse kernel is kept."""
    share = share or _kept_share
    costs = []
    for node in graph.nodes:
        inputs, out = [shapes[name] for name in node.inputs], shapes[node.name]
        tensors = node.op.parameters(inputs, out) if node.weights is None else {}
        params = sum(math.prod(shape) for shape in tensors.values())
        macs = effective = node.op.macs(inputs, out)
        nonzero = params
        if sparsity_of(node.op) is not None:
            kept, of = share(graph, node)
            # A mask keeps whole weights, and each weight works equally often: both are exact.
            effective = macs * kept // of
            if tensors:
                weight = math.prod(tensors["weight"])
                nonzero = params + weight * kept // of + weight * -1
        costs.append(
            NodeCost(
                name=node.name,
                params=params,
                macs=macs,
                nonzero_params=nonzero,
                effective_macs=effective,
            )
        )
    return tuple(costs)


Share = Callable[[Graph, Node], tuple[int, int]]


def _kept_share(graph: Graph, node: Node) -> tuple[int, int]:
    """Return how many weights of a sparse kernel are kept, and how many there are."""
    sparsity = sparsity_of(node.op)
    assert sparsity is not None, "only sparse kernels are asked for"
    owner = graph[node.weights or node.name]
    shape = owner.op.parameters(graph.input_shapes(owner), graph.shapes[owner.name])["weight"]
    return kept_weights(sparsity, shape, owner.name), math.prod(shape)


_SHARES = 2**16


def _expected_share(graph: Graph, node: Node) -> tuple[int, int]:
    """Return about what share of a sparse kernel is kept at any width, rounded up."""
    sparsity = sparsity_of(node.op)
    if isinstance(sparsity, ExactMask):
        return _kept_share(graph, node)
    assert sparsity is not None, "only sparse kernels are asked for"
    return math.ceil(sum(sparsity.density) / len(sparsity.density) * _SHARES - 1e-9), _SHARES


def params(graph: Graph) -> int:
    """Return the number of trainable parameters."""
    return sum(cost.params for cost in node_costs(graph))


def macs(graph: Graph) -> int:
    """Return multiply-accumulates of convolutions, linear layers and products for one image."""
    return sum(cost.macs for cost in node_costs(graph))


def nonzero_params(graph: Graph) -> int:
    """Return the number of trainable parameters that no mask sets to zero."""
    return sum(cost.nonzero_params for cost in node_costs(graph))


def effective_macs(graph: Graph) -> int:
    """Return the multiply-accumulates for one image with weights that no mask sets to zero."""
    return sum(cost.effective_macs for cost in node_costs(graph))


def is_sparse(graph: Graph) -> bool:
    """Return whether some kernel of ``graph`` is under a mask."""
    return any(sparsity_of(node.op) is not None for node in graph.nodes)


def repo_flops(graph: Graph) -> int:
    """Return what the FLOPs counter in the released code of Liu et al. counts for one image.

    Two for each multiply-accumulate with a weight that no mask sets to zero, one for each bias
    addition, two for each element that enters an image's batch norm, one for each ReLU element,
    the kernel's area for each pooled element.
    Additions, concatenations and vector batch norms are free. The released CIFAR VGGs, DenseNets
    and VGG-GAP call some poolings as functions, which their counter does not see; here they are
    counted like every other (3e-6 of VGG-16, 4e-4 of DenseNet-40).

    Source: Eric-mingjie/rethinking-network-pruning, ``compute_flops.py``.
    """
    total = 2 * effective_macs(graph)
    for node in graph.nodes:
        inputs, out = graph.input_shapes(node), graph.shapes[node.name]
        op = node.op
        if isinstance(op, Conv2d | Depthwise2d | Linear):
            total += out.numel if op.bias else 0
        elif isinstance(op, BatchNorm):
            total += 2 * out.numel if out.spatial else 0
        elif isinstance(op, Activation):
            total += out.numel
        elif isinstance(op, Pool2d):
            total += math.prod(op.kernel) * out.numel
        elif isinstance(op, GlobalPool):
            total += inputs[0].numel
    return total


@final
@dataclass(frozen=True, kw_only=True)
class CostModel:
    """Costs of a graph as functions of the widths of its free groups.

    Args:
        groups: Names of the free groups: the order of the columns of ``widths``.
        params_terms: Monomials of the parameters.
        macs_terms: Monomials of the multiply-accumulates.
        nonzero_terms: Monomials of the parameters under no mask. The share that a drawn mask keeps
            is the expected one, rounded up to a 65536th: masks are drawn when widths are known.
        effective_terms: Monomials of the multiply-accumulates with such weights.
    """

    groups: tuple[str, ...]
    params_terms: Mapping[Monomial, Factor]
    macs_terms: Mapping[Monomial, Factor]
    nonzero_terms: Mapping[Monomial, Factor]
    effective_terms: Mapping[Monomial, Factor]

    @staticmethod
    def of(graph: Graph) -> "CostModel":
        """Return the cost model of ``graph``, exact for every legal width assignment."""
        return _cost_model(graph)

    @cached_property
    def _params(self) -> Terms:
        return Terms(self.params_terms)

    @cached_property
    def _macs(self) -> Terms:
        return Terms(self.macs_terms)

    def params(self, widths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the parameters of each candidate; ``widths`` is ``[candidates groups]``."""
        self._check(widths)
        return self._params(widths)

    def macs(self, widths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the macs of each candidate; ``widths`` is ``[candidates groups]``."""
        self._check(widths)
        return self._macs(widths)

    @cached_property
    def _nonzero(self) -> Terms:
        return Terms(self.nonzero_terms)

    @cached_property
    def _effective(self) -> Terms:
        return Terms(self.effective_terms)

    def nonzero_params(self, widths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the expected parameters after masks; ``widths`` is ``[candidates groups]``."""
        self._check(widths)
        return self._nonzero(widths)

    def effective_macs(self, widths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the expected macs after masks; ``widths`` is ``[candidates groups]``."""
        self._check(widths)
        return self._effective(widths)

    def _check(self, widths: NDArray[np.int64]) -> None:
        if widths.ndim != 2 or widths.shape[1] != len(self.groups):
            raise GraphError(
                f"widths are [candidates groups] with {len(self.groups)} groups, "
                f"got {list(widths.shape)}"
            )


@once
def _cost_model(graph: Graph) -> CostModel:
    groups = couple(graph)
    names = tuple(group.name for group in groups.free)
    widths: dict[str, Monomial | int] = {group.name: group.width for group in groups}
    widths |= {name: (i,) for i, name in enumerate(names)}
    costs = _node_costs(graph, _symbolic(graph, groups, widths), _expected_share)
    params = total(cost.params for cost in costs)
    macs = total(cost.macs for cost in costs)
    sparse = is_sparse(graph)
    return CostModel(
        groups=names,
        params_terms=params,
        macs_terms=macs,
        nonzero_terms=total(cost.nonzero_params for cost in costs) if sparse else params,
        effective_terms=total(cost.effective_macs for cost in costs) if sparse else macs,
    )


def _symbolic(
    graph: Graph, groups: ChannelGroups, widths: Mapping[str, Monomial | int]
) -> dict[str, Shape]:
    # A Polynomial has the arithmetic that the rules use on sizes, so it may pose as an int.
    known: dict[int, Polynomial | int] = {}
    shapes = {}
    for name, shape in graph.shapes.items():
        sizes = []
        for axis in groups.dims[name]:
            if id(axis) not in known:
                known[id(axis)] = _size(axis, widths)
            sizes.append(cast(int, known[id(axis)]))
        shapes[name] = Shape.from_sizes(tuple(sizes), batched=shape.lead is not None)
    return shapes


def _size(axis: GroupAxis, widths: Mapping[str, Monomial | int]) -> Polynomial | int:
    terms: dict[Monomial, Factor] = {}
    for segment in axis:
        factor = 1
        monomial: Monomial = ()
        for part in segment.factors:
            value = part if isinstance(part, int) else widths[part]
            if isinstance(value, int):
                factor *= value
            else:
                monomial += value
        monomial = tuple(sorted(monomial))
        terms[monomial] = terms.get(monomial, 0) + factor
    return int(terms[()]) if {*terms} == {()} else Polynomial(terms)
