"""The verb ``measure``: what networks cost on a machine, with params and macs beside it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from prunenas.build.execution import Layout, decided_precision, device_name, known_device
from prunenas.build.measure.energy import meter_of
from prunenas.build.measure.onnx_runtime import why_not
from prunenas.build.measure.subject import Found, Subject, measure_batch, subject_of
from prunenas.build.measure.values import (
    BatchMeasurement,
    Conditions,
    Latency,
    Measurement,
    Precision,
)
from prunenas.build.network import Network
from prunenas.errors import MemoryShortageError
from prunenas.ir.canonical import digest
from prunenas.ir.cost import effective_macs, is_sparse, macs, nonzero_params, params
from prunenas.ir.graph import Graph

__all__ = [
    "BatchMeasurement",
    "Conditions",
    "Latency",
    "Measurement",
    "measure",
    "measure_together",
]


def measure(
    what: Graph | Network,
    *,
    batches: Sequence[int] = (1, 64),
    device: torch.device | str = "cpu",
    threads: int | None = None,
    precision: Precision = "auto",
    layout: Layout = "auto",
    capture: bool = False,
    onnx: bool = True,
    seconds: float = 1.0,
) -> Measurement:
    """Return what a network costs on this machine: latency, throughput, memory, energy.

    Neither the network nor torch's global state is changed, but for CUDA's peak memory, which is
    counted anew.

    Args:
        what: A graph is built with fresh weights: the time does not depend on them.
        batches: Images at a time; each number is measured.
        device: Where; a network is copied there.
        threads: Threads of a CPU; None is torch's number.
        precision: ``auto`` is ``bf16`` where the device computes in it, else ``fp32``.
        layout: Order of tensors in memory; ``auto`` follows from graph, precision and device.
        capture: On CUDA, time the replay of a CUDA graph.
        onnx: Time ONNX Runtime too, on a CPU where the extra is installed.
        seconds: Least time of measuring, for each batch; 20 repeats may take longer.

    Raises:
        MeasureError: Nothing can be measured so; all that is wrong at once.
        InputError: There is no such device.
        MemoryShortageError: The device has too little memory.
    """
    under = Conditions(
        batches=(*batches,),
        device=str(device),
        threads=threads,
        precision=precision,
        layout=layout,
        capture=capture,
        onnx=onnx,
        seconds=seconds,
    )
    return measure_together([what], under)[0]


def measure_together(
    every: Sequence[Graph | Network], under: Conditions
) -> tuple[Measurement, ...]:
    """Return what each network costs, measured in turns, so that noise hits all alike.

    Raises:
        InputError: There is no such device.
        MemoryShortageError: The device has too little memory.
    """
    device = known_device(under.device)
    with _held(device, under.threads):
        precision = decided_precision(under.precision, device)
        try:
            subjects = [subject_of(what, under.layout, precision, device) for what in every]
            found = [measure_batch(subjects, batch, under) for batch in under.batches]
        except torch.OutOfMemoryError as error:
            raise MemoryShortageError(
                f"batches of {', '.join(map(str, under.batches))} need more memory than "
                f"{device_name(device)} has: measure smaller ones, or fewer networks at once"
            ) from error
        return tuple(
            _measurement(subject, under, [batch[place] for batch in found])
            for place, subject in enumerate(subjects)
        )


def _measurement(subject: Subject, under: Conditions, found: Sequence[Found]) -> Measurement:
    graph, device = subject.network.graph, subject.device
    meter = meter_of(device)
    no_onnx = why_not(device) if under.onnx else "not asked for"
    left_out = {"energy": meter} if isinstance(meter, str) else {}
    left_out |= {} if no_onnx is None else {"onnx": no_onnx}
    for one in found:
        left_out |= one.left_out
    sparse = is_sparse(graph)
    return Measurement(
        digest=digest(graph),
        params=params(graph),
        macs=macs(graph),
        device=device_name(device),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        precision=subject.precision,
        layout=subject.layout,
        captured=under.capture,
        batches=tuple(one.measured for one in found),
        nonzero_params=nonzero_params(graph) if sparse else None,
        effective_macs=effective_macs(graph) if sparse else None,
        left_out=left_out,
    )


@contextmanager
def _held(device: torch.device, threads: int | None) -> Iterator[None]:
    """Compute without gradients, with so many threads, and let cuDNN choose by trying."""
    before = torch.get_num_threads(), torch.backends.cudnn.benchmark
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        with torch.no_grad():
            if device.type == "cuda":
                torch.backends.cudnn.benchmark = True
                with torch.cuda.device(device):
                    yield
            else:
                yield
    finally:
        torch.set_num_threads(before[0])
        torch.backends.cudnn.benchmark = before[1]
