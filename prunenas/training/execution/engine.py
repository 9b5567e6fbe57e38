"""How a training is carried out on a machine: fast where it can be, and the same thing slowly."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, final, get_args

import torch

from prunenas.build.execution import Layout, computing_in, decided_precision, natural_layout
from prunenas.errors import RecipeError
from prunenas.ir.graph import Graph
from prunenas.training.execution.heap import keep_freed
from prunenas.training.recipe import Recipe


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
            memory for the same recipe. Batch norms see the parts. ``auto`` begins with one, and
            where memory does not suffice goes back to the last checkpoint, or to the beginning,
            and on with as many as it takes.
        sync_norms: Where several processes train together, on CUDA: batch norms see the images
            of all, and not of each alone.
        keep_memory: On a CPU, keep freed memory for the next step, for as long as the process
            lives: see ``training.execution.heap``.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    capture: bool = True
    compile: bool = False
    layout: Layout = "auto"
    deterministic: bool = False
    accumulate: int | Literal["auto"] = 1
    sync_norms: bool = False
    keep_memory: bool = True

    def __post_init__(self) -> None:
        faults = []
        if self.layout not in get_args(Layout):
            faults.append(f"layout={self.layout} must be {'/'.join(get_args(Layout))}")
        if self.accumulate != "auto" and self.accumulate < 1:
            faults.append(f"accumulate={self.accumulate} must be at least 1, or auto")
        if faults:
            raise RecipeError("a training cannot be carried out: " + "; ".join(faults))


FAST = Engine()
"""Whatever the device can do."""

SLOW = Engine(capture=False, layout="contiguous", keep_memory=False)
"""Step by step, nothing recorded, tensors as torch lays them out."""


def settle(recipe: Recipe, device: torch.device | str) -> Recipe:
    """Return ``recipe`` with its precision decided: what a result is filed under.

    ``auto`` becomes ``bf16`` where ``device`` computes in bfloat16 itself, else ``fp32``.
    """
    decided = decided_precision(recipe.precision, torch.device(device))
    return recipe if decided == recipe.precision else replace(recipe, precision=decided)


def memory_format(engine: Engine, graph: Graph, recipe: Recipe, device: torch.device) -> Layout:
    """Return the layout that ``auto`` stands for, or what ``engine`` says."""
    if engine.layout != "auto":
        return engine.layout
    return natural_layout(graph, recipe.precision, device)


@contextmanager
def settings(engine: Engine, device: torch.device) -> Iterator[None]:
    """Hold torch's global switches as ``engine`` says, and give them back."""
    if device.type != "cuda":
        if engine.keep_memory:
            keep_freed()
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    warned, raced = (
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
    )
    # Read once, when cuBLAS makes its handle, so it is set before any training: a later one may
    # ask for determinism. Source: docs.nvidia.com/cuda/cublas, results reproducibility.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(engine.deterministic)
    torch.backends.cudnn.benchmark = not engine.deterministic
    try:
        with torch.cuda.device(device):
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)
        torch.backends.cudnn.benchmark = raced


def precision(recipe: Recipe, device: torch.device) -> AbstractContextManager[None]:
    """Compute as ``recipe`` says, while what is returned is held."""
    return computing_in(recipe.precision, device)
