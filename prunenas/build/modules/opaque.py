"""Calls of torch's aten ops by name, as files that a user was sent may hold them."""

from typing import Any

import torch
from torch import Tensor, nn

from prunenas.errors import GraphError
from prunenas.ir import ops


def aten(call: str) -> torch._ops.OpOverload:
    """Return the aten op called ``name.overload``.

    Raises:
        GraphError: There is none, or it does more than return tensors: it changes its arguments,
            reads or writes files, or sets a state of the process.
    """
    name, overload = call.split(".")
    found = getattr(getattr(torch.ops.aten, name, None), overload, None)
    if not isinstance(found, torch._ops.OpOverload):
        raise GraphError(f"this torch has no aten op {call}")
    schema = found._schema
    returns_tensors = any("Tensor" in str(result.type) for result in schema.returns)
    opens_file = any(argument.name == "filename" for argument in schema.arguments)
    if schema.is_mutable or opens_file or not returns_tensors:
        raise GraphError(f"aten op {call} does more than return tensors: it is never called")
    return found


class AtenCall(nn.Module):
    """One of torch's aten ops, called as it was seen to be called."""

    def __init__(self, op: ops.Opaque) -> None:
        super().__init__()
        self.function = aten(op.call)
        self.positional, self.named = op.called_with()
        self.item = op.item

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the call's result, or the one of them that is meant."""
        named = {key: _filled(value, inputs) for key, value in self.named.items()}
        result = self.function(*_filled(self.positional, inputs), **named)
        value: Tensor = result if self.item is None else result[self.item]
        return value


def _filled(argument: Any, inputs: tuple[Tensor, ...]) -> Any:
    """Return ``argument`` with inputs in the places of their numbers."""
    if isinstance(argument, list):
        return [_filled(item, inputs) for item in argument]
    return inputs[argument["tensor"]] if isinstance(argument, dict) else argument
