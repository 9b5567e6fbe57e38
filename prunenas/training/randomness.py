"""Where the draws of a training come from: a stream of its own for each thing that is drawn."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from prunenas.arch.metrics import Seeds
from prunenas.build.network import Network
from prunenas.ir.draw import stream_seed
from prunenas.ir.ops import KernelSparsity


def seeds_of(seed: int | Seeds, network: Network) -> Seeds:
    """Return the seeds of training ``network``; one number serves every draw.

    Those of weights and masks are the network's own, whatever ``seed`` says of them.
    """
    ops = [getattr(node.op, "sparsity", None) for node in network.graph.nodes]
    masks = {op.seed for op in ops if isinstance(op, KernelSparsity)}
    given = seed if isinstance(seed, Seeds) else Seeds(order=seed, augmentation=seed, layers=seed)
    return Seeds(
        order=given.order,
        augmentation=given.augmentation,
        layers=given.layers,
        init=network.init_seed,
        masks=tuple(sorted(masks)),
    )


def stream(seed: int, name: str) -> torch.Generator:
    """Return a generator on the CPU, which draws the same for every device."""
    return torch.Generator().manual_seed(stream_seed(seed, name))


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Let what draws on the CPU and on ``device`` draw from ``seed``, and give its states back.

    Torch's layers (dropout and its like) know only a global state. Other devices' states are
    neither read nor set, as ``torch.manual_seed`` would.
    """
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
