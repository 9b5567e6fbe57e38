"""Modules that hold a tensor and read no input."""

import numpy
import torch
from torch import Tensor, nn

from prunenas.ir import ops

_STORED_AS = {"float32": "<f4", "int64": "<i8", "bool": "u1"}


class TrainableTensor(nn.Module):
    """A tensor that is trained, such as a class token or a position embedding."""

    def __init__(self, op: ops.Parameter) -> None:
        super().__init__()
        self.start = op.start
        self.value = nn.Parameter(torch.empty(op.sizes))

    def forward(self) -> Tensor:
        """Return the tensor."""
        return self.value


class ConstantTensor(nn.Module):
    """A tensor that is not trained; it follows from the graph, so it is no part of the state."""

    value: Tensor

    def __init__(self, op: ops.Constant | ops.Filled) -> None:
        super().__init__()
        self.op = op
        if torch.get_default_device().type == "meta":
            value = torch.empty(op.sizes, dtype=self._dtype)
        else:
            value = self.stored()
        self.register_buffer("value", value, persistent=False)

    @property
    def _dtype(self) -> torch.dtype:
        if isinstance(self.op, ops.Filled):
            return torch.float32
        dtype: torch.dtype = getattr(torch, self.op.dtype)
        return dtype

    def stored(self) -> Tensor:
        """Return a new tensor with the numbers of the op."""
        if isinstance(self.op, ops.Filled):
            return torch.full(self.op.sizes, self.op.value, device="cpu")
        numbers = numpy.frombuffer(self.op.bytes(), dtype=_STORED_AS[self.op.dtype])
        # A copy: torch must not write to the memory of bytes.
        return torch.from_numpy(numbers.astype(self.op.dtype).reshape(self.op.sizes))

    def forward(self) -> Tensor:
        """Return the tensor."""
        return self.value
