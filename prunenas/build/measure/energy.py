"""Energy of a CUDA device, read through NVML."""

import time
from collections.abc import Callable

import torch

from prunenas.build.measure.timing import Call

Meter = Callable[[], float]
"""Returns the joules that the device has used, counted from some moment in the past."""

_LEAST_SECONDS = 1.0
"""The device counts its energy a few times a second only."""


def meter_of(device: torch.device) -> Meter | str:
    """Return what reads the energy of ``device``, or why there is nothing.

    The counter is that of the whole device: whatever else runs there is counted too.
    """
    if device.type != "cuda":
        return "it is read through NVML, which knows NVIDIA's devices only"
    try:
        import pynvml
    except ImportError:
        return "NVML is not installed: pip install 'prunenas[energy]'"
    try:
        pynvml.nvmlInit()
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")

        def joules() -> float:
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000

        joules()
    except pynvml.NVMLError as error:
        return f"NVML does not tell: {error}"
    return joules


def joules_per_image(call: Call, batch: int, meter: Meter, *, seconds: float) -> float:
    """Return the device's energy for one image while ``call`` is done over and over.

    Idle power is in it.

    Args:
        call: Computes a batch on the current CUDA device; it was done before.
        batch: Images in it.
        meter: Of that device.
        seconds: How long; at least a second.
    """
    torch.cuda.synchronize()
    before, began, done = meter(), time.perf_counter(), 0
    while time.perf_counter() - began < max(seconds, _LEAST_SECONDS):
        call()
        # Else calls would be queued for longer than they are counted.
        torch.cuda.synchronize()
        done += 1
    return (meter() - before) / (done * batch)
