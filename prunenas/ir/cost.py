"""Parameters and multiply-accumulates, from the ops' own rules and nowhere else.

``params`` and ``macs`` are integers for one graph. ``CostModel`` is the same as polynomials of the
group widths: the ops' rules are evaluated once on polynomials instead of integers, and the result
on thousands of candidates at a time.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import cast, final

import numpy as np
from numpy.typing import NDArray

from prunenas.errors import GraphError
from prunenas.ir.coupling import ChannelGroups, GroupAxis, couple
from prunenas.ir.graph import Graph
from prunenas.ir.ops import Activation, BatchNorm, Conv2d, Depthwise2d, GlobalPool, Linear, Pool2d
from prunenas.ir.shape import Shape


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCost:
    """Cost of one node: trainable parameters, multiply-accumulates for one image."""

    name: str
    params: int
    macs: int


def node_costs(graph: Graph) -> tuple[NodeCost, ...]:
    """Return the cost of each node, in topological order."""
    return _node_costs(graph, graph.shapes)


def _node_costs(graph: Graph, shapes: Mapping[str, Shape]) -> tuple[NodeCost, ...]:
    costs = []
    for node in graph.nodes:
        inputs, out = [shapes[name] for name in node.inputs], shapes[node.name]
        tensors = node.op.parameters(inputs, out) if node.weights is None else {}
        params = sum(math.prod(shape) for shape in tensors.values())
        costs.append(NodeCost(name=node.name, params=params, macs=node.op.macs(inputs, out)))
    return tuple(costs)


def params(graph: Graph) -> int:
    """Return the number of trainable parameters."""
    return sum(cost.params for cost in node_costs(graph))


def macs(graph: Graph) -> int:
    """Return multiply-accumulates of convolutions and linear layers for one image."""
    return sum(cost.macs for cost in node_costs(graph))


def repo_flops(graph: Graph) -> int:
    """Return what the FLOPs counter in the released code of Liu et al. counts for one image.

    Two for each multiply-accumulate, one for each bias addition, two for each element that enters
    an image's batch norm, one for each ReLU element, the kernel's area for each pooled element.
    Additions, concatenations and vector batch norms are free. The released CIFAR VGGs, DenseNets
    and VGG-GAP call some poolings as functions, which their counter does not see; here they are
    counted like every other (3e-6 of VGG-16, 4e-4 of DenseNet-40).

    Source: Eric-mingjie/rethinking-network-pruning, ``compute_flops.py``.
    """
    total = 0
    for node in graph.nodes:
        inputs, out = graph.input_shapes(node), graph.shapes[node.name]
        op = node.op
        total += 2 * op.macs(inputs, out)
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


Monomial = tuple[int, ...]


@final
class Polynomial:
    """A polynomial of width variables with rational coefficients.

    It stands in for an integer number of channels while the ops' rules run, so it offers the
    arithmetic that these rules use: addition, multiplication, exact division by an integer.
    """

    __slots__ = ("terms",)

    def __init__(self, terms: Mapping[Monomial, Fraction]) -> None:
        self.terms = terms

    def __add__(self, other: "Polynomial | int") -> "Polynomial":
        terms = dict(self.terms)
        for monomial, factor in _terms(other).items():
            terms[monomial] = terms.get(monomial, Fraction(0)) + factor
        return Polynomial(terms)

    def __mul__(self, other: "Polynomial | int") -> "Polynomial":
        terms: dict[Monomial, Fraction] = {}
        for one, factor in self.terms.items():
            for two, other_factor in _terms(other).items():
                monomial = tuple(sorted(one + two))
                terms[monomial] = terms.get(monomial, Fraction(0)) + factor * other_factor
        return Polynomial(terms)

    def __floordiv__(self, divisor: int) -> "Polynomial":
        # Exact for every legal width: the divisors of the groups see to it.
        return Polynomial({m: factor / divisor for m, factor in self.terms.items()})

    __radd__ = __add__
    __rmul__ = __mul__


def _terms(value: Polynomial | int) -> Mapping[Monomial, Fraction]:
    return value.terms if isinstance(value, Polynomial) else {(): Fraction(value)}


@final
@dataclass(frozen=True, kw_only=True)
class CostModel:
    """Costs of a graph as functions of the widths of its free groups.

    Args:
        groups: Names of the free groups: the order of the columns of ``widths``.
        params_terms: Monomials of the parameters.
        macs_terms: Monomials of the multiply-accumulates.
    """

    groups: tuple[str, ...]
    params_terms: Mapping[Monomial, Fraction]
    macs_terms: Mapping[Monomial, Fraction]

    @staticmethod
    def of(graph: Graph) -> "CostModel":
        """Return the cost model of ``graph``, exact for every legal width assignment."""
        groups = couple(graph)
        names = tuple(group.name for group in groups.free)
        widths: dict[str, Polynomial | int] = dict(groups.widths)
        widths |= {name: Polynomial({(i,): Fraction(1)}) for i, name in enumerate(names)}
        costs = _node_costs(graph, _symbolic(graph, groups, widths))
        return CostModel(
            groups=names,
            params_terms=_terms(sum(cost.params for cost in costs)),
            macs_terms=_terms(sum(cost.macs for cost in costs)),
        )

    def params(self, widths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the parameters of each candidate; ``widths`` is ``[candidates groups]``."""
        return self._evaluate(self.params_terms, widths)

    def macs(self, widths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the macs of each candidate; ``widths`` is ``[candidates groups]``."""
        return self._evaluate(self.macs_terms, widths)

    def _evaluate(
        self, terms: Mapping[Monomial, Fraction], widths: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        if widths.ndim != 2 or widths.shape[1] != len(self.groups):
            raise GraphError(
                f"widths are [candidates groups] with {len(self.groups)} groups, "
                f"got {list(widths.shape)}"
            )
        columns = np.ascontiguousarray(widths.T, dtype=np.int64)
        scale = math.lcm(1, *(factor.denominator for factor in terms.values()))
        total = np.zeros(len(widths), dtype=np.int64)
        for monomial, factor in terms.items():
            term = np.full(len(widths), int(factor * scale), dtype=np.int64)
            for variable in monomial:
                term *= columns[variable]
            total += term
        return total // scale


def _symbolic(
    graph: Graph, groups: ChannelGroups, widths: Mapping[str, Polynomial | int]
) -> dict[str, Shape]:
    # A Polynomial has the arithmetic that the rules use on channels, so it may pose as an int.
    return {
        node.name: Shape(
            cast(int, _channels(groups.axes[node.name], widths)), graph.shapes[node.name].spatial
        )
        for node in graph.nodes
    }


def _channels(axis: GroupAxis, widths: Mapping[str, Polynomial | int]) -> Polynomial | int:
    terms: Sequence[Polynomial | int] = [widths[s.group] * s.repeat for s in axis]
    return sum(terms[1:], start=terms[0])
