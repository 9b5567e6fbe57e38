"""Seconds of a call, over and over, several calls side by side."""

import time
from collections.abc import Callable, Sequence

import torch

Call = Callable[[], object]
Clock = Callable[[Call], float]
"""Does a call and returns the seconds that it took."""

_TURN = 0.1
"""Seconds that a call is repeated before it is another's turn. Short enough that noise hits all
alike, long enough that few repeats begin with another's data in the caches."""

_WARM_UP_CALLS = 3
"""Libraries choose algorithms and reserve memory in the first calls."""


def wall_clock(call: Call) -> float:
    """Return the seconds of a call on a CPU."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def cuda_clock(call: Call) -> float:
    """Return the seconds of a call on the current CUDA device, which is idle when it begins.

    The device's own events tell them: from when it could begin, to its last kernel's end. Time in
    which the device waits for Python is in it.
    """
    began, ended = (
        torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        for _ in range(2)
    )
    torch.cuda.synchronize()
    began.record()
    call()
    ended.record()
    ended.synchronize()
    milliseconds: float = began.elapsed_time(ended)
    return milliseconds / 1000


def clock_of(device: torch.device) -> Clock:
    """Return the clock of ``device``, which is the current one if it is a CUDA device."""
    return cuda_clock if device.type == "cuda" else wall_clock


def rounds(
    calls: Sequence[Call], clock: Clock, *, seconds: float, least: int = 20
) -> list[list[float]]:
    """Return the seconds of each repeat of each call.

    All are warmed up, then they take turns; who begins changes from round to round.

    Args:
        calls: What is timed.
        clock: Times one call.
        seconds: Time to spend on each call at least.
        least: Repeats of each call at least.
    """
    for call in calls:
        _warm_up(call, clock, seconds / 5)
    samples: list[list[float]] = [[] for _ in calls]
    spent = [0.0 for _ in calls]
    begins = 0
    while min(spent) < seconds or min(map(len, samples)) < least:
        for place in (*range(begins, len(calls)), *range(begins)):
            turn = 0.0
            while turn < min(_TURN, seconds):
                samples[place].append(clock(calls[place]))
                turn += samples[place][-1]
            spent[place] += turn
        begins = (begins + 1) % len(calls)
    return samples


def _warm_up(call: Call, clock: Clock, seconds: float) -> None:
    done, spent = 0, 0.0
    while done < _WARM_UP_CALLS or spent < seconds:
        spent += clock(call)
        done += 1
