"""Hooks: what a method adds to the one training loop, which is never patched."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

from prunenas.build.network import Network


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Where a training stands.

    Args:
        epoch: The running epoch, from 1.
        step: Finished steps since training began.
        lr: Learning rate of the last step.
    """

    epoch: int
    step: int
    lr: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What a method adds to training. Hooks are handed to the loop; the loop is never patched.

    Args:
        before: Called once with the network, before the first epoch.
        after_backward: Called with the network when gradients are there, before the step.
        after_step: Called with the network and the moment, after every step.
        after_epoch: Called with the network and the number of finished epochs.
        facts: What tells these hooks from others, as JSON values: such as the method and its
            options. To tell them is to promise that the hooks remember nothing from one call to
            the next but what follows from the network, so that a training with them can go on in
            another process. ``before`` is not called again there.
        in_place: A promise: what the hooks change, gradients and weights, they change in place,
            and they put nothing that has gradients of its own into the network. Only then are
            steps captured on CUDA; a captured update reads the memory that it was recorded with.
    """

    before: Callable[[Network], None] | None = None
    after_backward: Callable[[Network], None] | None = None
    after_step: Callable[[Network, Moment], None] | None = None
    after_epoch: Callable[[Network, int], None] | None = None
    facts: Mapping[str, Any] | None = None
    in_place: bool = False

    @property
    def fit_capture(self) -> bool:
        """Whether steps between which these hooks are called can be recorded."""
        return self.in_place or self == Hooks()

    @property
    def remember_nothing(self) -> bool:
        """Whether a training with these hooks can go on in another process, or begin anew."""
        return self.facts is not None or self == Hooks()
