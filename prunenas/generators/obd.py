"""Optimal Brain Damage: diagonal second-order saliency."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prunenas.generators.base import GENERATORS, Generator, Proposal, Subject, need
from prunenas.generators.base.gradients import Twin
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
from prunenas.ir.draw import uniform
from prunenas.ir.graph import Graph

Curvature = Literal["gauss_newton", "fisher"]


@GENERATORS.register("obd")
@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OptimalBrainDamage(Generator):
    """Keep the weights with the largest saliency ``h * w ** 2 / 2``.

    ``h`` is the second derivative of the mean cross-entropy by that weight alone. It is never
    negative here: like the source, which leaves out the second derivatives of the layers themselves
    (Levenberg-Marquardt), ``gauss_newton`` takes the curvature of the softmax cross-entropy at the
    scores, and of the network only its first derivatives. That is exact where scores are linear in
    the weights. ``fisher`` is cheaper and cruder: the squared gradient of each image with its own
    label (the empirical Fisher information). The source then retrains and repeats; this is one of
    its rounds. Networks are looked at in evaluation mode.

    A layer that would lose everything keeps its best weight. What a mask of the reference has
    removed does not count and never comes back. A channel's score is the sum of the
    saliencies of its filter, as if they did not interact; channels are no part of the source.

    Args:
        form: ``masks``: weights go; ``widths``: channels go, and keep is a fraction of these.
        layers: Of ``masks``: ``conv``: all convolutions and no linear layer; ``hidden``: both, but
            not the layer that gives the output; ``all``, as in the source.
        scope: ``global``: one threshold for all layers or groups; ``layer``: the keep holds for
            each.
        rule: Of ``masks``: ``count``: keep exactly ``round(n * keep)``; ``strict``: keep what
            exceeds the sorted value at place ``int(n * (1 - keep))``; ``quantile``: keep what is
            not below the quantile. Dead weights tie at zero: strictly all of these go, by the
            quantile all may stay. Of ``n`` channels ``int(n * (1 - keep)) + 1`` go.
        curvature: ``gauss_newton`` or ``fisher``.
        probes: Random signs a batch, each with a backward pass: the square of a sum with random
            signs estimates the sum of squares without bias. None: every square by itself, which
            takes a backward pass for each image and, of ``gauss_newton``, for each class of it.
        images: Images that the curvature is the mean over.
        batch: Images a pass; smaller batches make better estimates of the same images.
        reduction: Of ``widths``: how a coupled group's score follows from those of its layers.

    Source: LeCun, Denker and Solla 1990, "Optimal brain damage", NIPS 2; Schraudolph 2002, "Fast
        curvature matrix-vector products" (Gauss-Newton matrix of a loss of scores); Bekas et al.
        2007, "An estimator for the diagonal of a matrix" (probes).
    """

    reads: ClassVar[bool] = True
    form: Form = "masks"
    layers: Layers = "all"
    scope: Scope = "global"
    rule: Rule = "count"
    curvature: Curvature = "gauss_newton"
    probes: int | None = 4
    images: int = 256
    batch: int = 32
    reduction: Reduction = "sum"

    def __post_init__(self) -> None:
        known = get_args(Curvature)
        need(
            "obd",
            form=(self.form, self.form in FORMS, f"is one of {', '.join(FORMS)}"),
            layers=(self.layers, self.layers in LAYERS, f"is one of {', '.join(LAYERS)}"),
            scope=(self.scope, self.scope in SCOPES, f"is one of {', '.join(SCOPES)}"),
            rule=(self.rule, self.rule in RULES, f"is one of {', '.join(RULES)}"),
            curvature=(self.curvature, self.curvature in known, f"is one of {', '.join(known)}"),
            probes=(self.probes, self.probes is None or self.probes >= 1, "is at least 1, or None"),
            images=(self.images, self.images >= 1, "is at least 1"),
            batch=(self.batch, self.batch >= 1, "is at least 1"),
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
        diagonals = second_derivatives(
            subject,
            names,
            curvature=self.curvature,
            probes=self.probes,
            images=self.images,
            batch=self.batch,
        )
        saliencies = {
            name: kernel(subject.trained, name).double().square() * diagonal / 2
            for name, diagonal in diagonals.items()
        }
        if masked:
            scores = {name: saliency.cpu().numpy() for name, saliency in saliencies.items()}
            return kept_weights(subject, scores, scope=self.scope, rule=self.rule)
        return kept_channels(
            subject,
            lambda name: saliencies[name].flatten(1).sum(dim=1),
            reduction=self.reduction,
            scope=self.scope,
        )


def second_derivatives(
    subject: Subject,
    layers: Sequence[str],
    *,
    curvature: Curvature,
    probes: int | None,
    images: int,
    batch: int,
) -> dict[str, Tensor]:
    """Return the estimated second derivative by each weight, by layer, in double precision.

    The arguments are those of the method.
    """
    twin = Twin(subject, layers, training=False)
    total: dict[str, Tensor] = {}
    seen = 0
    batches = subject.batches(images, batch=batch if probes else 1)
    for step, (pixels, labels) in enumerate(batches):
        seen += len(labels)
        scores = twin(pixels)
        factors = _factors(scores.detach(), labels, curvature)
        directions = [*_directions(factors, probes, subject.seed, step)]
        for i, direction in enumerate(directions):
            more = i + 1 < len(directions)
            found = twin.gradients((direction * scores).sum(), again=more)
            for name, gradient in found.items():
                square = gradient.double().square_().div_(probes or 1)
                total[name] = total[name].add_(square) if name in total else square
    return {name: square.div_(seen) for name, square in total.items()}


def _directions(factors: Tensor, probes: int | None, seed: int, step: int) -> Iterator[Tensor]:
    """Yield directions ``[n c]`` of the scores, from factors ``[f n c]``."""
    if probes is None:
        yield from factors
        return
    shape = factors.shape[:2]
    for probe in range(probes):
        draws = uniform(math.prod(shape), seed=seed, stream=f"obd {step} {probe}")
        signs = torch.from_numpy(np.where(draws < 0.5, -1.0, 1.0)).reshape(shape)
        yield (signs.to(factors)[:, :, None] * factors).sum(dim=0)


def _factors(scores: Tensor, labels: Tensor, curvature: Curvature) -> Tensor:
    """Return ``[f n c]``: the curvature of the loss at the scores is the sum over f of squares.

    ``diag(p) - p p'`` of the probabilities p is the sum over classes f of ``p_f (e_f - p)(e_f -
    p)'``, and that of ``fisher`` is ``(p - e_y)(p - e_y)'``.
    """
    p = scores.softmax(dim=1)
    classes = p.shape[1]
    if curvature == "fisher":
        return (p - functional.one_hot(labels, classes))[None]
    each = torch.eye(classes, dtype=p.dtype, device=p.device)[:, None] - p
    return p.T.sqrt()[:, :, None] * each
