"""Network Slimming: sparsity training on batch-norm scales, one threshold over all of them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from prunenas.arch.allocate import strict_threshold
from prunenas.build.network import Network
from prunenas.errors import MethodError
from prunenas.generators.base import GENERATORS, Generator, Proposal, Subject
from prunenas.ir.coupling import ChannelGroups, channel_places
from prunenas.ir.graph import Graph, Node
from prunenas.ir.ops import BatchNorm, Select
from prunenas.training.loop import Hooks


@GENERATORS.register("network_slimming")
@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSlimming(Generator):
    """Push batch-norm scales to zero while training, then keep the channels with large ones.

    The keep holds for all scored channels together: one strict threshold, so that
    ``int(n * (1 - keep)) + 1`` of ``n`` go where none are tied. A batch norm whose values go into a
    channel selection scores the selection, not its source: on PreResNet and DenseNet the trunk
    stays and the selections shrink. A coupled group's score is the mean over the batch norms on
    it; groups without a batch norm are left alone.

    Args:
        strength: Weight of the L1 penalty on the scales, added to their gradient as
            ``strength * sign(scale)``.

    Source: Liu et al. 2017, arXiv:1708.06519; 1e-4 for VGG, 1e-5 for PreResNet and DenseNet.
    """

    strength: float = 1e-4

    def __post_init__(self) -> None:
        if not 0 <= self.strength < math.inf:
            raise MethodError(
                f"network_slimming: strength is finite and not negative, got {self.strength}"
            )

    def hooks(self) -> Hooks:
        """Return the subgradient of the penalty, after every backward pass."""

        def penalise(network: Network) -> None:
            for _, scale in network.scales():
                if scale.grad is not None:
                    scale.grad.add_(scale.detach().sign(), alpha=self.strength)

        return Hooks(after_backward=penalise)

    def propose(self, subject: Subject) -> Proposal:
        """Return the channels whose scale exceeds the threshold."""
        scores = scale_scores(subject.trained, subject.groups)
        groups = [group for group in subject.groups.free if group.name in scores]
        if not groups:
            raise MethodError("network_slimming needs batch norms on free groups; there is none")
        kept, emptied = strict_threshold(scores, groups, subject.keep)
        return Proposal(selections=kept, scores=scores, kept_best=emptied)


def scale_scores(network: Network, groups: ChannelGroups) -> dict[str, NDArray[np.float64]]:
    """Return the absolute batch-norm scale of each channel ``[width]`` by group."""
    found: dict[str, list[NDArray[np.float64]]] = {}
    for node in network.graph.nodes:
        if isinstance(node.op, BatchNorm):
            scale = network.weight(node.name).abs().double().cpu().numpy()
            for name, score in _shares(network.graph, groups, node, scale):
                found.setdefault(name, []).append(score)
    return {name: np.mean(scores, axis=0) for name, scores in found.items()}


def _shares(
    graph: Graph, groups: ChannelGroups, node: Node, scale: NDArray[np.float64]
) -> Iterable[tuple[str, NDArray[np.float64]]]:
    """Return which part of one batch norm's scales scores which group."""
    readers = graph.readers[node.name]
    selects = [(r.name, r.op) for r in readers if isinstance(r.op, Select)]
    if selects and len(selects) == len(readers):
        return [(groups.axes[name][0].group, scale[[*op.indices]]) for name, op in selects]
    return [
        (name, scale[places].mean(axis=1))
        for name, places in channel_places(groups.axes[node.name], groups.widths)
    ]
