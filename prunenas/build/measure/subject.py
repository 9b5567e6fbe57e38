"""Networks made ready on a device, and what one size of batch costs each of them."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import final

import torch
from torch import Tensor

from prunenas.build.capture import CudaRecorder, beside
from prunenas.build.execution import Layout, computing_in, natural_layout
from prunenas.build.initialise import build
from prunenas.build.measure.energy import joules_per_image, meter_of
from prunenas.build.measure.memory import peak_bytes
from prunenas.build.measure.onnx_runtime import onnx_call, why_not
from prunenas.build.measure.timing import Call, clock_of, rounds, wall_clock
from prunenas.build.measure.values import (
    BatchMeasurement,
    Conditions,
    Decided,
    DecidedLayout,
    Latency,
)
from prunenas.build.network import Network
from prunenas.ir.graph import Graph


@final
@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network that is ready to be measured."""

    network: Network
    device: torch.device
    precision: Decided
    layout: DecidedLayout

    def images(self, batch: int) -> Tensor:
        """Return a batch of noise ``[n c h w]`` on the device."""
        drawn = torch.randn(
            batch,
            *self.network.graph.input_size,
            generator=torch.Generator().manual_seed(0),
            dtype=torch.float32,
        )
        return drawn.to(self.device, memory_format=_format(self.layout))


@final
@dataclass(frozen=True, kw_only=True)
class Found:
    """What a batch costs one network, and what could not be had of it."""

    measured: BatchMeasurement
    left_out: Mapping[str, str] = field(default_factory=dict)


def subject_of(
    what: Graph | Network, layout: Layout, precision: Decided, device: torch.device
) -> Subject:
    """Return a network of its own, in evaluation mode, ready on ``device``."""
    if isinstance(what, Network):
        network = copy.deepcopy(what).to(device, torch.float32)
    else:
        network = build(what, device=device)
    if layout == "auto":
        layout = natural_layout(network.graph, precision, device)
    decided: DecidedLayout = "channels_last" if layout == "channels_last" else "contiguous"
    network.eval().to(memory_format=_format(decided))
    return Subject(network=network, device=device, precision=precision, layout=decided)


def _format(layout: DecidedLayout) -> torch.memory_format:
    return torch.channels_last if layout == "channels_last" else torch.contiguous_format


def measure_batch(subjects: Sequence[Subject], batch: int, under: Conditions) -> list[Found]:
    """Return what batches of ``batch`` images cost each network, in turns."""
    device, precision = subjects[0].device, subjects[0].precision
    images = [subject.images(batch) for subject in subjects]
    calls: list[Call] = [partial(s.network, x) for s, x in zip(subjects, images, strict=True)]
    peaks = []
    for subject, x, call in zip(subjects, images, calls, strict=True):
        with computing_in(precision, device):
            call()
        # Apart from the first call, so that what it cast counts here too.
        with computing_in(precision, device):
            peaks.append(peak_bytes(subject.network, x, call))
    joules: list[float | None] = [None for _ in subjects]
    meter = meter_of(device)
    # Held over all repeats: weights are cast once, as where a network is put to use.
    with computing_in(precision, device):
        timed = [_captured(call, device) for call in calls] if under.capture else calls
        samples = rounds(timed, clock_of(device), seconds=under.seconds)
        if not isinstance(meter, str):
            joules = [joules_per_image(call, batch, meter, seconds=under.seconds) for call in timed]
    in_onnx = _in_onnx(subjects, images, under)
    return [
        Found(
            measured=BatchMeasurement(
                batch=batch,
                latency=Latency.of(of_one),
                peak_bytes=peak,
                joules_per_image=energy,
                onnx=onnx if isinstance(onnx, Latency) else None,
            ),
            left_out={f"onnx, batch {batch}": onnx} if isinstance(onnx, str) else {},
        )
        for of_one, peak, energy, onnx in zip(samples, peaks, joules, in_onnx, strict=True)
    ]


def _in_onnx(
    subjects: Sequence[Subject], images: Sequence[Tensor], under: Conditions
) -> list[Latency | str | None]:
    """Return the latency of each network in ONNX Runtime, or why it has none.

    None of them has a reason of its own where nothing is timed at all. Not in turns with torch:
    each library's threads wait busily after a call.
    """
    if not under.onnx or why_not(subjects[0].device):
        return [None for _ in subjects]
    ready = [onnx_call(s.network, x) for s, x in zip(subjects, images, strict=True)]
    calls = [call for call in ready if not isinstance(call, str)]
    samples = iter(rounds(calls, wall_clock, seconds=under.seconds) if calls else ())
    return [one if isinstance(one, str) else Latency.of(next(samples)) for one in ready]


def _captured(call: Call, device: torch.device) -> Call:
    """Return what replays ``call``, recorded as a CUDA graph; its result is left where it lies."""

    def work() -> None:
        call()

    def warm_up() -> None:
        # Before a capture libraries must have chosen their algorithms, and weights be cast.
        for _ in range(3):
            call()

    beside(device, warm_up)
    return CudaRecorder(device)(work)
