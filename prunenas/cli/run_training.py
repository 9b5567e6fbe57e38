"""The train command: what is asked for in, run folder and metrics out."""

from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from prunenas.arch.files import file_name
from prunenas.arch.spec import ArchSpec, load, versions
from prunenas.build.execution import device_name
from prunenas.build.network import Network
from prunenas.build.weights import save_weights
from prunenas.cli.progress import Display
from prunenas.cli.resolve import (
    command_line,
    descriptor_of,
    plain_console,
    print_json,
    reference_of,
    refuse_existing,
    refuse_weights,
)
from prunenas.cli.stopping import stopping
from prunenas.cli.training_order import Order
from prunenas.ir.canonical import digest_of, encode
from prunenas.report.table import accuracy_text, best_text, costs_text
from prunenas.training.follow import EpochReport
from prunenas.training.keeping.checkpoint import Checkpoints, Keeper
from prunenas.training.keeping.journal import Journal, Log, Logs, logged
from prunenas.training.keeping.run_folder import LOG, claim
from prunenas.training.keeping.tensorboard import Scalars
from prunenas.training.protocols.budgets import StepSeconds
from prunenas.training.protocols.step_seconds import step_seconds
from prunenas.training.protocols.train_descriptor import train_descriptor
from prunenas.training.recipe import Recipe

SPEC = "spec.json"
"""In the run folder of a finished training: what was trained, with its metrics."""


@final
@dataclass(frozen=True, kw_only=True)
class Done:
    """A finished training.

    Args:
        spec: What was trained, with its metrics.
        folder: Its run folder.
        found: Whether it was finished before.
    """

    spec: ArchSpec
    folder: Path
    found: bool


@final
@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What else is to be written.

    Args:
        spec: File for the spec with its metrics.
        weights: File for the weights.
        scalars: Whether TensorBoard gets its scalars.
    """

    spec: Path | None = None
    weights: Path | None = None
    scalars: bool = False


def run_training(order: Order, outputs: Outputs, *, folder: Path | None, quiet: bool) -> Done:
    """Train what ``order`` says in its run folder, or find it trained there.

    Args:
        order: What to train.
        outputs: What to write beside the run folder.
        folder: The run folder; named after what is trained where it is None.
        quiet: Tell nothing of the progress.

    Raises:
        RunFolderError: The folder belongs to another run, or a process works in it.
        OutputExistsError: A file would be overwritten.
        InputError: The order cannot be carried out. Nothing is written then.
        StoppedError: It was asked to stop; the same call goes on.
    """
    facts = order.facts()
    place = folder or Path("runs") / f"{file_name(order.spec.name)}-{digest_of(facts)[:8]}"
    kept = place / SPEC
    if not kept.exists():
        # Of a finished training they may be there from before.
        if outputs.spec is not None:
            refuse_existing(outputs.spec)
        refuse_weights(outputs.weights)
    order.check()
    leads = order.team.leads
    scalars = [Scalars(place / "tensorboard")] if outputs.scalars and leads else []
    claimed = claim(place, facts, work="training") if leads else nullcontext()
    with claimed, ExitStack() as ends, Display(quiet=quiet or not leads) as display:
        for one in scalars:
            ends.callback(one.close)
        found = kept.exists()
        if found:
            display.say(f"{place} holds this training, finished: nothing is trained")
        if not found or outputs.weights is not None:
            log = Logs([Journal(place / LOG), *scalars] if leads else [])
            run = _Running(order, place, log, display)
            spec = run.trained(facts, outputs.weights, quiet=quiet or not leads)
            if not found and leads:
                spec.save(kept)
        order.team.meet()
        done = Done(spec=load(kept), folder=place, found=found)
    if outputs.spec is not None and leads:
        done.spec.save(outputs.spec)
    return done


@final
class _Running:
    """A training at work in its run folder, and who is told of it."""

    def __init__(self, order: Order, place: Path, log: Log, display: Display) -> None:
        self._order, self._place, self._log, self._display = order, place, log, display
        self._trained = 0

    def trained(
        self,
        facts: Mapping[str, Any],
        weights: Path | None,
        *,
        quiet: bool,
    ) -> ArchSpec:
        """Return what was trained, with its metrics."""
        order, spec = self._order, self._order.spec
        seconds = self._measured()
        chosen = order.chosen(seconds)
        self._tell_what_is_done(chosen)
        begun = {
            "work": "training",
            "name": spec.name,
            "command": command_line(),
            "facts": facts,
            "seeds": [*order.seeds],
            "epochs": chosen.epochs,
            "device": device_name(order.data.device),
            "versions": versions(),
        }

        def save(_: int, network: Network) -> None:
            self._trained += 1
            self._display.seeds(self._trained, len(order.seeds))
            if weights is not None:
                save_weights(network, weights)

        with stopping(quiet=quiet) as stop, logged(self._log, **begun):
            metrics = train_descriptor(
                reference_of(spec),
                descriptor_of(spec),
                order.data,
                order.recipe,
                **order.beginning(),
                seconds=seconds,
                seeds=order.seeds,
                held_out=order.held_out,
                engine=order.engine,
                checkpoints=Checkpoints(self._place),
                stop=stop,
                on_epoch=self._epoch,
                on_trained=save,
            )
            self._log.write("finished", metrics=metrics)
        training = {
            "command": command_line(),
            "protocol": order.protocol,
            "start": metrics.start,
            "recipe": encode(chosen),
            "engine": encode(order.engine),
            "versions": versions(),
        }
        provenance = dict(spec.provenance) | {"training": training}
        return replace(spec, metrics=metrics, provenance=provenance)

    def _measured(self) -> StepSeconds | None:
        """Return the seconds of a step where the budget asks for them; always the same ones."""
        order = self._order
        if order.protocol != "scratch-b" or order.cost != "seconds":
            return None
        self._display.say("measuring a training step of the reference and of the network")
        return step_seconds(
            reference_of(order.spec),
            order.spec.graph,
            order.recipe,
            device=order.device,
            engine=order.engine,
            folder=self._place,
        )

    def _tell_what_is_done(self, chosen: Recipe) -> None:
        order, say = self._order, self._display.say
        if chosen.epochs != order.recipe.epochs:
            by = f" by {order.cost}" * (order.protocol == "scratch-b")
            say(f"{order.protocol}: {order.recipe.epochs} -> {chosen.epochs} epochs{by}")
        for seed in order.seeds:
            keeper = Keeper(checkpoints=Checkpoints(self._place).of_seed(seed), facts={})
            progress = keeper.progress()
            if progress is not None:
                what = "is done" if progress.metrics else f"goes on after {progress.words}"
                say(f"{self._place}: seed {seed} {what}")

    def _epoch(self, report: EpochReport) -> None:
        of = f"seed {report.seed}"
        self._display.epoch(report, of)
        self._log.write("epoch", of=of, **encode(report))


def tell(done: Done, *, out: Path | None, as_json: bool) -> None:
    """Print what came out."""
    spec, metrics = done.spec, done.spec.metrics
    assert metrics is not None, "a finished training has its metrics"
    training = spec.provenance["training"]
    epochs = metrics.results[0].epochs
    if as_json:
        print_json(
            {
                "name": spec.name,
                "digest": spec.digest,
                "protocol": training["protocol"],
                "start": metrics.start,
                "epochs": epochs,
                "part": metrics.part,
                "accuracy": metrics.accuracy,
                "top5": metrics.top5,
                "std": metrics.std if metrics.n > 1 else None,
                "n": metrics.n,
                "execution": metrics.execution,
                "metrics": encode(metrics),
                "run": str(done.folder),
                "found": done.found,
                "out": None if out is None else str(out),
            }
        )
        return
    best = best_text(metrics)
    lines = [
        f"{spec.name} on {metrics.data}, {training['protocol']} from {metrics.start}, {epochs} "
        f"epochs: {metrics.part} accuracy after the last epoch {accuracy_text(metrics)}",
        *([f"best epoch by the same images: {best}"] if best else []),
        f"{costs_text(metrics)}, {metrics.seconds:.1f} s, {metrics.device}, {metrics.execution}",
        f"{'found' if done.found else 'kept'} in {done.folder}",
    ]
    for line in lines:
        plain_console().print(line, soft_wrap=True)
