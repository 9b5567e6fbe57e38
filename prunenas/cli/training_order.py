"""What the train command is asked for: a value, whose facts tell one training from another."""

import hashlib
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, final

import torch

from prunenas.arch.spec import ArchSpec
from prunenas.build.execution import Layout
from prunenas.build.network import Network
from prunenas.build.weights import load_weights
from prunenas.cli.resolve import descriptor_of, reference_of
from prunenas.data.base import ImageSet
from prunenas.errors import InputError
from prunenas.ir.canonical import digest, digest_of, encode
from prunenas.training.execution.distributed import SOLO, Team
from prunenas.training.execution.engine import FAST, Engine
from prunenas.training.protocols.budgets import Protocol, StepSeconds, protocol_recipe
from prunenas.training.protocols.train_descriptor import prepared
from prunenas.training.recipe import Recipe


@final
@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be trained, and how.

    Args:
        spec: The architecture.
        data: The data set, on the device.
        recipe: Of the reference, or for fine-tuning the fine-tuning's; its precision decided.
        protocol: What the training begins with, and how long it takes.
        weights: File of the weights to begin with.
        initial_seed: Seed of the weights to begin with.
        cost: What Scratch-B takes its ratio of.
        cap: Its largest ratio.
        count_fine_tuning: Epochs that are added.
        seeds: One a training.
        held_out: Whether the test set is left unread.
        device: Where to train.
        engine: How it is carried out.
        team: The processes that do it together.
    """

    spec: ArchSpec
    data: ImageSet
    recipe: Recipe
    protocol: Protocol
    weights: Path | None
    initial_seed: int | None
    cost: str
    cap: float | None
    count_fine_tuning: int
    seeds: range
    held_out: bool
    device: str
    engine: Engine
    team: Team = SOLO

    def facts(self) -> dict[str, Any]:
        """Return all that the weights which come out depend on, as JSON values."""
        facts = {
            "network": self.spec.digest,
            "data": {"name": self.data.name, "digest": self.data.digest},
            "protocol": self.protocol,
            "recipe": encode(self.recipe),
            "seeds": [*self.seeds],
            "device": torch.device(self.device).type,
            "engine": _changes(self.engine),
        }
        if self.protocol == "scratch-b":
            facts["reference"] = digest(reference_of(self.spec))
            facts |= {"cost": self.cost, "cap": self.cap}
        if self.protocol in ("fine-tune", "rewind"):
            facts["reference"] = digest(reference_of(self.spec))
            facts["descriptor"] = digest_of(descriptor_of(self.spec))
            facts["weights"] = None if self.weights is None else _digest(self.weights)
            facts["initial_seed"] = self.initial_seed
        facts |= {"count_fine_tuning": self.count_fine_tuning} if self.count_fine_tuning else {}
        facts |= {"processes": self.team.size} if self.team.size > 1 else {}
        return facts | ({"held_out": True} if self.held_out else {})

    def chosen(self, seconds: StepSeconds | None) -> Recipe:
        """Return the recipe that is followed, ``seconds`` having been measured if need be."""
        if self.protocol == "fine-tune":
            return self.recipe
        return protocol_recipe(
            self.protocol,
            self.recipe,
            reference=reference_of(self.spec),
            candidate=self.spec.graph,
            cost=self.cost,
            cap=self.cap,
            count_fine_tuning=self.count_fine_tuning,
            seconds=seconds,
        )

    def check(self) -> None:
        """Refuse what cannot be carried out, before anything is done for it.

        Raises:
            InputError: It cannot.
        """
        prepared(reference_of(self.spec), descriptor_of(self.spec), self.data, **self.beginning())
        # Nothing is measured yet, and the other numbers can be refused without.
        (replace(self, cost="macs") if self.cost == "seconds" else self).chosen(None)

    @cached_property
    def _network(self) -> Network | None:
        """The network of the weights to begin with: read once, and not changed."""
        if self.weights is None:
            return None
        return load_weights(reference_of(self.spec), self.weights)

    def beginning(self) -> dict[str, Any]:
        """Return what ``prepared`` and ``train_descriptor`` are told alike."""
        return {
            "protocol": self.protocol,
            "network": self._network,
            "initial_seed": self.initial_seed,
            "fine_tuning": self.recipe if self.protocol == "fine-tune" else None,
            "cost": self.cost,
            "cap": self.cap,
            "count_fine_tuning": self.count_fine_tuning,
            "device": self.device,
        }


def engine_of(
    *,
    accumulate: str,
    layout: str,
    capture: bool,
    compile_: bool,
    deterministic: bool,
    sync_norms: bool,
) -> Engine:
    """Return how to train, from what is typed.

    Raises:
        InputError: There is no such way.
    """
    if accumulate != "auto" and not accumulate.isdecimal():
        raise InputError(f"--accumulate is a number of parts or auto, got {accumulate!r}")
    order: Layout = layout  # type: ignore[assignment]  # the engine refuses other words
    return Engine(
        capture=capture,
        compile=compile_,
        layout=order,
        deterministic=deterministic,
        accumulate="auto" if accumulate == "auto" else int(accumulate),
        sync_norms=sync_norms,
    )


def _changes(engine: Engine) -> dict[str, Any]:
    """Return what is not as on the fast path; so a field that joins later changes no folder."""
    return {
        field.name: value
        for field in fields(engine)
        if (value := getattr(engine, field.name)) != getattr(FAST, field.name)
    }


def _digest(path: Path) -> str:
    """Return 16 hex digits of the SHA-256 of a file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
