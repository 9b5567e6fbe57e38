"""Regression: LASSO picks the channels that a layer reads, least squares refits the layer."""

import math
import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunenas.arch.allocate import best
from prunenas.build.modules import Masked
from prunenas.build.network import Network
from prunenas.build.silence import silence
from prunenas.errors import MethodError
from prunenas.generators.base import GENERATORS, Generator, Proposal, Subject, need
from prunenas.generators.base.least_squares import LeastSquares
from prunenas.generators.base.readers import WHOLE, Plan, Whole, lost, plan, tied_by_place
from prunenas.generators.base.refit import add_to_layer, intercept_taker, pieces_of
from prunenas.generators.base.responses import (
    bias,
    dense_kernel,
    every_contribution,
    locations,
    sampled,
    scored_images,
    silence_the_rest,
)

_LAST = 2.0**-20
"""The smallest penalty, over the one at which nothing survives."""

_ROUNDING = 1e-9
"""Coefficients below it, over the largest, are zero but for rounding."""

_BISECTIONS = 40
"""Bisection steps: enough to tell apart penalties that differ in single precision."""


def lasso_scores(
    gram: NDArray[np.float64], product: NDArray[np.float64], rank: int, *, slack: float = 1.1
) -> NDArray[np.float64]:
    """Return a score of each channel ``[width]``: those that LASSO leaves come first.

    The penalty is halved from where nothing survives until at least ``rank`` channels do, then
    bisected until their number lies in ``[rank, slack * rank]``. The released code doubles from
    below, to the same two penalties; from above, of channels that are equal only one comes in.
    Survivors score 1 and more, by the size of their coefficients; the others less than 1, by their
    product with what the survivors miss.

    Args:
        gram: Products of every two channels' contributions ``[width width]``.
        product: Of each channel's contributions with the response ``[width]``.
        rank: How many channels are to be kept.
        slack: How many more may survive, as a factor.

    Source: He et al. 2017, arXiv:1707.06168, section 3.1; the search as in the released code.
    """
    # Imported here: it takes a second, and listing the methods must not. The first import draws
    # from Python's global generator, which is given back as it was.
    state = random.getstate()
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import Lasso

    random.setstate(state)

    # At this penalty, and above, all coefficients are zero.
    most = float(np.abs(product).max(initial=0.0))
    if most == 0:
        return np.zeros(len(gram))
    design, response = _reduced(gram, product)
    # Nothing is drawn, but without a state the solver moves numpy's global one.
    solver = Lasso(fit_intercept=False, warm_start=True, max_iter=2000, tol=1e-6, random_state=0)

    def coefficients(penalty: float, start: NDArray[np.float64]) -> NDArray[np.float64]:
        # The library's penalty is on the mean over rows, ours on the sum.
        solver.set_params(alpha=penalty * most / len(design))
        solver.coef_ = start.copy()
        found: NDArray[np.float64] = solver.fit(design, response).coef_
        # Of equal columns the second enters with what rounding leaves to it.
        found[np.abs(found) <= _ROUNDING * np.abs(found).max()] = 0.0
        return found.copy()

    low = high = 1.0
    few = enough = np.zeros(len(gram))
    with warnings.catch_warnings():
        # Weak penalties on columns that nearly depend on one another converge slowly; a rough
        # solution serves, as survivors are all that is asked for.
        warnings.simplefilter("ignore", ConvergenceWarning)
        while low > _LAST and np.count_nonzero(enough) < rank:
            few, high, low = enough, low, low / 2
            enough = coefficients(low, few)
        for _ in range(_BISECTIONS):
            if np.count_nonzero(enough) <= slack * rank:
                break
            middle = (low + high) / 2
            found = coefficients(middle, few)
            if np.count_nonzero(found) >= rank:
                enough, low = found, middle
            else:
                few, high = found, middle
    size, missed = np.abs(enough), np.abs(product - gram @ enough)
    rest = missed / (1.001 * most + missed.max())
    scores: NDArray[np.float64] = np.where(size > 0, 1 + size / max(size.max(), 1e-300), rest)
    return scores


def _reduced(
    gram: NDArray[np.float64], product: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a design ``[width width]`` and a response with these products.

    LASSO sees nothing else of either, so that this one has the solutions of the long one.
    """
    values, vectors = np.linalg.eigh(gram)
    strong = values > 1e-14 * max(float(values[-1]), 1e-300)
    roots = np.sqrt(np.where(strong, values, 1.0)) * strong
    rotated = vectors.T @ product
    response = np.divide(rotated, roots, out=np.zeros_like(rotated), where=strong)
    return np.asfortranarray(roots[:, None] * vectors.T), response


@GENERATORS.register("regression")
@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Regression(Generator):
    """Keep the channels from which a layer's original responses can be computed best.

    Layers are taken in forward order. Their inputs come from the network that is pruned so far,
    their targets from the original one, at the same drawn locations of the same images. With the
    first layer that reads a group LASSO regresses the responses on what each channel contributes
    to them: the penalty grows until about as many coefficients are left as channels are wanted,
    ``int(w * keep)`` of ``w``, at least the divisor; the largest stay. Then ordinary least squares
    refits the layer's kernel and bias on all that is left of its input.

    Channel selections are cut like all groups, as seen from the layer behind: so the first layer
    of a pre-activation block samples its shared input, and the trunk stays. Where several layers
    read a group, the responses of all of them count, each divided by the root of its mean square.
    A layer without bias is fitted without intercept, unless one batch norm alone reads it: that
    takes the intercept into its running mean. Groups that no convolution or linear layer reads are
    left alone and listed in ``found``; so are layers whose kernel has a mask, which are not
    refitted. Where least squares leaves weights open, they stay nearest to what they were. Behind
    a shortcut that appends channels the wider group keeps, of those that the shortcut reaches, what
    the narrower one keeps.

    LASSO and least squares follow each other once. The source also lets the last layer of a
    residual branch make good the shortcut's error; that is not done here.

    Args:
        images: Images to sample, of the training images less the validation part; all if there
            are fewer.
        locations: Locations of each image and layer; all of them where there are no more.
        lasso_samples: Largest number of samples that LASSO sees, with all outputs of each; no
            more than one in twenty, as in the released code.
        slack: How many times the wanted channels LASSO may leave before the largest are taken.
        refit: Whether least squares refits kernels and biases.
        whole: Which groups stay whole. ``selected``: those that channel selections choose from,
            whose selections are cut instead. ``joined``: also those that additions join, as the
            source leaves the outputs and shortcuts of residual blocks. ``none``: none.

    Source: He et al. 2017, arXiv:1707.06168, section 3; 5,000 images of 10 locations as there.
    """

    reads: ClassVar[bool] = True

    images: int = 5000
    locations: int = 10
    lasso_samples: int = 400
    slack: float = 1.1
    refit: bool = True
    whole: Whole = "selected"

    def __post_init__(self) -> None:
        need(
            "regression",
            images=(self.images, self.images >= 1, "is at least 1"),
            locations=(self.locations, self.locations >= 1, "is at least 1"),
            lasso_samples=(self.lasso_samples, self.lasso_samples >= 1, "is at least 1"),
            slack=(self.slack, 1 <= self.slack < math.inf, "is at least 1 and finite"),
            whole=(self.whole, self.whole in WHOLE, f"is one of {', '.join(WHOLE)}"),
        )

    def propose(self, subject: Subject) -> Proposal:
        """Return the kept channels of every group that dense layers read."""
        graph, groups = subject.graph, subject.groups
        planned = plan(graph, groups, subject.keep, self.whole)
        if not planned.readers:
            told = "; ".join(f"{name}: {reason}" for name, reason in planned.left_alone.items())
            raise MethodError(f"regression has nothing to prune: {told}")
        original, working = subject.copy(), subject.copy()
        gone: dict[str, tuple[int, ...]] = {}
        selections, scores, errors, unfitted = {}, {}, {}, {}
        for layer, decided in planned.turns(graph):
            for name in decided:
                tied = tied_by_place(graph, groups, name, gone)
                gram, product = self._look(subject, original, working, planned, name)
                scores[name] = self._scores(gram, product, planned, name, tied)
                selections[name] = _kept(scores[name], planned.counts[name], groups[name].divisor)
                removed = tuple(sorted({*range(groups[name].width)} - {*selections[name]}))
                gone = lost(graph, groups, {**gone, name: removed})
                silence(working, groups, gone)
            if not self.refit:
                continue
            if isinstance(working.node(layer), Masked):
                unfitted[layer] = "its kernel has a mask"
            else:
                calls = planned.calls(layer)
                errors[layer] = self._refit(subject, original, working, layer, calls, gone)
        proposal = Proposal(
            selections=selections,
            scores=scores,
            kept_best=planned.kept_best,
            found={
                "left_alone": dict(planned.left_alone),
                "not_refitted": unfitted,
                "errors": errors,
            },
            refit=working if self.refit else None,
        )
        silence_the_rest(graph, groups, proposal, working)
        return proposal

    def _look(
        self, subject: Subject, original: Network, working: Network, planned: Plan, name: str
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return what LASSO sees of a group: products of contributions, and with the response."""
        graph, width = subject.graph, subject.groups[name].width
        readers = {reader.node: reader for reader in planned.readers[name]}
        count, each = self._few(scored_images(subject, self.images))
        where = {
            node: locations(graph, node, count, each, seed=subject.seed, distinct=True)
            for node in readers
        }
        found: dict[str, tuple[Tensor, Tensor, float]] = {}
        networks = (original, working)
        for node, (before, now), _ in sampled(subject, networks, where, count):
            layer, owners = readers[node].layer, readers[node].owners
            kernel = dense_kernel(working, layer)
            target = before.flatten(1) @ dense_kernel(original, layer).flatten(1).T
            target += bias(original, layer) - bias(working, layer)
            for some, every in every_contribution(now, kernel, owners, width):
                mine = every[..., :-1].reshape(-1, width)
                # What other groups contribute is there anyway.
                wanted = (target[some] - every[..., -1]).reshape(-1)
                gram, product, energy = found.get(node, (0.0, 0.0, 0.0))
                energy += float(target[some].square().sum())
                found[node] = (gram + mine.T @ mine, product + mine.T @ wanted, energy)
        total, products = np.zeros((width, width)), np.zeros(width)
        for gram, product, energy in found.values():
            if energy > 0:
                total += (gram / energy).cpu().numpy()
                products += (product / energy).cpu().numpy()
        return total, products

    def _few(self, images: int) -> tuple[int, int]:
        """Return from how many images, and locations of each, LASSO's samples come."""
        samples = max(1, min(self.lasso_samples, images * self.locations // 20))
        few = min(images, samples)
        return few, -(-samples // few)

    def _scores(
        self,
        gram: NDArray[np.float64],
        product: NDArray[np.float64],
        planned: Plan,
        name: str,
        tied: tuple[Sequence[int], Sequence[int]],
    ) -> NDArray[np.float64]:
        """Return the score of each channel: -1 if it must go, 3 if it must stay."""
        go, stay = map(list, tied)
        alive = np.setdiff1d(np.arange(len(gram)), go)
        gram, product = gram[np.ix_(alive, alive)], product[alive]
        scores = np.full(len(alive) + len(go), -1.0)
        scores[alive] = lasso_scores(gram, product, planned.counts[name], slack=self.slack)
        scores[stay] = 3.0
        return scores

    def _refit(
        self,
        subject: Subject,
        original: Network,
        working: Network,
        layer: str,
        calls: Sequence[str],
        gone: Mapping[str, tuple[int, ...]],
    ) -> dict[str, float]:
        """Fit a layer to its original responses in place; return the errors before and after."""
        graph = subject.graph
        count = scored_images(subject, self.images)
        where = {
            node: locations(graph, node, count, self.locations, seed=subject.seed, distinct=True)
            for node in calls
        }
        pieces = pieces_of(graph[layer], subject.groups, gone)
        taker = intercept_taker(working, layer)
        rows = sum(drawn.numel() for drawn in where.values())
        area = working.weight(layer)[0, 0].numel()
        fits = [
            LeastSquares(rows=rows, columns=len(piece.places) * area + (taker is not None))
            for piece in pieces
        ]
        kernels = dense_kernel(original, layer), dense_kernel(working, layer)
        energy = error = 0.0
        for _, (before, now), _ in sampled(subject, (original, working), where, count):
            target = before.flatten(1) @ kernels[0].flatten(1).T
            energy += float(target.square().sum())
            missed = target + bias(original, layer) - bias(working, layer)
            missed -= now.flatten(1) @ kernels[1].flatten(1).T
            error += float(missed.square().sum())
            ones = now.new_ones(len(now), 0 if taker is None else 1)
            for piece, fit in zip(pieces, fits, strict=True):
                fit.add(
                    torch.cat([now[:, piece.places].flatten(1), ones], dim=1),
                    missed[:, piece.outputs],
                )
        left = 0.0
        for piece, fit in zip(pieces, fits, strict=True):
            change, missed_now = fit.solve()
            left += missed_now
            add_to_layer(working, layer, piece, change, taker)
        return {
            name: round(value / energy, 6) if energy else 0.0
            for name, value in {"cut": error, "refit": left}.items()
        }


def _kept(scores: NDArray[np.float64], count: int, parts: int) -> tuple[int, ...]:
    """Return the ``count`` best channels, equally many of each part."""
    size = len(scores) // parts
    return tuple(
        part * size + channel
        for part in range(parts)
        for channel in best(scores[part * size : (part + 1) * size], count // parts)
    )
