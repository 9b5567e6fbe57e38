"""Norms of filters as scores, and which groups and layers an option speaks of."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunenas.build.network import Network
from prunenas.errors import MethodError, ShapeError
from prunenas.generators.base.readers import lost
from prunenas.generators.base.scores import Reduction, group_scores, kernel
from prunenas.ir.blocks import Block, blocks
from prunenas.ir.coupling import ChannelGroup, ChannelGroups
from prunenas.ir.graph import Graph
from prunenas.ir.ops import Add, Arithmetic, Conv1d, Conv2d, Linear, PadChannels


def filter_norms(weight: Tensor, power: int) -> Tensor:
    """Score each filter by the norm of its weights: 1 sums sizes, 2 is the root of squares.

    Args:
        weight: Kernel of a convolution ``[out in kh kw]`` or of a linear layer ``[out in]``.
        power: 1 or 2.

    Returns:
        Scores ``[out]``, non-negative; a larger score is kept longer.

    Raises:
        ShapeError: ``weight`` has fewer than 2 dimensions.

    Source: Li et al. 2017, arXiv:1608.08710, sections 3.1 and 4.5.
    """
    if weight.dim() < 2:
        raise ShapeError(f"filters have at least 2 dimensions, got {list(weight.shape)}")
    norms: Tensor = torch.linalg.vector_norm(weight.flatten(1), ord=power, dim=1)
    return norms


def norm_scores(
    network: Network,
    groups: ChannelGroups,
    group: ChannelGroup,
    power: int,
    reduction: Reduction,
    layers: Sequence[str] = (),
) -> NDArray[np.float64]:
    """Return the norm of each channel of a group ``[width]``, reduced over ``layers`` or all."""
    narrowed = replace(group, members=tuple(layers)) if layers else group
    return group_scores(
        network,
        groups,
        narrowed,
        lambda name: filter_norms(kernel(network, name).double(), power),
        reduction,
    )


def removed_channels(
    groups: ChannelGroups, graph: Graph, kept: Mapping[str, Collection[int]]
) -> dict[str, tuple[int, ...]]:
    """Return what goes where groups keep only ``kept``: theirs, and what selections lose by it."""
    own = {
        name: sorted({*range(groups[name].width)} - {*channels}) for name, channels in kept.items()
    }
    return lost(graph, groups, own)


def matching(
    groups: Iterable[ChannelGroup], patterns: Iterable[str], what: str
) -> dict[str, tuple[str, ...]]:
    """Return the groups that each pattern names, by their own name or that of a member layer.

    Args:
        groups: Those that may be named.
        patterns: Names, with ``*``, ``?`` and ``[...]`` as in file names.
        what: The option, for the message.

    Raises:
        MethodError: A pattern names no group; the message lists the groups.
    """
    known = [*groups]
    found = {
        pattern: tuple(
            group.name
            for group in known
            if any(fnmatchcase(name, pattern) for name in (group.name, *group.members))
        )
        for pattern in patterns
    }
    if unknown := [pattern for pattern, names in found.items() if not names]:
        raise MethodError(
            f"{what}: no group or layer of one is called {', '.join(unknown)}; the groups are "
            f"{', '.join(group.name for group in known)}"
        )
    return found


def added(graph: Graph, groups: ChannelGroups) -> set[str]:
    """Return the groups whose channels pass through an addition of two values: residual trunks.

    What is the same for all images (a bias, positions) does not count.
    """
    found: set[str] = set()
    for node in graph.nodes:
        sums = isinstance(node.op, Add | PadChannels) or (
            isinstance(node.op, Arithmetic) and node.op.function in ("add", "subtract")
        )
        if sums and all(graph.shapes[name].lead is not None for name in node.inputs):
            for name in (node.name, *node.inputs):
                found |= {s for axis in groups.dims[name] for part in axis for s in part.groups}
    return found


def projections(graph: Graph) -> tuple[str, ...]:
    """Return the 1x1 convolutions on the shortcuts of residual blocks, in order."""
    found = {_projection(graph, block) for block in blocks(graph)} - {None}
    return tuple(node.name for node in graph.nodes if node.name in found)


def _projection(graph: Graph, block: Block) -> str | None:
    name = block.shortcut
    while name != block.entry:
        node = graph[name]
        if isinstance(node.op, Conv2d):
            return node.weights or name if node.op.kernel == (1, 1) else None
        if len(node.inputs) != 1 or isinstance(node.op, Conv1d | Linear):
            return None
        name = node.inputs[0]
    return None
