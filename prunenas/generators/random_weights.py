"""Random weights. A control."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray

from prunenas.generators.base import GENERATORS, Generator, LooksAt, Proposal, Subject, need
from prunenas.generators.base.method import Counts
from prunenas.generators.base.weights import (
    LAYERS,
    RULES,
    Layers,
    Rule,
    kept_masks,
    present,
    prunable,
)
from prunenas.ir.draw import uniform
from prunenas.ir.graph import Graph
from prunenas.ir.ops import ExactMask


@GENERATORS.register("random_weights")
@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RandomWeights(Generator):
    """Keep weights that are drawn, all with the same probability.

    As many are kept as ``magnitude`` keeps with the same ``layers`` and ``rule``: a draw in [0, 1)
    stands for the size of each weight. A layer that would lose everything keeps the weight that was
    closest to being kept. Weights are kept by exact masks; biases stay, where ShrinkBench draws
    them too. What a mask of the reference has removed does not count and never comes back.

    Args:
        layers: ``conv``: all convolutions and no linear layer; ``hidden``: both, but not the layer
            that gives the output; ``all``.
        rule: ``strict``: ``int(n * (1 - keep)) + 1`` of ``n`` weights go; ``count``: exactly
            ``round(n * keep)`` stay; ``quantile``: as ShrinkBench counts.
        independent: Keep each weight with the probability ``keep`` by itself, so that their number
            varies, and ``rule`` says nothing.

    Source: Blalock et al. 2020, arXiv:2003.03033 (ShrinkBench's RandomPruning is
        ``independent=True, layers="hidden"``).
    """

    looks_at: ClassVar[LooksAt] = "graph"
    layers: Layers = "conv"
    rule: Rule = "strict"
    independent: bool = False

    def __post_init__(self) -> None:
        need(
            "random_weights",
            layers=(self.layers, self.layers in LAYERS, f"is one of {', '.join(LAYERS)}"),
            rule=(self.rule, self.rule in RULES, f"is one of {', '.join(RULES)}"),
        )

    @property
    def counts(self) -> Counts:
        """The keep is a fraction of the weights that may go."""
        return "weights"

    def check(self, graph: Graph) -> None:
        """Refuse a graph without a layer that may lose weights."""
        prunable(graph, self.layers)

    def propose(self, subject: Subject) -> Proposal:
        """Return one drawn mask for each layer that may lose weights."""
        there = present(subject.graph, prunable(subject.graph, self.layers))
        draws = {name: _draws(name, left, subject.seed) for name, left in there.items()}
        if not self.independent:
            masks, emptied = kept_masks(draws, subject.keep, rule=self.rule, among=there)
            return Proposal(masks=masks, kept_best=emptied)
        masks = {name: (draws[name] < subject.keep) & left for name, left in there.items()}
        emptied = tuple(name for name, mask in masks.items() if not mask.any())
        for name in emptied:
            closest = np.where(there[name], draws[name], 1.0).argmin()
            masks[name].reshape(-1)[closest] = True
        return Proposal(masks=masks, kept_best=emptied)


def _draws(name: str, left: NDArray[np.bool_], seed: int) -> NDArray[np.float64]:
    """Return one draw for each weight of a layer, of which some may be gone."""
    stream = f"random weights {name}"
    if not left.all():
        # The draws that made a mask would keep all that it keeps, or none of it.
        stream += f" under {ExactMask.of(left).digest}"
    return uniform(left.size, seed=seed, stream=stream).reshape(left.shape)
