"""Budgets: what a protocol makes of the reference's recipe."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, final, get_args

from prunenas.errors import RecipeError
from prunenas.ir.cost import effective_macs, repo_flops
from prunenas.ir.graph import Graph
from prunenas.training.recipe import Recipe

Protocol = Literal["scratch-e", "scratch-b", "fine-tune", "rewind"]
"""The ways to train what was found: from fresh weights as many epochs as the reference has, or as
much compute; from the trained reference's weights a few; from those that it began with, all."""

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

_COUNTERS: Mapping[str, Callable[[Graph], int]] = {
    "repo_flops": repo_flops,
    "macs": effective_macs,
}

COSTS: tuple[str, ...] = (*_COUNTERS, "seconds")
"""What Scratch-B can take its ratio of."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StepSeconds:
    """Measured seconds of a training step: the ratio behind a Scratch-B by ``seconds``.

    Args:
        reference: Of the large network; the median.
        candidate: Of the network to be trained; likewise.
        device: Where, in words.
        execution: How the steps were carried out, in words.
        steps: Steps that were timed of each.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    reference: float
    candidate: float
    device: str
    execution: str
    steps: int

    def __post_init__(self) -> None:
        if not (0 < self.reference < math.inf and 0 < self.candidate < math.inf):
            raise RecipeError(
                f"a step takes some time, got {self.reference} seconds for the reference and "
                f"{self.candidate} for the candidate"
            )

    @property
    def ratio(self) -> float:
        """How many steps of the candidate one of the reference is worth."""
        return self.reference / self.candidate


def scratch_e(recipe: Recipe, *, count_fine_tuning: int = 0) -> Recipe:
    """Return the recipe of Scratch-E: as many epochs as the large network has.

    Args:
        recipe: The large network's recipe.
        count_fine_tuning: Epochs that the pruned network would have been fine-tuned for, if they
            are to be part of the budget: as many more epochs. The paper leaves them out.

    Raises:
        RecipeError: ``count_fine_tuning`` is negative.

    Source: Liu et al. 2019, arXiv:1810.05270, section 3. That 160 epochs and not 200 stand against
        160 and 40 of fine-tuning: its released code, issue 48.
    """
    _check_fine_tuning(count_fine_tuning)
    return replace(recipe, epochs=recipe.epochs + count_fine_tuning)


def scratch_b(
    recipe: Recipe,
    *,
    reference: Graph,
    candidate: Graph,
    cost: str = "repo_flops",
    cap: float | None = None,
    count_fine_tuning: int = 0,
    seconds: StepSeconds | None = None,
) -> Recipe:
    """Return the recipe of Scratch-B: epochs stretched to spend the reference's compute.

    The epochs become ``floor(epochs * min(cap, ratio)) + count_fine_tuning``; milestones stretch
    with them.

    Args:
        recipe: The large network's recipe.
        reference: The large network.
        candidate: The network to be trained.
        cost: What the ratio is taken of: ``repo_flops``, the released code's counter, ``macs``, or
            measured ``seconds`` of a step. Weights under a zero of a mask count in neither of the
            first two; they take their time all the same.
        cap: Largest ratio; the released code caps at 2 on ImageNet, and nowhere on CIFAR.
        count_fine_tuning: Epochs that the candidate would have been fine-tuned for, if their
            compute is to be part of the budget. They are the candidate's own, so they are neither
            stretched nor capped. The paper leaves them out.
        seconds: For ``cost="seconds"``: what ``step_seconds`` measured.

    Raises:
        RecipeError: ``cost`` is unknown, ``seconds`` are missing or have no use, ``cap`` is below
            1, ``count_fine_tuning`` is negative, or no epoch is left.

    Source: Liu et al. 2019, arXiv:1810.05270, section 3.
    """
    _check_fine_tuning(count_fine_tuning)
    if cap is not None and not cap >= 1:
        raise RecipeError(f"a cap below 1 would shorten the training, got {cap=}")
    ratio = _ratio(reference, candidate, cost, seconds)
    stretched = math.floor(recipe.epochs * min(ratio, cap or math.inf))
    return replace(recipe, epochs=stretched + count_fine_tuning)


def fine_tune(recipe: Recipe, *, epochs: int = 40, lr: float = 0.001) -> Recipe:
    """Return the recipe of fine-tuning: few epochs at a small constant learning rate.

    There is no warm-up and no sparse phase in it; the other fields are the recipe's.

    Source: Liu et al. 2019, arXiv:1810.05270, section 4 (40 epochs on CIFAR, 20 on ImageNet).
    """
    return replace(recipe, epochs=epochs, lr=lr, schedule="constant", warmup_epochs=0, sparse=None)


def protocol_recipe(
    protocol: str,
    recipe: Recipe,
    *,
    reference: Graph,
    candidate: Graph,
    cost: str = "repo_flops",
    cap: float | None = None,
    count_fine_tuning: int = 0,
    seconds: StepSeconds | None = None,
) -> Recipe:
    """Return what a protocol makes of the recipe of the reference.

    Raises:
        RecipeError: The protocol is unknown; or as in ``scratch_b``.
    """
    known_protocol(protocol)
    if protocol == "fine-tune":
        return fine_tune(recipe)
    if protocol == "rewind":
        return recipe
    if protocol == "scratch-e":
        return scratch_e(recipe, count_fine_tuning=count_fine_tuning)
    return scratch_b(
        recipe,
        reference=reference,
        candidate=candidate,
        cost=cost,
        cap=cap,
        count_fine_tuning=count_fine_tuning,
        seconds=seconds,
    )


def known_protocol(name: str) -> Protocol:
    """Return the protocol called ``name``.

    Raises:
        RecipeError: It is unknown.
    """
    for protocol in PROTOCOLS:
        if protocol == name:
            return protocol
    raise RecipeError(f"unknown protocol {name!r}; known: {', '.join(PROTOCOLS)}")


def check_cost(cost: str) -> None:
    """Refuse what no ratio is taken of.

    Raises:
        RecipeError: ``cost`` is unknown.
    """
    if cost not in COSTS:
        raise RecipeError(f"unknown cost {cost!r}; known: {', '.join(COSTS)}")


def _ratio(reference: Graph, candidate: Graph, cost: str, seconds: StepSeconds | None) -> float:
    check_cost(cost)
    if (cost == "seconds") != (seconds is not None):
        raise RecipeError(
            "cost='seconds' needs what was measured: seconds=step_seconds(reference, candidate, "
            "recipe)"
            if seconds is None
            else f"measured seconds are given, but {cost=}: say cost='seconds', or leave them away"
        )
    if seconds is not None:
        return seconds.ratio
    return _COUNTERS[cost](reference) / _COUNTERS[cost](candidate)


def _check_fine_tuning(epochs: int) -> None:
    if epochs < 0:
        raise RecipeError(f"epochs of fine-tuning are counted from 0, got {epochs}")
