"""From a graph to its metrics: one stored result for each network, recipe, data and seed."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, final

import torch

from prunenas.arch.files import read_text, write_text
from prunenas.arch.metrics import Metrics
from prunenas.data.base import ImageSet
from prunenas.errors import DivergenceError
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
from prunenas.training.execution.engine import settle
from prunenas.training.follow import OnEpoch, Stop
from prunenas.training.keeping.checkpoint import Checkpoints
from prunenas.training.loop import train_seeds
from prunenas.training.recipe import Recipe


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Diverged:
    """What is stored of a training that diverged: it would again."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    diverged: str


@final
@dataclass(frozen=True, kw_only=True)
class Objective:
    """Trains networks from scratch and remembers what came out, also of those that diverged.

    Args:
        data: The data set.
        recipe: Budget and schedule.
        device: Where to train.
        folder: Where results are kept; in memory only where it is None.
        checkpoints: Where trainings are kept while they last; nowhere where it is None.
        stop: Asked after every step of a training, as in ``train``.
    """

    data: ImageSet
    recipe: Recipe
    device: torch.device
    folder: Path | None = None
    checkpoints: Path | None = None
    stop: Stop | None = None
    _memory: dict[str, Metrics | _Diverged] = field(default_factory=dict)

    def search_score(self, graph: Graph, *, seed: int, on_epoch: OnEpoch | None = None) -> Metrics:
        """Return the metrics on the validation part, trained without it."""
        return self._result(graph, seed, held_out=True, on_epoch=on_epoch)

    def confirm(
        self, graph: Graph, *, seeds: Sequence[int], on_epoch: OnEpoch | None = None
    ) -> Metrics:
        """Return the metrics on the test set over ``seeds``, trained on all training images."""
        runs = [self._result(graph, s, held_out=False, on_epoch=on_epoch) for s in seeds]
        return Metrics.together(runs)

    def known(self, graph: Graph, *, seed: int, held_out: bool) -> bool:
        """Return whether a result is stored; that a training diverged is none."""
        return isinstance(self._stored(self._key(graph, seed, held_out)), Metrics)

    def _result(
        self, graph: Graph, seed: int, *, held_out: bool, on_epoch: OnEpoch | None
    ) -> Metrics:
        key = self._key(graph, seed, held_out)
        found = self._stored(key)
        kept = self.checkpoints / digest_of(key) if self.checkpoints else None
        if found is None:
            try:
                found = train_seeds(
                    graph,
                    self.data,
                    self.recipe,
                    seeds=[seed],
                    device=self.device,
                    held_out=held_out,
                    checkpoints=Checkpoints(kept) if kept else None,
                    stop=self.stop,
                    on_epoch=on_epoch,
                )
            except DivergenceError as error:
                found = _Diverged(diverged=str(error))
            self._store(key, found)
        if kept is not None and kept.exists():
            shutil.rmtree(kept)
        if isinstance(found, _Diverged):
            raise DivergenceError(found.diverged)
        return found

    def _key(self, graph: Graph, seed: int, held_out: bool) -> str:
        part = "validation" if held_out else "test"
        return "/".join(
            [
                digest(graph),
                digest_of(settle(self.recipe, self.device)),
                self.data.digest,
                "scratch",
                f"{part}-seed{seed}",
            ]
        )

    def _stored(self, key: str) -> Metrics | _Diverged | None:
        if key in self._memory:
            return self._memory[key]
        if self.folder is None:
            return None
        for kind, path in self._paths(key).items():
            if path.exists():
                value = upgrade(parse(read_text(path), str(path)), str(path))
                self._memory[key] = found = decode(kind, value, str(path))
                return found
        return None

    def _store(self, key: str, found: Metrics | _Diverged) -> None:
        self._memory[key] = found
        if self.folder is not None:
            text = canonical_json({"schema": SCHEMA} | encode(found)) + "\n"
            write_text(self._paths(key)[type(found)], text, overwrite=True)

    def _paths(self, key: str) -> dict[type[Metrics | _Diverged], Path]:
        assert self.folder is not None, "asked before"
        return {
            Metrics: self.folder / f"{key}.json",
            _Diverged: self.folder / f"{key}.diverged.json",
        }
