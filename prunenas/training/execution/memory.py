"""Memory that does not suffice: what says so, and how small a part of a batch would fit."""

import gc
import os
from typing import final

import torch
from torch.optim import SGD

from prunenas.build.execution import Layout
from prunenas.build.network import Network
from prunenas.errors import MemoryShortageError
from prunenas.ir.canonical import digest
from prunenas.training.batches.base import Batches, Draw
from prunenas.training.execution.steps import EagerSteps, untouched
from prunenas.training.recipe import Recipe

_SAID = (
    "can't allocate memory",  # torch's allocator on a CPU
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""How a shortage is told by what has no class for it."""


def is_shortage(error: BaseException) -> bool:
    """Return whether ``error`` says that there is not enough memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    if any(words in str(error) for words in _SAID):
        return True
    # To end a capture that ran short of memory fails with words of its own.
    return error.__context__ is not None and is_shortage(error.__context__)


def release(device: torch.device) -> None:
    """Give memory back that nothing uses any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def total_bytes(device: torch.device) -> int:
    """Return the memory of ``device``."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def shortage(
    network: Network, device: torch.device, doing: str, advice: str, *, parts: int | None = None
) -> MemoryShortageError:
    """Return the error of a training that found too little memory.

    Args:
        network: What is trained.
        device: Where.
        doing: What did not fit.
        advice: What to do.
        parts: Into how many parts a batch must be cut to fit.
    """
    size = total_bytes(device) / 2**30
    return MemoryShortageError(
        f"{doing} of the network {digest(network.graph)} needs more memory than there is ("
        f"{device}, {size:.1f} GiB in all): {advice}",
        parts,
    )


@final
class Probe:
    """Finds by trying how small a part of a batch fits. Nothing that is trained changes.

    ``steps`` is what it tries with.

    Args:
        network: What is trained, as a plain module: nothing is asked of other processes.
        optimizer: Of its weights.
        batches: Makes images of draws.
        recipe: Says the precision.
        layout: Order of the images in memory.
    """

    def __init__(
        self,
        network: Network,
        optimizer: SGD,
        batches: Batches,
        recipe: Recipe,
        *,
        layout: Layout,
    ) -> None:
        self._network, self._optimizer = network, optimizer
        self.steps = EagerSteps(network, optimizer, batches, recipe, layout=layout)

    def parts(self, draw: Draw, parts: int) -> int | None:
        """Return the least of twice, four times, ... ``parts`` whose parts of ``draw`` fit.

        A part has two images at least, as no batch norm can train on one. None where no cut fits.
        """
        images = len(draw[0])
        while (parts := 2 * parts) <= images // 2:
            # The first part is a largest one.
            if self._fits(tuple(tensor.tensor_split(parts)[0] for tensor in draw)):
                return parts
        return None

    def _fits(self, draw: Draw) -> bool:
        device = draw[0].device
        fits = True
        # What a caught error holds is free only behind its handler.
        try:
            with untouched(self._network, self._optimizer, device):
                self.steps.gradients(draw)
        except (RuntimeError, MemoryError) as error:
            if not is_shortage(error):
                raise
            fits = False
        self._optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return fits
