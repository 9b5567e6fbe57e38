"""All that changes in a training, as a value to go on from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from prunenas.arch.metrics import Metrics
from prunenas.build.network import Network
from prunenas.errors import GraphError

_STRICT: dict[str, object] = {"extra": "forbid", "strict": True}

_ALWAYS = ("losses", "seen", "random.cpu")
"""Tensors of every state, beside those of the network."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """How a training was carried out from a place on.

    Args:
        epoch: Of the first step, from 1.
        step: Finished steps of that epoch.
        execution: Precision, layout, capture, parts of a batch.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    epoch: int
    step: int
    execution: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a training is.

    Args:
        epoch: The epoch of the next step, from 1; one more than the recipe's when all is done.
        step: Finished steps of that epoch.
        seconds: Wall time so far, over all processes.
        parts: Parts that each batch is cut into.
        stretches: How it was carried out, in order.
        peak_bytes: Most memory of the device that tensors took at once; None on a CPU.
        metrics: What was reached, once all is done and judged.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    epoch: int
    step: int
    seconds: float
    parts: int
    stretches: tuple[Stretch, ...]
    peak_bytes: int | None = None
    metrics: Metrics | None = None

    @property
    def words(self) -> str:
        """Return the last finished step in words."""
        if self.step:
            return f"epoch {self.epoch}, batch {self.step}"
        return f"the end of epoch {self.epoch - 1}" if self.epoch > 1 else "the beginning"


@final
@dataclass(frozen=True, kw_only=True)
class State:
    """All that changes in a training, to go on from.

    Args:
        tensors: Copies on the CPU of weights, buffers, momentum, random states, losses of the
            running epoch and what was seen of the validation part; by kind, a dot, and name.
        progress: The rest.
    """

    tensors: Mapping[str, Tensor]
    progress: Progress


def named(kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under names that begin with their kind."""
    return {f"{kind}.{name}": tensor for name, tensor in tensors.items()}


def of_kind(kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a kind, by the names they had."""
    start = f"{kind}."
    return {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}


def misfits(state: State, network: Network, *, epochs: int, batches: int) -> list[str]:
    """Return in words what of ``state`` cannot be a state of training ``network``.

    Args:
        state: To be looked at.
        network: It is not changed.
        epochs: Of the recipe.
        batches: Batches of an epoch.
    """
    progress, tensors = state.progress, state.tensors
    faults = []
    if not (1 <= progress.epoch <= epochs + 1 and 0 <= progress.step <= batches):
        faults.append(
            f"epoch {progress.epoch}, batch {progress.step}: there are {epochs} epochs of "
            f"{batches} batches"
        )
    wanted = {**named("network", network.state_dict()), "random.cpu": torch.get_rng_state()}
    wanted["losses"] = torch.empty(progress.step)
    faults += [f"{name} is missing" for name in (*wanted, *_ALWAYS) if name not in tensors]
    for name, tensor in tensors.items():
        like = wanted.get(name)
        if like is None:
            like = _other(name, tensor, network)
        if like is None:
            faults.append(f"{name} belongs to nothing")
        elif (like.shape, like.dtype) != (tensor.shape, tensor.dtype):
            faults.append(
                f"{name} is {tensor.dtype} {[*tensor.shape]} and should be {like.dtype} "
                f"{[*like.shape]}"
            )
    return [*dict.fromkeys(faults)]


def _other(name: str, tensor: Tensor, network: Network) -> Tensor | None:
    """Return what a tensor that need not be there must be like; None where it belongs to nothing.

    The random state of a CUDA device is like itself: its length is that device's affair. There is
    one for each process that trains along.
    """
    kind, _, own = name.partition(".")
    if name == "seen":
        return torch.empty(len(tensor) if tensor.dim() else 0, 3, dtype=torch.float64)
    if kind == "random":
        device, _, rank = own.partition(".")
        known = device in ("cpu", "cuda") and (rank.isdecimal() or not rank)
        return (torch.get_rng_state() if device == "cpu" else tensor) if known else None
    try:
        if kind == "momentum":
            return dict(network.named_parameters()).get(own)
        return network.weight(own).bool() if kind == "held" else None
    except (GraphError, KeyError):
        return None
