"""Checkpoints: where a training stands, on disk, whole or not at all."""

import hashlib
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from prunenas.arch.metrics import Metrics, Seeds
from prunenas.build.network import Network
from prunenas.data.base import ImageSet
from prunenas.errors import CheckpointError, SavingError, SpecError
from prunenas.ir.canonical import canonical_json, decode, digest, encode, parse
from prunenas.training.hooks import Hooks
from prunenas.training.keeping.run_folder import differences
from prunenas.training.keeping.state import Progress, State
from prunenas.training.recipe import Recipe

SCHEMA = 1

_FILE = "checkpoint.json"
"""Tells of the tensors, and is written after them: what it tells of is there as a whole."""

_TENSORS = "state-*.safetensors"


@final
@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Where a training keeps its state, so that the same call goes on where an earlier one ended.

    There is one state in the folder, written after each epoch, and within one when
    ``every_seconds`` have passed. One process at a time may train with it.

    Args:
        folder: A folder of its own; made when something is written.
        every_seconds: Longest time between two states, where steps are shorter.

    Raises:
        CheckpointError: ``every_seconds`` is negative.
    """

    folder: Path
    every_seconds: float = 600.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))
        if not self.every_seconds >= 0:
            raise CheckpointError(f"every_seconds={self.every_seconds} must be at least 0")

    def under(self, name: str) -> "Checkpoints":
        """Return where one of several trainings is kept."""
        return replace(self, folder=self.folder / name)

    def of_seed(self, seed: int) -> "Checkpoints":
        """Return where one of several seeds is kept."""
        return self.under(f"seed-{seed}")


def facts_of(
    network: Network,
    data: ImageSet,
    recipe: Recipe,
    *,
    seeds: Seeds,
    held_out: bool,
    hooks: Hooks,
) -> dict[str, Any]:
    """Return what a training must share with a checkpoint to go on from it, as JSON values.

    Args:
        network: As it is before the first step.
        data: The data set.
        recipe: Its precision decided.
        seeds: Of all draws.
        held_out: Whether the validation part is left out.
        hooks: What a method adds.

    Raises:
        CheckpointError: Nobody knows what the hooks remember.
    """
    if not hooks.remember_nothing:
        raise CheckpointError(
            "a training whose hooks may remember things cannot be checkpointed: train without "
            "checkpoints, or tell Hooks(facts=...) if they remember nothing"
        )
    return {
        "graph": digest(network.graph),
        "recipe": encode(recipe),
        "data": data.digest,
        "seeds": encode(seeds),
        "held_out": held_out,
        "start": weights_digest(network),
        "hooks": encode(hooks.facts),
    }


def weights_digest(network: Network) -> str:
    """Return 16 hex digits of the SHA-256 of a network's weights and buffers, wherever they lie."""
    content = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        content.update(f"{name} {tensor.dtype} {[*tensor.shape]}\n".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        content.update(flat.view(torch.uint8).numpy())
    return content.hexdigest()[:16]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Tensors:
    """The file that a checkpoint's tensors are in."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    file: str
    size: int
    sha256: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """What ``checkpoint.json`` says."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    schema: int
    facts: dict[str, Any]
    progress: Progress
    tensors: _Tensors


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Keeper:
    """Keeps one training in its folder.

    Args:
        checkpoints: Where.
        facts: What ``facts_of`` says of the training.
    """

    checkpoints: Checkpoints
    facts: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """The folder."""
        return self.checkpoints.folder

    def progress(self) -> Progress | None:
        """Return how far the training is that is kept, whichever it is; None where none is.

        Raises:
            CheckpointError: It is damaged, or of a newer version.
        """
        return self._record().progress if (self.folder / _FILE).exists() else None

    def load(self) -> State | None:
        """Return the state that is kept; None where there is none.

        Raises:
            CheckpointError: It is another training's, telling all differences, or damaged, or of
                a newer version.
        """
        if not (self.folder / _FILE).exists():
            return None
        record = self._record()
        others = differences(record.facts, dict(self.facts))
        if others:
            raise CheckpointError(
                f"{self.folder} holds a checkpoint of another training; it differs in\n  "
                + "\n  ".join(others)
                + "\nchoose another folder"
            )
        return State(tensors=self._tensors(record.tensors), progress=record.progress)

    def save(self, state: State) -> None:
        """Keep ``state`` instead of what is kept; that goes when all of the new one is there.

        Raises:
            SavingError: The disk is full, say. What is kept stays.
        """
        content = save({name: tensor.contiguous() for name, tensor in state.tensors.items()})
        place = state.progress
        name = f"state-{place.epoch}-{place.step}-{secrets.token_hex(4)}.safetensors"
        told = _Tensors(file=name, size=len(content), sha256=hashlib.sha256(content).hexdigest())
        target = self.folder / name
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(target, content)
            self._tell(place, told)
        except OSError as error:
            # Where only the last wait failed, the record tells of the new tensors already.
            if not self._tells_of(name):
                with suppress(OSError):
                    target.unlink(missing_ok=True)
            raise SavingError(
                f"a checkpoint of {len(content)} bytes, for {place.words}, cannot be written to "
                f"{self.folder}: {error.strerror or error}; {self._left()}"
            ) from error
        for old in self.folder.glob(_TENSORS):
            if old != target:
                old.unlink(missing_ok=True)

    def finish(self, metrics: Metrics) -> None:
        """Keep what the training reached beside its last state.

        Raises:
            SavingError: The disk is full, say. What is kept stays.
        """
        record = self._record()
        try:
            self._tell(replace(record.progress, metrics=metrics), record.tensors)
        except OSError as error:
            raise SavingError(
                f"what was reached cannot be written to {self.folder}: {error.strerror or error}; "
                f"{self._left()}"
            ) from error

    def damaged(self, reason: str) -> CheckpointError:
        """Return the error of a checkpoint that cannot be used."""
        return CheckpointError(
            f"the checkpoint in {self.folder} is damaged, and nothing of it was taken: {reason}; "
            "remove the folder to begin anew"
        )

    def _tell(self, progress: Progress, tensors: _Tensors) -> None:
        record = _Record(schema=SCHEMA, facts={**self.facts}, progress=progress, tensors=tensors)
        part = self.folder / f".{_FILE}.part"
        try:
            _write(part, (canonical_json(record) + "\n").encode())
            # The new names must be on the disk before one of them takes the old one's place.
            _sync(self.folder)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        part.replace(self.folder / _FILE)
        _sync(self.folder)

    def _record(self) -> _Record:
        path = self.folder / _FILE
        try:
            found = parse(path.read_bytes(), str(path))
            schema = found.get("schema")
            if isinstance(schema, int) and schema > SCHEMA:
                raise CheckpointError(
                    f"{path} has schema {schema}, this version reads up to {SCHEMA}: upgrade "
                    "prunenas, or choose another folder"
                )
            return decode(_Record, found, str(path))
        except (SpecError, OSError) as error:
            raise self.damaged(str(error)) from None

    def _tensors(self, told: _Tensors) -> dict[str, Tensor]:
        path = self.folder / told.file
        if path.parent != self.folder or not path.match(_TENSORS):
            raise self.damaged(f"{told.file!r} is no name of its tensors")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise self.damaged(f"{path} cannot be read: {error.strerror or error}") from None
        if len(content) != told.size:
            raise self.damaged(f"{path} has {len(content)} bytes instead of {told.size}")
        if hashlib.sha256(content).hexdigest() != told.sha256:
            raise self.damaged(f"{path} was altered, its sha256 is another")
        try:
            return load(content)
        except SafetensorError as error:
            raise self.damaged(f"{path}: {error}") from None

    def _tells_of(self, name: str) -> bool:
        try:
            return self._record().tensors.file == name
        except CheckpointError:
            return False

    def _left(self) -> str:
        """Return in words what is still kept."""
        if not (self.folder / _FILE).exists():
            return "there is no earlier one"
        return f"the last one, of {self._record().progress.words}, is intact"


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Wait until the names in ``folder`` are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
