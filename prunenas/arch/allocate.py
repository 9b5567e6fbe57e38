"""Allocation: from a profile or from channel scores, and a target, to widths.

``allocate`` lands on a budget exactly; ``strict_threshold`` and ``best`` are how methods turn the
scores of channels into kept channels.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import NDArray

from prunenas.arch.descriptor import (
    Descriptor,
    apply,
    check_keep,
    kept_widths,
    reached_keep,
    within_bounds,
)
from prunenas.arch.profile import StageProfile
from prunenas.errors import BudgetError
from prunenas.ir.canonical import digest
from prunenas.ir.cost import CostModel, effective_macs, is_sparse, nonzero_params
from prunenas.ir.coupling import ChannelGroup, ChannelGroups, couple
from prunenas.ir.graph import Graph
from prunenas.ir.stages import stages

_HALVINGS = 50
"""Bisection steps: enough to tell apart every two scales that round to different widths."""


def allocate(
    graph: Graph,
    profile: StageProfile,
    *,
    keep: float | None = None,
    max_macs: float | None = None,
    max_params: float | None = None,
    round_to: int = 1,
    seed: int = 0,
    fill: bool = True,
) -> Descriptor:
    """Return the profile scaled to land on a budget.

    The profile's keeps are multiplied by the largest common factor that meets the budget, then
    groups grow, one step at a time, the one furthest below its wished keep first, until no free
    group can grow by a step without exceeding a budget, its full width or a bound.

    Masks are drawn when widths are known, so widths are chosen by expected costs. Where the masks
    that are drawn then keep more than the budget allows, widths are chosen again for a budget that
    is smaller by as much: the result never exceeds the budget, and is below it by the draw's noise.

    Args:
        graph: The graph that is to be narrowed.
        profile: How stages relate to one another.
        keep: Largest kept / full channels, each free group counted once.
        max_macs: Largest multiply-accumulates; where kernels are under masks, effective ones.
        max_params: Largest number of parameters; where kernels are under masks, nonzero ones.
        round_to: A step is the least common multiple of it and the group's divisor.
        seed: Seed of the channels that selections draw, and of masks.
        fill: Whether groups grow into what the common factor leaves of the budget. Without it the
            profile keeps its form more strictly, and the budget is missed by more.

    Raises:
        BudgetError: No budget is given, or the smallest network exceeds it; the message tells the
            smallest reachable value.
        ProfileError: The profile's stages are not the graph's.
    """
    descriptor = profile.descriptor(graph, round_to=round_to, seed=seed)
    keeps = {g.name: profile.keeps[stage.name] for stage in stages(graph) for g in stage.groups}
    widths = allocate_keeps(
        graph,
        keeps,
        keep=keep,
        max_macs=max_macs,
        max_params=max_params,
        round_to=round_to,
        fill=fill,
        densities=descriptor.densities,
        seed=seed,
    )
    groups = couple(graph)
    origin = descriptor.origin
    return replace(
        descriptor,
        widths={name: w for name, w in widths.items() if w != groups[name].width},
        origin=None if origin is None else replace(origin, reached=reached_keep(groups, widths)),
    )


def allocate_keeps(
    graph: Graph,
    keeps: Mapping[str, float],
    *,
    keep: float | None = None,
    max_macs: float | None = None,
    max_params: float | None = None,
    round_to: int = 1,
    fill: bool = True,
    densities: Mapping[str, tuple[float, ...]] | None = None,
    seed: int = 0,
) -> dict[str, int]:
    """Return the width of every free group, with ``keeps`` by group scaled to land on a budget.

    As ``allocate``, for wishes that are told group by group, and ``densities`` by layer.

    Raises:
        BudgetError: As ``allocate``.
        KeepError: A keep is outside (0, 1].
    """
    for value in (*keeps.values(), *(() if keep is None else (keep,))):
        check_keep(value)
    masked = Descriptor(reference=digest(graph), densities=densities or {}, seed=seed)
    problem = _Problem.of(graph, masked, keeps, round_to)
    budgets = problem.budgets(keep=keep, max_macs=max_macs, max_params=max_params)
    limits = budgets
    for attempt in itertools.count(1):
        widths = problem.largest_scale(limits)
        if fill:
            widths = problem.grow(widths, limits)
        if problem.kept_within(widths, budgets):
            break
        # Ends at the smallest network, which is within the budgets.
        limits = problem.smaller(widths, limits, budgets, attempt)
    return problem.named(widths)


@final
@dataclass(frozen=True, kw_only=True)
class _Budgets:
    """Upper limits; None is no limit."""

    channels: float | None
    macs: float | None
    params: float | None
    keep: float | None = None

    @property
    def told(self) -> str:
        """The budgets as they were asked for."""
        named = {"keep": self.keep, "max_macs": self.macs, "max_params": self.params}
        return ", ".join(f"{name}={v:g}" for name, v in named.items() if v is not None)


@final
@dataclass(frozen=True, kw_only=True)
class _Problem:
    """One graph and profile with what the search for widths reads again and again.

    Arrays are in the order of the cost model's groups, ``[g]``.
    """

    graph: Graph
    masked: Descriptor
    groups: ChannelGroups
    wished: NDArray[np.float64]
    full: NDArray[np.int64]
    steps: NDArray[np.int64]

    @staticmethod
    def of(
        graph: Graph, masked: Descriptor, keeps: Mapping[str, float], round_to: int
    ) -> "_Problem":
        groups = couple(graph)
        free = groups.free
        return _Problem(
            graph=graph,
            masked=masked,
            groups=groups,
            wished=np.array([keeps[g.name] for g in free], dtype=np.float64),
            full=np.array([g.width for g in free], dtype=np.int64),
            steps=np.array([np.lcm(g.divisor, round_to) for g in free], dtype=np.int64),
        )

    @cached_property
    def model(self) -> CostModel:
        """The costs under the masks to come, which a budget of channels does not ask for."""
        return CostModel.of(apply(self.graph, self.masked) if self.masked.densities else self.graph)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The free groups' names."""
        return tuple(group.name for group in self.groups.free)

    def budgets(
        self, *, keep: float | None, max_macs: float | None, max_params: float | None
    ) -> _Budgets:
        if keep is None and max_macs is None and max_params is None:
            raise BudgetError("allocate needs keep, max_macs or max_params")
        channels = None if keep is None else keep * float(self.full.sum()) + 1e-9
        budgets = _Budgets(channels=channels, macs=max_macs, params=max_params, keep=keep)
        smallest = self.widths(1e-9)
        met = channels is None or smallest.sum() <= channels
        if not met or not self.kept_within(smallest, budgets):
            raise self.refusal(budgets)
        return budgets

    def refusal(self, budgets: _Budgets) -> BudgetError:
        """Return the error that tells what the smallest network has."""
        smallest = self.widths(1e-9)
        # Rounded up: what is told can be reached.
        least = math.ceil(10_000 * float(smallest.sum() / self.full.sum())) / 10_000
        macs, params = self.drawn(smallest)
        kinds = ("effective macs", "nonzero params") if self.sparse else ("macs", "params")
        return BudgetError(
            f"no legal widths meet {budgets.told}: the smallest network keeps {least:.4f} of its "
            f"channels and has {macs} {kinds[0]} and {params} {kinds[1]}"
        )

    def named(self, widths: NDArray[np.int64]) -> dict[str, int]:
        """Return ``widths`` by the names of groups."""
        return dict(zip(self.names, (int(w) for w in widths), strict=True))

    @cached_property
    def sparse(self) -> bool:
        """Whether kernels will be under masks."""
        return bool(self.masked.densities) or is_sparse(self.graph)

    def drawn(self, widths: NDArray[np.int64]) -> tuple[int, int]:
        """Return effective macs and nonzero params with the masks that these widths draw."""
        if not self.sparse:
            return int(self.model.macs(widths[None])[0]), int(self.model.params(widths[None])[0])
        narrow = apply(self.graph, replace(self.masked, widths=self.named(widths)))
        return effective_macs(narrow), nonzero_params(narrow)

    def kept_within(self, widths: NDArray[np.int64], budgets: _Budgets) -> bool:
        """Return whether ``widths`` meet the budgets of macs and params with the masks drawn."""
        if budgets.macs is None and budgets.params is None:
            return True
        macs, params = self.drawn(widths)
        return (budgets.macs is None or macs <= budgets.macs) and (
            budgets.params is None or params <= budgets.params
        )

    def smaller(
        self, widths: NDArray[np.int64], limits: _Budgets, budgets: _Budgets, attempt: int
    ) -> _Budgets:
        """Return limits below what ``widths`` were expected to cost, which turned out too dear."""
        macs, params = self.drawn(widths)
        rows = widths[None]

        def lowered(
            limit: float | None, wanted: float | None, got: int, meant: int
        ) -> float | None:
            if limit is None or wanted is None or got <= wanted:
                return limit
            # The more attempts, the bolder: there are few.
            return min(limit, meant) * (wanted / got) ** attempt

        return replace(
            limits,
            macs=lowered(limits.macs, budgets.macs, macs, int(self.model.effective_macs(rows)[0])),
            params=lowered(
                limits.params, budgets.params, params, int(self.model.nonzero_params(rows)[0])
            ),
        )

    def widths(self, factor: float) -> NDArray[np.int64]:
        """Return the legal widths nearest to the wished keeps times ``factor``."""
        keeps = np.clip(self.wished * factor, 1e-9, 1.0)
        widths = kept_widths(self.full, keeps, self.steps)
        if not self.groups.bounds:
            return widths
        fitted = within_bounds(self.groups, self.named(widths))
        return np.array([fitted[name] for name in self.names], dtype=np.int64)

    def meets(self, widths: NDArray[np.int64], budgets: _Budgets) -> NDArray[np.bool_]:
        """Return for each candidate ``[candidates g]`` whether it is to meet every budget."""
        fine = np.ones(len(widths), dtype=np.bool_)
        if budgets.channels is not None:
            fine &= widths.sum(axis=1) <= budgets.channels
        if budgets.macs is not None:
            fine &= self.model.effective_macs(widths) <= budgets.macs
        if budgets.params is not None:
            fine &= self.model.nonzero_params(widths) <= budgets.params
        return fine

    def largest_scale(self, budgets: _Budgets) -> NDArray[np.int64]:
        """Return the widths at the largest factor found that meets the budgets."""
        low, high = 0.0, 1.0 / float(self.wished.min())
        best = self.widths(1e-9)
        if self.meets(self.widths(high)[None], budgets)[0]:
            return self.widths(high)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            widths = self.widths(middle)
            if self.meets(widths[None], budgets)[0]:
                low, best = middle, widths
            else:
                high = middle
        return best

    def grow(self, widths: NDArray[np.int64], budgets: _Budgets) -> NDArray[np.int64]:
        """Return widths of which no group can grow by a step."""
        # Costs only rise with widths: a step that is too dear once is so for good.
        dear = np.zeros(len(widths), dtype=np.bool_)
        while True:
            grown = np.minimum(self.full, widths + self.steps)
            # Furthest below its wish first; the group's order decides ties.
            order = np.argsort(widths / self.full / self.wished, kind="stable")
            for i in order[((grown > widths) & ~dear)[order]]:
                candidate = widths.copy()
                candidate[i] = grown[i]
                dear[i] = not self.meets(candidate[None], budgets)[0]
                if not dear[i] and self._bounded(candidate):
                    widths = candidate
                    break
            else:
                return widths

    def _bounded(self, widths: NDArray[np.int64]) -> bool:
        if not self.groups.bounds:
            return True
        every = self.groups.widths | self.named(widths)
        return all(bound.excess(every) <= 0 for bound in self.groups.bounds)


Scores = Mapping[str, NDArray[np.float64]]
"""Score of each channel by free group; a larger score is kept longer."""


def best(scores: NDArray[np.float64], count: int) -> tuple[int, ...]:
    """Return the ``count`` channels with the largest scores, ascending; the first wins a tie."""
    order = np.argsort(-scores, kind="stable")
    return tuple(sorted(int(i) for i in order[:count]))


def whole_count(total: int, fraction: float) -> int:
    """Return ``int(total * fraction)``, where the error of a float takes nothing away.

    Example:
        >>> int(100 * 0.29), whole_count(100, 0.29)
        (28, 29)
    """
    # A product such as 100 * 0.29 falls short of the whole number that is meant.
    return int(total * fraction + 1e-9)


def removed_part(keep: float) -> float:
    """Return ``1 - keep`` as the decimal fraction that was meant: 1 - 0.3 is not 0.7 in floats."""
    return round(1 - keep, 12)


def strict_place(total: int, keep: float) -> int:
    """Return the place of a strict threshold among ``total`` scores in ascending order.

    The product is the released code's, errors of floats and all: published counts follow from it.
    """
    return min(int(total * removed_part(keep)), total - 1)


def strict_threshold(
    scores: Scores, groups: Sequence[ChannelGroup], keep: float
) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...]]:
    """Return the channels of each group that exceed one threshold over all groups together.

    The threshold is the score at place ``int(n * (1 - keep))`` of all ``n`` scores in ascending
    order, and a channel is kept if its score is strictly larger: without ties
    ``int(n * (1 - keep)) + 1`` channels go. A group that would be emptied keeps its best channels,
    and one whose divisor does not divide the count is rounded up with its next best.

    Args:
        scores: Score of each channel ``[width]`` by group.
        groups: The groups that take part.
        keep: In (0, 1]; 1 keeps everything.

    Returns:
        Kept channels by group, and the groups that would have been emptied.

    Source: the released code of Liu et al. 2017, arXiv:1708.06519 (``prune.py``).
    """
    check_keep(keep)
    if keep == 1 or not groups:
        return {g.name: tuple(range(g.width)) for g in groups}, ()
    every = np.sort(np.concatenate([scores[group.name] for group in groups]))
    threshold = every[strict_place(len(every), keep)]
    kept: dict[str, tuple[int, ...]] = {}
    emptied = []
    for group in groups:
        count = int((scores[group.name] > threshold).sum())
        if count == 0:
            emptied.append(group.name)
        whole = max(1, -(-count // group.divisor)) * group.divisor
        kept[group.name] = best(scores[group.name], min(group.width, whole))
    return kept, tuple(emptied)
