"""Least squares on rows that come batch by batch: the solution nearest to zero."""

from typing import final

import torch
from torch import Tensor

_SMALLEST = 1e-10
"""Eigenvalues of a Gram matrix, relative to the largest, that are taken for zero.

What comes from a network carries errors of 1e-7, so that directions this weak are noise.
"""


def nearest_solution(gram: Tensor, wanted: Tensor) -> Tensor:
    """Return the smallest ``x`` that minimises the squared error behind ``gram @ x = wanted``.

    Args:
        gram: Symmetric, no negative eigenvalues ``[n n]``; directions in which it is zero up to
            the error of its inputs are left at zero.
        wanted: ``[n ...]``.
    """
    values, vectors = torch.linalg.eigh(gram)
    strong = values > _SMALLEST * values[-1].clamp(min=torch.finfo(values.dtype).tiny)
    vectors = vectors[:, strong]
    solved: Tensor = vectors @ ((vectors.T @ wanted.reshape(len(gram), -1)) / values[strong, None])
    return solved.reshape(wanted.shape)


@final
class LeastSquares:
    """Sums up what a regression of many rows needs, and solves it.

    It keeps the products of every two columns, or all rows where these are fewer than the columns.

    Args:
        rows: How many will come.
        columns: How many each row has.
    """

    def __init__(self, *, rows: int, columns: int) -> None:
        self._tall = rows >= columns
        self._gram: Tensor | None = None
        self._product: Tensor | None = None
        self._rows: list[tuple[Tensor, Tensor]] = []
        self._energy = 0.0

    def add(self, design: Tensor, response: Tensor) -> None:
        """Take in some rows: ``[n columns]`` and ``[n outputs]``."""
        self._energy += float(response.square().sum())
        if not self._tall:
            self._rows.append((design, response))
            return
        gram, product = design.T @ design, design.T @ response
        self._gram = gram if self._gram is None else self._gram + gram
        self._product = product if self._product is None else self._product + product

    def solve(self) -> tuple[Tensor, float]:
        """Return the coefficients ``[columns outputs]``, and the summed squared error."""
        if self._gram is not None and self._product is not None:
            found = nearest_solution(self._gram, self._product)
            # The products of a solution with what it misses are zero.
            return found, max(0.0, self._energy - float((found * self._product).sum()))
        design, response = (torch.cat(parts) for parts in zip(*self._rows, strict=True))
        found = design.T @ nearest_solution(design @ design.T, response)
        return found, float((response - design @ found).square().sum())
