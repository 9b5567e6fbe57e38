"""The one training loop."""

import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from prunenas.arch.metrics import Metrics, PartName, SeedResult
from prunenas.build.initialise import build
from prunenas.build.network import Network
from prunenas.data.base import ImageData
from prunenas.errors import DataError, DivergenceError, InputError
from prunenas.ir.cost import effective_macs, is_sparse, macs, nonzero_params, params
from prunenas.ir.graph import Graph
from prunenas.training.augment import Batches
from prunenas.training.evaluate import Evaluation, evaluate
from prunenas.training.hooks import Hooks as Hooks
from prunenas.training.hooks import Moment as Moment
from prunenas.training.randomness import seeded
from prunenas.training.recipe import Recipe
from prunenas.training.sparse_phase import SparseTraining

_CHECK_EVERY = 50
"""Steps between two looks at the losses: each look waits for the device."""


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
    seed: int = 0,
    held_out: bool = False,
    hooks: Hooks | None = None,
    on_epoch: OnEpoch | None = None,
) -> Metrics:
    """Train ``network`` in place and return what it reaches.

    Args:
        network: On the device where it is to be trained; the images are brought there.
        data: The data set.
        recipe: Budget and schedule.
        seed: Of data order, augmentation and dropout. Same seed, same numbers on a CPU.
        held_out: Train on the training set less its validation part, judge by that part after
            every epoch, and leave the test set unread: for searching, choosing and the methods.
            Otherwise train on the whole training set and read the test set once, at the end.
        hooks: What a method adds.
        on_epoch: Called after every epoch; an exception it raises ends the training.

    Raises:
        DataError: The data set does not fit the network.
        DivergenceError: The loss stopped being finite; names epoch, step and learning rate, or
            the images if it did so with the last step.
    """
    check_fit(network.graph, data)
    device = next(network.parameters()).device
    data = data.to(device)
    started = time.perf_counter()
    with seeded(seed, device):
        seen = _fit(network, data, recipe, seed, held_out, hooks or Hooks(), on_epoch, started)
    part: PartName = "validation" if held_out else "test"
    # The last epoch has been judged already where it was held out.
    reached = seen[-1] if held_out else evaluate(network, data, data.part(part))
    best = max(enumerate(seen, start=1), key=lambda one: one[1].accuracy) if held_out else None
    if not math.isfinite(reached.loss):
        raise DivergenceError(
            f"the loss on the {part} images is {reached.loss} after epoch {recipe.epochs}: lower "
            f"the recipe's lr, which is {recipe.lr:g}"
        )
    result = SeedResult(
        seed=seed,
        accuracy=reached.accuracy,
        loss=reached.loss,
        epochs=recipe.epochs,
        seconds=time.perf_counter() - started,
        top5=reached.top5,
        best_accuracy=best[1].accuracy if best else None,
        best_epoch=best[0] if best else None,
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
    )


def train_seeds(
    graph: Graph,
    data: ImageData,
    recipe: Recipe,
    *,
    seeds: Sequence[int],
    device: torch.device | str = "cpu",
    held_out: bool = False,
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
        runs.append(train(network, data, recipe, seed=seed, held_out=held_out, on_epoch=on_epoch))
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


def _fit(
    network: Network,
    data: ImageData,
    recipe: Recipe,
    seed: int,
    held_out: bool,
    hooks: Hooks,
    on_epoch: OnEpoch | None,
    started: float,
) -> list[Evaluation]:
    """Run all epochs; return what each reached on the validation part, nothing if not held out."""
    batches = Batches(
        data=data,
        part=data.part("fit" if held_out else "train"),
        batch=recipe.batch,
        augment=recipe.augment,
        generator=torch.Generator().manual_seed(seed),
    )
    if held_out:
        data.part("validation")  # an empty one is refused before the first epoch, not after it
    if len(batches) == 0:
        raise DataError(f"{data.name}: {len(batches.part)} training images make no batch")
    if recipe.precision == "bf16":
        network.to(memory_format=torch.channels_last)
    optimizer = _optimizer(network, recipe)
    scheduler = _scheduler(optimizer, recipe, len(batches))
    sparse = SparseTraining(network, optimizer, recipe)
    seen: list[Evaluation] = []
    if hooks.before:
        hooks.before(network)
    for epoch in range(1, recipe.epochs + 1):
        network.train()
        sparse.begin(epoch)
        loss = _epoch(network, batches, recipe, optimizer, scheduler, hooks, sparse, epoch)
        if hooks.after_epoch:
            hooks.after_epoch(network, epoch)
        if held_out:
            seen.append(evaluate(network, data, data.part("validation")))
        if on_epoch:
            on_epoch(
                EpochReport(
                    epoch=epoch,
                    epochs=recipe.epochs,
                    loss=loss,
                    accuracy=seen[-1].accuracy if held_out else None,
                    seconds=time.perf_counter() - started,
                )
            )
    return seen


def _epoch(
    network: Network,
    batches: Batches,
    recipe: Recipe,
    optimizer: SGD,
    scheduler: LRScheduler,
    hooks: Hooks,
    sparse: SparseTraining,
    epoch: int,
) -> float:
    """Run one epoch and return its mean loss."""
    losses: list[Tensor] = []
    rates: list[float] = []
    for images, labels in batches.epoch():
        rates.append(float(scheduler.get_last_lr()[0]))
        optimizer.zero_grad(set_to_none=True)
        with _precision(recipe, images.device):
            scores = network(_layout(images, recipe))
        loss = functional.cross_entropy(
            scores.float(), labels, label_smoothing=recipe.label_smoothing
        )
        loss.backward()  # type: ignore[no-untyped-call]
        if hooks.after_backward:
            hooks.after_backward(network)
        sparse.after_backward()
        optimizer.step()
        moment = Moment(epoch=epoch, step=(epoch - 1) * len(batches) + len(rates), lr=rates[-1])
        if hooks.after_step:
            hooks.after_step(network, moment)
        sparse.after_step(moment)
        if recipe.schedule == "one_cycle":
            scheduler.step()
        losses.append(loss.detach())
        if len(losses) % _CHECK_EVERY == 0:
            _check_finite(losses, rates, epoch)
    _check_finite(losses, rates, epoch)
    if recipe.schedule != "one_cycle":
        scheduler.step()
    return torch.stack(losses).mean().item()


def _check_finite(losses: Sequence[Tensor], rates: Sequence[float], epoch: int) -> None:
    finite = torch.stack([*losses]).isfinite()
    if not finite.all():
        step = int(finite.logical_not().nonzero()[0])
        raise DivergenceError(
            f"the loss is {losses[step].item()} at epoch {epoch}, step {step + 1}, learning rate "
            f"{rates[step]:g}: lower the recipe's lr"
        )


@contextmanager
def _precision(recipe: Recipe, device: torch.device) -> Iterator[None]:
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=recipe.precision == "bf16"):
        yield


def _layout(images: Tensor, recipe: Recipe) -> Tensor:
    if recipe.precision == "bf16":
        return images.contiguous(memory_format=torch.channels_last)
    return images


def _optimizer(network: Network, recipe: Recipe) -> SGD:
    every = [*network.parameters()]
    decaying = [p for p in every if recipe.decay_norms or p.dim() > 1]
    others = [p for p in every if not recipe.decay_norms and p.dim() <= 1]
    groups: list[dict[str, Any]] = [{"params": decaying, "weight_decay": recipe.weight_decay}]
    if others:
        groups.append({"params": others, "weight_decay": 0.0})
    return SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True)


def _scheduler(optimizer: SGD, recipe: Recipe, steps: int) -> LRScheduler:
    if recipe.schedule == "one_cycle":
        total = recipe.epochs * steps
        return LambdaLR(optimizer, lambda step: _one_cycle(step / total))
    return LambdaLR(optimizer, recipe.rate)


def _one_cycle(done: float) -> float:
    """Return the learning rate as a part of its peak, after ``done`` in [0, 1] of all steps.

    A straight line from 1/25 up to 1 at a fifth of the training, and one from there down to 0.

    Source: Smith and Topin 2018, arXiv:1708.07120 (linear, without the momentum's cycle).
    """
    return 0.04 + 0.96 * done / 0.2 if done < 0.2 else (1 - done) / 0.8
