"""The verb ``train``, and its like: trainings from the first epoch to their metrics."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from prunenas.arch.metrics import Metrics, PartName, SeedResult, Seeds
from prunenas.build.execution import device_name
from prunenas.build.initialise import build
from prunenas.build.network import Network
from prunenas.data.base import ImageSet
from prunenas.errors import DataError, DivergenceError, InputError, RecipeError
from prunenas.ir.canonical import digest
from prunenas.ir.cost import effective_macs, is_sparse, macs, nonzero_params, params
from prunenas.ir.graph import Graph
from prunenas.training.execution.distributed import Team, current_team, loss_told
from prunenas.training.execution.engine import FAST, Engine, settings, settle
from prunenas.training.execution.evaluate import Evaluation
from prunenas.training.execution.memory import is_shortage, shortage
from prunenas.training.follow import Attendants, OnEpoch, Stop, carried_out
from prunenas.training.hooks import Hooks
from prunenas.training.keeping.checkpoint import Checkpoints, Keeper, facts_of
from prunenas.training.randomness import seeded, seeds_of
from prunenas.training.recipe import Recipe
from prunenas.training.run import Run

OnTrained = Callable[[int, Network], None]
"""Given a seed and the network that it ended with."""


def train(
    network: Network,
    data: ImageSet,
    recipe: Recipe,
    *,
    seed: int | Seeds = 0,
    held_out: bool = False,
    hooks: Hooks | None = None,
    engine: Engine = FAST,
    checkpoints: Checkpoints | None = None,
    stop: Stop | None = None,
    on_epoch: OnEpoch | None = None,
) -> Metrics:
    """Train ``network`` in place and return what it reaches.

    Where torch's process group joins several processes, all of them call this and train one network
    together (``training.execution``); the first one keeps the states and is told of epochs.

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
        checkpoints: Where it is kept on disk. Wherever it is killed, the same call goes on there
            and ends at the same weights, on a CPU bit for bit. Of a finished training that call
            returns at once with the weights and metrics that it ended with.
        stop: Asked after every step; where it says so the training ends, kept if it has
            checkpoints.
        on_epoch: Called after every epoch that is trained here; an exception it raises ends the
            training.

    Raises:
        DataError: The data set does not fit the network.
        CheckpointError: The checkpoint is damaged or another training's, or nobody knows what the
            hooks remember.
        DivergenceError: The loss stopped being finite; names epoch, step and learning rate, or
            the images if it did so with the last step.
        MemoryShortageError: A batch does not fit the memory; says what would.
        SavingError: A checkpoint cannot be written; the one before is intact.
        StoppedError: ``stop`` said so.
        RecipeError: The engine asks for what the device, or several processes, cannot do.
        RunError: Processes that train together differ in what they do, or one of them is gone.
    """
    check_fit(network.graph, data)
    device = next(network.parameters()).device
    recipe, seeds, hooks = settle(recipe, device), seeds_of(seed, network), hooks or Hooks()
    team = _agreed_team(network, data, recipe, engine, seeds=seeds, held_out=held_out)
    keeper = None
    if checkpoints is not None:
        facts = facts_of(network, data, recipe, seeds=seeds, held_out=held_out, hooks=hooks)
        keeper = Keeper(checkpoints=checkpoints, facts=facts)

    def make(parts: int) -> Run:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        try:
            return Run(
                network,
                data.to(device),
                recipe,
                seeds=seeds,
                held_out=held_out,
                hooks=hooks,
                engine=replace(engine, accumulate=parts),
                team=team,
            )
        except (RuntimeError, MemoryError) as error:
            if not is_shortage(error):
                raise
        raise shortage(network, device, "what lies beside the weights", "take fewer images")

    attendants = Attendants(keeper=keeper, stop=stop, on_epoch=on_epoch)
    own = team.own_seed(seeds.layers)
    with settings(engine, device), seeded(own, device), loss_told(team):
        run = carried_out(make, attendants, parts=engine.accumulate)
        if run.metrics is not None:
            return run.metrics
        # The last epoch has been judged already where it was held out.
        reached = run.seen[-1] if held_out else run.judge("test")
    # Gradients of a captured training hold all the memory that its graphs share.
    network.zero_grad(set_to_none=True)
    metrics = _metrics(run, reached, seeds, held_out=held_out)
    if keeper is not None and team.leads:
        keeper.finish(metrics)
    team.meet()
    return metrics


def _agreed_team(
    network: Network,
    data: ImageSet,
    recipe: Recipe,
    engine: Engine,
    *,
    seeds: Seeds,
    held_out: bool,
) -> Team:
    """Return the processes that train together, once they agree on what.

    Raises:
        RecipeError: The engine asks for what they, or the device, cannot do.
        RunError: They do not agree.
    """
    team, device = current_team(), next(network.parameters()).device
    if engine.sync_norms and device.type != "cuda":
        raise RecipeError(
            f"sync_norms=True asks for batch norms that see the images of all processes, which "
            f"torch has for CUDA only; this training is on {device}"
        )
    if team.size > 1 and engine.accumulate == "auto":
        raise RecipeError(
            f"accumulate=auto tries again in one process, and these are {team.size}: say a number"
        )
    if team.size > 1:
        facts = {
            "the network": digest(network.graph),
            "the data set": data.digest,
            "the recipe": str(recipe),
            "seeds": str(seeds),
            "what is held out": str(held_out),
            "the engine": str(engine),
        }
        team.check_same(facts)
    return team


def _metrics(run: Run, reached: Evaluation, seeds: Seeds, *, held_out: bool) -> Metrics:
    """Return what a training has reached.

    Raises:
        DivergenceError: The last step did it.
    """
    graph, recipe = run.network.graph, run.recipe
    part: PartName = "validation" if held_out else "test"
    if not math.isfinite(reached.loss):
        raise DivergenceError(
            f"the loss of the network {digest(graph)} on the {part} images is "
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
        peak_bytes=run.peak_bytes,
    )
    return Metrics(
        results=(result,),
        part=part,
        params=params(graph),
        macs=macs(graph),
        device=f"{run.team.size} x " * (run.team.size > 1) + device_name(run.device),
        data=run.data.name,
        nonzero_params=nonzero_params(graph) if is_sparse(graph) else None,
        effective_macs=effective_macs(graph) if is_sparse(graph) else None,
        execution=run.execution,
    )


def train_seeds(
    graph: Graph,
    data: ImageSet,
    recipe: Recipe,
    *,
    seeds: Sequence[int],
    device: torch.device | str = "cpu",
    held_out: bool = False,
    engine: Engine = FAST,
    checkpoints: Checkpoints | None = None,
    stop: Stop | None = None,
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
        checkpoints: As in ``train``; each seed has the folder ``seed-N`` in it.
        stop: As in ``train``.
        on_epoch: As in ``train``.
        on_trained: Called with each seed and its trained network.

    Raises:
        InputError: There is no seed.
        Other errors: As in ``train``.
    """
    return train_each(
        lambda seed: build(graph, seed=seed, device=device),
        data,
        recipe,
        seeds=seeds,
        held_out=held_out,
        engine=engine,
        checkpoints=checkpoints,
        stop=stop,
        on_epoch=on_epoch,
        on_trained=on_trained,
    )


def train_each(
    begin: Callable[[int], Network],
    data: ImageSet,
    recipe: Recipe,
    *,
    seeds: Sequence[int],
    held_out: bool = False,
    engine: Engine = FAST,
    checkpoints: Checkpoints | None = None,
    stop: Stop | None = None,
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
                checkpoints=checkpoints.of_seed(seed) if checkpoints else None,
                stop=stop,
                on_epoch=on_epoch,
            )
        )
        if on_trained and current_team().leads:
            on_trained(seed, network)
    return Metrics.together(runs)


def check_fit(graph: Graph, data: ImageSet) -> None:
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
