"""Seconds of a training step on the device at hand: what Scratch-B by ``seconds`` goes by."""

import statistics
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import torch

from prunenas.arch.files import read_text, write_text
from prunenas.arch.metrics import Seeds
from prunenas.build.execution import device_name
from prunenas.build.initialise import build
from prunenas.data.base import ImageData
from prunenas.ir.canonical import (
    SCHEMA,
    canonical_json,
    decode,
    digest,
    digest_of,
    encode,
    parse,
    upgrade,
)
from prunenas.ir.graph import Graph
from prunenas.training.execution.distributed import current_team
from prunenas.training.execution.engine import FAST, Engine, settings, settle
from prunenas.training.hooks import Hooks
from prunenas.training.protocols.budgets import StepSeconds
from prunenas.training.randomness import seeded
from prunenas.training.recipe import Recipe
from prunenas.training.run import Run

_STEPS = 2
"""Steps of a turn."""

_PADDING = 4
"""Of the random crop, in pixels: as on CIFAR, where the images are large enough."""


def step_seconds(
    reference: Graph,
    candidate: Graph,
    recipe: Recipe,
    *,
    device: torch.device | str = "cpu",
    engine: Engine = FAST,
    turns: int = 9,
    folder: Path | None = None,
) -> StepSeconds:
    """Return measured seconds of a training step of two networks.

    They take turns, so that what else the machine does meets both alike, and the median of each is
    told. The networks are fresh ones and the images are noise: no weights of the caller, no data
    and no random state are touched.

    Args:
        reference: The large network.
        candidate: The network to be trained.
        recipe: Says batch, augmentation and precision.
        device: Where the training will be.
        engine: How it will be carried out.
        turns: Turns of two steps that are timed; one more before them is not.
        folder: Where the result is kept. What was measured of the same networks, recipe and device
            before is read there: a training that goes on must not get another budget.

    Raises:
        InputError: What is kept in the folder is damaged.
    """
    device = torch.device(device)
    recipe = settle(recipe, device)
    facts = [digest(reference), digest(candidate), encode(recipe), encode(engine), device.type]
    file = None if folder is None else folder / f"step-seconds-{digest_of(facts)[:8]}.json"
    if file is not None and file.exists():
        kept = upgrade(parse(read_text(file), str(file)), str(file))
        return _of_first(decode(StepSeconds, kept, str(file)))
    found = _measured(reference, candidate, recipe, device, engine, turns)
    if file is not None and current_team().leads:
        write_text(file, canonical_json({"schema": SCHEMA} | encode(found)) + "\n", overwrite=True)
    return _of_first(found)


def _of_first(found: StepSeconds) -> StepSeconds:
    """Return what the first of several processes found: they train for one number of epochs."""
    both = torch.tensor([found.reference, found.candidate], dtype=torch.float64)
    current_team().follow([both])
    reference, candidate = both.tolist()
    return replace(found, reference=reference, candidate=candidate)


def _measured(
    reference: Graph,
    candidate: Graph,
    recipe: Recipe,
    device: torch.device,
    engine: Engine,
    turns: int,
) -> StepSeconds:
    with settings(engine, device), seeded(0, device):
        runs = [_run(graph, recipe, device, engine) for graph in (reference, candidate)]
        taken = [[_turn(run) for run in runs] for _ in range(turns + 1)][1:]
    large, small = (statistics.median(column) for column in zip(*taken, strict=True))
    return StepSeconds(
        reference=large,
        candidate=small,
        device=device_name(device),
        execution=runs[1].execution,
        steps=_STEPS * turns,
    )


def _run(graph: Graph, recipe: Recipe, device: torch.device, engine: Engine) -> Run:
    """Return a training of ``graph`` whose steps are the recipe's and hardly move the weights."""
    still = replace(recipe, lr=1e-9, schedule="constant", warmup_epochs=0, sparse=None)
    return Run(
        build(graph, device=device),
        _noise(graph, _STEPS * recipe.batch).to(device),
        still,
        seeds=Seeds(order=0, augmentation=0, layers=0),
        held_out=False,
        hooks=Hooks(),
        engine=replace(engine, accumulate=1) if engine.accumulate == "auto" else engine,
    )


def _turn(run: Run) -> float:
    """Return the seconds of a step, over an epoch."""
    started = perf_counter()
    for _ in run.steps_of_epoch():
        pass
    run.end_epoch()  # its loss is on the CPU: all work is done then
    return (perf_counter() - started) / _STEPS


def _noise(graph: Graph, count: int) -> ImageData:
    generator = torch.Generator().manual_seed(0)
    size = (count, *graph.input_size)
    images = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    channels = graph.input_size[0]
    return ImageData(
        name="noise",
        train_images=images,
        train_labels=torch.arange(count) % graph.classes,
        test_images=images[:1],
        test_labels=torch.zeros(1, dtype=torch.int64),
        classes=graph.classes,
        mean=(0.5,) * channels,
        std=(0.3,) * channels,
        flip=True,
        crop_padding=min(_PADDING, *(side - 1 for side in graph.input_size[1:])),
        validation=torch.zeros(0, dtype=torch.int64),
    )
