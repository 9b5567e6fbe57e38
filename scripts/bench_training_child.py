"""What ``bench_training.py`` measures of one network, in a process of its own."""

import itertools
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any, Protocol, final

import torch
from bench_training_loop import PaperLoop

import prunenas as pn
from prunenas.build.initialise import build
from prunenas.data.base import ImageData
from prunenas.ir.cost import macs, params
from prunenas.ir.graph import Graph
from prunenas.training.execution.engine import FAST, SLOW, Engine, settings, settle
from prunenas.training.hooks import Hooks
from prunenas.training.randomness import seeds_of
from prunenas.training.recipe import Recipe
from prunenas.training.run import Run

BASELINE, SLOW_PATH = "the paper's loop", "slow path, fp32"

LR = 0.01
"""Learning rate of all: it changes no speed, and keeps noise from making a training diverge."""

WARM_UP = 8
"""Steps that each contestant does before any is timed."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to measure, and how.

    Args:
        network: Family of the network.
        width: Its width multiplier.
        size: Channels, height and width of the images.
        device: Where it is trained.
        rounds: Bursts of each contestant.
        seconds: Length of a burst.
        compiled: Hold ``torch.compile`` against the engine, and nothing else.
    """

    network: str
    width: float
    size: tuple[int, int, int]
    device: torch.device
    rounds: int
    seconds: float
    compiled: bool


def noise(size: tuple[int, int, int], train: int, test: int) -> ImageData:
    """Return noise with labels in turn, as CIFAR and Fashion-MNIST are read: flips, crops of 4."""
    draws = torch.Generator().manual_seed(0)

    def images(count: int) -> torch.Tensor:
        return torch.randint(0, 256, (count, *size), dtype=torch.uint8, generator=draws)

    return ImageData(
        name="noise",
        train_images=images(train),
        train_labels=torch.arange(train) % 10,
        test_images=images(test),
        test_labels=torch.arange(test) % 10,
        classes=10,
        mean=(0.5,) * size[0],
        std=(0.29,) * size[0],
        flip=True,
        crop_padding=4,
        validation=torch.arange(10),
    )


class Turns(Protocol):
    """Who takes turns with others."""

    rates: list[float]

    def warm(self) -> None:
        """Do the first steps, what is recorded or compiled included."""

    def burst(self, seconds: float) -> None:
        """Do steps for some seconds, and note images a second."""


class Contestant:
    """Something that is done step after step, whose images a second are told.

    Args:
        steps: Yields the images of each step, for ever.
        device: Where they are computed.
        engine: Whose global settings hold meanwhile; torch's own without one.
    """

    def __init__(
        self, steps: Iterator[int], device: torch.device, engine: Engine | None = None
    ) -> None:
        self._steps, self._device, self._engine = steps, device, engine
        self.rates: list[float] = []

    def warm(self) -> None:
        """Do the first steps, what is recorded or compiled included."""
        self._timed(lambda: sum(itertools.islice(self._steps, WARM_UP)))

    def burst(self, seconds: float) -> None:
        """Do steps for some seconds, and note images a second."""
        images, taken = self._timed(lambda: self._until(time.perf_counter() + seconds))
        self.rates.append(images / taken)

    def _until(self, end: float) -> int:
        images = next(self._steps)
        while time.perf_counter() < end:
            images += next(self._steps)
        return images

    def _timed(self, work: Callable[[], int]) -> tuple[int, float]:
        with settings(self._engine, self._device) if self._engine else nullcontext():
            wait(self._device)
            began = time.perf_counter()
            images = work()
            wait(self._device)
            return images, time.perf_counter() - began


class Elsewhere:
    """A contestant in another process, so that what the engine sets here does not help it.

    Args:
        connection: To ``serve``.
        race: What it takes part in.
        name: What it is called there.
    """

    def __init__(self, connection: Connection, race: str, name: str) -> None:
        self._connection, self._race, self._name = connection, race, name
        self.rates: list[float] = []

    def warm(self) -> None:
        """Do the first steps."""
        self._ask(None)

    def burst(self, seconds: float) -> None:
        """Do steps for some seconds, and note images a second."""
        self.rates.append(self._ask(seconds))

    def _ask(self, seconds: float | None) -> float:
        self._connection.send((self._race, self._name, seconds))
        rate: float = self._connection.recv()
        return rate


def serve(connection: Connection, asked: Asked) -> None:
    """Hold the paper's loop and the slow path: tell how many workers it has, then take turns."""
    graph, data = drawn(asked)
    workers = best_workers(graph, data, asked)
    loop = made_loop(graph, data, asked.device, workers)
    slow = made_run(graph, data.to(asked.device), paper(), SLOW)
    # To start workers would be most of judging few images.
    judge = loop if asked.device.type == "cuda" else made_loop(graph, data, asked.device, 0)
    images = len(data.test_labels)
    races = {
        ("training", BASELINE): Contestant(loop.steps(), asked.device),
        ("training", SLOW_PATH): Contestant(steps_of(slow), asked.device, SLOW),
        ("data path", BASELINE): Contestant(loop.images(), asked.device),
        ("evaluation", BASELINE): Contestant(repeated(judge.test, images), asked.device),
    }
    connection.send((workers, f"{slow.execution}, batch {slow.recipe.batch}"))
    while (turn := connection.recv()) is not None:
        race, name, seconds = turn
        contestant = races[race, name]
        if seconds is None:
            contestant.warm()
        else:
            contestant.burst(seconds)
        connection.send(contestant.rates[-1] if contestant.rates else 0.0)


def wait(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def made_run(graph: Graph, data: ImageData, recipe: Recipe, engine: Engine) -> Run:
    """Return a training at its beginning, on the device of the images."""
    network = build(graph, device=data.device)
    recipe = settle(recipe, data.device)
    seeds = seeds_of(0, network)
    return Run(network, data, recipe, seeds=seeds, held_out=False, hooks=Hooks(), engine=engine)


def steps_of(run: Run) -> Iterator[int]:
    """Yield the images of each step of a training that never ends."""
    while True:
        for _ in run.steps_of_epoch():
            yield run.recipe.batch
        run.end_epoch()
        run.epoch = 1


def loads_of(run: Run) -> Iterator[int]:
    """Yield the images of each batch that the data path alone makes."""
    while True:
        for draw in run.batches.draws(1):
            yield len(run.batches.load(draw)[0])


def repeated(work: Callable[[], object], images: int) -> Iterator[int]:
    """Yield ``images`` after each time that ``work`` was done."""
    while True:
        work()
        yield images


def measured(asked: Asked) -> dict[str, Any]:
    """Return what is found about one network."""
    graph, data = drawn(asked)
    found: dict[str, Any] = {"params": params(graph), "macs": macs(graph), "execution": {}}
    on_device = data.to(asked.device)
    if asked.compiled:
        found["training"] = raced(engines(graph, on_device, asked, found["execution"]), asked)
        return found
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, asked))
    process.start()
    workers, slow = here.recv()
    found["execution"] |= {BASELINE: f"fp32, batch 64, {workers} workers", SLOW_PATH: slow}
    contestants: dict[str, Turns] = {
        name: Elsewhere(here, "training", name) for name in (BASELINE, SLOW_PATH)
    }
    contestants |= engines(graph, on_device, asked, found["execution"])
    found["training"] = raced(contestants, asked)
    found |= beside(graph, on_device, asked, here)
    here.send(None)
    process.join()
    found["build seconds"] = timed_builds(graph, asked)
    if asked.device.type == "cuda":
        found["cuda"] = once(graph, data, asked)
    return found


def drawn(asked: Asked) -> tuple[Graph, ImageData]:
    """Return the network and its images, in whole batches: 51,200 is 800 of 64, 200 of 256."""
    data = noise(asked.size, 51_200, 10_240 if asked.device.type == "cuda" else 512)
    return pn.reference(asked.network, asked.size, 10, width=asked.width), data


def paper() -> Recipe:
    """Return the recipe of the paper's loop."""
    return replace(pn.named_recipe("paper"), lr=LR, precision="fp32")


def fast() -> Recipe:
    """Return our fast recipe."""
    return replace(pn.named_recipe("fast"), lr=LR)


def ways(asked: Asked) -> dict[str, tuple[Recipe, Engine]]:
    """Return the ways of our engine, with the recipes that they follow."""
    half = replace(paper(), precision="bf16")
    if asked.compiled:
        compiled = replace(FAST, compile=True)
        return {"engine, bf16": (half, FAST), "compiled, bf16": (half, compiled)}
    found = {
        "engine, fp32": (paper(), FAST),
        "engine, bf16": (half, FAST),
        "engine, `fast`": (fast(), FAST),
    }
    if asked.device.type == "cuda":
        found["engine, bf16, deterministic"] = (half, replace(FAST, deterministic=True))
    return found


def engines(
    graph: Graph, data: ImageData, asked: Asked, execution: dict[str, str]
) -> dict[str, Turns]:
    """Return the ways of our engine, and note in words how they are carried out."""
    contestants: dict[str, Turns] = {}
    for words, (recipe, engine) in ways(asked).items():
        run = made_run(graph, data, recipe, engine)
        contestants[words] = Contestant(steps_of(run), asked.device, engine)
        execution[words] = f"{run.execution}, batch {run.recipe.batch}"
    return contestants


def raced(contestants: Mapping[str, Turns], asked: Asked) -> dict[str, list[float]]:
    """Return images a second of all, who were warmed up and then took turns."""
    for contestant in contestants.values():
        contestant.warm()
    for _ in range(asked.rounds):
        for contestant in contestants.values():
            contestant.burst(asked.seconds)
    return {words: contestant.rates for words, contestant in contestants.items()}


def made_loop(graph: Graph, data: ImageData, device: torch.device, workers: int) -> PaperLoop:
    """Return the paper's loop on a fresh network."""
    return PaperLoop(build(graph, device=device), data, workers=workers, lr=LR)


def best_workers(graph: Graph, data: ImageData, asked: Asked) -> int:
    """Return the number of worker processes with which the paper's loop is fastest here."""
    numbers = (1, 4, 8) if asked.device.type == "cuda" else (0, 1, 2)
    contestants = {
        str(number): Contestant(made_loop(graph, data, asked.device, number).steps(), asked.device)
        for number in numbers
    }
    rates = raced(contestants, replace(asked, rounds=3))
    return int(max(rates, key=lambda number: statistics.median(rates[number])))


def beside(
    graph: Graph, data: ImageData, asked: Asked, connection: Connection
) -> dict[str, dict[str, list[float]]]:
    """Return images a second of the data path alone, and of judging by the test images."""
    run = made_run(graph, data, fast(), FAST)
    steps = {
        "data path": loads_of(run),
        "evaluation": repeated(run.evaluator("test"), len(data.test_labels)),
    }
    return {
        race: raced(
            {
                BASELINE: Elsewhere(connection, race, BASELINE),
                "engine": Contestant(own, asked.device, FAST),
            },
            asked,
        )
        for race, own in steps.items()
    }


def timed_builds(graph: Graph, asked: Asked) -> list[float]:
    """Return the seconds of building the network afresh."""
    taken = []
    for _ in range(asked.rounds):
        wait(asked.device)
        began = time.perf_counter()
        build(graph, device=asked.device)
        wait(asked.device)
        taken.append(time.perf_counter() - began)
    return taken


def once(graph: Graph, data: ImageData, asked: Asked) -> dict[str, dict[str, float]]:
    """Return what a candidate costs once on CUDA: seconds of capture, and peak memory.

    A training of a whole and a partial batch, and its evaluation, is done twice; what the second
    time does not take is what capturing took.
    """
    device, found = asked.device, {}
    for words, (recipe, engine) in ways(asked).items():
        small = data.small(train=recipe.batch * 3 // 2, test=700).to(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before, seconds = torch.cuda.memory_allocated(device), []
        with settings(engine, device):
            run = made_run(graph, small, recipe, engine)
            evaluator = run.evaluator("test")
            for _ in range(2):
                wait(device)
                began = time.perf_counter()
                for _ in run.steps_of_epoch():
                    pass
                run.end_epoch()
                evaluator()
                wait(device)
                seconds.append(time.perf_counter() - began)
        peak = torch.cuda.max_memory_allocated(device) - before
        found[words] = {"capture seconds": seconds[0] - seconds[1], "peak MiB": peak / 2**20}
        del run, evaluator
    return found
