"""Recipes: a training budget and schedule as a value."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, final, get_args

from prunenas.errors import RecipeError

Schedule = Literal["steps", "one_cycle", "constant"]
Precision = Literal["fp32", "bf16", "auto"]

_SCHEDULES = get_args(Schedule)
_PRECISIONS = get_args(Precision)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SparsePhase:
    """The sparse part of dense-sparse-dense training.

    Before its first epoch the smallest weights of each convolution and linear layer, by absolute
    value within the layer, are set to zero. They are held at exactly zero until its last epoch is
    over, and trained like all others from then on.

    Args:
        keep: Fraction of each layer's weights that stay, in (0, 1].
        start: When it begins, as a fraction of the epochs.
        end: When the weights are let go, likewise; 1 is never.

    Source: Han et al. 2017, arXiv:1607.04381, algorithm 1.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    keep: float
    start: float
    end: float

    def __post_init__(self) -> None:
        faults = []
        if not 0 < self.keep <= 1:
            faults.append(f"keep={self.keep} must be in (0, 1]")
        if not 0 <= self.start < self.end <= 1:
            faults.append(f"start={self.start} and end={self.end} must be 0 <= start < end <= 1")
        if faults:
            raise RecipeError("a sparse phase cannot be followed: " + "; ".join(faults))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a network is trained. The defaults are the paper's for CIFAR.

    Args:
        epochs: Passes over the training images.
        batch: Images a step.
        lr: Learning rate: the first one of ``steps`` and ``constant``, the peak of ``one_cycle``.
        momentum: Of stochastic gradient descent.
        nesterov: Nesterov's form of the momentum.
        weight_decay: L2 penalty.
        decay_norms: Whether batch norms and biases decay too, as in the paper's code.
        schedule: ``steps`` multiplies by ``decay_factor`` at the milestones, ``one_cycle`` rises
            and falls once.
        decay_at: Milestones of ``steps`` as fractions of the epochs.
        decay_every: Fraction of the epochs after which ``steps`` decays, again and again; instead
            of ``decay_at``.
        label_smoothing: Share of the target spread over all classes.
        augment: Random crops and flips, where the data set allows them.
        precision: ``bf16`` runs convolutions and products in bfloat16, ``fp32`` all in single
            precision (on CUDA, convolutions in TF32 where torch's own switch allows it). ``auto``
            is ``bf16`` where the device computes in it, else ``fp32``: ``settle`` in
            ``training.execution`` decides before anything is filed.
        decay_factor: What ``steps`` multiplies the learning rate by at each milestone.
        warmup_epochs: First epochs, at ``warmup_factor`` times the learning rate. Their number
            does not stretch with the epochs; ``one_cycle`` has a warm-up of its own.
        warmup_factor: Part of the learning rate in them.
        sparse: A sparse phase, for dense-sparse-dense training.
        cutout: Side, in pixels, of the square that ``augment`` blanks out in each image; or 0.

    Source: Liu et al. 2019, arXiv:1810.05270, and its released code.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    epochs: int = 160
    batch: int = 64
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    decay_norms: bool = True
    schedule: Schedule = "steps"
    decay_at: tuple[float, ...] = (0.5, 0.75)
    decay_every: float | None = None
    label_smoothing: float = 0.0
    augment: bool = True
    precision: Precision = "fp32"
    decay_factor: float = field(default=0.1, metadata={"omit": True})
    warmup_epochs: int = field(default=0, metadata={"omit": True})
    warmup_factor: float = field(default=0.1, metadata={"omit": True})
    sparse: SparsePhase | None = field(default=None, metadata={"omit": True})
    cutout: int = field(default=0, metadata={"omit": True})

    def __post_init__(self) -> None:
        faults = [
            f"{name}={value} must be {rule}"
            for name, value, fine, rule in (
                ("epochs", self.epochs, self.epochs >= 1, "at least 1"),
                ("batch", self.batch, self.batch >= 2, "at least 2"),
                ("lr", self.lr, self.lr > 0, "positive"),
                ("momentum", self.momentum, 0 <= self.momentum < 1, "in [0, 1)"),
                ("weight_decay", self.weight_decay, self.weight_decay >= 0, "at least 0"),
                (
                    "label_smoothing",
                    self.label_smoothing,
                    0 <= self.label_smoothing < 1,
                    "in [0, 1)",
                ),
                ("schedule", self.schedule, self.schedule in _SCHEDULES, "/".join(_SCHEDULES)),
                ("cutout", self.cutout, self.cutout >= 0, "at least 0"),
                ("precision", self.precision, self.precision in _PRECISIONS, "/".join(_PRECISIONS)),
                ("decay_at", self.decay_at, all(0 < f < 1 for f in self.decay_at), "in (0, 1)"),
                (
                    "decay_every",
                    self.decay_every,
                    self.decay_every is None or 0 < self.decay_every <= 1,
                    "in (0, 1]",
                ),
                (
                    "nesterov",
                    self.nesterov,
                    not self.nesterov or self.momentum > 0,
                    "off at momentum 0",
                ),
                ("decay_factor", self.decay_factor, 0 < self.decay_factor <= 1, "in (0, 1]"),
                (
                    "warmup_epochs",
                    self.warmup_epochs,
                    self.warmup_epochs == 0
                    or (self.warmup_epochs > 0 and self.schedule != "one_cycle"),
                    "at least 0, and 0 with one_cycle",
                ),
                ("warmup_factor", self.warmup_factor, 0 < self.warmup_factor <= 1, "in (0, 1]"),
                (
                    "sparse",
                    self.sparse,
                    self.sparse is None or bool(self.sparse_epochs),
                    f"an epoch long or longer: {self.epochs} epochs are too few",
                ),
            )
            if not fine
        ]
        if faults:
            raise RecipeError("a recipe cannot be followed: " + "; ".join(faults))

    @property
    def milestones(self) -> tuple[int, ...]:
        """Epochs, counted from 0, at which ``steps`` decays the learning rate.

        Each once, and none before the first epoch, however short the training.
        """
        if self.decay_every is not None:
            step = max(1, math.floor(self.epochs * self.decay_every + 1e-9))
            return tuple(range(step, self.epochs, step))
        places = {int(self.epochs * fraction) for fraction in self.decay_at}
        return tuple(sorted(places - {0}))

    @property
    def sparse_epochs(self) -> range:
        """Epochs, counted from 0, of the sparse phase; empty where there is none."""
        if self.sparse is None:
            return range(0)
        return range(*(int(self.epochs * part) for part in (self.sparse.start, self.sparse.end)))

    def rate(self, epoch: int, step: int = 0, *, of: int = 1) -> float:
        """Return a step's learning rate, as a part of ``lr``; only ``one_cycle`` changes by steps.

        Args:
            epoch: Its epoch, counted from 0.
            step: Steps of that epoch before it.
            of: Steps in an epoch.
        """
        if self.schedule == "one_cycle":
            return _one_cycle((epoch * of + step) / (self.epochs * of))
        decays = self.schedule == "steps"
        passed = sum(place <= epoch for place in self.milestones) if decays else 0
        warmth: float = self.warmup_factor if epoch < self.warmup_epochs else 1.0
        return warmth * self.decay_factor**passed


def _one_cycle(done: float) -> float:
    """Return the learning rate as a part of its peak, after ``done`` in [0, 1] of all steps.

    A straight line from 1/25 up to 1 at a fifth of the training, and one from there down to 0.

    Source: Smith and Topin 2018, arXiv:1708.07120 (linear, without the momentum's cycle).
    """
    return 0.04 + 0.96 * done / 0.2 if done < 0.2 else (1 - done) / 0.8


RECIPES: Mapping[str, Recipe] = {
    "paper": Recipe(),
    "paper_imagenet": Recipe(epochs=90, batch=256, decay_every=1 / 3),
    "paper_sfp": Recipe(
        epochs=200,
        batch=128,
        nesterov=True,
        weight_decay=5e-4,
        decay_at=(0.3, 0.6, 0.8),
        decay_factor=0.2,
        warmup_epochs=1,
    ),
    "paper_sss": Recipe(epochs=100, batch=128, nesterov=True, decay_every=0.3),
    "dsd": Recipe(sparse=SparsePhase(keep=0.7, start=0.5, end=0.75)),
    "fast": Recipe(
        epochs=10,
        batch=256,
        lr=0.4,
        nesterov=True,
        weight_decay=5e-4,
        decay_norms=False,
        schedule="one_cycle",
        label_smoothing=0.1,
        precision="auto",
    ),
}
"""The recipes that have a name.

``paper`` is also that of unstructured pruning and of the lottery tickets. ``dsd`` is ``paper``, in
parts: dense, then sparse (70 % of the weights stay) at a tenth of the learning rate, then dense
again at a hundredth of it.
"""


def named_recipe(name: str, **changes: Any) -> Recipe:
    """Return the recipe called ``name`` with some fields changed; None leaves a field as it is.

    Raises:
        RecipeError: The name or a field is unknown, or the result cannot be followed.
    """
    if name not in RECIPES:
        raise RecipeError(f"unknown recipe {name!r}; known: {', '.join(RECIPES)}")
    known = {field.name for field in fields(Recipe)}
    unknown = sorted(set(changes) - known)
    if unknown:
        raise RecipeError(
            f"a recipe has no {', '.join(unknown)}; it has {', '.join(sorted(known))}"
        )
    return replace(RECIPES[name], **{k: v for k, v in changes.items() if v is not None})
