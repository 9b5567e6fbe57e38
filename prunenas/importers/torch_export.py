"""The second front end: torch.export follows what Python decides, at a second or more a model."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from prunenas.build.modules.opaque import aten
from prunenas.errors import GraphError
from prunenas.importers.builder import Builder
from prunenas.importers.values import BATCH, UnsupportedError, Value, Weight
from prunenas.ir.ops import Opaque


def exported(module: nn.Module, input_size: Sequence[int]) -> torch.export.ExportedProgram:
    """Return the calls of the module's forward on a batch, as aten spells them.

    Raises:
        Exception: Whatever torch.export raises, first of all for control flow that depends on the
            values of tensors.
    """
    # One image, seen many times: a batch that takes no memory.
    images = torch.zeros(1, *input_size).expand(BATCH, *input_size)
    return torch.export.export(module, (images,), strict=False)


def given(program: torch.export.ExportedProgram, module: nn.Module, x: Value) -> dict[str, Any]:
    """Return the value of each placeholder: the image, weights, other tensors as they are."""
    signature = program.graph_signature
    parameters = dict(module.named_parameters(remove_duplicate=False))
    buffers = dict(module.named_buffers(remove_duplicate=False))
    values: dict[str, Any] = dict.fromkeys(signature.user_inputs, x)
    for placeholder, name in signature.inputs_to_parameters.items():
        values[placeholder] = Weight(name, parameters[name])
    for placeholder, name in signature.inputs_to_buffers.items():
        values[placeholder] = buffers[name]
    for placeholder, name in signature.inputs_to_lifted_tensor_constants.items():
        values[placeholder] = program.constants[name]
    return values


def line_of(node: fx.Node) -> str:
    """Return file, line and text of the innermost frame of a call that is not torch's own."""
    return last_line(node.meta.get("stack_trace") or "")


def last_line(trace: str) -> str:
    """Return file, line and text of the last frame of a stack that is not torch's own."""
    frames = trace.split('File "')[1:]
    own = [f for f in frames if "/torch/" not in f.partition('"')[0].replace("\\", "/")]
    if not own:
        return ""
    path, _, rest = own[-1].partition('", line ')
    number, _, text = rest.partition(",")
    code = text.partition("\n")[2].strip().splitlines()
    name = "/".join(path.replace("\\", "/").split("/")[-2:])
    return f"{name}:{number.strip()}" + (f": {code[0].strip()}" if code else "")


def opaque(
    builder: Builder, node: fx.Node, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """Return what a call becomes that no op can tell: an op that repeats it, all widths fixed.

    Raises:
        UnsupportedError: It is not aten's, it is never called when built, or one of its arguments
            cannot be written down.
    """
    target, result = node.target, node.meta.get("val")
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        raise UnsupportedError("only calls of aten can be frozen")
    call = str(target).removeprefix("aten.")
    try:
        aten(call)
    except GraphError as error:
        raise UnsupportedError(str(error)) from None
    tensors: list[str] = []

    def written(value: Any) -> Any:
        if isinstance(value, Value | Weight | torch.Tensor):
            tensors.append(builder.plain(value))
            return {"tensor": len(tensors) - 1}
        if isinstance(value, tuple | list):
            return [written(item) for item in value]
        if value is None or isinstance(value, bool | int | float | str):
            if (
                isinstance(value, int)
                and not isinstance(value, bool)
                and value
                and value % BATCH == 0
            ):
                raise UnsupportedError("its arguments name the size of the batch")
            return value
        raise UnsupportedError(f"an argument of the type {type(value).__name__}")

    arguments = Opaque.text([written(args), {k: written(v) for k, v in kwargs.items()}])
    several = isinstance(result, tuple | list)
    results: list[Any] = [*result] if isinstance(result, tuple | list) else [result]
    found = []
    for item, one in enumerate(results):
        sizes = tuple(one.shape)
        batched = bool(sizes) and sizes[0] % BATCH == 0
        op = Opaque(
            call=call,
            arguments=arguments,
            item=item if several else None,
            sizes=sizes[1:] if batched else sizes,
            lead=sizes[0] // BATCH if batched else None,
        )
        found.append(builder.add(op, *tensors))
    return tuple(found) if several else found[0]
