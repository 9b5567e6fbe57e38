"""Most memory that a network takes while it computes one batch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from prunenas.build.measure.timing import Call
from prunenas.build.network import Network


def peak_bytes(network: Network, images: Tensor, call: Call) -> int:
    """Return the most bytes that weights, images and what is computed of them took at once.

    Both devices are asked what torch's allocator handed out while ``call`` was done. Buffers that
    libraries keep for themselves, such as cuDNN's handles, are not in it.

    Args:
        network: Its weights and buffers are counted.
        images: These too.
        call: Computes the batch, without gradients. It was done before.
    """
    held = sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))
    work = _work_on_cuda if images.is_cuda else _work_on_cpu
    return held + images.nbytes + work(call)


def _work_on_cuda(call: Call) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return torch.cuda.max_memory_allocated() - before


def _work_on_cpu(call: Call) -> int:
    with (
        _quietly(),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched,
    ):
        call()
    assert watched.profiler is not None and watched.profiler.kineto_results is not None
    events = [e for e in watched.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep the profiler from telling stderr that it begins and ends; it reads this variable."""
    name = "KINETO_LOG_LEVEL"
    before = os.environ.get(name)
    os.environ[name] = before or "99"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
