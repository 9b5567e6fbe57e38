"""Trainings in several processes: the numbers of one process, and no failure harms another."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler

import pytest
import torch

from prunenas import errors
from prunenas.arch.metrics import Metrics
from prunenas.errors import (
    DataError,
    DivergenceError,
    InputError,
    PruneNASError,
    WorkerError,
)
from prunenas.ir.canonical import digest
from prunenas.training.execution.engine import Engine
from prunenas.training.keeping.checkpoint import Checkpoints
from prunenas.training.loop import train_seeds
from prunenas.training.recipe import Recipe
from prunenas.training.workers import process as worker_process
from prunenas.training.workers.process import Setup, Task
from prunenas.training.workers.train_many import Job, Ledger, train_many
from tests.training.networks import linear, made, small

SIZE = (1, 8, 8)
SHORT = Recipe(epochs=2, batch=8)
ENDLESS = replace(SHORT, epochs=10**9, decay_every=1.0)


def net(width=4):
    return small(SIZE, 4, widths=(width, 4, 4), dropout=0.3)


def data():
    """Images with every augmentation, so that every stream of draws is used."""
    return made(24, 8, size=SIZE, flip=True, crop_padding=2)


def timeless(metrics: Metrics) -> Metrics:
    return replace(metrics, results=tuple(replace(r, seconds=0.0) for r in metrics.results))


JOBS = [
    Job(graph=net(), recipe=SHORT, seeds=(0, 1), held_out=True),
    Job(graph=net(), recipe=replace(SHORT, lr=1e30), seeds=(0, 1, 2)),
    Job(graph=net(6), recipe=replace(SHORT, cutout=2), seeds=(3,)),
]

ALONE = Setup(data=data(), device=torch.device("cpu"), threads=1, engine=Engine(), checkpoints=None)


@pytest.fixture(scope="module")
def outcomes() -> Iterator[tuple[list, list]]:
    told = []
    results = train_many(
        JOBS,
        data(),
        workers=2,
        threads=1,
        on_result=lambda place, result: told.append((place, result)),
    )
    yield results, told


@pytest.mark.parametrize("place", [0, 2])
def test_each_job_reaches_what_it_reaches_alone_bit_for_bit(outcomes, place):
    job = JOBS[place]
    alone = train_seeds(job.graph, data(), job.recipe, seeds=job.seeds, held_out=job.held_out)
    assert timeless(outcomes[0][place]) == timeless(alone)


def test_a_job_that_diverges_gives_its_error_and_harms_no_other(outcomes):
    error = outcomes[0][1]
    assert isinstance(error, DivergenceError)
    assert digest(JOBS[1].graph) in str(error)


def test_each_job_is_told_of_once_with_its_outcome(outcomes):
    results, told = outcomes
    assert sorted(place for place, _ in told) == [0, 1, 2]
    assert all(result is results[place] or result == results[place] for place, result in told)


def test_nobody_is_left_behind(outcomes):
    assert multiprocessing.active_children() == []


@pytest.fixture(scope="module")
def killed() -> list:
    """What is told where the only worker is killed once, and the fourth training interrupted."""
    jobs = [Job(graph=net(), recipe=recipe) for recipe in (SHORT, ENDLESS, SHORT, ENDLESS)]
    told = []

    def disturb(place, outcome):
        told.append(outcome)
        if place == 0:
            (worker,) = multiprocessing.active_children()
            worker.kill()
        if place == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_many(jobs, data(), workers=1, threads=1, on_result=disturb)
    return told


def test_a_killed_worker_costs_its_own_training_only(killed):
    first, second, third = killed
    assert timeless(first) == timeless(third)
    assert isinstance(second, WorkerError)
    assert str(second).startswith(
        f"the training of the network {digest(net())} with seed 0 was cut short: its process was "
        "ended by signal 9 (Killed)"
    )


def test_an_exception_in_the_parent_ends_all_workers(killed):
    assert len(killed) == 3  # the fourth would have gone on for ever
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_workers_that_cannot_begin_say_why():
    with pytest.raises(DataError, match="'cuda:99' is not here"):
        train_many([Job(graph=net(), recipe=SHORT)], data(), workers=1, device="cuda:99")
    assert multiprocessing.active_children() == []


def test_without_jobs_nothing_is_started():
    assert train_many([], data(), workers=2) == []


@pytest.mark.parametrize("numbers", [{"workers": 0}, {"workers": 1, "threads": 0}])
def test_no_workers_and_no_threads_are_refused(numbers):
    with pytest.raises(InputError, match="must be at least 1"):
        train_many([], data(), **numbers)


def test_all_networks_that_the_data_does_not_fit_are_told_of_before_any_is_trained():
    strangers = [linear((1, 4, 4), 4), linear((1, 8, 8), 3)]
    jobs = [Job(graph=graph, recipe=SHORT) for graph in (net(), *strangers)]
    with pytest.raises(DataError) as refused:
        train_many(jobs, data(), workers=2)
    assert all(digest(graph) in str(refused.value) for graph in strangers)
    assert digest(net()) not in str(refused.value)


@pytest.mark.parametrize("seeds", [(), (1, 1)])
def test_a_job_has_seeds_each_once(seeds):
    with pytest.raises(InputError, match="at least one seed, each once"):
        Job(graph=net(), recipe=SHORT, seeds=seeds)


def ledger_of(*seeds):
    told = []
    jobs = [Job(graph=net(), recipe=SHORT, seeds=seeds), Job(graph=net(), recipe=SHORT)]
    return Ledger(jobs, lambda place, outcome: told.append(outcome)), told


def test_the_seeds_after_one_that_failed_are_not_trained():
    ledger, told = ledger_of(5, 6, 7)
    first, second = ledger.take(), ledger.take()
    failure = DivergenceError("nan")
    ledger.put(second, failure)
    ledger.tell(0)
    assert (len(ledger), told) == (1, [])  # seed 5 is under way, and job 1 waits
    ledger.put(first, train_seeds(net(), data(), SHORT, seeds=[5]))
    ledger.tell(0)
    assert told == [failure]
    assert ledger.take().place == 1


def test_of_several_failures_the_first_seeds_is_told_whichever_came_first():
    ledger, told = ledger_of(5, 6)
    first, second = ledger.take(), ledger.take()
    failures = DivergenceError("of 6"), DivergenceError("of 5")
    ledger.put(second, failures[0])
    ledger.put(first, failures[1])
    ledger.tell(0)
    assert told == [failures[1]]


def test_a_failure_that_nobody_foresaw_names_the_network_and_where_it_was_raised(monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(worker_process, "train_seeds", broken)
    task = Task(place=0, graph=net(), recipe=SHORT, seed=3, held_out=False)
    error = ForkingPickler.loads(ForkingPickler.dumps(worker_process.outcome(task, data(), ALONE)))
    assert isinstance(error, WorkerError)
    assert digest(net()) in str(error)
    assert "seed 3 failed: ZeroDivisionError: by nothing" in str(error)
    assert "in broken" in error.__notes__[0]


def test_every_training_is_kept_in_a_folder_of_its_own(tmp_path):
    setup = replace(ALONE, checkpoints=Checkpoints(tmp_path))
    tasks = [
        Task(place=0, graph=graph, recipe=recipe, seed=seed, held_out=held_out)
        for graph, recipe, seed, held_out in (
            (net(), SHORT, 0, True),
            (net(), SHORT, 0, False),
            (net(), SHORT, 1, False),
            (net(), replace(SHORT, epochs=1), 0, False),
            (net(5), SHORT, 0, False),
        )
    ]
    first, again = ([worker_process.outcome(t, data(), setup) for t in tasks] for _ in range(2))
    assert first == again  # seconds too: nothing was trained twice
    assert len([*tmp_path.glob("*/seed-*/checkpoint.json")]) == len(tasks)
    assert [timeless(one) for one in first] == [
        timeless(worker_process.outcome(task, data(), ALONE)) for task in tasks
    ]


def test_one_folder_does_not_keep_the_same_training_twice(tmp_path):
    jobs = [Job(graph=net(), recipe=SHORT, seeds=(0, 1)), Job(graph=net(), recipe=SHORT)]
    with pytest.raises(InputError, match=f"{digest(net())} with seed 0$"):
        train_many(jobs, data(), workers=2, checkpoints=Checkpoints(tmp_path))


@pytest.mark.parametrize(
    "kind",
    [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, PruneNASError)],
)
def test_every_error_of_ours_travels(kind):
    arrived = ForkingPickler.loads(ForkingPickler.dumps(kind("what happened")))
    assert type(arrived) is kind
    assert str(arrived) == "what happened"


SCRIPT = """
import sys
from prunenas.training.workers.train_many import Job, train_many
from tests.training.workers.test_train_many import ENDLESS, SHORT, data, net

def main():
    jobs = [Job(graph=net(), recipe=recipe) for recipe in (SHORT, ENDLESS, ENDLESS)]
    train_many(jobs, data(), workers=2, on_result=tell)

def tell(place, result):
    import multiprocessing
    print(*[worker.pid for worker in multiprocessing.active_children()], flush=True)

"""


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="asks Linux who is alive")
@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_however_the_parent_ends_its_workers_end_too(tmp_path, way):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + 'if __name__ == "__main__":\n    main()\n', encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    ) as parent:
        try:
            workers = [int(word) for word in parent.stdout.readline().split()]
            assert len(workers) == 2
            assert all(map(is_alive, workers))
        finally:
            parent.send_signal(way)
    until = time.monotonic() + 10
    while any(map(is_alive, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(is_alive, workers))


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_of_it(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + "main()\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        timeout=120,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("prunenas.errors.WorkerError: no worker is left: the last one ended")
    assert 'below `if __name__ == "__main__":`' in last


@pytest.mark.gpu
def test_workers_that_share_a_gpu_reach_what_they_reach_alone():
    engine = Engine(deterministic=True)
    jobs = [Job(graph=net(), recipe=replace(SHORT, precision="bf16"), seeds=(0, 1, 2))]
    (together,) = train_many(jobs, data(), workers=3, device="cuda", engine=engine)
    alone = train_seeds(
        net(), data().to("cuda"), jobs[0].recipe, seeds=(0, 1, 2), device="cuda", engine=engine
    )
    assert [(r.accuracy, r.loss) for r in together.results] == [
        (r.accuracy, r.loss) for r in alone.results
    ]


@pytest.mark.gpu
def test_a_training_that_needs_too_much_memory_harms_no_other():
    wide = replace(SHORT, batch=24)
    jobs = [Job(graph=small(SIZE, 4, widths=(2_000_000, 4, 4)), recipe=wide), JOBS[2]]
    failed, fine = train_many(jobs, data(), workers=1, device="cuda")
    assert isinstance(failed, PruneNASError)
    assert digest(jobs[0].graph) in str(failed)
    assert isinstance(fine, Metrics)
    assert torch.cuda.is_available()
