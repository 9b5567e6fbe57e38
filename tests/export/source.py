"""Running an exported Python file as a stranger would: in a namespace of its own."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunenas.arch.spec import ArchSpec
from prunenas.build.initialise import build
from prunenas.export.base import EXPORTERS
from prunenas.ir.graph import Graph


def source_of(graph: Graph, name: str = "net", **spec: Any) -> str:
    return EXPORTERS["python"](ArchSpec(name=name, graph=graph, **spec))


def namespace(source: str) -> dict[str, Any]:
    space: dict[str, Any] = {"__name__": "exported"}
    exec(compile(source, "exported.py", "exec"), space)
    return space


def networks(source: str) -> list[type[nn.Module]]:
    """The module classes that are defined in ``source`` and need no arguments."""

    def needs_nothing(kind: type) -> bool:
        arguments = [*inspect.signature(kind.__init__).parameters.values()][1:]
        return all(
            p.default is not p.empty or p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
            for p in arguments
        )

    return [
        kind
        for kind in namespace(source).values()
        if inspect.isclass(kind)
        and kind.__module__ == "exported"
        and issubclass(kind, nn.Module)
        and needs_nothing(kind)
        and kind.__name__ not in {"PadShortcut", "Permute", "ShiftNorm", "TrainableTensor"}
    ]


def images(graph: Graph, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, *graph.input_size, generator=generator)


def assert_same_function(
    graph: Graph, *, training: bool = False, source: str = "", counts: Sequence[int] = (2,)
) -> nn.Module:
    """The exported network loads the weights of ours and then gives the same bits."""
    (kind,) = networks(source or source_of(graph))
    theirs, ours = kind(), build(graph, seed=3)
    for number, tensor in enumerate(ours.state_dict().values()):
        # Statistics, scales and shifts that are all alike would hide a mix-up.
        if tensor.is_floating_point() and (tensor == tensor.flatten()[0]).all():
            tensor.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(number))
    theirs.load_state_dict(ours.state_dict(), strict=True)
    theirs.train(training)
    ours.train(training)
    with torch.no_grad():
        for count in counts:
            x = images(graph, count)
            assert torch.equal(theirs(x), ours(x))
    after = ours.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in theirs.state_dict().items())
    return theirs
