"""What is asked of a measurement, and what it says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, final, get_args

import numpy as np

from prunenas.build.execution import Layout
from prunenas.errors import MeasureError

Precision = Literal["fp32", "bf16", "auto"]
Decided = Literal["fp32", "bf16"]
DecidedLayout = Literal["contiguous", "channels_last"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Under which conditions networks are measured.

    Args:
        batches: Images at a time; each number is measured.
        device: Where, as torch names it.
        threads: Threads of a CPU; None is torch's number.
        precision: ``auto`` is ``bf16`` where the device computes in it, else ``fp32``.
        layout: Order of tensors in memory; ``auto`` follows from graph, precision and device.
        capture: On CUDA, record the work once as a CUDA graph and time its replay.
        onnx: Time ONNX Runtime too, on a CPU where the extra is installed.
        seconds: Least time of measuring, for each network and batch; 20 repeats may take longer.
    """

    batches: tuple[int, ...] = (1, 64)
    device: str = "cpu"
    threads: int | None = None
    precision: Precision = "auto"
    layout: Layout = "auto"
    capture: bool = False
    onnx: bool = True
    seconds: float = 1.0

    def __post_init__(self) -> None:
        faults = []
        if not self.batches or min(self.batches) < 1 or len({*self.batches}) < len(self.batches):
            faults.append(f"batches={self.batches} must be different numbers from 1 up")
        if self.threads is not None and self.threads < 1:
            faults.append(f"threads={self.threads} must be at least 1")
        if self.precision not in get_args(Precision):
            faults.append(f"precision={self.precision} must be {'/'.join(get_args(Precision))}")
        if self.layout not in get_args(Layout):
            faults.append(f"layout={self.layout} must be {'/'.join(get_args(Layout))}")
        if not 0 < self.seconds < float("inf"):
            faults.append(f"seconds={self.seconds} must be above 0")
        if self.capture and self.device.partition(":")[0] != "cuda":
            faults.append(f"capture=True needs a CUDA device, not {self.device}")
        if faults:
            raise MeasureError("nothing can be measured so: " + "; ".join(faults))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Seconds that one batch takes, over repeats."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    median_seconds: float
    p95_seconds: float
    repeats: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Latency":
        """Return median and 95th percentile of ``samples``."""
        median, p95 = np.quantile(samples, [0.5, 0.95]).tolist()
        return cls(median_seconds=median, p95_seconds=p95, repeats=len(samples))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BatchMeasurement:
    """What a batch costs on the device.

    Args:
        batch: Images in it.
        latency: From images on the device to scores on the device, one batch after another.
        peak_bytes: Most memory that weights, images and all that the network computes took at
            once, of what torch handed out. A library's own buffers are not in it.
        joules_per_image: Energy of the whole device, idle power included; None where it cannot
            be read.
        onnx: The same in ONNX Runtime, in single precision; None where it was not timed.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    batch: int
    latency: Latency
    peak_bytes: int
    joules_per_image: float | None = None
    onnx: Latency | None = None

    @property
    def throughput(self) -> float:
        """Images a second, by the median."""
        return self.batch / self.latency.median_seconds


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one network costs, in multiply-accumulates and on a machine.

    Args:
        digest: Of the graph.
        params: Trainable parameters, dense.
        macs: Multiply-accumulates for one image, dense.
        device: In words.
        threads: Threads of the CPU.
        torch: Its version.
        precision: What ``auto`` became.
        layout: Likewise.
        captured: Whether a recorded CUDA graph was timed.
        batches: One entry a batch size.
        nonzero_params: Parameters that no mask sets to zero; None of a dense network.
        effective_macs: Multiply-accumulates with such weights; None of a dense network.
        left_out: What was not measured, with the reason.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    digest: str
    params: int
    macs: int
    device: str
    threads: int
    torch: str
    precision: Decided
    layout: DecidedLayout
    captured: bool
    batches: tuple[BatchMeasurement, ...]
    nonzero_params: int | None = None
    effective_macs: int | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)

    def at(self, batch: int) -> BatchMeasurement:
        """Return what a batch of this size costs.

        Raises:
            MeasureError: It was not measured.
        """
        for one in self.batches:
            if one.batch == batch:
                return one
        measured = ", ".join(str(one.batch) for one in self.batches)
        raise MeasureError(f"batch {batch} was not measured, but {measured}")
