"""One table for both front ends: from a spelling in torch to ops of the graph.

A handler takes the builder and the call's arguments, in which tensors of the graph are ``Value``s
and trainable tensors ``Weight``s, and returns what the call returns.
"""

from prunenas.importers.optable import (
    activations,
    arithmetic,
    attention,
    layers,
    layout,
    modules,
    queries,
    transformer,
    windows,
)
from prunenas.importers.optable.table import FUNCTIONS, MODULES

__all__ = [
    "FUNCTIONS",
    "MODULES",
    "activations",
    "arithmetic",
    "attention",
    "layers",
    "layout",
    "modules",
    "queries",
    "transformer",
    "windows",
]
