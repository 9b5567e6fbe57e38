"""Measure how well short recipes rank architectures, held against the whole of ``paper``.

Every architecture is trained with several seeds under each recipe, and judged by images that are
neither trained on nor the test set. What is told is Kendall's tau: 1 where two recipes put the
architectures in one order, 0 where the orders have nothing to do with each other. Finished
trainings are kept in a folder and never done again, so that the same command goes on where it was
ended.

Usage: python scripts/rank_recipes.py --folder runs/rank --held 0.5 --out docs/recipe-ranking.md
       python scripts/rank_recipes.py --folder runs/rank --data fashion_mnist --device cuda
"""

import argparse
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import final

import numpy as np
import torch
from scipy.stats import kendalltau

import prunenas as pn
from prunenas.build.execution import device_name
from prunenas.data.base import ImageData
from prunenas.data.base.splits import draw
from prunenas.errors import DivergenceError
from prunenas.ir.canonical import digest
from prunenas.ir.cost import params
from prunenas.ir.graph import Graph
from prunenas.search.objective import Objective
from prunenas.training.execution.engine import settle
from prunenas.training.recipe import Recipe

RESAMPLED = 2000
"""Draws behind an interval."""


@final
@dataclass(frozen=True, kw_only=True)
class Shape:
    """An architecture: a family at a width, and groups that are narrower than it says."""

    family: str
    width: float
    narrowed: Mapping[str, int] = field(default_factory=dict)

    def graph(self, data: ImageData) -> Graph:
        """Return it for the images of a data set."""
        graph = pn.reference(self.family, data.input_size, data.classes, width=self.width)
        return pn.apply(graph, pn.Descriptor(reference=digest(graph), widths=self.narrowed))


SHAPES = {
    "vgg11, 0.02": Shape(family="vgg11", width=0.02),
    "vgg11, 0.03": Shape(family="vgg11", width=0.03),
    "vgg11, 0.05": Shape(family="vgg11", width=0.05),
    "vgg11, 0.1": Shape(family="vgg11", width=0.1),
    "vgg11, 0.1, begins with 1": Shape(family="vgg11", width=0.1, narrowed={"features.0": 1}),
    "vgg11, 0.1, 2 in the middle": Shape(family="vgg11", width=0.1, narrowed={"features.11": 2}),
    "vgg11, 0.05, 1 in the middle": Shape(family="vgg11", width=0.05, narrowed={"features.11": 1}),
    "vgg11, 0.1, ends with 3": Shape(
        family="vgg11", width=0.1, narrowed={"features.22": 3, "features.25": 3}
    ),
    "vgg13, 0.03": Shape(family="vgg13", width=0.03),
    "vgg13, 0.05": Shape(family="vgg13", width=0.05),
    "resnet20, 0.125": Shape(family="resnet20", width=0.125),
    "resnet20, 0.125, 1 inside blocks": Shape(
        family="resnet20",
        width=0.125,
        narrowed={f"layer{stage}.{block}.conv1": 1 for stage in (1, 2, 3) for block in range(3)},
    ),
}
"""Some are badly shaped on purpose. All have batch norms: ``paper`` is for those."""


def recipes() -> dict[str, Recipe]:
    """Return what is held against ``paper``."""
    fast = pn.named_recipe("fast")
    small = replace(fast, batch=64, lr=fast.lr * 64 / fast.batch)
    return {
        "`fast`": fast,
        f"`fast`, batch 64, lr {small.lr:g}": small,
        f"`fast`, batch 64, lr {small.lr:g}, 30 epochs": replace(small, epochs=30),
        "`paper` cut to 10 epochs": pn.named_recipe("paper", epochs=10),
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="where results are kept")
    parser.add_argument("--data", default="digits", help="data set")
    parser.add_argument("--held", type=float, help="fraction of the training images that judges")
    parser.add_argument("--seeds", type=int, default=3, help="of each architecture and recipe")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--device", default="cpu", help="where to train")
    parser.add_argument("--out", type=Path, help="a Markdown file to write the tables to")
    return parser.parse_args()


def held(data: ImageData, fraction: float | None) -> ImageData:
    """Return the same images with so many of the training images to judge by."""
    if fraction is None:
        return data
    labels = data.train_labels.cpu().numpy()
    chosen = np.sort(draw(labels, round(fraction * len(labels)), 0))
    return replace(data, validation=torch.from_numpy(chosen).to(data.device))


@final
@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Of one recipe: accuracies ``[architectures, seeds]``, and the epochs of each training."""

    accuracy: np.ndarray
    epochs: int


def outcome(name: str, recipe: Recipe, data: ImageData, asked: argparse.Namespace) -> Outcome:
    """Return what is known of all trainings of one recipe, having done those that are missing."""
    device = torch.device(asked.device)
    objective = Objective(
        data=data, recipe=settle(recipe, device), device=device, folder=asked.folder
    )
    accuracy = np.zeros((len(SHAPES), asked.seeds))
    for row, (words, shape) in enumerate(SHAPES.items()):
        for seed in range(asked.seeds):
            try:
                accuracy[row, seed] = objective.search_score(shape.graph(data), seed=seed).accuracy
            except DivergenceError as error:
                print(f"{words}, seed {seed}: {error}", flush=True)
        print(f"{name}: {words}: {accuracy[row].mean():.2%}", flush=True)
    return Outcome(accuracy=accuracy, epochs=recipe.epochs)


def tau(one: np.ndarray, other: np.ndarray) -> float:
    """Return Kendall's tau-b of two lists of accuracies; 0 where one of them is all ties."""
    return float(np.nan_to_num(kendalltau(one, other).statistic))


def pairs(one: np.ndarray, other: np.ndarray, *, apart: bool = False) -> list[float]:
    """Return the tau of each seed of one and each of the other; of two different ones if apart."""
    seeds = range(one.shape[1])
    return [tau(one[:, i], other[:, j]) for i in seeds for j in seeds if not apart or i < j]


def interval(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Return where nine tenths of the taus of means lie, architectures and seeds drawn anew."""
    draws = np.random.default_rng(0)
    taus = []
    for _ in range(RESAMPLED):
        rows = draws.integers(0, len(one), len(one))
        means = [
            table[rows][:, draws.integers(0, table.shape[1], table.shape[1])].mean(axis=1)
            for table in (one, other)
        ]
        taus.append(tau(*means))
    low, high = np.quantile(taus, [0.05, 0.95]).tolist()
    return low, high


def rank_lines(outcomes: Mapping[str, Outcome], paper: Outcome) -> Iterator[str]:
    """Yield the table of taus."""
    yield "| recipe | epochs | tau of means | 90 % of resampled | tau of single seeds |"
    yield "|---|---|---|---|---|"
    for name, found in outcomes.items():
        low, high = interval(found.accuracy, paper.accuracy)
        single = pairs(found.accuracy, paper.accuracy)
        means = tau(found.accuracy.mean(axis=1), paper.accuracy.mean(axis=1))
        yield (
            f"| {name} | {found.epochs} | {means:.2f} | {low:.2f} to {high:.2f} "
            f"| {statistics.mean(single):.2f} "
            f"({min(single):.2f} to {max(single):.2f}) |"
        )
    single = pairs(paper.accuracy, paper.accuracy, apart=True)
    yield (
        f"| `paper` against itself | {paper.epochs} | | | {statistics.mean(single):.2f} "
        f"({min(single):.2f} to {max(single):.2f}) |"
    )


def accuracy_lines(outcomes: Mapping[str, Outcome], data: ImageData) -> Iterator[str]:
    """Yield the table of accuracies, the best under ``paper`` first."""
    yield f"| architecture | params | {' | '.join(outcomes)} |"
    yield "|---" * (len(outcomes) + 2) + "|"
    names = [*SHAPES]
    for row in np.argsort(-outcomes["`paper`"].accuracy.mean(axis=1), kind="stable"):
        cells = [
            f"{found.accuracy[row].mean():.1%} ± {found.accuracy[row].std(ddof=1):.1%}"
            for found in outcomes.values()
        ]
        size = params(SHAPES[names[row]].graph(data))
        yield f"| {names[row]} | {size:,} | {' | '.join(cells)} |"


def command(asked: argparse.Namespace) -> str:
    """Return the command that makes these tables, whatever the names of folders and files."""
    held = "" if asked.held is None else f" --held {asked.held:g}"
    return (
        f"python scripts/rank_recipes.py --folder DIR --data {asked.data}{held} "
        f"--seeds {asked.seeds} --out FILE"
    )


def by_hand(page: Path) -> str:
    """Return the sections of a page that is there already: people wrote them."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    _, mark, rest = text.partition("\n## ")
    return mark + rest


def main() -> None:
    """Print the tables, and write them where it is asked for."""
    asked = arguments()
    torch.set_num_threads(asked.threads)
    data = held(pn.dataset(asked.data, device=asked.device), asked.held)
    paper = outcome("`paper`", pn.named_recipe("paper"), data, asked)
    others = {name: outcome(name, recipe, data, asked) for name, recipe in recipes().items()}
    lines = [
        "# How well short recipes rank",
        "",
        f"The tables are written by `{command(asked)}`. Kendall's tau-b between the accuracies of "
        f"{len(SHAPES)} architectures under a recipe and under the whole of `paper`: 1 is the same "
        "order, 0 no relation.",
        "",
        f"`{asked.data}`, {len(data.part('fit'))} images to train on and "
        f"{len(data.part('validation'))} others to judge by, {asked.seeds} seeds of each "
        f"architecture under each recipe; {device_name(torch.device(asked.device))}, torch "
        f"{torch.__version__.partition('+')[0]}.",
        "",
        "*Tau of means* compares means over seeds; architectures and seeds are drawn anew "
        f"{RESAMPLED:,} times for the interval beside it. *Tau of single seeds* is the mean (and "
        "range) over all pairs of one seed of the recipe and one of `paper`: what a search sees "
        "that trains each candidate once. The last line, `paper` against itself, is the ceiling.",
        "",
        *rank_lines(others, paper),
        "",
        "Mean accuracy and its standard deviation over seeds, the best under `paper` first:",
        "",
        *accuracy_lines({"`paper`": paper, **others}, data),
    ]
    print("\n".join(lines))
    if asked.out:
        asked.out.write_text("\n".join(lines) + "\n" + by_hand(asked.out), encoding="utf-8")


if __name__ == "__main__":
    main()
