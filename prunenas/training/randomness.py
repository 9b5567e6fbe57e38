"""Draws of torch's layers (dropout and its like), which know only a global state."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Let what draws on the CPU and on ``device`` draw from ``seed``, and give its states back.

    Other devices' states are neither read nor set, as ``torch.manual_seed`` would.
    """
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
