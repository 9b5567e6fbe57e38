"""Network Slimming: sparsity training on batch-norm scales, one threshold over all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunenas.arch.allocate import Scores, strict_place, strict_threshold
from prunenas.build.network import Network
from prunenas.errors import MethodError
from prunenas.generators.base import GENERATORS, Generator, Proposal, Subject, is_amount, need
from prunenas.generators.base.channel_costs import (
    WEIGHTINGS,
    Cost,
    Weighting,
    channel_costs,
    mean_one,
)
from prunenas.generators.base.scales import left_alone, scale_places, scale_scores, scale_weights
from prunenas.generators.base.scores import REDUCTIONS, Reduction
from prunenas.ir.coupling import ChannelGroup, couple
from prunenas.ir.graph import Graph
from prunenas.training.hooks import Hooks


@GENERATORS.register("network_slimming")
@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSlimming(Generator):
    """Push batch-norm scales to zero while training, then keep the channels with large ones.

    The keep holds for all scored channels together: one strict threshold, so that
    ``int(n * (1 - keep)) + 1`` of ``n`` go where none are tied. Batch norms of images and of
    vectors take part alike. A batch norm whose values go into a channel selection scores the
    selection, not its source: on PreResNet and DenseNet the trunk stays and the selections shrink.
    Groups that no batch norm decides on are left alone, and told. Scales that are tied at the
    threshold all go, as in the source, and ``tied`` tells how many: a fresh network's are all
    alike. A network that is given is taken as it is, not pushed before.

    Args:
        strength: Weight of the L1 penalty on the scales, added to their gradient as
            ``strength * sign(scale)``; not negative.
        weighting: What each scale's penalty is multiplied by. ``none`` is the source: every scale
            is pushed alike. ``macs`` and ``params``: the cost of its channel at full widths, over
            the mean of all scored channels (MorphNet's weighting); scales that decide on no free
            group are not pushed then.
        reduction: How the scales of a coupled group, and the several scales that one channel has,
            become its score: ``mean``, ``max``, ``min``, ``sum`` or ``first``. The source has one
            scale a channel.

    Source: Liu et al. 2017, arXiv:1708.06519; 1e-4 for VGG, 1e-5 for PreResNet, DenseNet and the
    ImageNet VGG-11. The weighting: Gordon et al. 2018, arXiv:1711.06798, section 3.
    """

    strength: float = 1e-4
    weighting: Weighting = "none"
    reduction: Reduction = "mean"

    def __post_init__(self) -> None:
        need(
            "network_slimming",
            strength=(self.strength, is_amount(self.strength), "is finite and not negative"),
            weighting=(
                self.weighting,
                self.weighting in WEIGHTINGS,
                f"is one of {', '.join(WEIGHTINGS)}",
            ),
            reduction=(
                self.reduction,
                self.reduction in REDUCTIONS,
                f"is one of {', '.join(REDUCTIONS)}",
            ),
        )

    def hooks(self, keep: float | None) -> Hooks:
        """Return the subgradient of the penalty, after every backward pass."""
        weights: dict[str, Tensor] = {}

        def penalise(network: Network) -> None:
            if self.weighting != "none" and not weights:
                weights.update(_on(network, penalty_weights(network.graph, self.weighting)))
            for name, scale in network.scales():
                if scale.grad is None:
                    continue
                push = scale.detach().sign()
                if weights:
                    push.mul_(weights[name])
                scale.grad.add_(push, alpha=self.strength)

        facts = {"network_slimming": [self.strength, self.weighting]}
        return Hooks(after_backward=penalise, facts=facts, in_place=True)

    def check(self, graph: Graph) -> None:
        """Refuse graphs without a batch norm that decides on a free group."""
        if couple(graph).free and not scale_places(graph, couple(graph)):
            raise MethodError("network_slimming needs batch norms on free groups; there is none")

    def propose(self, subject: Subject) -> Proposal:
        """Return the channels whose scale exceeds the threshold."""
        scores = scale_scores(subject.trained, subject.groups, self.reduction)
        groups = [group for group in subject.groups.free if group.name in scores]
        kept, emptied = strict_threshold(scores, groups, subject.keep)
        alone = left_alone(subject.groups, scores)
        tied = _tied(scores, groups, subject.keep)
        return Proposal(
            selections=kept,
            scores=scores,
            kept_best=emptied,
            found=({"left_alone": alone} if alone else {}) | ({"tied": tied} if tied > 1 else {}),
        )


def _tied(scores: Scores, groups: Sequence[ChannelGroup], keep: float) -> int:
    """Return how many scores equal the threshold: all of them go, however much is to be kept."""
    every = np.sort(np.concatenate([scores[group.name] for group in groups]))
    return int((every == every[strict_place(len(every), keep)]).sum())


def penalty_weights(graph: Graph, cost: Cost) -> dict[str, NDArray[np.float64]]:
    """Return what the penalty on each scale ``[c]`` is multiplied by, by batch norm."""
    groups = couple(graph)
    scored = scale_places(graph, groups)
    free = [group for group in groups.free if group.name in scored]
    costs, _ = mean_one(channel_costs(graph, cost), free)
    return scale_weights(graph, groups, costs)


def _on(network: Network, weights: Mapping[str, NDArray[np.float64]]) -> dict[str, Tensor]:
    return {
        name: torch.as_tensor(weights[name], dtype=scale.dtype, device=scale.device)
        for name, scale in network.scales()
    }
