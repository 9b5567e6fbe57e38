"""CUDA graphs: work that is recorded once on fixed tensors and replayed without Python."""

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

Work = Callable[[], None]
Recorder = Callable[[Work], Work]
"""Records work, which may or may not be done meanwhile, and returns what does it again."""


@final
class CudaRecorder:
    """Records work as CUDA graphs that share one pool of memory.

    Recorded works may share it because none reads what another left, but for what the caller
    keeps a reference to.

    Args:
        device: Where the works are done.
    """

    def __init__(self, device: torch.device) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        # Torch's own stream for it is of the device that captured first in this process.
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, work: Work) -> Work:
        """Record ``work``, which is not done meanwhile, and return what does it."""
        graph = torch.cuda.CUDAGraph()
        # Threads that pin memory for streamed images go on meanwhile.
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            work()
        return graph.replay


@final
class Recorded:
    """A function on tensors, recorded; to call it copies new inputs over the old and replays.

    Args:
        function: Tensor code without any look at a value; what it returns is written anew by each
            call.
        inputs: An example; inputs of a call must have these shapes.
        record: Records it.
    """

    def __init__(
        self,
        function: Callable[[tuple[Tensor, ...]], Any],
        inputs: tuple[Tensor, ...],
        record: Recorder,
    ) -> None:
        self._inputs = tuple(tensor.clone() for tensor in inputs)
        self.result: Any = None

        def work() -> None:
            self.result = function(self._inputs)

        self._replay = record(work)

    def __call__(self, inputs: tuple[Tensor, ...]) -> Any:
        """Return the function's result, whose tensors the next call overwrites."""
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given, non_blocking=True)
        self._replay()
        return self.result


def beside(device: torch.device, work: Work) -> None:
    """Do ``work`` on a stream of its own, as what comes before a capture must be done."""
    current = torch.cuda.current_stream(device)
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(current)
    try:
        with torch.cuda.stream(side):
            work()
    finally:
        # Also where it failed: who mends what it left must not do so meanwhile.
        current.wait_stream(side)
