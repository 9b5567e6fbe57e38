"""Tune the recipe ``fast`` on Fashion-MNIST, by the validation part; the test set is not read.

Three rounds over a grid of learning rate, batch, weight decay and label smoothing, the recipe as it
is always among them: all of the grid on few images with one network and one seed; the best ten with
a second seed and a second network; the best of each batch that is left with two seeds each, for ten
epochs and, with the first network, on more images. Finished trainings are kept in a folder and
never done again, so that the same command goes on where it was ended.

Usage: python scripts/tune_fast.py --folder runs/tune_fast [--out table.md] [--threads 1]
"""

import argparse
import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import torch

import prunenas as pn
from prunenas.data.base import ImageData
from prunenas.errors import DivergenceError
from prunenas.ir.graph import Graph
from prunenas.search.objective import Objective
from prunenas.training.execution.engine import settle
from prunenas.training.recipe import Recipe

RATES = (0.1, 0.2, 0.4, 0.8)
"""Peaks of the learning rate for 256 images a step; they grow with the batch."""

BATCHES = (128, 256, 512)
DECAYS = (1e-4, 5e-4, 2e-3)
SMOOTHINGS = (0.0, 0.1)

NETWORKS = {"vgg11 of width 0.05": ("vgg11", 0.05), "resnet20 of width 0.25": ("resnet20", 0.25)}
FIRST, SECOND = NETWORKS

FEW = 8000
"""Images of the first rounds; of the last too, for the second network."""

MORE = 16000
"""Images of the last round for the first network."""

HELD = 3000
"""Validation images, the same in all rounds."""


@final
@dataclass(frozen=True, kw_only=True)
class Task:
    """What a recipe is judged by: the mean accuracy over seeds of one network."""

    network: str
    images: int
    epochs: int
    seeds: tuple[int, ...]

    def __str__(self) -> str:
        seeds = f"{len(self.seeds)} seed{'s' * (len(self.seeds) > 1)}"
        return f"{self.network}, {self.images} images, {self.epochs} epochs, {seeds}"


ROUNDS = (
    (Task(network=FIRST, images=FEW, epochs=5, seeds=(0,)),),
    (
        Task(network=FIRST, images=FEW, epochs=5, seeds=(0, 1)),
        Task(network=SECOND, images=FEW, epochs=5, seeds=(0,)),
    ),
    (
        Task(network=FIRST, images=MORE, epochs=10, seeds=(0, 1)),
        Task(network=SECOND, images=FEW, epochs=10, seeds=(0, 1)),
    ),
)
"""What all recipes of a round are judged by: the mean over its tasks."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="where results are kept")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--device", default="cpu", help="where to train")
    parser.add_argument("--out", type=Path, help="a Markdown file to write the tables to")
    return parser.parse_args()


def images_of(data: ImageData, count: int) -> ImageData:
    """Return a set of ``count`` images to train on and ``HELD`` validation images."""
    part = data.small(train=10 * HELD, test=1)
    rest = torch.ones(len(part.train_labels), dtype=torch.bool)
    rest[part.validation] = False
    fit = rest.nonzero().flatten()[:count]
    chosen = torch.cat([fit, part.validation])
    return replace(
        part,
        train_images=part.train_images[chosen],
        train_labels=part.train_labels[chosen],
        validation=torch.arange(count, len(chosen)),
    )


def grid(fast: Recipe) -> list[Recipe]:
    """Return ``fast`` as it is, and every point of the grid."""
    points = [
        replace(
            fast, lr=rate * batch / 256, batch=batch, weight_decay=decay, label_smoothing=smoothing
        )
        for rate, batch, decay, smoothing in itertools.product(RATES, BATCHES, DECAYS, SMOOTHINGS)
    ]
    return [fast, *(point for point in points if point != fast)]


def told(recipe: Recipe) -> str:
    return (
        f"lr {recipe.lr:g}, batch {recipe.batch}, decay {recipe.weight_decay:g}, "
        f"smoothing {recipe.label_smoothing:g}"
    )


@final
class Judge:
    """Says how well a recipe does, from the folder where it has been tried."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self._data = pn.dataset("fashion_mnist")
        self._sets = {
            count: images_of(self._data, count)
            for count in {task.images for tasks in ROUNDS for task in tasks}
        }
        self._folder, self._device = asked.folder, torch.device(asked.device)

    def graph(self, network: str) -> Graph:
        """Return a network for the images."""
        family, width = NETWORKS[network]
        return pn.reference(family, self._data.input_size, self._data.classes, width=width)

    def accuracies(self, recipe: Recipe, task: Task) -> list[float]:
        """Return the validation accuracy of each seed; 0 where the training diverged."""
        objective = Objective(
            data=self._sets[task.images],
            recipe=settle(replace(recipe, epochs=task.epochs), self._device),
            device=self._device,
            folder=self._folder,
        )
        found = []
        for seed in task.seeds:
            try:
                metrics = objective.search_score(self.graph(task.network), seed=seed)
                found.append(metrics.accuracy)
            except DivergenceError:
                found.append(0.0)
        return found


def table(tasks: Sequence[Task], rows: dict[Recipe, list[list[float]]], fast: Recipe) -> list[str]:
    """Return the lines of a round, best recipe first."""
    lines = [f"| recipe | mean | {' | '.join(map(str, tasks))} |", "|---" * (len(tasks) + 2) + "|"]
    for recipe, found in sorted(rows.items(), key=lambda row: -mean(row[1])):
        each = [
            f"{statistics.mean(one):.2%}"
            + (f" (range {max(one) - min(one):.2%})" if len(one) > 1 else "")
            for one in found
        ]
        name = told(recipe) + (" (as it is)" if recipe == fast else "")
        lines.append(f"| {name} | {mean(found):.2%} | {' | '.join(each)} |")
    return lines


def mean(found: list[list[float]]) -> float:
    """Return the mean over tasks of the mean over seeds."""
    return statistics.mean(map(statistics.mean, found))


def main() -> None:
    """Print the table of each round, and write all where it is asked for."""
    asked = arguments()
    torch.set_num_threads(asked.threads)
    judge, fast = Judge(asked), pn.named_recipe("fast")
    left, lines = grid(fast), ["# Tuning `fast`"]
    for number, tasks in enumerate(ROUNDS, start=1):
        rows = {}
        for recipe in left:
            rows[recipe] = [judge.accuracies(recipe, task) for task in tasks]
            print(f"round {number}: {told(recipe)}: {mean(rows[recipe]):.2%}", flush=True)
        lines += ["", f"Round {number}, {len(rows)} recipes:", "", *table(tasks, rows, fast)]
        best = sorted(rows, key=lambda recipe: -mean(rows[recipe]))
        # A large batch costs accuracy in few epochs and saves time on a GPU: each has its best.
        of_batch = {recipe.batch: recipe for recipe in reversed(best)}
        going_on = best[:10] if number == 1 else of_batch.values()
        left = [fast, *(recipe for recipe in going_on if recipe != fast)]
    print("\n".join(lines))
    if asked.out:
        asked.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
