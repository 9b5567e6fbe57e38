"""What a traced call works on: tensors of the graph being written, weights, plain Python values."""

from dataclasses import dataclass
from typing import Any, final

import torch

BATCH = 1013
"""Images in the batch that is traced: a prime that no layer has, so sizes tell where it went."""


@final
@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the graph.

    Args:
        node: Name of the node that computes it.
        order: Dimension ``i`` of the traced tensor is dimension ``order[i]`` of the node's value.
            The graph keeps the batch first; a permutation is written when an op needs it.
    """

    node: str
    order: tuple[int, ...]


@final
@dataclass(frozen=True, slots=True)
class Weight:
    """A trainable tensor of the module, by its name in the state dict."""

    name: str
    tensor: torch.Tensor


@final
@dataclass(frozen=True, slots=True)
class Site:
    """Where a call stands.

    Args:
        path: Dotted name of the module whose forward makes it; empty for the whole network.
        called: The spelling, as the front end found it.
        line: Source file, line and text, where known.
    """

    path: str
    called: str
    line: str = ""

    def __str__(self) -> str:
        place = self.path or "the network itself"
        return f"{self.called} in {place}" + (f" ({self.line})" if self.line else "")


class UnsupportedError(Exception):
    """A call has no counterpart in the graph; collected, so that all are told together."""


def is_traced(value: Any) -> bool:
    """Return whether ``value`` is, or holds, a tensor of the graph or a weight."""
    if isinstance(value, Value | Weight):
        return True
    if isinstance(value, tuple | list):
        return any(map(is_traced, value))
    if isinstance(value, dict):
        return any(map(is_traced, value.values()))
    if isinstance(value, slice):
        return any(map(is_traced, (value.start, value.stop, value.step)))
    return False
