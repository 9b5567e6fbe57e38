"""How a training is carried out on a machine: fast where it can be, and the same thing slowly."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, final, get_args

import torch

from prunenas.errors import RecipeError
from prunenas.ir.graph import Graph
from prunenas.ir.ops import Conv2d
from prunenas.training.recipe import Recipe

Layout = Literal["auto", "contiguous", "channels_last"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """How a training is carried out, and never what is trained.

    The defaults are the fast path; ``SLOW`` is the plain one that it is held against.

    Args:
        capture: On CUDA, record a step and an evaluation once as graphs and replay them.
        compile: Compile the network by ``torch.compile`` first: for long trainings, since it
            takes from half a minute up.
        layout: Order of tensors in memory. ``auto`` follows from the graph and the device.
        deterministic: On CUDA, use only algorithms that give the same bits each time. Training on
            a CPU does so anyway.
        accumulate: Parts that each batch is cut into, whose gradients add up to the batch's: less
            memory for the same recipe. Batch norms see the parts.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    capture: bool = True
    compile: bool = False
    layout: Layout = "auto"
    deterministic: bool = False
    accumulate: int = 1

    def __post_init__(self) -> None:
        faults = []
        if self.layout not in get_args(Layout):
            faults.append(f"layout={self.layout} must be {'/'.join(get_args(Layout))}")
        if self.accumulate < 1:
            faults.append(f"accumulate={self.accumulate} must be at least 1")
        if faults:
            raise RecipeError("a training cannot be carried out: " + "; ".join(faults))


FAST = Engine()
"""Whatever the device can do."""

SLOW = Engine(capture=False, layout="contiguous")
"""Step by step, nothing recorded, tensors as torch lays them out."""


def settle(recipe: Recipe, device: torch.device | str) -> Recipe:
    """Return ``recipe`` with its precision decided: what a result is filed under.

    ``auto`` becomes ``bf16`` where ``device`` computes in bfloat16 itself, else ``fp32``.
    """
    if recipe.precision != "auto":
        return recipe
    return replace(recipe, precision="bf16" if computes_bf16(torch.device(device)) else "fp32")


def computes_bf16(device: torch.device) -> bool:
    """Return whether the processor has instructions for bfloat16; to emulate them is slow."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    has = torch._C._cpu._get_cpu_capability()
    return any(bool(has.get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def memory_format(engine: Engine, graph: Graph, recipe: Recipe, device: torch.device) -> Layout:
    """Return the layout that ``auto`` stands for, or what ``engine`` says.

    On CUDA it is channels last in bfloat16, which tensor cores read. On a CPU so too, but only
    where all convolutions are wide enough: below 16 channels it was measured to be up to half as
    fast as the other (half-width ResNet-20; ``scripts/bench_training.py``).
    """
    if engine.layout != "auto":
        return engine.layout
    convolutions = [node.op.width for node in graph.nodes if isinstance(node.op, Conv2d)]
    narrow = device.type == "cpu" and min(convolutions, default=0) < 16
    return "contiguous" if recipe.precision == "fp32" or narrow else "channels_last"


@contextmanager
def settings(engine: Engine, device: torch.device) -> Iterator[None]:
    """Hold torch's global switches as ``engine`` says, and give them back."""
    if device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    if engine.deterministic:
        # Read when cuBLAS makes its handle: https://docs.nvidia.com/cuda/cublas, reproducibility.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(engine.deterministic)
    torch.backends.cudnn.benchmark = not engine.deterministic
    try:
        with torch.cuda.device(device):
            yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


@contextmanager
def precision(recipe: Recipe, device: torch.device) -> Iterator[None]:
    """Compute as ``recipe`` says."""
    if recipe.precision == "bf16":
        with torch.autocast(device.type, dtype=torch.bfloat16):
            yield
    else:
        with nullcontext():
            yield
