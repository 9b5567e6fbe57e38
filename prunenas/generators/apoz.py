"""Network trimming: channels that are mostly zero behind their activation go."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunenas.arch.allocate import Scores, best, whole_count
from prunenas.errors import MethodError
from prunenas.generators.base import GENERATORS, Generator, Proposal, Subject, need
from prunenas.generators.base.scores import REDUCTIONS, Reduction, best_of_each, reduced
from prunenas.ir.coupling import ChannelGroup, ChannelGroups, channel_places, couple
from prunenas.ir.graph import Graph, Node
from prunenas.ir.ops import Activation, Clamp

Rule = Literal["keep", "one_std"]
Scope = Literal["layer", "global"]

_WITH_ZEROS = ("relu", "relu6", "hardswish", "hardsigmoid")
"""Activations that give exact zeros for a whole range of what they read."""


@GENERATORS.register("apoz")
@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Apoz(Generator):
    """Cut the channels that are zero most often behind their activation.

    The APoZ of a channel is the fraction of exact zeros among its values over all images and
    positions. It is counted on activations that have exact zeros (ReLU, ReLU6, hard swish, hard
    sigmoid, clamps at 0), at every place where a group stands on what they give. Channel
    selections are counted by the activations behind them. Groups that no such activation reads
    are left alone and listed. Nothing is retrained on the way: the source goes through few layers
    at a time and trains between, which is this method called again on what it left.

    The images are drawn from the training images less the validation part, which is to judge.

    Args:
        images: Number of images, drawn by the seed; None for all.
        rule: ``keep`` keeps the channels with the fewest zeros. ``one_std``, the source's, cuts
            those whose APoZ exceeds the mean by more than one standard deviation (of the
            population), and takes no keep.
        scope: What is ranked, or averaged, together: each ``layer`` (group) as in the source, or
            all channels (``global``).
        reduction: Over several activations on one group: mean, sum, max, min, first.

    Source: Hu et al. 2016, arXiv:1607.03250, section 3, equation 1.
    """

    reads: ClassVar[bool] = True

    images: int | None = 1000
    rule: Rule = "keep"
    scope: Scope = "layer"
    reduction: Reduction = "mean"

    def __post_init__(self) -> None:
        need(
            "apoz",
            images=(
                self.images,
                self.images is None or self.images >= 1,
                "is a number from 1 on, or None for all",
            ),
            rule=(self.rule, self.rule in get_args(Rule), f"is {'/'.join(get_args(Rule))}"),
            scope=(self.scope, self.scope in get_args(Scope), f"is {'/'.join(get_args(Scope))}"),
            reduction=(
                self.reduction,
                self.reduction in REDUCTIONS,
                f"is {'/'.join(REDUCTIONS)}",
            ),
        )

    @property
    def says_how_much(self) -> str | None:
        """The rule, where it needs no keep."""
        return "rule" if self.rule == "one_std" else None

    def check(self, graph: Graph) -> None:
        """Refuse a graph without activations that can be counted on free groups."""
        groups = couple(graph)
        if groups.free and not any(
            name in {g.name for g in groups.free}
            for node in graph.nodes
            if _has_zeros(node)
            for name, _, _ in _shares(groups, node)
        ):
            raise MethodError(
                "apoz needs activations with exact zeros on free groups, such as relu; there is "
                "none"
            )

    def propose(self, subject: Subject) -> Proposal:
        """Return the channels that the rule leaves."""
        apoz = self._measured(subject)
        groups = [group for group in subject.groups.free if group.name in apoz]
        scores = {group.name: 1 - apoz[group.name] for group in groups}
        if self.rule == "one_std":
            kept, emptied = _within_one_std(groups, scores, self.scope)
        elif self.scope == "layer":
            keeps = {group.name: subject.keep for group in groups}
            kept, emptied = best_of_each(groups, scores, keeps)
        else:
            kept, emptied = _best_of_all(groups, scores, subject.keep)
        found: dict[str, Any] = {
            "mean_apoz": {group.name: float(apoz[group.name].mean()) for group in groups}
        }
        left = {
            group.name: "no activation with exact zeros reads it"
            for group in subject.groups.free
            if group.name not in apoz and not group.select
        }
        return Proposal(
            selections=kept,
            scores=scores,
            kept_best=emptied,
            found=found | ({"left_alone": left} if left else {}),
        )

    def _measured(self, subject: Subject) -> dict[str, NDArray[np.float64]]:
        """Return the APoZ of each channel ``[width]`` by group."""
        network, groups = subject.copy(), subject.groups
        counts = {
            node.name: _Count(network.node(node.name), {dim for _, dim, _ in shares})
            for node in subject.graph.nodes
            if _has_zeros(node) and (shares := _shares(groups, node))
        }
        wanted = len(subject.images.part("train")) if self.images is None else self.images
        with torch.no_grad():
            for images, _ in subject.batches(wanted):
                network(images)
        found: dict[str, list[NDArray[np.float64]]] = {}
        for name, count in counts.items():
            for group, dim, places in _shares(groups, subject.graph[name]):
                found.setdefault(group, []).append(count.part(dim)[places].mean(axis=1))
        return {group: reduced(parts, self.reduction) for group, parts in found.items()}


class _Count:
    """Counts the exact zeros of what a module gives, along some of its dimensions."""

    def __init__(self, module: nn.Module, dims: Collection[int]) -> None:
        self.dims = dims
        self.zeros: dict[int, Tensor] = {}
        self.values = 0
        module.register_forward_hook(self._count)

    def _count(self, module: nn.Module, read: Any, out: Tensor) -> None:
        # Reduced at once: no activation outlives its layer.
        zero = out == 0
        for dim in self.dims:
            own = zero.sum(dim=[d for d in range(out.dim()) if d != dim])
            self.zeros[dim] = self.zeros.get(dim, torch.zeros_like(own)) + own
        self.values += out.numel()

    def part(self, dim: int) -> NDArray[np.float64]:
        """Return the fraction of zeros of each entry along a dimension."""
        zeros: NDArray[np.float64] = self.zeros[dim].double().cpu().numpy()
        return zeros * len(zeros) / self.values


def _has_zeros(node: Node) -> bool:
    if isinstance(node.op, Clamp):
        return node.op.low == 0 or node.op.high == 0
    return isinstance(node.op, Activation) and node.op.function in _WITH_ZEROS


def _shares(groups: ChannelGroups, node: Node) -> list[tuple[str, int, NDArray[np.int64]]]:
    """Return the groups on a node's value: name, dimension, and the places of each channel."""
    return [
        (name, dim, places)
        for dim, axis in enumerate(groups.dims[node.name])
        if dim > 0
        for name, places in channel_places(axis, groups.widths)
    ]


def _within_one_std(
    groups: list[ChannelGroup], scores: Scores, scope: Scope
) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...]]:
    """Return the channels whose zeros do not exceed the mean by more than one deviation."""
    every = np.concatenate([1 - scores[group.name] for group in groups])
    counts = {}
    for group in groups:
        apoz = 1 - scores[group.name]
        rest = every if scope == "global" else apoz
        # The mean of equal numbers may lie a rounding error below them.
        counts[group.name] = int((apoz <= rest.mean() + rest.std() + 1e-12).sum())
    return _counted(groups, scores, counts)


def _best_of_all(
    groups: list[ChannelGroup], scores: Scores, keep: float
) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...]]:
    """Return the best channels of all groups together: ``int(n * keep)`` of ``n``."""
    every = np.concatenate([scores[group.name] for group in groups])
    chosen = {*best(every, whole_count(len(every), keep))}
    counts, start = {}, 0
    for group in groups:
        counts[group.name] = sum(i in chosen for i in range(start, start + group.width))
        start += group.width
    return _counted(groups, scores, counts)


def _counted(
    groups: list[ChannelGroup], scores: Scores, counts: dict[str, int]
) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...]]:
    """Return that many best channels of each group, rounded up to its divisor; never none."""
    kept = {
        g.name: best(scores[g.name], max(1, -(-counts[g.name] // g.divisor)) * g.divisor)
        for g in groups
    }
    return kept, tuple(group.name for group in groups if counts[group.name] == 0)
