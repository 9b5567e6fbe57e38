"""Sensitivity: what each layer costs in accuracy, and widths where it costs least."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray

from prunenas.arch.allocate import Scores, allocate_keeps, best
from prunenas.arch.descriptor import kept_width
from prunenas.build.network import Network
from prunenas.build.silence import silence
from prunenas.data.base import ImagePart
from prunenas.generators.base import GENERATORS, Generator, Proposal, Subject, need
from prunenas.generators.base.norms import norm_scores, removed_channels
from prunenas.generators.base.scores import REDUCTIONS, Reduction, best_of_each, layers_of, reduced
from prunenas.ir.coupling import ChannelGroup, ChannelGroups, axis_width, channel_places
from prunenas.ir.draw import subset
from prunenas.ir.graph import Graph, Node
from prunenas.ir.ops import Conv1d, Conv2d, Convolve, Linear, Select
from prunenas.training.execution.evaluate import evaluate

Norm = Literal["l1", "l2"]


@GENERATORS.register("sensitivity")
@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity(Generator):
    """Narrow most where the validation accuracy falls least.

    For each free group alone, and each keep of the grid, the filters with the smallest norms are
    silenced (scale, shift and what is read of them zero) and the accuracy on validation images is
    measured, without retraining: the source's curves, which are found as ``curves`` and drawn.
    Behind norms over channels and padding silence is not quite removal.

    The source reads its stage keeps off the curves by eye. Here one allowed drop holds for all
    groups: each takes the smallest keep of the grid whose drop, and that of all larger keeps, stays
    within it, and the drop is the smallest of those measured that gets down to the keep asked for.
    What this leaves of the keep is given back: all groups grow by one factor, then by single steps,
    until none can without exceeding it.

    Channel selections take part: their channels rank as those they choose from, all alike where
    these have no filters.

    The work is one evaluation for each group and keep of the grid.

    Args:
        grid: Keeps at which each group is measured, in (0, 1).
        norm: What ranks filters: ``l1`` or ``l2``.
        reduction: Over a coupled group's layers: sum, mean, max, min, first.
        images: Validation images used, drawn by the seed; None for all.

    Source: Li et al. 2017, arXiv:1608.08710, section 3.2 and figure 2b; the rule is ours.
    """

    reads: ClassVar[bool] = True

    grid: tuple[float, ...] = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
    norm: Norm = "l1"
    reduction: Reduction = "sum"
    images: int | None = None

    def __post_init__(self) -> None:
        grid: object = self.grid
        fine = isinstance(grid, tuple | list) and len({*grid}) == len(grid) > 0
        need(
            "sensitivity",
            grid=(
                self.grid,
                fine and all(0 < keep < 1 for keep in self.grid),
                "is different keeps in (0, 1), one at least",
            ),
            norm=(self.norm, self.norm in ("l1", "l2"), "is l1/l2"),
            reduction=(
                self.reduction,
                self.reduction in REDUCTIONS,
                f"is {'/'.join(REDUCTIONS)}",
            ),
            images=(
                self.images,
                self.images is None or self.images >= 1,
                "is a number from 1 on, or None for all",
            ),
        )
        object.__setattr__(self, "grid", tuple(sorted(self.grid, reverse=True)))

    def propose(self, subject: Subject) -> Proposal:
        """Return the best channels of each group, as many as its curve allows."""
        graph, groups = subject.graph, subject.groups
        scores = self._scores(subject)
        baseline, curves = self._curves(subject, scores)
        drop, wished = _wished(groups, self.grid, baseline, curves, subject.keep)
        widths = allocate_keeps(graph, wished, keep=subject.keep)
        return Proposal(
            selections=_chosen(graph, groups, scores, widths),
            scores=scores,
            found={
                "baseline": baseline,
                "curves": {
                    name: {"keep": [*self.grid], "accuracy": accuracy}
                    for name, accuracy in curves.items()
                },
                "allowed_drop": drop,
            },
        )

    def _scores(self, subject: Subject) -> dict[str, NDArray[np.float64]]:
        """Return the norm of each channel ``[width]`` of every free group."""
        groups, network = subject.groups, subject.trained
        power = 1 if self.norm == "l1" else 2
        # Fixed groups too: selections choose from some of them.
        scores = {
            group.name: norm_scores(network, groups, group, power, self.reduction)
            for group in groups
            if not group.select and _has_filters(network, group)
        }
        for group in groups.free:
            if group.select:
                members = [
                    _read_scores(subject.graph[name], groups, scores) for name in group.members
                ]
                scores[group.name] = reduced(members, self.reduction)
        return {group.name: scores[group.name] for group in groups.free}

    def _curves(self, subject: Subject, scores: Scores) -> tuple[float, dict[str, list[float]]]:
        """Return the accuracy of the reference, and with one group narrowed, by group."""
        graph, groups = subject.graph, subject.groups
        network, data = subject.copy(), subject.images.to(subject.device)
        part = self._part(data.part("validation"), subject.seed)
        curves: dict[str, list[float]] = {}
        baseline = evaluate(network, data, part).accuracy
        for group in groups.free:
            seen: dict[tuple[int, ...], float] = {tuple(range(group.width)): baseline}
            for keep in self.grid:
                kept, _ = best_of_each([group], scores, {group.name: keep})
                channels = kept[group.name]
                if channels not in seen:
                    # Each keep's channels are among those of the larger ones, silent or not.
                    silence(network, groups, removed_channels(groups, graph, kept))
                    seen[channels] = evaluate(network, data, part).accuracy
                curves.setdefault(group.name, []).append(seen[channels])
            _restore(network, subject.trained)
        return baseline, curves

    def _part(self, whole: ImagePart, seed: int) -> ImagePart:
        if self.images is None or self.images >= len(whole):
            return whole
        chosen = subset(len(whole), self.images, seed=seed, stream="sensitivity images")
        places = torch.tensor(chosen, device=whole.labels.device)
        return whole.chosen(places)


def _has_filters(network: Network, group: ChannelGroup) -> bool:
    return all(
        isinstance(network.graph[name].op, Conv2d | Conv1d | Linear | Convolve)
        for name in layers_of(network, group)
    )


@torch.no_grad()
def _restore(network: Network, reference: Network) -> None:
    for own, theirs in zip(network.parameters(), reference.parameters(), strict=True):
        own.copy_(theirs)


def _read_scores(node: Node, groups: ChannelGroups, scores: Scores) -> NDArray[np.float64]:
    """Return the scores of the channels that a selection chooses; 0 of what has no filters."""
    axis = groups.read(node)
    read = np.zeros(axis_width(axis, groups.widths))
    for name, places in channel_places(axis, groups.widths):
        if name in scores:
            read[places] += scores[name][:, None]
    assert isinstance(node.op, Select)
    chosen: NDArray[np.float64] = read[[*node.op.indices]]
    return chosen


def _wished(
    groups: ChannelGroups,
    grid: Sequence[float],
    baseline: float,
    curves: Mapping[str, Sequence[float]],
    keep: float,
) -> tuple[float, dict[str, float]]:
    """Return the smallest allowed drop that gets down to ``keep``, and each group's keep by it.

    The drops of a group never fall towards smaller keeps, and a gain counts as no drop. Where even
    the smallest keeps of the grid are too many channels, these are returned.
    """
    drops = {
        name: np.maximum.accumulate([0.0, *(baseline - value for value in accuracy)])
        for name, accuracy in curves.items()
    }
    keeps = (1.0, *grid)
    full = sum(group.width for group in groups.free)
    for allowed in sorted({float(d) for each in drops.values() for d in each}):
        wished = {name: keeps[int((each <= allowed).sum()) - 1] for name, each in drops.items()}
        kept = sum(kept_width(g.width, wished[g.name], divisor=g.divisor) for g in groups.free)
        if kept <= keep * full + 1e-9:
            break
    return allowed, wished


def _chosen(
    graph: Graph, groups: ChannelGroups, scores: Scores, widths: Mapping[str, int]
) -> dict[str, tuple[int, ...]]:
    """Return the best channels of each group; of a selection, the best that its source keeps."""
    kept: dict[str, tuple[int, ...]] = {}
    for group in sorted(groups.free, key=lambda group: group.select):
        lost = removed_channels(groups, graph, kept).get(group.name, ()) if group.select else ()
        there = [i for i in range(group.width) if i not in {*lost}]
        ranked = best(scores[group.name][there], widths[group.name])
        kept[group.name] = tuple(there[i] for i in ranked)
    return kept
