"""Uniform sparsifying: the same fraction of every layer's weights. A control."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, final, get_args

from prunenas.errors import MethodError
from prunenas.generators.base import GENERATORS, Generator, LooksAt, Proposal, Subject, need
from prunenas.generators.base.method import Counts
from prunenas.generators.base.weights import LAYERS, Layers, kept_masks, present, prunable
from prunenas.ir.draw import uniform
from prunenas.ir.graph import Graph
from prunenas.ir.masks import sparsity_of
from prunenas.ir.ops import KernelOp, kernel_of

Form = Literal["masks", "pattern"]


@GENERATORS.register("uniform_weights")
@final
@dataclass(frozen=True, slots=True, kw_only=True)
class UniformWeights(Generator):
    """Keep the same fraction of the weights of every layer, which ones is drawn.

    The control of methods that give each layer what it deserves, as ``uniform`` is of channels.
    Biases and norms stay. What is drawn follows from the seed and the layer's name alone. What a
    mask of the reference has removed does not count and never comes back.

    Args:
        layers: ``conv``: all convolutions and no linear layer; ``hidden``: both, but not the layer
            that gives the output; ``all``.
        form: ``masks``: an exact mask for each layer, that keeps exactly ``round(n * keep)`` of its
            ``n`` weights, at least one; ``pattern``: every kernel position is kept with the
            probability ``keep``, drawn when the network is built, so that counts vary. No filter
            loses all its weights then. Layers that are under a mask already are refused: what is
            drawn anew would bring weights back.

    Source: Liu et al. 2019, arXiv:1810.05270, section 5 (uniform sparsifying; which of the two
        forms was used is not said).
    """

    looks_at: ClassVar[LooksAt] = "graph"
    layers: Layers = "conv"
    form: Form = "masks"

    def __post_init__(self) -> None:
        forms = get_args(Form)
        need(
            "uniform_weights",
            layers=(self.layers, self.layers in LAYERS, f"is one of {', '.join(LAYERS)}"),
            form=(self.form, self.form in forms, f"is one of {', '.join(forms)}"),
        )

    @property
    def counts(self) -> Counts:
        """The keep is a fraction of the weights that may go."""
        return "weights"

    def check(self, graph: Graph) -> None:
        """Refuse a graph without a layer that may lose weights, and patterns on masked layers."""
        names = prunable(graph, self.layers)
        masked = [name for name in names if sparsity_of(graph[name].op) is not None]
        if self.form == "pattern" and masked:
            raise MethodError(
                "uniform_weights: form='pattern' draws anew, and would bring back weights of "
                f"layers that are under a mask already: {', '.join(masked)}; form='masks' does not"
            )

    def propose(self, subject: Subject) -> Proposal:
        """Return one mask, or one density for every kernel position, of each layer."""
        names = prunable(subject.graph, self.layers)
        if self.form == "pattern":
            return Proposal(densities={name: self._flat(subject, name) for name in names})
        shapes = {name: subject.graph.parameters()[f"{name}.weight"] for name in names}
        draws = {
            name: uniform(
                math.prod(shape), seed=subject.seed, stream=f"uniform weights {name}"
            ).reshape(shape)
            for name, shape in shapes.items()
        }
        there = present(subject.graph, names)
        masks, _ = kept_masks(draws, subject.keep, scope="layer", rule="count", among=there)
        few = (name for name, left in there.items() if round(int(left.sum()) * subject.keep) < 1)
        return Proposal(masks=masks, kept_best=tuple(few))

    def _flat(self, subject: Subject, name: str) -> tuple[float, ...]:
        op = subject.graph[name].op
        assert isinstance(op, KernelOp), "only these are prunable"
        return (subject.keep,) * math.prod(kernel_of(op))
