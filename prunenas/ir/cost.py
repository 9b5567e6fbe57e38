"""Parameters and multiply-accumulates, from the ops' own rules and nowhere else.

``params`` and ``macs`` are integers for one graph. ``CostModel`` is the same as polynomials of the
group widths: the ops' rules are evaluated once on polynomials instead of integers, and the result
on thousands of candidates at a time.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import cast, final

import numpy as np
from numpy.typing import NDArray

from prunenas.errors import GraphError
from prunenas.ir.coupling import ChannelGroups, GroupAxis, couple
from prunenas.ir.graph import Graph, once
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
    """Return multiply-accumulates of convolutions, linear layers and products for one image."""
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
Factor = int | Fraction


@final
class Polynomial:
    """A polynomial of width variables with rational coefficients.

    It stands in for an integer number of channels while the ops' rules run, so it offers the
    arithmetic that these rules use: addition, multiplication, exact division by an integer.
    """

    __slots__ = ("terms",)

    def __init__(self, terms: Mapping[Monomial, Factor]) -> None:
        self.terms = terms

    def __add__(self, other: "Polynomial | int") -> "Polynomial":
        terms = dict(self.terms)
        _add(terms, other)
        return Polynomial(terms)

    def __mul__(self, other: "Polynomial | int") -> "Polynomial":
        if isinstance(other, int):
            return Polynomial({m: factor * other for m, factor in self.terms.items()})
        if len(other.terms) == 1:
            # Different monomials times one monomial are different still.
            [(two, times)] = other.terms.items()
            return Polynomial(
                {_product(one, two): factor * times for one, factor in self.terms.items()}
            )
        if len(self.terms) == 1:
            return other * self
        terms: dict[Monomial, Factor] = {}
        for one, factor in self.terms.items():
            for two, other_factor in other.terms.items():
                monomial = _product(one, two)
                terms[monomial] = terms.get(monomial, 0) + factor * other_factor
        return Polynomial(terms)

    def __floordiv__(self, divisor: int) -> "Polynomial":
        if divisor == 1:
            return self
        # Exact for every legal width: the divisors of the groups see to it.
        return Polynomial({m: _divided(factor, divisor) for m, factor in self.terms.items()})

    __radd__ = __add__
    __rmul__ = __mul__


def _product(one: Monomial, two: Monomial) -> Monomial:
    if not one or not two:
        return one or two
    # Variables are kept in order, and one is nearly always behind all others.
    if one[-1] <= two[0]:
        return one + two
    return two + one if two[-1] <= one[0] else tuple(sorted(one + two))


def _divided(factor: Factor, divisor: int) -> Factor:
    whole, rest = divmod(factor, divisor)
    return whole if rest == 0 else Fraction(factor) / divisor


def _add(terms: dict[Monomial, Factor], value: Polynomial | int) -> None:
    more = value.terms if isinstance(value, Polynomial) else {(): value}
    for monomial, factor in more.items():
        terms[monomial] = terms.get(monomial, 0) + factor


@final
class _Terms:
    """The terms of one polynomial as arrays, by their degree."""

    def __init__(self, terms: Mapping[Monomial, Factor]) -> None:
        self.scale = math.lcm(1, *(factor.denominator for factor in terms.values()))
        by_degree: dict[int, list[Monomial]] = {}
        for monomial in terms:
            by_degree.setdefault(len(monomial), []).append(monomial)
        self.degrees = [
            (
                np.array(monomials, dtype=np.int64).reshape(len(monomials), degree),
                np.array([int(terms[m] * self.scale) for m in monomials], dtype=np.int64),
            )
            for degree, monomials in by_degree.items()
        ]

    def __call__(self, widths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the value for each candidate; ``widths`` is ``[candidates variables]``."""
        total = np.zeros(len(widths), dtype=np.int64)
        columns = np.ascontiguousarray(widths.T, dtype=np.int64)
        for variables, factors in self.degrees:
            if len(widths) < len(factors):
                # Few candidates: all terms at once. Integer products must not go through floats.
                product = factors[:, None]
                for place in range(variables.shape[1]):
                    product = product * columns[variables[:, place]]
                total += product.sum(axis=0)
                continue
            for monomial, factor in zip(variables.tolist(), factors.tolist(), strict=True):
                term = np.full(len(widths), factor, dtype=np.int64)
                for variable in monomial:
                    term *= columns[variable]
                total += term
        return total // self.scale


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
    params_terms: Mapping[Monomial, Factor]
    macs_terms: Mapping[Monomial, Factor]

    @staticmethod
    def of(graph: Graph) -> "CostModel":
        """Return the cost model of ``graph``, exact for every legal width assignment."""
        return _cost_model(graph)

    @cached_property
    def _params(self) -> _Terms:
        return _Terms(self.params_terms)

    @cached_property
    def _macs(self) -> _Terms:
        return _Terms(self.macs_terms)

    def params(self, widths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the parameters of each candidate; ``widths`` is ``[candidates groups]``."""
        self._check(widths)
        return self._params(widths)

    def macs(self, widths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the macs of each candidate; ``widths`` is ``[candidates groups]``."""
        self._check(widths)
        return self._macs(widths)

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
    params_terms: dict[Monomial, Factor] = {}
    macs_terms: dict[Monomial, Factor] = {}
    for cost in _node_costs(graph, _symbolic(graph, groups, widths)):
        _add(params_terms, cost.params)
        _add(macs_terms, cost.macs)
    return CostModel(groups=names, params_terms=params_terms, macs_terms=macs_terms)


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
