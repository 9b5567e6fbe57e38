"""One training from where it stands to its end: telling, keeping states, stopping, trying again."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Literal, NoReturn, final

from prunenas.errors import MemoryShortageError, StoppedError
from prunenas.training.execution.memory import release
from prunenas.training.keeping.checkpoint import Keeper
from prunenas.training.keeping.state import State
from prunenas.training.run import Run


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """What is known after an epoch.

    Args:
        epoch: Finished epochs.
        epochs: Epochs in all.
        loss: Mean training loss of this epoch.
        accuracy: Validation accuracy; None where nothing is held out.
        seconds: Since training began, over all processes.
        seed: Of the order of images.
        learning_rate: Of its last step; None where no step of it was left to do.
        images_per_second: Training images a second, what comes after the last step not counted;
            likewise.
    """

    epoch: int
    epochs: int
    loss: float
    accuracy: float | None
    seconds: float
    seed: int | None = None
    learning_rate: float | None = None
    images_per_second: float | None = None


OnEpoch = Callable[[EpochReport], None]

_ASK_EVERY = 10
"""Steps between two moments at which several processes agree to stop, or to keep a state; they do
so at the end of each epoch too."""

Stop = Callable[[], bool]
"""Asked after every step whether the training is to end there."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Attendants:
    """Who takes part in a training without changing it.

    Args:
        keeper: Keeps its states.
        stop: Asked after every step.
        on_epoch: Told of every epoch.
    """

    keeper: Keeper | None = None
    stop: Stop | None = None
    on_epoch: OnEpoch | None = None


def carried_out(
    make: Callable[[int], Run], attendants: Attendants, *, parts: int | Literal["auto"]
) -> Run:
    """Return a training that is done, all of it or what was left.

    Args:
        make: Makes it anew, before its first step, for a number of parts of each batch.
        attendants: Those of the training.
        parts: What to begin with; ``auto`` finds out.

    Raises:
        CheckpointError: A state is kept that is not one of this training.
        SavingError: A state cannot be kept.
        StoppedError: It was asked to.
        DivergenceError: The loss stopped being finite.
        MemoryShortageError: Memory does not suffice, and ``parts`` is a number or no number helps.
    """
    state = attendants.keeper.load() if attendants.keeper else None
    now = parts
    if now == "auto":
        now = state.progress.parts if state else 1
    start: State | None = None
    while True:
        run = make(now)
        device = run.device
        if state is None and parts == "auto":
            if start is None:
                start = run.state()
            else:
                run.restore(start)
        _standing(run, state, attendants)
        try:
            with closing(run.batches):
                _follow(run, attendants)
            return run
        except MemoryShortageError as error:
            if parts != "auto" or error.parts is None or not run.hooks.remember_nothing:
                raise
            now = error.parts
        del run
        release(device)
        state = attendants.keeper.load() if attendants.keeper else None


def _standing(run: Run, state: State | None, attendants: Attendants) -> Run:
    """Return ``run`` brought to ``state``, or begun where there is none."""
    run.team.check_same({"the checkpoint": state.progress.words if state else "none"})
    if state is None:
        run.begin()
        return run
    assert attendants.keeper is not None, "who else would have kept it"
    if faults := run.misfits(state):
        raise attendants.keeper.damaged("; ".join(faults))
    run.restore(state)
    return run


def _follow(run: Run, attendants: Attendants) -> None:
    """Do all epochs that are left."""
    keeper, stop = attendants.keeper, attendants.stop
    kept = time.monotonic()
    while run.epoch <= run.recipe.epochs:
        first, began = run.step, time.perf_counter()
        rate, asked = None, False
        for moment in run.steps_of_epoch():
            rate = moment.lr
            asked = asked or (stop is not None and stop())
            due = keeper and time.monotonic() - kept >= keeper.checkpoints.every_seconds
            stops, keeps = _agreed(run, asked, bool(due))
            if stops:
                _stop(run, keeper)
            if keeper and keeps:
                _keep(run, keeper)
                kept = time.monotonic()
        speed = _images_from(run, first) / (time.perf_counter() - began)
        loss = run.end_epoch()
        if keeper:
            _save(run, keeper)
            kept = time.monotonic()
        if attendants.on_epoch and run.team.leads:
            attendants.on_epoch(
                EpochReport(
                    epoch=run.epoch - 1,
                    epochs=run.recipe.epochs,
                    loss=loss,
                    accuracy=run.seen[-1].accuracy if run.seen else None,
                    seconds=run.seconds,
                    seed=run.seeds.order,
                    learning_rate=rate,
                    images_per_second=None if rate is None else speed,
                )
            )


def _images_from(run: Run, step: int) -> int:
    """Return the images of the batches of an epoch from ``step`` on."""
    return sum(run.batches.images(place) for place in range(step, len(run.batches)))


def _keep(run: Run, keeper: Keeper) -> None:
    # What has diverged must not take the place of what has not.
    run.check()
    _save(run, keeper)


def _save(run: Run, keeper: Keeper) -> None:
    # All processes tell of their states, and none goes on, or ends, before they are kept.
    state = run.state()
    if run.team.leads:
        keeper.save(state)
    run.team.meet()


def _agreed(run: Run, stops: bool, keeps: bool) -> tuple[bool, bool]:
    """Return whether all are to stop after this step, and to keep a state: if any process is."""
    if run.team.size == 1:
        return stops, keeps
    if run.step % _ASK_EVERY and run.step < len(run.batches):
        return False, False
    stops, keeps = run.team.any(stops, keeps)
    return stops, keeps


def _stop(run: Run, keeper: Keeper | None) -> NoReturn:
    at = f"stopped at epoch {run.epoch}, batch {run.step} of {len(run.batches)}"
    if keeper is None:
        raise StoppedError(f"{at}; there are no checkpoints to go on from")
    _keep(run, keeper)
    raise StoppedError(f"{at}; the same call goes on from there ({keeper.folder})")
