"""SNIP: connection sensitivity, before any training."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch

from prunenas.generators.base import GENERATORS, Generator, LooksAt, Proposal, Subject, need
from prunenas.generators.base.gradients import mean_gradients
from prunenas.generators.base.method import Counts
from prunenas.generators.base.scores import REDUCTIONS, Reduction, kernel
from prunenas.generators.base.weights import (
    FORMS,
    LAYERS,
    RULES,
    SCOPES,
    Form,
    Layers,
    Rule,
    Scope,
    kept_channels,
    kept_weights,
    prunable,
    scored_layers,
)
from prunenas.ir.graph import Graph


@GENERATORS.register("snip")
@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Snip(Generator):
    """Keep the connections that the loss of a fresh network is most sensitive to.

    The sensitivity of a weight is ``|g * w|``, divided by the sum of all, where g is the gradient
    of the mean cross-entropy on plain images. The source takes one batch, with batch norms as in
    evaluation, prunes biases too (they stay here), and keeps exactly ``round(n * keep)``. It starts
    from Glorot's initialisation; here it is the graph's own. A network that is given is looked at
    as it is, trained or not. A layer that would lose everything keeps its best weight. What a mask
    of the reference has removed does not count and never comes back.

    Whole channels are no part of the source. A channel's score is the sum of its filter's
    sensitivities, or with ``joint`` the size of the sum of ``g * w``: the sensitivity of one
    indicator for the whole channel. Behind a filter with a batch norm that sum is zero in training
    mode, since the loss does not change with the filter's scale.

    Args:
        form: ``masks``: weights go; ``widths``: channels go, and keep is a fraction of these.
        layers: Of ``masks``: ``conv``: all convolutions and no linear layer; ``hidden``: both, but
            not the layer that gives the output; ``all``, as in the source.
        scope: ``global``: one threshold for all layers or groups, as in the source; ``layer``: the
            keep holds for each.
        rule: Of ``masks``: ``count``: keep exactly ``round(n * keep)``; ``strict``: keep what
            exceeds the sorted value at place ``int(n * (1 - keep))``; ``quantile``: keep what is
            not below the quantile. Dead weights tie at zero: strictly all of these go, by the
            quantile all may stay. Of ``n`` channels ``int(n * (1 - keep)) + 1`` go.
        images: Images that the gradient is the mean over.
        batch: Images a pass; only in training mode does it change the gradient.
        training: Whether batch norms use the batch's statistics, and dropout drops.
        joint: Of ``widths``: the size of a filter's sum instead of the sum of sizes.
        reduction: Of ``widths``: how a coupled group's score follows from those of its layers.

    Source: Lee et al. 2019, arXiv:1810.02340, section 4 and algorithm 1, and the released code;
        van Amersfoort et al. 2020, arXiv:2007.00389 (``joint``: one indicator a channel).
    """

    looks_at: ClassVar[LooksAt] = "initial"
    reads: ClassVar[bool] = True
    form: Form = "masks"
    layers: Layers = "all"
    scope: Scope = "global"
    rule: Rule = "count"
    images: int = 128
    batch: int = 128
    training: bool = False
    joint: bool = False
    reduction: Reduction = "sum"

    def __post_init__(self) -> None:
        need(
            "snip",
            form=(self.form, self.form in FORMS, f"is one of {', '.join(FORMS)}"),
            layers=(self.layers, self.layers in LAYERS, f"is one of {', '.join(LAYERS)}"),
            scope=(self.scope, self.scope in SCOPES, f"is one of {', '.join(SCOPES)}"),
            rule=(self.rule, self.rule in RULES, f"is one of {', '.join(RULES)}"),
            images=(self.images, self.images >= 1, "is at least 1"),
            batch=(self.batch, self.batch >= 1 + self.training, "is at least 1, in training 2"),
            joint=(self.joint, not self.joint or self.form == "widths", "goes with form='widths'"),
            reduction=(
                self.reduction,
                self.reduction in REDUCTIONS,
                f"is one of {', '.join(REDUCTIONS)}",
            ),
        )

    @property
    def counts(self) -> Counts:
        """Weights that may go, or channels."""
        return "weights" if self.form == "masks" else "channels"

    def check(self, graph: Graph) -> None:
        """Refuse a graph without a layer that may lose weights."""
        if self.form == "masks":
            prunable(graph, self.layers)

    def propose(self, subject: Subject) -> Proposal:
        """Return masks, or the channels that stay."""
        masked = self.form == "masks"
        names = prunable(subject.graph, self.layers) if masked else scored_layers(subject)
        gradients = mean_gradients(
            subject, names, images=self.images, batch=self.batch, training=self.training
        )
        products = {
            name: (kernel(subject.trained, name) * gradient).double()
            for name, gradient in gradients.items()
        }
        # Where nothing is sensitive there is nothing to divide by.
        total = sum(float(product.abs().sum()) for product in products.values()) or 1.0
        if masked:
            scores = {name: (p.abs() / total).cpu().numpy() for name, p in products.items()}
            return kept_weights(subject, scores, scope=self.scope, rule=self.rule)

        def filters(name: str) -> torch.Tensor:
            product = products[name].flatten(1) / total
            return product.sum(dim=1).abs() if self.joint else product.abs().sum(dim=1)

        return kept_channels(subject, filters, reduction=self.reduction, scope=self.scope)
