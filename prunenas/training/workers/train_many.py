"""Many small trainings at once: processes that share the images, and a machine's cores or GPU."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from types import TracebackType
from typing import final

import torch

from prunenas.arch.metrics import Metrics
from prunenas.data.base import ImageSet
from prunenas.errors import DataError, InputError, PruneNASError, WorkerError
from prunenas.ir.canonical import digest
from prunenas.ir.graph import Graph
from prunenas.training.execution.engine import FAST, Engine
from prunenas.training.keeping.checkpoint import Checkpoints
from prunenas.training.loop import check_fit
from prunenas.training.own_process import cores
from prunenas.training.recipe import Recipe
from prunenas.training.workers.process import Outcome, Setup, Task, Worker
from prunenas.training.workers.shared_memory import shared


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to train from scratch, once a seed.

    Args:
        graph: Built afresh for every seed.
        recipe: Budget and schedule.
        seeds: Each is the seed of the weights and of the training.
        held_out: As in ``train``.
    """

    graph: Graph
    recipe: Recipe
    seeds: tuple[int, ...] = (0,)
    held_out: bool = False

    def __post_init__(self) -> None:
        if not self.seeds or len({*self.seeds}) < len(self.seeds):
            raise InputError(f"a training needs at least one seed, each once, got {self.seeds}")


OnResult = Callable[[int, Outcome], None]
"""Given the place of a job and its outcome."""


def train_many(
    jobs: Iterable[Job],
    data: ImageSet,
    *,
    workers: int,
    device: torch.device | str = "cpu",
    threads: int | None = None,
    engine: Engine = FAST,
    checkpoints: Checkpoints | None = None,
    on_result: OnResult | None = None,
) -> list[Outcome]:
    """Train every job from scratch, several trainings at a time, and return what each reached.

    The trainings of one job run at once too, one a seed. Each gives the numbers that
    ``train_seeds`` gives; on a CPU the same bits, where it is given as many threads.

    A training that fails ends its job and no other: its error is what is returned, at the job's
    place. No training is tried twice. An exception in this process, such as that of a Ctrl-C, ends
    all workers; so does its death.

    Workers are fresh processes, each of which imports the main module anew: a script calls this
    below ``if __name__ == "__main__":``.

    Args:
        jobs: What to train.
        data: For all of them. The workers of a CPU read the same images, which move into shared
            memory; on CUDA each has a copy of its own.
        workers: Processes, each with one training at a time. More of them than trainings are not
            started.
        device: Where to train. On CUDA all of them share it.
        threads: Of each worker; its share of this machine's cores where it is None.
        engine: As in ``train``.
        checkpoints: Every training is kept in a folder of its own below this one, as in ``train``:
            the same call goes on with what was cut short, and takes what was done as it is.
        on_result: Called in this process when a job has ended.

    Raises:
        InputError: There is less than one worker or thread, or two trainings that are to be kept
            are the same.
        DataError: The data set does not fit a network, or shared memory cannot hold it.
        WorkerError: No worker could begin.
    """
    jobs = [*jobs]
    _check(jobs, data, workers, threads)
    ledger = Ledger(jobs, on_result)
    if checkpoints is not None:
        ledger.refuse_twins()
    setup = Setup(
        data=shared(data, held_out=any(job.held_out for job in jobs)),
        device=torch.device(device),
        threads=threads or max(1, cores() // workers),
        engine=engine,
        checkpoints=checkpoints,
    )
    with _Crew(setup, workers) as crew:
        crew.work(ledger)
    return ledger.results()


def _check(jobs: Sequence[Job], data: ImageSet, workers: int, threads: int | None) -> None:
    if workers < 1 or (threads is not None and threads < 1):
        raise InputError(f"{workers=} and {threads=} must be at least 1")
    faults = []
    for name, graph in {digest(job.graph): job.graph for job in jobs}.items():
        try:
            check_fit(graph, data)
        except DataError as error:
            faults.append(f"the network {name}: {error}")
    if faults:
        raise DataError("\n  ".join(faults))


@final
class Ledger:
    """What is to be trained, and what came of it."""

    def __init__(self, jobs: Sequence[Job], on_result: OnResult | None) -> None:
        self._jobs, self._on_result = jobs, on_result
        self._waiting = deque(
            Task(
                place=place,
                graph=job.graph,
                recipe=job.recipe,
                seed=seed,
                held_out=job.held_out,
            )
            for place, job in enumerate(jobs)
            for seed in job.seeds
        )
        self._ended: list[dict[int, Outcome]] = [{} for _ in jobs]

    def __len__(self) -> int:
        """Return how many trainings wait for a worker."""
        return len(self._waiting)

    def refuse_twins(self) -> None:
        """Refuse trainings that are the same: one folder cannot keep two at once.

        Raises:
            InputError: There are some.
        """
        kinds = Counter((t.graph, t.recipe, t.held_out, t.seed) for t in self._waiting)
        twins = {str(t) for t in self._waiting if kinds[t.graph, t.recipe, t.held_out, t.seed] > 1}
        if twins:
            raise InputError(f"several jobs ask for {' and for '.join(sorted(twins))}")

    def take(self) -> Task:
        """Return the next training."""
        return self._waiting.popleft()

    def put(self, task: Task, outcome: Outcome) -> None:
        """File what came of a training, and of those that are not to come after it."""
        ended = self._ended[task.place]
        ended[task.seed] = outcome
        if isinstance(outcome, PruneNASError):
            # What comes after it would be trained for nothing.
            left = [other for other in self._waiting if other.place != task.place]
            ended |= {t.seed: outcome for t in self._waiting if t.place == task.place}
            self._waiting = deque(left)

    def tell(self, place: int) -> None:
        """Tell of a job if it has ended."""
        if self._on_result and len(self._ended[place]) == len(self._jobs[place].seeds):
            self._on_result(place, self._result(place))

    def results(self) -> list[Outcome]:
        """Return the outcome of each job, in order."""
        return [self._result(place) for place in range(len(self._jobs))]

    def _result(self, place: int) -> Outcome:
        runs = []
        for seed in self._jobs[place].seeds:
            run = self._ended[place][seed]
            # The error of the first seed that failed, whichever was the first to fail.
            if isinstance(run, PruneNASError):
                return run
            runs.append(run)
        return Metrics.together(runs)


@final
class _Crew:
    """At most so many workers, started as long as there is work for one more."""

    def __init__(self, setup: Setup, size: int) -> None:
        self._setup, self._size = setup, size
        self._workers: list[Worker] = []
        self._leaving: list[Worker] = []
        self._one_was_ready = False

    def __enter__(self) -> "_Crew":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            worker.kill()
        for worker in self._leaving:
            worker.join()

    def work(self, ledger: Ledger) -> None:
        """Have everything trained."""
        while len(ledger) or any(worker.task for worker in self._workers):
            idle = sum(worker.task is None for worker in self._workers)
            for _ in range(min(self._size - len(self._workers), len(ledger) - idle)):
                self._workers.append(Worker(self._setup))
            speaking = wait([worker.line for worker in self._workers])
            for worker in [w for w in self._workers if w.line in speaking]:
                self._hear(worker, ledger)

    def _hear(self, worker: Worker, ledger: Ledger) -> None:
        try:
            outcome: Outcome | None = worker.line.recv()
        except (EOFError, ConnectionResetError):
            outcome = self._bury(worker)
        else:
            if not worker.ready and isinstance(outcome, PruneNASError):
                raise outcome
            self._one_was_ready = worker.ready = True
        task, worker.task = worker.task, None
        if task is not None and outcome is not None:
            ledger.put(task, outcome)
        # After a failure that nobody foresaw a process may be in any state.
        if len(ledger) and not isinstance(outcome, WorkerError):
            worker.give(ledger.take())
        else:
            self._workers.remove(worker)
            self._leaving.append(worker)
            worker.dismiss()
        # When its worker is busy again: what is called may take its time.
        if task is not None:
            ledger.tell(task.place)

    def _bury(self, worker: Worker) -> WorkerError:
        """Return the error of a worker that has died; if there is work, another one follows it."""
        death = worker.death()
        if worker.task is None:
            # One that cannot even begin is not replaced, or this would have no end.
            self._size -= 1
        if self._size == 0:
            raise _nobody_left(death, begun=self._one_was_ready)
        return WorkerError(
            f"{worker.task} was cut short: its process {death}; if memory ran out, use fewer "
            "workers"
        )


def _nobody_left(death: str, *, begun: bool) -> WorkerError:
    hint = "if memory ran out, use fewer workers"
    if not begun:
        hint += '; a script must call train_many below `if __name__ == "__main__":`, since '
        hint += "workers import it"
    return WorkerError(f"no worker is left: the last one {death} before it was ready; {hint}")
