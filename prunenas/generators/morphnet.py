"""MorphNet: shrink under a penalty that counts cost, expand uniformly, and again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from prunenas.arch.allocate import allocate_keeps, strict_threshold
from prunenas.arch.descriptor import Descriptor, apply
from prunenas.arch.profile import StageProfile
from prunenas.build.network import Network
from prunenas.errors import MethodError
from prunenas.generators.base import (
    GENERATORS,
    Generator,
    LooksAt,
    Proposal,
    Subject,
    is_amount,
    is_fraction,
    need,
)
from prunenas.generators.base.channel_costs import (
    COSTS,
    Cost,
    channel_costs,
    mean_one,
    total_cost,
)
from prunenas.generators.base.scales import left_alone, scale_places, scale_scores
from prunenas.generators.base.scores import REDUCTIONS, Reduction
from prunenas.ir.canonical import digest
from prunenas.ir.coupling import ChannelGroup, couple
from prunenas.ir.graph import Graph
from prunenas.training.hooks import Hooks


@GENERATORS.register("morphnet")
@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MorphNet(Generator):
    """Shrink under a penalty that knows what channels cost, expand uniformly to the budget; again.

    Each round trains a network with an L1 penalty on its batch-norm scales, weighted by what one
    more channel costs beside the channels that are alive (weighed anew as channels die), keeps
    what is alive, and multiplies all widths by one factor, the largest that meets the budget. The
    first round trains the reference, from the weights it is given or fresh ones; each later round
    a fresh network of the widths found before. It gives widths alone: the channels of the last
    network are not those of a trained one.

    ``keep`` names a size: the budget is the cost of the reference narrowed uniformly at ``keep``,
    so that the uniform control of the same keep costs as much. Widths never exceed the
    reference's, where the source lets them grow: a group at its full width stays there while the
    factor carries the others on. What rounding leaves of the budget is filled step by step.

    Groups that no batch norm decides on lose no channels of their own, and are told; the factor is
    theirs too.

    Args:
        strength: Weight of the penalty, not negative. The weights of the scored channels have the
            mean 1 while all are alive, so it means what it means to ``network_slimming``; the
            source's is per operation or per parameter. The default is ours.
        budget: What the budget is of, and what a channel costs: ``macs``, multiply-accumulates
            of one image, or ``params``, parameters. Weights that a mask of the reference removes
            are not counted.
        rounds: How often to train, shrink and expand.
        alive: A channel is alive whose score exceeds this; not negative. The default is ours.
        shrink_keep: Fraction of the scored channels that a round keeps, by one strict threshold
            over them all, in (0, 1]: for trainings too short to bring scales below ``alive``.
            None, as in the source, keeps what is alive.
        reduction: How the scales of a coupled group, and the several scales that one channel has,
            become its score, which is what the penalty pushes too. ``max``, the source's, keeps a
            channel alive while one of them is.

    Source: Gordon et al. 2018, arXiv:1711.06798, algorithm 1 and section 3.
    """

    looks_at: ClassVar[LooksAt] = "own"

    strength: float = 1e-3
    budget: Cost = "macs"
    rounds: int = 2
    alive: float = 1e-2
    shrink_keep: float | None = None
    reduction: Reduction = "max"

    def __post_init__(self) -> None:
        share = self.shrink_keep
        need(
            "morphnet",
            strength=(self.strength, is_amount(self.strength), "is finite and not negative"),
            budget=(self.budget, self.budget in COSTS, f"is one of {', '.join(COSTS)}"),
            rounds=(self.rounds, self.rounds >= 1, "is at least 1"),
            alive=(self.alive, is_amount(self.alive), "is finite and not negative"),
            shrink_keep=(share, share is None or is_fraction(share), "is a fraction in (0, 1]"),
            reduction=(
                self.reduction,
                self.reduction in REDUCTIONS,
                f"is one of {', '.join(REDUCTIONS)}",
            ),
        )

    def check(self, graph: Graph) -> None:
        """Refuse graphs without a batch norm that decides on a free group.

        Raises:
            MethodError: There is none.
        """
        if couple(graph).free and not scale_places(graph, couple(graph)):
            raise MethodError("morphnet needs batch norms on free groups; there is none")

    def propose(self, subject: Subject) -> Proposal:
        """Return the widths after the last expansion."""
        limit = uniform_cost(subject.graph, self.budget, subject.keep)
        network, widths = subject.copy(), subject.groups.widths
        told: list[dict[str, Any]] = []
        emptied: tuple[str, ...] = ()
        for done in range(self.rounds):
            if done:
                network = subject.fresh(_narrowed(subject, widths))
            penalty = Penalty(network.graph, self.budget, self.reduction, self.alive)
            subject.train(network, hooks=penalty.hooks(self.strength))
            found, emptied = self._living(network)
            # A width of 1 can stand for what any width meets, so that groups come or go.
            living = {g.name: found.get(g.name, widths[g.name]) for g in subject.groups.free}
            emptied = tuple(name for name in emptied if name in living)
            widths = expanded(subject.graph, self.budget, living, limit)
            cost = total_cost(subject.graph, self.budget, widths)
            told.append({"living": living, "widths": widths, "cost": cost})
        alone = left_alone(subject.groups, scale_places(subject.graph, subject.groups))
        return Proposal(
            widths=widths,
            kept_best=emptied,
            found={"budget": limit, "rounds": told} | ({"left_alone": alone} if alone else {}),
        )

    def _living(self, network: Network) -> tuple[dict[str, int], tuple[str, ...]]:
        """Return how many channels of each scored group live, and the groups that all but died."""
        groups = couple(network.graph)
        scores = scale_scores(network, groups, self.reduction)
        if self.shrink_keep is not None:
            scored = [group for group in groups.free if group.name in scores]
            kept, emptied = strict_threshold(scores, scored, self.shrink_keep)
            living = {name: len(channels) for name, channels in kept.items()}
        else:
            alive = {name: int((score > self.alive).sum()) for name, score in scores.items()}
            living = {name: _whole(groups[name], count) for name, count in alive.items()}
            emptied = tuple(name for name, count in alive.items() if count == 0)
        return living, emptied


@final
class Penalty:
    """The penalty of one training: each channel's score times what it costs among the living.

    Args:
        graph: Of the network that is trained.
        cost: What a channel costs.
        reduction: Over the scales of a channel.
        alive: A channel is alive whose score exceeds this.
    """

    def __init__(self, graph: Graph, cost: Cost, reduction: Reduction, alive: float) -> None:
        groups = couple(graph)
        self.graph, self.cost, self.reduction, self.alive = graph, cost, reduction, alive
        self.found = scale_places(graph, groups)
        self.norms = {where.norm for found in self.found.values() for where in found}
        scored = [group for group in groups.free if group.name in self.found]
        self.mean = mean_one(channel_costs(graph, cost), scored)[1] if scored else 1.0
        self._places: dict[tuple[str, int], Tensor] = {}
        self._weighed: tuple[dict[str, int], dict[str, float]] | None = None

    def hooks(self, strength: float) -> Hooks:
        """Return the subgradient of ``strength`` times the penalty, after every backward pass."""

        def penalise(network: Network) -> None:
            if not self.found:
                return
            scales = {n: s for n, s in network.scales() if n in self.norms}
            with torch.enable_grad():
                value = self.value(scales)
            pushes = torch.autograd.grad(value, [*scales.values()])
            for scale, push in zip(scales.values(), pushes, strict=True):
                if scale.grad is not None:
                    scale.grad.add_(push, alpha=strength)

        facts = {"morphnet": [strength, self.cost, self.reduction, self.alive]}
        return Hooks(after_backward=penalise, facts=facts, in_place=True)

    def value(self, scales: Mapping[str, Tensor]) -> Tensor:
        """Return the penalty of these scales ``[c]`` by batch norm, differentiable."""
        scores = {name: self._score(name, scales) for name in self.found}
        counts = torch.stack([(score.detach() > self.alive).sum() for score in scores.values()])
        weights = self.weights(dict(zip(scores, counts.tolist(), strict=True)))
        return torch.stack([weights[name] * score.sum() for name, score in scores.items()]).sum()

    def weights(self, living: Mapping[str, int]) -> dict[str, float]:
        """Return the cost of one channel of each group beside ``living`` ones, over the mean."""
        if self._weighed is None or self._weighed[0] != living:
            costs = channel_costs(self.graph, self.cost, living)
            # Cost falls as channels die; the strength's unit must not.
            weights = {name: costs[name] / self.mean for name in living}
            self._weighed = dict(living), weights
        return self._weighed[1]

    def _score(self, name: str, scales: Mapping[str, Tensor]) -> Tensor:
        rows = []
        for i, where in enumerate(self.found[name]):
            scale = scales[where.norm]
            if (name, i) not in self._places:
                self._places[name, i] = torch.from_numpy(where.places).to(scale.device)
            rows.append(scale.abs()[self._places[name, i]])
        return reduced_tensor(torch.cat(rows, dim=1), self.reduction)


def reduced_tensor(rows: Tensor, reduction: Reduction) -> Tensor:
    """Return one value a channel ``[c]`` of ``[c scales]``; ties share the gradient."""
    if reduction == "first":
        return rows[:, 0]
    if reduction == "max":
        return rows.amax(dim=1)
    if reduction == "min":
        return rows.amin(dim=1)
    return rows.sum(dim=1) if reduction == "sum" else rows.mean(dim=1)


def uniform_cost(graph: Graph, cost: Cost, keep: float) -> int:
    """Return what the uniformly narrowed reference costs."""
    narrow = StageProfile.uniform(graph, keep).descriptor(graph)
    return total_cost(graph, cost, narrow.widths)


def expanded(graph: Graph, cost: Cost, living: Mapping[str, int], budget: int) -> dict[str, int]:
    """Return the living widths times the largest factor that meets the budget, and filled up.

    Args:
        graph: The reference: no group grows beyond its width there.
        cost: What the budget is of.
        living: Width of every free group to start from.
        budget: Largest cost.
    """
    full = couple(graph).widths
    keeps = {name: width / full[name] for name, width in living.items()}
    return allocate_keeps(
        graph,
        keeps,
        max_macs=budget if cost == "macs" else None,
        max_params=budget if cost == "params" else None,
    )


def _narrowed(subject: Subject, widths: Mapping[str, int]) -> Graph:
    full = subject.groups.widths
    narrow = {name: width for name, width in widths.items() if width != full[name]}
    return apply(
        subject.graph,
        Descriptor(reference=digest(subject.graph), widths=narrow, seed=subject.seed),
    )


def _whole(group: ChannelGroup, count: int) -> int:
    """Return a number of channels brought up to the group's divisor."""
    return min(group.width, max(1, -(-count // group.divisor)) * group.divisor)
