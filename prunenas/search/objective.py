"""From a graph to its metrics: one stored result for each network, recipe, data and seed."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import final

import torch

from prunenas.arch.files import read_text, write_text
from prunenas.arch.metrics import Metrics
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
from prunenas.training.loop import OnEpoch, train_seeds
from prunenas.training.recipe import Recipe


@final
@dataclass(frozen=True, kw_only=True)
class Objective:
    """Trains networks from scratch and remembers what came out.

    Args:
        data: The data set.
        recipe: Budget and schedule.
        device: Where to train.
        folder: Where results are kept; in memory only where it is None.
    """

    data: ImageData
    recipe: Recipe
    device: torch.device
    folder: Path | None = None
    _memory: dict[str, Metrics] = field(default_factory=dict)

    def search_score(self, graph: Graph, *, seed: int, on_epoch: OnEpoch | None = None) -> Metrics:
        """Return the metrics on the validation part, trained without it."""
        return self._result(graph, seed, held_out=True, on_epoch=on_epoch)

    def confirm(
        self, graph: Graph, *, seeds: Sequence[int], on_epoch: OnEpoch | None = None
    ) -> Metrics:
        """Return the metrics on the test set over ``seeds``, trained on all training images."""
        runs = [self._result(graph, s, held_out=False, on_epoch=on_epoch) for s in seeds]
        return replace(runs[0], results=tuple(result for run in runs for result in run.results))

    def known(self, graph: Graph, *, seed: int, held_out: bool) -> bool:
        """Return whether a result is stored."""
        return self._stored(self._key(graph, seed, held_out)) is not None

    def _result(
        self, graph: Graph, seed: int, *, held_out: bool, on_epoch: OnEpoch | None
    ) -> Metrics:
        key = self._key(graph, seed, held_out)
        metrics = self._stored(key)
        if metrics is None:
            metrics = train_seeds(
                graph,
                self.data,
                self.recipe,
                seeds=[seed],
                device=self.device,
                held_out=held_out,
                on_epoch=on_epoch,
            )
            self._store(key, metrics)
        return metrics

    def _key(self, graph: Graph, seed: int, held_out: bool) -> str:
        part = "validation" if held_out else "test"
        return "/".join(
            [
                digest(graph),
                digest_of(self.recipe),
                self.data.digest,
                "scratch",
                f"{part}-seed{seed}.json",
            ]
        )

    def _stored(self, key: str) -> Metrics | None:
        if key in self._memory:
            return self._memory[key]
        if self.folder is None or not (self.folder / key).exists():
            return None
        path = self.folder / key
        metrics = decode(Metrics, upgrade(parse(read_text(path), str(path)), str(path)), str(path))
        self._memory[key] = metrics
        return metrics

    def _store(self, key: str, metrics: Metrics) -> None:
        self._memory[key] = metrics
        if self.folder is not None:
            write_text(
                self.folder / key,
                canonical_json({"schema": SCHEMA} | encode(metrics)) + "\n",
                overwrite=True,
            )
