"""The verb ``train``, and its like: trainings from the first epoch to their metrics."""

import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch

from prunenas.arch.metrics import Metrics, PartName, SeedResult, Seeds
from prunenas.build.initialise import build
from prunenas.build.network import Network
from prunenas.data.base import ImageData
from prunenas.errors import DataError, DivergenceError, InputError
from prunenas.ir.canonical import digest
from prunenas.ir.cost import effective_macs, is_sparse, macs, nonzero_params, params
from prunenas.ir.graph import Graph
from prunenas.training.engine import FAST, Engine, settings, settle
from prunenas.training.hooks import Hooks as Hooks
from prunenas.training.hooks import Moment as Moment
from prunenas.training.randomness import seeded, seeds_of
from prunenas.training.recipe import Recipe
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
        seconds: Since training began.
    """

    epoch: int
    epochs: int
    loss: float
    accuracy: float | None
    seconds: float


OnEpoch = Callable[[EpochReport], None]

OnTrained = Callable[[int, Network], None]
"""Given a seed and the network that it ended with."""


def train(
    network: Network,
    data: ImageData,
    recipe: Recipe,
    *,
    seed: int | Seeds = 0,
    held_out: bool = False,
    hooks: Hooks | None = None,
    engine: Engine = FAST,
    on_epoch: OnEpoch | None = None,
) -> Metrics:
    """Train ``network`` in place and return what it reaches.

    Args:
        network: On the device where it is to be trained; the images are brought there.
        data: The data set.
        recipe: Budget and schedule.
        seed: Of data order, augmentation and dropout; or one for each. Same seed, same numbers on
            a CPU, bit for bit.
        held_out: Train on the training set less its validation part, judge by that part after
            every epoch, and leave the test set unread: for searching, choosing and the methods.
            Otherwise train on the whole training set and read the test set once, at the end.
        hooks: What a method adds.
        engine: How it is carried out.
        on_epoch: Called after every epoch; an exception it raises ends the training.

    Raises:
        DataError: The data set does not fit the network.
        DivergenceError: The loss stopped being finite; names epoch, step and learning rate, or
            the images if it did so with the last step.
    """
    check_fit(network.graph, data)
    device = next(network.parameters()).device
    recipe, seeds = settle(recipe, device), seeds_of(seed, network)
    with settings(engine, device), seeded(seeds.layers, device):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        run = Run(
            network,
            data.to(device),
            recipe,
            seeds=seeds,
            held_out=held_out,
            hooks=hooks or Hooks(),
            engine=engine,
        )
        _follow(run, on_epoch)
        part: PartName = "validation" if held_out else "test"
        # The last epoch has been judged already where it was held out.
        reached = run.seen[-1] if held_out else run.evaluator(part)()
    if not math.isfinite(reached.loss):
        raise DivergenceError(
            f"the loss of the network {digest(network.graph)} on the {part} images is "
            f"{reached.loss} after epoch {recipe.epochs}: lower the recipe's lr, which is "
            f"{recipe.lr:g}"
        )
    best = max(enumerate(run.seen, start=1), key=lambda one: one[1].accuracy) if held_out else None
    result = SeedResult(
        seed=seeds.order,
        accuracy=reached.accuracy,
        loss=reached.loss,
        epochs=recipe.epochs,
        seconds=run.seconds,
        top5=reached.top5,
        best_accuracy=best[1].accuracy if best else None,
        best_epoch=best[0] if best else None,
        seeds=seeds,
        peak_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    )
    return Metrics(
        results=(result,),
        part=part,
        params=params(network.graph),
        macs=macs(network.graph),
        device=device_name(device),
        data=data.name,
        nonzero_params=nonzero_params(network.graph) if is_sparse(network.graph) else None,
        effective_macs=effective_macs(network.graph) if is_sparse(network.graph) else None,
        execution=run.execution,
    )


def _follow(run: Run, on_epoch: OnEpoch | None) -> None:
    """Do all epochs that are left, telling of each."""
    run.begin()
    while run.epoch <= run.recipe.epochs:
        for _ in run.steps_of_epoch():
            pass
        loss = run.end_epoch()
        if on_epoch:
            on_epoch(
                EpochReport(
                    epoch=run.epoch - 1,
                    epochs=run.recipe.epochs,
                    loss=loss,
                    accuracy=run.seen[-1].accuracy if run.seen else None,
                    seconds=run.seconds,
                )
            )


def train_seeds(
    graph: Graph,
    data: ImageData,
    recipe: Recipe,
    *,
    seeds: Sequence[int],
    device: torch.device | str = "cpu",
    held_out: bool = False,
    engine: Engine = FAST,
    on_epoch: OnEpoch | None = None,
    on_trained: OnTrained | None = None,
) -> Metrics:
    """Train ``graph`` from scratch once a seed, and return all results.

    Args:
        graph: Built afresh for every seed.
        data: The data set.
        recipe: Budget and schedule.
        seeds: Each is the seed of the weights and of the training.
        device: Where to train.
        held_out: As in ``train``.
        engine: As in ``train``.
        on_epoch: As in ``train``.
        on_trained: Called with each seed and its trained network.

    Raises:
        InputError: There is no seed.
        DataError: As in ``train``.
        DivergenceError: As in ``train``.
    """
    return train_each(
        lambda seed: build(graph, seed=seed, device=device),
        data,
        recipe,
        seeds=seeds,
        held_out=held_out,
        engine=engine,
        on_epoch=on_epoch,
        on_trained=on_trained,
    )


def train_each(
    begin: Callable[[int], Network],
    data: ImageData,
    recipe: Recipe,
    *,
    seeds: Sequence[int],
    held_out: bool = False,
    engine: Engine = FAST,
    on_epoch: OnEpoch | None = None,
    on_trained: OnTrained | None = None,
) -> Metrics:
    """Train once a seed the network that ``begin`` makes for it, and return all results.

    The other arguments and errors are those of ``train_seeds``.
    """
    if not seeds:
        raise InputError("a training needs at least one seed")
    runs = []
    for seed in seeds:
        network = begin(seed)
        runs.append(
            train(
                network,
                data,
                recipe,
                seed=seed,
                held_out=held_out,
                engine=engine,
                on_epoch=on_epoch,
            )
        )
        if on_trained:
            on_trained(seed, network)
    return replace(runs[0], results=tuple(result for run in runs for result in run.results))


def device_name(device: torch.device) -> str:
    """Return the device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def check_fit(graph: Graph, data: ImageData) -> None:
    """Refuse a data set whose images or classes are not the graph's.

    Raises:
        DataError: They differ; all differences at once.
    """
    faults = []
    if data.input_size != graph.input_size:
        faults.append(f"images are {list(data.input_size)}, it takes {list(graph.input_size)}")
    if data.classes != graph.classes:
        faults.append(f"{data.classes} classes, it has {graph.classes}")
    if faults:
        raise DataError(f"{data.name} does not fit the network: " + "; ".join(faults))
