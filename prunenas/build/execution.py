"""How a network is computed on a device: precision, order of tensors in memory, what it is."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch

from prunenas.errors import InputError
from prunenas.ir.graph import Graph
from prunenas.ir.ops import BatchNorm, Conv2d

Layout = Literal["auto", "contiguous", "channels_last"]


def computes_bf16(device: torch.device) -> bool:
    """Return whether the processor has instructions for bfloat16; to emulate them is slow."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    has = torch._C._cpu._get_cpu_capability()
    return any(bool(has.get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def decided_precision(precision: str, device: torch.device) -> Literal["fp32", "bf16"]:
    """Return what ``precision`` comes to: ``auto`` is ``bf16`` where ``device`` computes in it."""
    if precision == "auto":
        return "bf16" if computes_bf16(device) else "fp32"
    return "bf16" if precision == "bf16" else "fp32"


def natural_layout(graph: Graph, precision: str, device: torch.device) -> Layout:
    """Return the order of tensors in memory that suits a network.

    On CUDA it is channels last in bfloat16, which tensor cores read. On a CPU it is channels last
    but for narrow networks: convolutions are faster in it, batch norms of few channels slower, and
    much slower where threads share their sums (``docs/training-speed.md``).
    """
    if not any(isinstance(node.op, Conv2d) for node in graph.nodes):
        return "contiguous"
    if device.type == "cuda":
        return "channels_last" if precision == "bf16" else "contiguous"
    channels, most = (8, 1 / 2) if torch.get_num_threads() == 1 else (16, 1 / 3)
    return "contiguous" if _share_below(graph, channels) > most else "channels_last"


def _share_below(graph: Graph, channels: int) -> float:
    """Return the share of all that batch norms write that has fewer channels."""
    shapes = [graph.shapes[node.name] for node in graph.nodes if isinstance(node.op, BatchNorm)]
    narrow = sum(shape.numel for shape in shapes if shape.channels < channels)
    return narrow / max(1, sum(shape.numel for shape in shapes))


@contextmanager
def computing_in(precision: str, device: torch.device) -> Iterator[None]:
    """Compute in bfloat16 where ``precision`` is ``bf16``, else as the tensors are.

    Without gradients, weights are cast once for as long as this is held.
    """
    if precision == "bf16":
        with torch.autocast(device.type, dtype=torch.bfloat16):
            yield
    else:
        yield


def device_name(device: torch.device) -> str:
    """Return the device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{processor()}, {threads} thread{'s' * (threads > 1)}"


def processor() -> str:
    """Return the processor in words."""
    # Only Linux says its name there, and not on every architecture.
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return "".join(names[:1]) or platform.processor() or f"{platform.machine()} CPU"


def known_device(name: torch.device | str) -> torch.device:
    """Return the device called ``name``, which is here.

    Raises:
        InputError: There is no such device, or it is neither a CPU nor a CUDA device.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"a device is cpu, cuda, cuda:1, ..., got {str(name)!r}") from None
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise InputError(f"networks are computed on cpu or cuda, not on {device}")
    found = torch.cuda.device_count()
    if (device.index or 0) >= found:
        raise InputError(f"there is no device {device}: {found} CUDA devices were found")
    return device
