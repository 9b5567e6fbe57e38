"""Sparse Structure Selection: factors on blocks, parts or channels that training sets to zero."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunenas.arch.allocate import best, removed_part, whole_count
from prunenas.arch.descriptor import Descriptor, apply
from prunenas.build.network import Network
from prunenas.errors import MethodError
from prunenas.generators.base import (
    GENERATORS,
    Generator,
    LooksAt,
    Proposal,
    Subject,
    is_amount,
    need,
)
from prunenas.generators.base.channel_costs import (
    WEIGHTINGS,
    Cost,
    Weighting,
    channel_costs,
    mean_one,
)
from prunenas.generators.base.factors import BlockFactors, ChannelFactors, Factors
from prunenas.generators.base.method import Counts
from prunenas.generators.base.parts import Parts, part_factors, removable_parts
from prunenas.ir.blocks import drop_blocks
from prunenas.ir.canonical import digest
from prunenas.ir.cost import macs, params
from prunenas.ir.coupling import ChannelGroup, couple
from prunenas.ir.graph import Graph
from prunenas.training.hooks import Hooks
from prunenas.training.recipe import RECIPES, Recipe

Scale = Literal["blocks", "groups", "neurons"]

_SCALES = get_args(Scale)

_CARRIER: Mapping[Scale, str] = {
    "blocks": "removable residual block",
    "groups": "grouped convolution (scale='groups')",
    "neurons": "free group",
}


@GENERATORS.register("sparse_structure")
@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SparseStructure(Generator):
    """Train factors on blocks, parts or channels beside the weights, and drop those driven to zero.

    Every block, part of a grouped convolution or channel is multiplied by a factor that starts at
    1, does not decay, and follows the accelerated proximal gradient of an L1 penalty, with the
    learning rate ``lr`` of the step:
    ``z = soft(factor - lr * grad, lr * gamma)``, ``v = momentum * v + z - factor``,
    ``factor = z + momentum * v``, nothing below 0. The network is trained from the weights it is
    given, or fresh ones; afterwards the factors are folded into its weights, so what remains is a
    plain network that needs no fine-tuning to compute what it computed.

    ``blocks`` drops removable residual blocks: the factor stands on the branch before the addition,
    and of a stage's first block the projection stays. ``neurons`` narrows free groups: the factor
    stands where a channel is scaled last, behind the batch norm that follows a layer, and all
    members of a coupled group share it. ``groups`` drops whole parts of grouped convolutions, with
    the channels that they read and make, and so the number of parts falls: the factor stands where
    a part's outputs are scaled last. That needs inputs and outputs that are one free group each,
    cut into the same parts wherever they are cut, and inputs that nobody else reads; grouped
    convolutions that read each other's parts share factors.

    ``keep`` is a fraction of the blocks, the parts or the channels that carry factors: the smallest
    go, ``int(n * (1 - keep))`` of ``n``; of equal ones the last. What cannot carry a factor is left
    alone, and told; a group or convolution that would lose everything keeps its best.

    Args:
        scale: What the factors stand on: residual blocks, parts of grouped convolutions
            (``groups``), or channels (``neurons``).
        gamma: Weight of the penalty on the factors, not negative; the released example's is 0.01.
        momentum: Of the factors' update, in [0, 1).
        zeros_only: The source's rule: exactly what has the factor 0 goes, and ``gamma`` decides
            how much; no ``keep`` is taken then.
        weighting: What each factor's ``gamma`` is multiplied by. ``none`` is the source.
            ``macs`` and ``params``: what its block, part or channel costs, over the mean of all.

    Source: Huang and Wang 2018, arXiv:1707.01213, section 3, and its released code (the
    update, and the clamp of the factors at 0). The weighting: Gordon et al. 2018, arXiv:1711.06798.
    """

    looks_at: ClassVar[LooksAt] = "own"
    recipe: ClassVar[Recipe] = RECIPES["paper_sss"]

    scale: Scale = "blocks"
    gamma: float = 0.01
    momentum: float = 0.9
    zeros_only: bool = False
    weighting: Weighting = "none"

    def __post_init__(self) -> None:
        need(
            "sparse_structure",
            scale=(self.scale, self.scale in _SCALES, f"is one of {', '.join(_SCALES)}"),
            gamma=(self.gamma, is_amount(self.gamma), "is finite and not negative"),
            momentum=(self.momentum, 0 <= self.momentum < 1, "is in [0, 1)"),
            weighting=(
                self.weighting,
                self.weighting in WEIGHTINGS,
                f"is one of {', '.join(WEIGHTINGS)}",
            ),
        )

    @property
    def counts(self) -> Counts:
        """Blocks, parts of grouped convolutions, or channels."""
        counted: Mapping[Scale, Counts] = {
            "blocks": "blocks",
            "groups": "parts",
            "neurons": "channels",
        }
        return counted[self.scale]

    @property
    def says_how_much(self) -> str | None:
        """The source's rule takes no keep."""
        return "zeros_only" if self.zeros_only else None

    def check(self, graph: Graph) -> None:
        """Refuse graphs in which nothing can carry a factor.

        Raises:
            MethodError: So it is; the message says why of each.
        """
        if not couple(graph).free and self.scale == "neurons":
            return
        factors = self._factors(graph)
        if not factors.sizes:
            why = "; ".join(f"{name}: {reason}" for name, reason in factors.left_alone.items())
            raise MethodError(
                f"sparse_structure needs a {_CARRIER[self.scale]} that can carry a factor; "
                "there is none" + (f": {why}" if why else "")
            )

    def propose(self, subject: Subject) -> Proposal:
        """Return what is left when the smallest factors go, and the network it was trained with."""
        factors = self._factors(subject.graph)
        network = subject.copy()
        values = factors.ones(network)
        update = ProximalGradient(values, self._gammas(subject.graph, factors), self.momentum)
        with factors.attached(network, values):
            subject.train(network, hooks=Hooks(after_step=lambda _, moment: update.step(moment.lr)))
        factors.fold(network, values)
        network.zero_grad(set_to_none=True)
        found = {name: value.detach().double().cpu().numpy() for name, value in values.items()}
        kept = self._kept(found, subject.asked)
        told: dict[str, Any] = (
            {"left_alone": dict(factors.left_alone)} if factors.left_alone else {}
        )
        if self.scale == "blocks":
            told |= {"factors": {name: float(value[0]) for name, value in found.items()}}
            dropped = tuple(name for name, stays in kept.items() if not stays.any())
            return Proposal(dropped=dropped, found=told, refit=network.eval())
        if self.scale == "groups":
            told |= {"factors": {name: value.tolist() for name, value in found.items()}}
            return _without_parts(removable_parts(subject.graph)[0], found, kept, told, network)
        told |= {"zeros": {name: int((value == 0).sum()) for name, value in found.items()}}
        selections, emptied = _selected(subject.groups.free, found, kept)
        return Proposal(
            selections=selections,
            scores=found,
            kept_best=emptied,
            found=told,
            refit=network.eval(),
        )

    def _factors(self, graph: Graph) -> Factors:
        if self.scale == "groups":
            return part_factors(graph)
        return BlockFactors.of(graph) if self.scale == "blocks" else ChannelFactors.of(graph)

    def _gammas(self, graph: Graph, factors: Factors) -> dict[str, float]:
        """Return the weight of the penalty on each factor."""
        if self.weighting == "none":
            return dict.fromkeys(factors.sizes, self.gamma)
        if self.scale == "neurons":
            scored = [group for group in couple(graph).free if group.name in factors.sizes]
            weights, _ = mean_one(channel_costs(graph, self.weighting), scored)
        elif self.scale == "groups":
            weights = part_weights(graph, self.weighting, factors.sizes)
        else:
            weights = block_weights(graph, self.weighting, factors.sizes)
        return {name: self.gamma * weights[name] for name in factors.sizes}

    def _kept(
        self, found: Mapping[str, NDArray[np.float64]], keep: float | None
    ) -> dict[str, NDArray[np.bool_]]:
        """Return whether each factor's block, part or channel stays."""
        if keep is None:
            return {name: values > 0 for name, values in found.items()}
        every = np.concatenate([*found.values()])
        gone = whole_count(len(every), removed_part(keep))
        stays = np.zeros(len(every), dtype=np.bool_)
        stays[[*best(every, len(every) - gone)]] = True
        ends = np.cumsum([len(values) for values in found.values()])
        return dict(zip(found, np.split(stays, ends[:-1]), strict=True))


@final
class ProximalGradient:
    """The accelerated proximal gradient of an L1 penalty on factors that stay at 0 or above.

    Args:
        values: The factors ``[n]`` by name; they are changed in place.
        gammas: Weight of the penalty by name.
        momentum: Of the update.

    Source: Huang and Wang 2018, arXiv:1707.01213, section 3, as its released code has it.
    """

    def __init__(
        self, values: Mapping[str, Tensor], gammas: Mapping[str, float], momentum: float
    ) -> None:
        self.values, self.gammas, self.momentum = values, gammas, momentum
        self._velocity = {name: torch.zeros_like(value) for name, value in values.items()}

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Take one step with the gradients that the factors have, and forget these."""
        for name, value in self.values.items():
            z, velocity = value.clone(), self._velocity[name]
            if value.grad is not None:
                z.sub_(value.grad, alpha=lr)
            z = z.sign() * (z.abs() - lr * self.gammas[name]).clamp_(min=0)
            velocity.mul_(self.momentum).add_(z - value)
            value.copy_(z.add_(velocity, alpha=self.momentum).clamp_(min=0))
            value.grad = None


def block_weights(graph: Graph, cost: Cost, names: Mapping[str, int]) -> dict[str, float]:
    """Return what each block costs that is dropped alone, over the mean of them all.

    Args:
        graph: The reference.
        cost: Multiply-accumulates of one image, or parameters.
        names: The blocks.
    """
    count = macs if cost == "macs" else params
    whole = count(graph)
    saved = {name: whole - count(drop_blocks(graph, [name])) for name in names}
    mean = sum(saved.values()) / len(saved)
    return {name: value / mean for name, value in saved.items()}


def part_weights(graph: Graph, cost: Cost, sizes: Mapping[str, int]) -> dict[str, float]:
    """Return what a part costs that is dropped alone, by name, over the mean of all parts.

    Args:
        graph: The reference.
        cost: Multiply-accumulates of one image, or parameters.
        sizes: Number of parts by name.
    """
    count = macs if cost == "macs" else params
    whole, saved = count(graph), {}
    for parts in removable_parts(graph)[0]:
        if parts.name in sizes:
            one_less = Descriptor(
                reference=digest(graph),
                selections=parts.selections(np.arange(parts.count) > 0),
                part_counts=dict.fromkeys(parts.convolutions, parts.count - 1),
            )
            saved[parts.name] = whole - count(apply(graph, one_less))
    mean = sum(saved[name] * size for name, size in sizes.items()) / sum(sizes.values())
    return {name: value / mean for name, value in saved.items()}


def _without_parts(
    removable: tuple[Parts, ...],
    factors: Mapping[str, NDArray[np.float64]],
    kept: Mapping[str, NDArray[np.bool_]],
    told: Mapping[str, Any],
    refit: Network,
) -> Proposal:
    """Return the proposal that keeps some parts of each convolution: its best where none stays."""
    selections: dict[str, tuple[int, ...]] = {}
    counts: dict[str, int] = {}
    emptied: list[str] = []
    for parts in removable:
        if parts.name not in kept:
            continue
        stays = kept[parts.name]
        if not stays.any():
            emptied += parts.convolutions
            stays = np.arange(parts.count) == best(factors[parts.name], 1)[0]
        selections |= parts.selections(stays)
        counts |= dict.fromkeys(parts.convolutions, int(stays.sum()))
    return Proposal(
        selections=selections,
        part_counts=counts,
        kept_best=tuple(emptied),
        found=told,
        refit=refit.eval(),
    )


def _selected(
    groups: tuple[ChannelGroup, ...],
    factors: Mapping[str, NDArray[np.float64]],
    kept: Mapping[str, NDArray[np.bool_]],
) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...]]:
    """Return the kept channels by group, brought up to divisors, and the groups emptied."""
    selections, emptied = {}, []
    for group in groups:
        if group.name not in kept:
            continue
        count = int(kept[group.name].sum())
        if count == 0:
            emptied.append(group.name)
        whole = max(1, -(-count // group.divisor)) * group.divisor
        selections[group.name] = best(factors[group.name], min(group.width, whole))
    return selections, tuple(emptied)
