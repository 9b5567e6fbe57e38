"""Gradient magnitude: the weights whose product with their gradient is smallest go."""

from dataclasses import dataclass
from typing import ClassVar, final

from prunenas.generators.base import GENERATORS, Generator, Proposal, Subject, need
from prunenas.generators.base.gradients import mean_gradients
from prunenas.generators.base.method import Counts
from prunenas.generators.base.weights import (
    LAYERS,
    RULES,
    SCOPES,
    Layers,
    Rule,
    Scope,
    kept_weights,
    prunable,
)
from prunenas.ir.graph import Graph


@GENERATORS.register("gradient_magnitude")
@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GradientMagnitude(Generator):
    """Keep the weights with the largest ``|w * g|``, g the gradient of the mean cross-entropy.

    The gradient is taken over plain, unaugmented images in evaluation mode. ShrinkBench's
    GlobalMagGrad takes it of one batch in training mode, which also moves the running statistics
    (never those of the caller's network here), and prunes biases too, which stay here: up to that
    it is ``images=128, training=True, rule="quantile"``; LayerMagGrad is that with
    ``scope="layer"``. A layer that would lose everything keeps its best weight. What a mask of the
    reference has removed does not count and never comes back.

    Args:
        layers: ``conv``: all convolutions and no linear layer; ``hidden``: both, but not the layer
            that gives the output; ``all``.
        scope: ``global``: one threshold for all layers; ``layer``: the keep holds for each.
        rule: ``count``: keep exactly ``round(n * keep)``; ``strict``: keep what exceeds the sorted
            value at place ``int(n * (1 - keep))``; ``quantile``: keep what is not below the
            quantile. Dead weights tie at zero: strictly all of these go, by the quantile all may
            stay.
        images: Images that the gradient is the mean over.
        batch: Images a pass; only in training mode does it change the gradient.
        training: Whether batch norms use the batch's statistics, and dropout drops.

    Source: Blalock et al. 2020, arXiv:2003.03033, section 7, and the released code of ShrinkBench.
    """

    reads: ClassVar[bool] = True
    layers: Layers = "hidden"
    scope: Scope = "global"
    rule: Rule = "count"
    images: int = 1024
    batch: int = 128
    training: bool = False

    def __post_init__(self) -> None:
        need(
            "gradient_magnitude",
            layers=(self.layers, self.layers in LAYERS, f"is one of {', '.join(LAYERS)}"),
            scope=(self.scope, self.scope in SCOPES, f"is one of {', '.join(SCOPES)}"),
            rule=(self.rule, self.rule in RULES, f"is one of {', '.join(RULES)}"),
            images=(self.images, self.images >= 1, "is at least 1"),
            batch=(self.batch, self.batch >= 1 + self.training, "is at least 1, in training 2"),
        )

    @property
    def counts(self) -> Counts:
        """The keep is a fraction of the weights that may go."""
        return "weights"

    def check(self, graph: Graph) -> None:
        """Refuse a graph without a layer that may lose weights."""
        prunable(graph, self.layers)

    def propose(self, subject: Subject) -> Proposal:
        """Return the masks of the layers that may lose weights."""
        gradients = mean_gradients(
            subject,
            prunable(subject.graph, self.layers),
            images=self.images,
            batch=self.batch,
            training=self.training,
        )
        scores = {
            name: (subject.trained.weight(name) * gradient).abs().cpu().numpy()
            for name, gradient in gradients.items()
        }
        return kept_weights(subject, scores, scope=self.scope, rule=self.rule)
