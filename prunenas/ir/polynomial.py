"""Polynomials of width variables, which pose as numbers of channels while the ops' rules run."""

import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import final

import numpy as np
from numpy.typing import NDArray

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
        add(terms, other)
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


def add(terms: dict[Monomial, Factor], value: Polynomial | int) -> None:
    """Add a value to ``terms``, in place."""
    more = value.terms if isinstance(value, Polynomial) else {(): value}
    for monomial, factor in more.items():
        terms[monomial] = terms.get(monomial, 0) + factor


@final
class Terms:
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


def total(values: Iterable[Polynomial | int]) -> dict[Monomial, Factor]:
    """Return the terms of a sum."""
    terms: dict[Monomial, Factor] = {}
    for value in values:
        add(terms, value)
    return terms
