"""search: from a space and a data set to a confirmed front."""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final, get_args

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from prunenas.arch.files import file_name, read_text, write_text
from prunenas.arch.masks_file import masks_path
from prunenas.arch.spec import versions
from prunenas.build.execution import device_name
from prunenas.data.base import ImageSet
from prunenas.errors import DivergenceError, RunError, SpaceError
from prunenas.ir.canonical import canonical_json, encode, parse
from prunenas.search.candidate import Candidate, controls
from prunenas.search.front import Front, FrontRow, Role, pareto
from prunenas.search.log import at_work
from prunenas.search.objective import Objective
from prunenas.search.space import SearchSpace
from prunenas.search.strategies.base import STRATEGIES
from prunenas.search.worker import (
    Event,
    ObjectiveName,
    OnEvent,
    epochs_of,
    finished,
    found_candidates,
    run_trials,
)
from prunenas.training.execution.engine import settle
from prunenas.training.follow import Stop
from prunenas.training.keeping.journal import Log, mend
from prunenas.training.loop import check_fit
from prunenas.training.recipe import Recipe


def search(
    space: SearchSpace,
    data: ImageSet,
    *,
    recipe: Recipe | None = None,
    strategy: str = "tpe",
    objectives: Sequence[ObjectiveName] = ("accuracy",),
    trials: int = 50,
    confirm_seeds: int = 3,
    front_size: int = 5,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    provenance: Mapping[str, Any] | None = None,
    stop: Stop | None = None,
    on_event: OnEvent | None = None,
    logs: Sequence[Log] = (),
) -> Front:
    """Search ``space``, hold what is found against the controls, and confirm the front.

    Trials train on the training set less its validation part and are judged by that part. Then the
    Pareto points of validation accuracy against macs and the controls are trained again, from
    scratch, with seeds of their own, on the whole training set; only these read the test set, each
    training once.

    Args:
        space: What may be proposed.
        data: The data set, on the device where to train.
        recipe: Budget and schedule of every training; the paper's by default.
        strategy: Name of a strategy.
        objectives: What the strategy improves: ``accuracy``, and perhaps ``macs``, ``params``; of
            sparse networks these are counted after masks, as everywhere in a search.
        trials: Finished trials in all; more of them continue a search.
        confirm_seeds: Trainings of each confirmed architecture; 0 leaves the test set unread.
        front_size: Most Pareto points to confirm: the best, and others spread evenly over macs.
        seed: Of the strategy and of every trial's training.
        out: Folder for the study, the results and the specs; the same call continues there. Nothing
            is kept where it is None. What happens is logged in its ``log.jsonl``.
        provenance: Put into every spec, such as the command.
        stop: Asked after every step of a training, and between trainings; where it says so the
            search ends, and the same call goes on in the middle of that training.
        on_event: Called after every epoch and every training.
        logs: Are told what ``log.jsonl`` is told.

    Raises:
        UnknownNameError: No such strategy.
        SpaceError: The objectives or counts make no sense.
        RunFolderError: ``out`` belongs to another search.
        DataError: The data does not fit the target.
        StoppedError: ``stop`` said so.
        RunError: No trial succeeded.
    """
    _check(objectives, trials, confirm_seeds, front_size)
    # Told before a folder is marked: it could be used for no other data afterwards.
    check_fit(space.target, data)
    recipe = settle(recipe or Recipe(), data.device)
    chosen = STRATEGIES[strategy]()
    facts = {
        "space": space.facts(),
        "data": {"name": data.name, "digest": data.digest},
        "recipe": encode(recipe),
        "strategy": {"name": strategy, "sampler": type(chosen.sampler(0)).__name__},
        "objectives": list(objectives),
        "seed": seed,
    }
    folder = None if out is None else Path(out)
    begun = {"trials": trials, "device": device_name(data.device), "versions": versions()}
    with at_work(folder, facts, on_event, logs, **begun, provenance=provenance or {}) as log:
        plan = _Plan(
            space=space,
            seed=seed,
            objectives=tuple(objectives),
            confirm_seeds=tuple(range(seed + 1, seed + 1 + confirm_seeds)),
            front_size=front_size,
            on_event=log.event,
        )
        objective = Objective(
            data=data,
            recipe=recipe,
            device=data.device,
            folder=None if folder is None else folder / "results",
            checkpoints=None if folder is None else folder / "checkpoints",
            stop=stop,
        )
        study = _study(folder, objectives)
        run_trials(
            study,
            space,
            objective,
            chosen,
            objectives=plan.objectives,
            trials=trials,
            seed=seed,
            on_event=plan.on_event,
        )
        sources = {"guide": space.guide.source}
        if space.transferred is not None:
            sources["transferred"] = space.transferred.source
        story = {"search": facts, "sources": sources, "versions": versions(), **(provenance or {})}
        front = _confirmed(plan, objective, study, story)
        if folder is not None:
            _write(front, folder)
        log.finished(front)
    return front


def _study(folder: Path | None, objectives: Sequence[str]) -> optuna.Study:
    # Optuna tells on stderr that it made a study; the folder tells more.
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(
            storage=_storage(folder),
            study_name="search",
            directions=["maximize" if name == "accuracy" else "minimize" for name in objectives],
            load_if_exists=True,
        )
    finally:
        optuna.logging.set_verbosity(before)


@final
@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What stays the same during one search."""

    space: SearchSpace
    seed: int
    objectives: tuple[ObjectiveName, ...]
    confirm_seeds: tuple[int, ...]
    front_size: int
    on_event: OnEvent


def _check(objectives: Sequence[str], trials: int, confirm_seeds: int, front_size: int) -> None:
    known = get_args(ObjectiveName)
    faults = [f"unknown objective {name!r}" for name in objectives if name not in known]
    if "accuracy" not in objectives or len({*objectives}) < len(objectives):
        faults.append("objectives name accuracy, and each name once")
    if trials < 1 or front_size < 1 or confirm_seeds < 0:
        faults.append(f"{trials=} and {front_size=} are at least 1, {confirm_seeds=} at least 0")
    if faults:
        raise SpaceError(f"{'; '.join(faults)} (objectives: {', '.join(known)})")


def mend_journal(path: Path) -> None:
    """Remove what a killed process left of its last write to the study's journal at ``path``.

    Its lock would be waited for without end, and a line cut short would spoil the next one. Only
    for who holds the folder.
    """
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    mend(path)


def _storage(folder: Path | None) -> BaseStorage:
    if folder is None:
        return InMemoryStorage()
    journal = folder / "study.journal"
    mend_journal(journal)
    return JournalStorage(JournalFileBackend(str(journal)))


def _confirmed(
    plan: _Plan, objective: Objective, study: optuna.Study, story: Mapping[str, Any]
) -> Front:
    """Return the front and the controls, trained again with several seeds."""
    found = found_candidates(study, plan.space)
    if not found:
        raise RunError("no trial succeeded: every training diverged")
    scores = {c.digest: objective.search_score(c.graph, seed=plan.seed).accuracy for c in found}
    points = pareto(found, lambda c: _losses(c, scores[c.digest], plan.objectives))
    points.sort(key=lambda c: (c.effective_macs, c.nonzero_params))
    best = max(points, key=lambda c: (scores[c.digest], -c.effective_macs))
    shown = _spread(points, best, plan.front_size)
    against = controls(plan.space, best)
    judged: list[Candidate] = []
    for place, control in enumerate(against):
        tell = epochs_of(plan.on_event, "controls", place, len(against), control.name)
        try:
            metrics = objective.search_score(control.graph, seed=plan.seed, on_epoch=tell)
        except DivergenceError as error:
            warnings.warn(f"the control {control.name!r} is left out: {error}", stacklevel=2)
            continue
        judged.append(control)
        plan.on_event(
            Event(
                phase="controls",
                done=place + 1,
                total=len(against),
                name=control.name,
                metrics=metrics,
            )
        )
    roles: list[tuple[Role, Candidate]] = [("control", c) for c in judged]
    roles += [("best" if c is best else "front", c) for c in shown]
    rows = tuple(
        _row(plan, objective, role, c, place, len(roles), story)
        for place, (role, c) in enumerate(roles)
    )
    return Front(rows=rows, trials=len(finished(study)), left_out=len(points) - len(shown))


def _losses(found: Candidate, accuracy: float, objectives: Sequence[ObjectiveName]) -> list[float]:
    # A front needs a cost beside the accuracy, also where the search improved accuracy alone.
    costs = [found.effective_macs, *([found.nonzero_params] if "params" in objectives else [])]
    return [-accuracy, *costs]


def _spread(points: Sequence[Candidate], best: Candidate, count: int) -> list[Candidate]:
    """Return at most ``count`` of ``points``, evenly spaced, the best among them."""
    if len(points) <= count:
        return [*points]
    places = {round(i * (len(points) - 1) / max(1, count - 1)) for i in range(count)}
    at = points.index(best)
    if at not in places:
        # The smallest stays if it can: it is what best("macs") promises.
        places.remove(min(places, key=lambda place: (place == 0, abs(place - at))))
        places.add(at)
    return [points[place] for place in sorted(places)]


def _row(
    plan: _Plan,
    objective: Objective,
    role: Role,
    found: Candidate,
    place: int,
    total: int,
    story: Mapping[str, Any],
) -> FrontRow:
    validation = objective.search_score(found.graph, seed=plan.seed)
    spec = found.spec(plan.space.target, role=role, validation=encode(validation), **dict(story))
    if plan.confirm_seeds:
        tell = epochs_of(plan.on_event, "confirm", place, total, found.name)
        metrics = objective.confirm(found.graph, seeds=plan.confirm_seeds, on_epoch=tell)
        spec = spec.with_metrics(metrics)
        plan.on_event(
            Event(phase="confirm", done=place + 1, total=total, name=found.name, metrics=metrics)
        )
    return FrontRow(role=role, spec=spec, validation=validation)


def _write(front: Front, folder: Path) -> None:
    """Write the specs of ``front``, and what its rows are, in place of an earlier front's."""
    record = folder / "front.json"
    earlier = parse(read_text(record), str(record))["rows"] if record.exists() else []
    for row in earlier:
        (folder / row["spec"]).unlink(missing_ok=True)
        masks_path(folder / row["spec"]).unlink(missing_ok=True)
    rows = []
    for one in front.rows:
        path = one.spec.save(folder / "specs" / f"{file_name(one.spec.name)}.json", overwrite=True)
        rows.append({"role": one.role, "spec": path.relative_to(folder).as_posix()})
    facts = {"rows": rows, "trials": front.trials, "left_out": front.left_out}
    write_text(record, canonical_json(facts) + "\n", overwrite=True)
