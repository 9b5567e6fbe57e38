"""Hooks: what a method adds to the one training loop, which is never patched."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

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
    """

    before: Callable[[Network], None] | None = None
    after_backward: Callable[[Network], None] | None = None
    after_step: Callable[[Network, Moment], None] | None = None
    after_epoch: Callable[[Network, int], None] | None = None
