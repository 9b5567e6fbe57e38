"""Searches that cost nothing: tiny data, a small space, and a training that is a formula."""

import importlib
import math
from collections.abc import Callable

import torch

from prunenas.arch.metrics import Metrics, SeedResult
from prunenas.arch.profile import StageProfile
from prunenas.data.base import ImageData
from prunenas.errors import DivergenceError
from prunenas.families.base import reference
from prunenas.ir.canonical import digest, digest_of
from prunenas.ir.cost import effective_macs, is_sparse, macs, nonzero_params, params
from prunenas.ir.graph import Graph
from prunenas.search.space import SearchSpace
from prunenas.training.follow import EpochReport
from prunenas.training.keeping.checkpoint import Checkpoints
from prunenas.training.recipe import Recipe

RECIPE = Recipe(epochs=2, batch=8)
STAGES = ("stage1", "stage2", "head")


def target(width: float = 1.0) -> Graph:
    """LeNet-5 on 16x16 images: two stages and a head."""
    return reference("lenet5", (1, 16, 16), 10, width=width)


def profile(*keeps: float, source: str = "made") -> StageProfile:
    return StageProfile(keeps=dict(zip(STAGES, keeps, strict=True)), source=source)


def space(**changes) -> SearchSpace:
    options = {"target": target(), "radius": 0.3, "step": 0.1, "max_macs": 25_000} | changes
    return SearchSpace.around(options.pop("guide", profile(0.6, 0.5, 0.4)), **options)


def tiny_data(**changes) -> ImageData:
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 10
    fields = {
        "name": "tiny",
        "train_images": torch.randint(0, 256, (40, 1, 16, 16), generator=draws).byte(),
        "train_labels": labels,
        "test_images": torch.randint(0, 256, (20, 1, 16, 16), generator=draws).byte(),
        "test_labels": labels[:20],
        "classes": 10,
        "mean": (0.5,),
        "std": (0.3,),
        "flip": False,
        "crop_padding": 0,
        "validation": torch.arange(10),
    }
    return ImageData(**{**fields, **changes})


def accuracy(graph: Graph, *, seed: int, held_out: bool) -> float:
    """Rises with the parameters, with noise that the graph, the seed and the part decide."""
    noise = int(digest_of([digest(graph), seed, held_out])[:8], 16) / 16**8
    return 0.3 + 0.5 * (1 - math.exp(-params(graph) / 10_000)) + 0.1 * noise


class FakeTraining:
    """Stands in for ``train_seeds`` and counts what it is asked to train."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, bool]] = []
        self.diverges: Callable[[Graph, bool], bool] = lambda graph, held_out: False
        self.checkpoints: Checkpoints | None = None

    def __call__(
        self,
        graph,
        data,
        recipe,
        *,
        seeds,
        device,
        held_out=False,
        checkpoints=None,
        stop=None,
        on_epoch=None,
    ):
        self.calls += [(digest(graph), seed, held_out) for seed in seeds]
        self.checkpoints = checkpoints
        if self.diverges(graph, held_out):
            raise DivergenceError("the loss is inf")
        results = []
        for seed in seeds:
            reached = accuracy(graph, seed=seed, held_out=held_out)
            if on_epoch:
                for epoch in range(1, recipe.epochs + 1):
                    on_epoch(EpochReport(epoch=epoch, epochs=2, loss=1, accuracy=None, seconds=0))
            results.append(SeedResult(seed=seed, accuracy=reached, loss=1.0, epochs=2, seconds=0.5))
        return Metrics(
            results=tuple(results),
            part="validation" if held_out else "test",
            params=params(graph),
            macs=macs(graph),
            device="formula",
            data=data.name,
            nonzero_params=nonzero_params(graph) if is_sparse(graph) else None,
            effective_macs=effective_macs(graph) if is_sparse(graph) else None,
        )

    def trainings(self, *, held_out: bool) -> list[tuple[str, int, bool]]:
        return [call for call in self.calls if call[2] is held_out]


def install(monkeypatch) -> FakeTraining:
    """Put a formula in the place of training, and keep the journal from waiting for the disk."""
    fake = FakeTraining()
    # By its path: the attribute ``prunenas.search`` is the verb.
    objective = importlib.import_module("prunenas.search.objective")
    monkeypatch.setattr(objective, "train_seeds", fake)
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    return fake
