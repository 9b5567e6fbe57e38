"""The one loop that asks the study, trains and tells."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from prunenas.arch.metrics import Metrics
from prunenas.arch.profile import StageProfile
from prunenas.errors import DivergenceError, StoppedError
from prunenas.search.candidate import Candidate, candidate
from prunenas.search.objective import Objective
from prunenas.search.space import SearchSpace
from prunenas.search.strategies.base import Strategy
from prunenas.training.follow import EpochReport, OnEpoch

Phase = Literal["trials", "controls", "confirm"]
ObjectiveName = Literal["accuracy", "macs", "params"]

_SEEDS = 2**32
"""Samplers take seeds below it."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Progress of a search.

    Args:
        phase: Searching, judging the controls, or confirming with several seeds.
        done: Finished trainings of this phase.
        total: Trainings of this phase in all.
        name: What is being trained.
        epoch: The epoch that just ended; None when the training ended.
        metrics: What the training reached, when it ended.
    """

    phase: Phase
    done: int
    total: int
    name: str
    epoch: EpochReport | None = None
    metrics: Metrics | None = None


OnEvent = Callable[[Event], None]


def epochs_of(on_event: OnEvent, phase: Phase, done: int, total: int, name: str) -> OnEpoch:
    """Return a callback that tells each epoch of one training as an event."""

    def tell(report: EpochReport) -> None:
        on_event(Event(phase=phase, done=done, total=total, name=name, epoch=report))

    return tell


def run_trials(
    study: Study,
    space: SearchSpace,
    objective: Objective,
    strategy: Strategy,
    *,
    objectives: Sequence[ObjectiveName],
    trials: int,
    seed: int,
    on_event: OnEvent,
) -> None:
    """Run trials until ``trials`` are finished; what earlier processes finished counts.

    Args:
        study: Where trials are stored: the only memory of this loop.
        space: What may be proposed.
        objective: Trains and remembers.
        strategy: Proposes.
        objectives: What is told to the study, in this order.
        trials: Finished trials wanted.
        seed: Of the strategy and of every training.
        on_event: Called after each epoch and each trial.
    """
    _close_unfinished(study)
    starts = [*space.starts().items()]
    while (done := len(finished(study))) < trials:
        if objective.stop is not None and objective.stop():
            raise StoppedError(f"stopped after {done} of {trials} trials; the same call goes on")
        # Seed and start follow from what is finished, not from how often the process was started:
        # a trial that was cut short is proposed again.
        study.sampler = strategy.sampler((seed * 100_003 + done) % _SEEDS)
        if done < len(starts):
            _enqueue(study, *starts[done])
        trial = study.ask()
        keeps = {
            stage: trial.suggest_float(stage, low, high)
            for stage, (low, high) in space.intervals.items()
        }
        if "start" not in trial.user_attrs:
            keeps = space.snapped(keeps)
        name = f"trial {done + 1}"
        found = candidate(space, keeps, name=name)
        trial.set_user_attr("keeps", keeps)
        trial.set_user_attr("digest", found.digest)
        try:
            metrics = objective.search_score(
                found.graph, seed=seed, on_epoch=epochs_of(on_event, "trials", done, trials, name)
            )
        except DivergenceError as error:
            trial.set_user_attr("diverged", str(error))
            study.tell(trial, state=TrialState.FAIL)
            continue
        study.tell(trial, [value(metrics, objective_name) for objective_name in objectives])
        on_event(Event(phase="trials", done=done + 1, total=trials, name=name, metrics=metrics))


def value(metrics: Metrics, name: ObjectiveName) -> float:
    """Return the number that the study is told for one objective.

    Costs of a sparse network are those after masks.
    """
    values: Mapping[ObjectiveName, float] = {
        "accuracy": metrics.accuracy,
        "macs": metrics.compared_macs,
        "params": metrics.compared_params,
    }
    return values[name]


def finished(study: Study) -> list[FrozenTrial]:
    """Return the trials that need no more work: completed ones, and those that diverged."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state is TrialState.COMPLETE or "diverged" in trial.user_attrs
    ]


def found_candidates(study: Study, space: SearchSpace) -> list[Candidate]:
    """Return one candidate for each network that a completed trial proposed, first trial first."""
    candidates: dict[str, Candidate] = {}
    for place, trial in enumerate(finished(study), start=1):
        if trial.state is TrialState.COMPLETE:
            keeps = trial.user_attrs["keeps"]
            found = candidate(space, keeps, name=f"trial {place}")
            candidates.setdefault(found.digest, found)
    return [*candidates.values()]


def _enqueue(study: Study, name: str, start: StageProfile) -> None:
    """Make a start the next trial, unless an earlier process ended right after doing so."""
    if not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        study.enqueue_trial(dict(start.keeps), user_attrs={"start": name})


def _close_unfinished(study: Study) -> None:
    """Mark the trials as failed that were running when an earlier process ended."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
