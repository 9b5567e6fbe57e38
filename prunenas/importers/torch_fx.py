"""The first front end: torch.fx keeps layers with their names, and traces in milliseconds."""

from typing import final

from torch import fx, nn

_WHOLE = frozenset({"DropPath", "StochasticDepth"})
"""Modules of model collections that are one op here; evaluation would trace through them."""


@final
class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m).__name__ in _WHOLE or super().is_leaf_module(m, module_qualified_name)


def symbolic(module: nn.Module) -> fx.Graph:
    """Return the calls of the module's forward.

    Raises:
        Exception: Whatever the forward raises when it is handed a proxy: control flow that asks
            for a value, calls that want numbers.
    """
    graph: fx.Graph = _Tracer().trace(module)
    return graph
