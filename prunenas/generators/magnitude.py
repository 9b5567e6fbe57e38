"""Magnitude pruning: the smallest weights go, at once or in steps."""

from dataclasses import dataclass, replace
from typing import Literal, final, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from prunenas.arch.metrics import Seeds
from prunenas.build.network import Network
from prunenas.errors import MethodError
from prunenas.generators.base import GENERATORS, Generator, Proposal, Subject, is_fraction, need
from prunenas.generators.base.method import Counts
from prunenas.generators.base.weights import (
    LAYERS,
    RULES,
    SCOPES,
    Layers,
    Masks,
    Rule,
    Scope,
    kept_masks,
    kept_weights,
    present,
    prunable,
)
from prunenas.ir.graph import Graph
from prunenas.training.batches.supply import batches_of
from prunenas.training.holding import hold, set_to_zero
from prunenas.training.hooks import Hooks, Moment
from prunenas.training.protocols.budgets import fine_tune
from prunenas.training.recipe import Recipe

Schedule = Literal["one_shot", "geometric", "polynomial"]


def polynomial_keep(done: float, keep: float, at_start: float = 1.0) -> float:
    """Return the keep after ``done`` in [0, 1] of a gradual pruning.

    ``s_f + (s_i - s_f) * (1 - done) ** 3`` of the weights are gone, where ``s_i`` and ``s_f`` are
    gone at its start and at its end: ``done`` is ``(t - t0) / (n * dt)``.

    Source: Zhu and Gupta 2017, arXiv:1710.01878, equation 1.

    Example:
        >>> polynomial_keep(0.5, 0.2)
        0.3
    """
    return keep + (at_start - keep) * (1 - done) ** 3


@GENERATORS.register("magnitude")
@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Magnitude(Generator):
    """Keep the weights with the largest absolute values.

    The default is what Liu et al. 2019 run as Han et al. 2015: one threshold over all convolutions,
    at once. Biases and norms stay, here as there; ShrinkBench, whose LayerMagWeight is
    ``scope="layer", rule="quantile", layers="hidden"``, prunes the biases of these layers too. The
    original of Han et al. is ``std_quality``. A layer that would lose everything keeps its largest
    weight, where the source empties it. Weights are kept by exact masks. What a mask of the
    reference has removed does not count and never comes back.

    The schedules that take several steps train a copy of the network on the data, removed weights
    held at exactly zero; these never come back. What fine-tuning starts from is then that copy.

    Args:
        layers: ``conv``: all convolutions and no linear layer; ``hidden``: both, but not the layer
            that gives the output; ``all``.
        scope: ``global``: one threshold for all layers; ``layer``: the keep holds for each.
        rule: ``strict``: keep what exceeds the sorted value at place ``int(n * (1 - keep))``;
            ``quantile``: keep what is not below the quantile; ``count``: keep exactly
            ``round(n * keep)``.
        std_quality: Instead of a keep: a layer keeps what exceeds this factor times the standard
            deviation of its weights.
        schedule: ``one_shot``; ``geometric``: every round keeps ``keep ** (1 / rounds)`` of the
            weights that are left, with training between rounds; ``polynomial``: in one training,
            quickly at first and slowly at last.
        rounds: Rounds of ``geometric``, updates of ``polynomial`` (its ``n``).
        epochs: Epochs between two rounds of ``geometric``, or of the training of ``polynomial``;
            None: as many as the recipe has.
        lr: Constant learning rate of this training; None: the recipe's rates.
        rewind: Before each training of ``geometric``, set the weights left to their initial values,
            which are those that the seed gives: lottery tickets. A given network is refused.
        begin: Fraction of the steps of ``polynomial`` at which pruning begins (its ``t0``).
        end: Fraction of the steps at which the last weights go; between two updates lie
            ``int((end - begin) * steps / rounds)`` steps (its ``dt``).
        keep_at_start: What is kept when ``polynomial`` begins (``1 - s_i``).

    Source: Han et al. 2015, arXiv:1506.02626, section 3, and the released code of Liu et al. 2019,
        arXiv:1810.05270 (``prune.py`` of the unstructured folder; ``geometric`` with ``rewind`` is
        the iterative pruning of its lottery-ticket folder, after Frankle and Carbin 2019,
        arXiv:1803.03635); Zhu and Gupta 2017, arXiv:1710.01878, equation 1 (``polynomial``);
        Blalock et al. 2020, arXiv:2003.03033 (ShrinkBench).
    """

    layers: Layers = "conv"
    scope: Scope = "global"
    rule: Rule = "strict"
    std_quality: float | None = None
    schedule: Schedule = "one_shot"
    rounds: int = 10
    epochs: int | None = None
    lr: float | None = None
    rewind: bool = False
    begin: float = 0.0
    end: float = 0.75
    keep_at_start: float = 1.0

    def __post_init__(self) -> None:
        known = get_args(Schedule)
        quality = self.std_quality
        need(
            "magnitude",
            layers=(self.layers, self.layers in LAYERS, f"is one of {', '.join(LAYERS)}"),
            scope=(self.scope, self.scope in SCOPES, f"is one of {', '.join(SCOPES)}"),
            rule=(self.rule, self.rule in RULES, f"is one of {', '.join(RULES)}"),
            schedule=(self.schedule, self.schedule in known, f"is one of {', '.join(known)}"),
            std_quality=(
                quality,
                quality is None or (0 < quality < np.inf and self.schedule == "one_shot"),
                "is positive and finite, and goes with schedule='one_shot'",
            ),
            rounds=(self.rounds, self.rounds >= 1, "is at least 1"),
            epochs=(self.epochs, self.epochs is None or self.epochs >= 1, "is at least 1"),
            lr=(self.lr, self.lr is None or 0 < self.lr < np.inf, "is positive"),
            rewind=(
                self.rewind,
                not self.rewind or self.schedule == "geometric",
                "goes with schedule='geometric'",
            ),
            begin=(self.begin, 0 <= self.begin < self.end, "is in [0, end)"),
            end=(self.end, is_fraction(self.end), "is a fraction in (0, 1]"),
            keep_at_start=(
                self.keep_at_start,
                is_fraction(self.keep_at_start),
                "is a fraction in (0, 1]",
            ),
        )

    @property
    def reads(self) -> bool:
        """Whether the schedule trains."""
        return self.schedule != "one_shot"

    @property
    def counts(self) -> Counts:
        """The keep is a fraction of the weights that may go."""
        return "weights"

    @property
    def says_how_much(self) -> str | None:
        """``std_quality``, where it is set."""
        return None if self.std_quality is None else "std_quality"

    def check(self, graph: Graph) -> None:
        """Refuse a graph without a layer that may lose weights."""
        prunable(graph, self.layers)

    def propose(self, subject: Subject) -> Proposal:
        """Return the masks of the layers that may lose weights."""
        names = prunable(subject.graph, self.layers)
        if self.std_quality is not None:
            return self._above_deviation(subject, names, self.std_quality)
        if self.schedule == "geometric":
            return self._in_rounds(subject, names)
        if self.schedule == "polynomial":
            return self._gradually(subject, names)
        sizes = _sizes(subject.trained, names)
        return kept_weights(subject, sizes, scope=self.scope, rule=self.rule)

    def _above_deviation(
        self, subject: Subject, names: tuple[str, ...], quality: float
    ) -> Proposal:
        masks, emptied = {}, []
        there = present(subject.graph, names)
        for name, size in _sizes(subject.trained, names).items():
            left = torch.from_numpy(there[name])
            weights = subject.trained.weight(name).cpu()[left].double()
            threshold = quality * float(weights.std(correction=0))
            mask = np.asarray((size > np.float64(threshold)) & there[name])
            if not mask.any():
                emptied.append(name)
                best = np.where(there[name], size, -1.0).argmax()
                mask[np.unravel_index(best, mask.shape)] = True
            masks[name] = mask
        return Proposal(masks=masks, kept_best=tuple(emptied))

    def _in_rounds(self, subject: Subject, names: tuple[str, ...]) -> Proposal:
        """Prune, train what is left, prune again; the last pruning is not trained any more."""
        if self.rewind and subject.given:
            raise MethodError(
                "magnitude: rewind=True goes back to the weights that the reference began with, "
                "and those of a network that is given are not known: let it be trained here"
            )
        network = subject.copy()
        each = subject.keep ** (1 / self.rounds)
        masks = present(subject.graph, names)
        emptied: list[str] = []
        left = []
        for done in range(self.rounds):
            if done:
                if self.rewind:
                    network = subject.fresh()
                held = _tensors(masks)
                set_to_zero(network, held)
                subject.train(
                    network, self._recipe(subject), Hooks(after_step=hold(held), in_place=True)
                )
            masks, lost = kept_masks(
                _sizes(network, names), each, scope=self.scope, rule=self.rule, among=masks
            )
            emptied += lost
            left.append(sum(int(mask.sum()) for mask in masks.values()))
        return Proposal(
            masks=masks,
            kept_best=tuple(dict.fromkeys(emptied)),
            found={"weights left after each round": left},
            refit=network.eval(),
        )

    def _gradually(self, subject: Subject, names: tuple[str, ...]) -> Proposal:
        """Prune in the midst of one training."""
        network, recipe = subject.copy(), self._recipe(subject)
        first, every = self._steps(subject, recipe)
        gradual = _Gradual(present(subject.graph, names))

        def prune(network: Network, step: int) -> None:
            update, rest = divmod(step - first, every)
            if rest == 0 and 0 <= update <= self.rounds:
                keep = polynomial_keep(update / self.rounds, subject.keep, self.keep_at_start)
                gradual.prune(network, step, keep, self.scope, self.rule)

        def after_step(network: Network, moment: Moment) -> None:
            prune(network, moment.step)
            gradual.hold(network, moment)

        hooks = Hooks(
            before=lambda network: prune(network, 0), after_step=after_step, in_place=True
        )
        subject.train(network, recipe, hooks)
        return Proposal(
            masks=gradual.masks,
            kept_best=tuple(dict.fromkeys(gradual.emptied)),
            found={"weights left after step": gradual.left},
            refit=network.eval(),
        )

    def _recipe(self, subject: Subject) -> Recipe:
        epochs = self.epochs or subject.recipe.epochs
        if self.lr is not None:
            return fine_tune(subject.recipe, epochs=epochs, lr=self.lr)
        # A sparse phase of the recipe would let go of what pruning holds at zero.
        return replace(subject.recipe, epochs=epochs, sparse=None)

    def _steps(self, subject: Subject, recipe: Recipe) -> tuple[int, int]:
        """Return the step of the first update, and the steps from one to the next."""
        part = subject.images.part("fit")
        seeds = Seeds(order=0, augmentation=0, layers=0)
        batches = batches_of(subject.images, part, replace(recipe, augment=False), seeds)
        steps = recipe.epochs * len(batches)
        # Rounded first: (0.7 - 0.1) * 10 falls short of the whole number that is meant.
        every = int(round((self.end - self.begin) * steps, 6) / self.rounds)
        if every < 1:
            raise MethodError(
                f"magnitude: schedule='polynomial': {self.rounds} updates do not fit between "
                f"begin={self.begin:g} and end={self.end:g} of {steps} steps: fewer rounds or more "
                "epochs"
            )
        return int(round(self.begin * steps, 6)), every


@final
class _Gradual:
    """The masks of a gradual pruning, while one training lasts.

    Args:
        there: The weights that a keep is a fraction of.
    """

    def __init__(self, there: Masks) -> None:
        self.there = there
        self.masks: Masks = {}
        self.emptied: list[str] = []
        self.left: dict[str, int] = {}
        self.hold = hold({})

    def prune(self, network: Network, step: int, keep: float, scope: Scope, rule: Rule) -> None:
        """Remove weights until ``keep`` is left; what is gone is the first to be gone."""
        if keep == 1:
            return
        sizes = _sizes(network, tuple(self.there))
        for name, mask in self.masks.items():
            sizes[name][~mask] = -1.0
        self.masks, emptied = kept_masks(sizes, keep, scope=scope, rule=rule, among=self.there)
        self.emptied += emptied
        self.left[str(step)] = sum(int(mask.sum()) for mask in self.masks.values())
        held = _tensors(self.masks)
        set_to_zero(network, held)
        self.hold = hold(held)


def _tensors(masks: Masks) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(mask) for name, mask in masks.items()}


def _sizes(network: Network, names: tuple[str, ...]) -> dict[str, NDArray[np.floating]]:
    """Return the absolute weights of each layer, as new arrays in the kernels' logical order."""
    # Channels-last weights would make arrays whose reshaped views are copies.
    return {name: np.ascontiguousarray(network.weight(name).abs().cpu().numpy()) for name in names}
