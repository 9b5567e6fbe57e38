"""One training on several processes: who they are, and what they tell each other."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any, final

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from prunenas.build.network import Network
from prunenas.errors import InputError, PeerError, RunError
from prunenas.ir.draw import stream_seed
from prunenas.training.batches.base import Share

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells each process, in its environment."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """The processes that do one training together, each with its part of every batch.

    Whatever they tell each other must be told by all of them, in the same order. A team of one
    has nobody to talk to, and every answer is its own.

    Args:
        rank: Place of this process, from 0.
        size: Number of processes.
    """

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise InputError(f"a team of {self.size} has no process {self.rank}, from 0")

    @property
    def leads(self) -> bool:
        """Return whether this is the first process: the one that writes, and speaks."""
        return self.rank == 0

    @property
    def share(self) -> Share:
        """Return which share of each batch is this process's."""
        return self.rank, self.size

    def own_name(self, name: str, rank: int | None = None) -> str:
        """Return what a process calls its ``name``: by itself where it leads, else with its rank.

        ``rank`` is this process's where it is not told.
        """
        rank = self.rank if rank is None else rank
        return f"{name}.{rank}" if rank else name

    def own_seed(self, seed: int) -> int:
        """Return the seed of what this process draws for itself; of the first, ``seed``."""
        return stream_seed(seed, f"process {self.rank}") if self.rank else seed

    def add(self, tensor: Tensor) -> Tensor:
        """Return the sum of all processes' tensors, which have one shape."""
        if self.size == 1:
            return tensor
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Return every process's tensor, in order; they have one shape."""
        if self.size == 1:
            return [tensor]
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(found, tensor)
        return found

    def any(self, *flags: bool) -> list[bool]:
        """Return for each flag whether it is true of any process. No device is waited for."""
        if self.size == 1:
            return [*flags]
        found = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return [bool(flag) for flag in found.tolist()]

    def meet(self) -> None:
        """Wait until all processes are here."""
        self.any(True)

    def follow(self, tensors: Iterable[Tensor]) -> None:
        """Set the tensors of all processes to those of the first, in place."""
        if self.size == 1:
            return
        for tensor in tensors:
            sent = tensor.detach().contiguous()
            dist.broadcast(sent, src=0)
            if sent.data_ptr() != tensor.data_ptr():
                tensor.detach().copy_(sent)

    def check_same(self, facts: Mapping[str, str]) -> None:
        """Refuse processes that differ in what they are about to do.

        Args:
            facts: By name, each in words that tell it from any other.

        Raises:
            RunError: They differ; names what in, and the processes.
        """
        rows = [list(hashlib.sha256(fact.encode()).digest()) for fact in facts.values()]
        found = self.gather(torch.tensor(rows, dtype=torch.uint8))
        faults = []
        for place, name in enumerate(facts):
            others = [r for r, rows in enumerate(found) if not rows[place].equal(found[0][place])]
            if others:
                faults.append(f"{name} (process {', '.join(map(str, others))})")
        if faults:
            raise RunError(
                f"the {self.size} processes of a training must do the same; other than process 0 "
                f"have: {'; '.join(faults)}. Start all with one command, and the same files"
            )

    def check_together(self, weights: Iterable[Tensor]) -> None:
        """Refuse weights that are no longer the same in all processes.

        Raises:
            RunError: They differ, as by a hook that draws without a generator of its own.
        """
        if self.size == 1:
            return
        norms = torch.stack([weight.detach().double().norm() for weight in weights])
        first, *others = self.gather(norms)
        apart = [rank for rank, other in enumerate(others, 1) if not first.allclose(other, 1e-6)]
        if apart and bool(first.isfinite().all()):
            raise RunError(
                f"the weights of process {', '.join(map(str, apart))} have drifted away from those "
                "of process 0: what a hook does must be the same in every process"
            )


SOLO = Team()
"""One process that trains by itself."""


def current_team() -> Team:
    """Return the processes that torch's process group joins; ``SOLO`` where there is none."""
    if dist.is_available() and dist.is_initialized():
        return Team(rank=dist.get_rank(), size=dist.get_world_size())
    return SOLO


def launched() -> bool:
    """Return whether torchrun, or its like, started this process as one of several."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


@contextmanager
def joined(device: str) -> Iterator[tuple[Team, str]]:
    """Join the processes that torchrun started, and yield the team and the own device.

    Every ``train`` inside is a training of the whole team. Without torchrun it is that of one
    process on ``device``.

    Args:
        device: ``cpu``, ``cuda`` or their like. Under torchrun ``cuda`` is the device with the
            number of the process on its machine.

    Raises:
        InputError: The environment is not one that torchrun makes, or has too few devices.
        PeerError: Another process failed before; it says why.
        RunError: Another process is gone without a word.
    """
    if not launched():
        yield SOLO, device
        return
    own = _own_device(device)
    if own != "cpu":
        torch.cuda.set_device(own)
    store, rank, size = next(rendezvous("env://"))
    # What is told on a CPU (gloo) waits for no device.
    backend = "gloo" if own == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    team = Team(rank=rank, size=size)
    try:
        with loss_told(team):
            yield team, own
    except Exception as error:
        if not _failed_first(store.add):
            raise PeerError(f"process {rank}: another process failed before") from error
        raise
    finally:
        dist.destroy_process_group()


@contextmanager
def loss_told(team: Team) -> Iterator[None]:
    """Name the error that a process meets inside when another one is gone.

    Raises:
        RunError: One is.
    """
    try:
        yield
    except Exception as error:
        if team.size == 1 or not _is_loss_of_peer(error):
            raise
        raise RunError(
            f"process {team.rank} of {team.size} lost another one, which failed or was killed; the "
            "same call goes on from the last checkpoint"
        ) from error


@contextmanager
def leader_first(team: Team) -> Iterator[None]:
    """Let the first process do what is inside before all others, who find it done."""
    if not team.leads:
        team.meet()
    try:
        yield
    finally:
        if team.leads:
            team.meet()


def parallel(network: Network, *, sync_norms: bool) -> DistributedDataParallel:
    """Return what computes ``network`` so that its gradients become the mean over all processes.

    All begin with the first one's weights. Running statistics of batch norms are each process's
    own: in training nothing reads them, so they need not travel at every step.

    Args:
        network: On the device of this process. It is not changed.
        sync_norms: Batch norms see the images of all processes.
    """
    module = network.with_synchronised_norms() if sync_norms else network
    # Until torch 2.14 it was called by the other name, which later ones warn of.
    names = signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
    options: dict[str, Any] = {name: False, "gradient_as_bucket_view": True}
    return DistributedDataParallel(module, **options)


def _own_device(device: str) -> str:
    """Return the device of this process, and check what the environment says."""
    missing = [name for name in _VARIABLES if name not in os.environ]
    if missing:
        raise InputError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']} says that this is one of several processes, "
            f"but {', '.join(missing)} is not set: start them by torchrun -m prunenas train ..."
        )
    if device == "cpu":
        return device
    if device != "cuda":
        raise InputError(f"under torchrun each process has its own device: say cuda, not {device}")
    place, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if place >= count:
        raise InputError(
            f"process {place} of this machine has no device: torch sees {count} CUDA devices; "
            f"start as many processes by --nproc-per-node, or say --device cpu"
        )
    return f"cuda:{place}"


def _failed_first(add: Callable[[str, int], int]) -> bool:
    """Return whether no other process has said before that it failed, and say so.

    Args:
        add: Adds to a number that all processes know, and returns it.
    """
    try:
        return add("prunenas/failed", 1) == 1
    except RuntimeError:
        # The store goes with the process that keeps it, which has failed by then.
        return False


def _is_loss_of_peer(error: Exception) -> bool:
    if isinstance(error, dist.DistError):
        return True
    # Gloo tells of a closed connection in words only.
    return type(error) is RuntimeError and "gloo" in str(error).lower()
