"""A process that trains what it is sent: how it lives, and how its parent holds it."""

import gc
import signal
import traceback
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import final

import torch
from torch.multiprocessing import get_context

from prunenas.arch.metrics import Metrics
from prunenas.data.base import ImageSet
from prunenas.errors import PruneNASError, WorkerError
from prunenas.ir.canonical import digest, digest_of
from prunenas.ir.graph import Graph
from prunenas.training.execution.engine import Engine
from prunenas.training.keeping.checkpoint import Checkpoints
from prunenas.training.loop import train_seeds
from prunenas.training.own_process import live_with_parent
from prunenas.training.recipe import Recipe

Outcome = Metrics | PruneNASError
"""What a training reached, or what ended it."""

_PATIENCE = 10.0
"""Seconds that a process is given to end, once it is told."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One training.

    Args:
        place: Of its job.
        graph: Built afresh.
        recipe: Budget and schedule.
        seed: Of the weights and of the training.
        held_out: As in ``train``.
    """

    place: int
    graph: Graph
    recipe: Recipe
    seed: int
    held_out: bool

    def checkpoints(self, every: Checkpoints) -> Checkpoints:
        """Return where this is kept, in the folder of ``every`` training."""
        rest = digest_of({"recipe": self.recipe, "held_out": self.held_out})
        return replace(every, folder=every.folder / f"{digest(self.graph)}-{rest}")

    def __str__(self) -> str:
        return f"the training of the network {digest(self.graph)} with seed {self.seed}"


@final
@dataclass(frozen=True, kw_only=True)
class Setup:
    """What every worker is given once.

    Args:
        data: In shared memory.
        device: Where to train.
        threads: Of torch.
        engine: As in ``train``.
        checkpoints: Of all trainings.
    """

    data: ImageSet
    device: torch.device
    threads: int
    engine: Engine
    checkpoints: Checkpoints | None


@final
class Worker:
    """A process of its own, that says when it is ready and then trains what it is given.

    ``line`` brings None when it is ready, the outcome of each task, and its end where it dies.
    """

    def __init__(self, setup: Setup) -> None:
        context = get_context("spawn")
        self.line, other = context.Pipe()
        self._process: BaseProcess = context.Process(target=_serve, args=(other, setup))
        try:
            self._process.start()
        finally:
            # The only other end is the process's own, so its death ends the line.
            other.close()
        self.ready = False
        self.task: Task | None = None

    def give(self, task: Task) -> None:
        """Let it do ``task``; if it is dead, the line says so when it is read."""
        self.task = task
        with suppress(BrokenPipeError, ConnectionResetError):
            self.line.send(task)

    def dismiss(self) -> None:
        """Let it end, and do not wait for it."""
        self.line.close()

    def join(self) -> int:
        """Wait for the end of one that was dismissed or has died; return its exit code."""
        self.line.close()
        self._process.join(_PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        return self._process.exitcode or 0

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self.join()

    def death(self) -> str:
        """Return in words how it ended."""
        code = self.join()
        if code >= 0:
            return f"ended with exit code {code}"
        return f"was ended by signal {-code} ({signal.strsignal(-code)})"


def _serve(line: "Connection[Outcome | None, Task]", setup: Setup) -> None:
    """Train what comes down the line until it is closed; the life of a worker."""
    live_with_parent()
    torch.set_num_threads(setup.threads)
    try:
        data = setup.data.to(setup.device)
    except Exception as error:
        line.send(_named(error, "a worker could not begin"))
        return
    line.send(None)
    while True:
        try:
            task = line.recv()
        except EOFError:
            return
        line.send(outcome(task, data, setup))
        if setup.device.type == "cuda":
            # Memory that this process keeps for later is lost to the others.
            gc.collect()
            torch.cuda.empty_cache()


def outcome(task: Task, data: ImageSet, setup: Setup) -> Outcome:
    """Train on ``data``, which is on its device; return what is reached, or what ended it."""
    try:
        return train_seeds(
            task.graph,
            data,
            task.recipe,
            seeds=[task.seed],
            device=data.device,
            held_out=task.held_out,
            engine=setup.engine,
            checkpoints=None if setup.checkpoints is None else task.checkpoints(setup.checkpoints),
        )
    except PruneNASError as error:
        return error
    except Exception as error:
        return _named(error, f"{task} failed")


def _named(error: Exception, what: str) -> PruneNASError:
    """Return ``error``, or one of ours that tells of it and can be sent."""
    if isinstance(error, PruneNASError):
        return error
    told = WorkerError(f"{what}: {type(error).__name__}: {error}")
    told.add_note("".join(traceback.format_exception(error)))
    return told
