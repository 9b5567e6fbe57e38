"""Soft filter pruning: filters are set to zero while training goes on, and may return."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal, final, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from prunenas.arch.allocate import Scores, best, whole_count
from prunenas.build.network import Network
from prunenas.errors import MethodError
from prunenas.generators.base import GENERATORS, Generator, Proposal, Subject, need
from prunenas.generators.base.fit import fitted
from prunenas.generators.base.norms import filter_norms, norm_scores, projections
from prunenas.generators.base.scores import REDUCTIONS, Reduction
from prunenas.ir.coupling import ChannelGroup, channel_places, couple
from prunenas.ir.graph import Graph
from prunenas.ir.ops import Conv1d, Conv2d
from prunenas.training.hooks import Hooks
from prunenas.training.recipe import RECIPES, Recipe

Coupled = Literal["apart", "together"]


@GENERATORS.register("soft_filter")
@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SoftFilter(Generator):
    """Zero the filters with the smallest L2 norms after every epoch; they are trained on.

    After epochs every convolution of ``n`` filters has the ``int(n * (1 - keep))`` smallest set to
    zero (1, 3, 6 of 16, 32, 64 at 0.9). They are trained on like all others and may come back. The
    same is done once more when training has ended, on a copy: where the trained network is given,
    or the last epoch was not one of ``every``, that is where zeros come from, and ``zeroed_once``
    is found.

    As the source trains each convolution for itself, a channel that several of them produce can
    only go where all of them zeroed it: the actual keep of residual networks lies above the nominal
    one, and both are reported. Layers that are never zeroed (linear ones, projections, ``skip``)
    hold their channels. The last convolution, where it gives the scores, stays whole.

    A zero filter is not a removed one: the batch norm behind it still passes its shift on, and
    taking the channel out takes that shift too. The pruned network so differs from the zeroed one
    until it is trained further.

    Args:
        every: Epochs between two times of zeroing.
        at_start: Whether filters are zeroed before training too. The paper's algorithm zeroes
            after epochs only, where filters return in large steps, since a batch norm divides by
            the deviation of what it reads: short trainings from scratch converge slowly. The
            released code zeroes at the start, where behind it a fresh batch norm (shift 0) and a
            ReLU let no gradient through: such a filter never returns.
        coupled: ``apart``, each convolution for itself; ``together``, the channels of a group are
            zeroed in all its convolutions at once, so that they all can go.
        reduction: Score of a group over its convolutions, for ``together``: sum, mean, max, min,
            first.
        projections: Whether the 1x1 convolutions on shortcuts are zeroed too; the source does not.
        skip: Convolutions that are never zeroed; ``*`` and ``?`` as in file names.

    Source: He et al. 2018, arXiv:1808.06866, section 3, algorithm 1, and its released code. The
        count is exact where the code's falls short by the error of a float (10 at 0.9: 1, not 0).
    """

    recipe: ClassVar[Recipe] = RECIPES["paper_sfp"]

    every: int = 1
    at_start: bool = False
    coupled: Coupled = "apart"
    reduction: Reduction = "sum"
    projections: bool = False
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        need(
            "soft_filter",
            every=(self.every, self.every >= 1, "is a number of epochs from 1 on"),
            coupled=(
                self.coupled,
                self.coupled in get_args(Coupled),
                f"is {'/'.join(get_args(Coupled))}",
            ),
            reduction=(
                self.reduction,
                self.reduction in REDUCTIONS,
                f"is {'/'.join(REDUCTIONS)}",
            ),
            skip=(self.skip, isinstance(self.skip, tuple | list), "is a list of patterns"),
        )
        object.__setattr__(self, "skip", tuple(self.skip))

    def check(self, graph: Graph) -> None:
        """Refuse patterns that name no convolution, and a graph in which there is none to zero."""
        if not couple(graph).free:
            return
        known = _convolutions(graph)
        unknown = [p for p in self.skip if not any(fnmatchcase(name, p) for name in known)]
        if unknown:
            raise MethodError(
                f"soft_filter: skip: no convolution is called {', '.join(unknown)}; they are "
                f"{', '.join(known) or 'none'}"
            )
        taking_part, left = self._groups(graph)
        if not taking_part:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in left.items())
            raise MethodError(
                f"soft_filter can narrow no group: {reasons or 'there are only selections'}"
            )

    def hooks(self, keep: float | None) -> Hooks:
        """Return the zeroing after every ``every`` epochs, and before training where asked for."""
        if keep is None:
            raise MethodError("soft_filter needs keep, a fraction in (0, 1]")

        def zero(network: Network) -> None:
            self._zero(network, keep)

        def after(network: Network, epoch: int) -> None:
            if epoch % self.every == 0:
                self._zero(network, keep)

        facts = {"soft_filter": self, "keep": keep}
        before = zero if self.at_start else None
        return Hooks(before=before, after_epoch=after, facts=facts, in_place=True)

    def propose(self, subject: Subject) -> Proposal:
        """Return the channels that are not zero in every layer that produces them."""
        groups, network = subject.groups, subject.copy()
        zeroed_once = self._zero(network, subject.keep)
        taking_part, left = self._groups(network.graph)
        # Of a sum over all layers nothing is left only where every filter is zero.
        scores = {g.name: norm_scores(network, groups, g, 2, "sum") for g in taking_part}
        zeros = {name: _zeros(network, name) for name in self._zeroed(subject.graph)}
        found: dict[str, Any] = {
            "zero_filters": {name: int(z.sum()) for name, z in zeros.items()},
            "zeroed_once": zeroed_once,
        }
        return Proposal(
            selections={g.name: _still_there(g, scores[g.name]) for g in taking_part},
            scores=scores,
            nominal={name: float(1 - z.mean()) for name, z in zeros.items()},
            found=found | ({"left_alone": left} if left else {}),
            refit=network,
        )

    def _zeroed(self, graph: Graph) -> list[str]:
        """Return the convolutions that are zeroed."""
        spared = () if self.projections else projections(graph)
        return [
            name
            for name in _convolutions(graph)
            if name not in spared and not any(fnmatchcase(name, p) for p in self.skip)
        ]

    def _groups(self, graph: Graph) -> tuple[list[ChannelGroup], dict[str, str]]:
        """Return the groups whose channels may all be zeroed, and what holds each other one."""
        zeroed = {*self._zeroed(graph)}
        taking_part, left = [], {}
        for group in couple(graph).free:
            layers = dict.fromkeys(graph[member].weights or member for member in group.members)
            holding = [name for name in layers if name not in zeroed]
            if group.select:
                continue  # it follows its source
            if holding:
                left[group.name] = f"{', '.join(holding)}: never zeroed"
            else:
                taking_part.append(group)
        return taking_part, left

    def _zero(self, network: Network, keep: float) -> bool:
        """Set the smallest filters to zero, in place; return whether one was not zero before."""
        together = self.coupled == "together"
        gone = self._together(network, keep) if together else self._apart(network, keep)
        changed = False
        for name, places in gone.items():
            weight = network.weight(name)
            rows = torch.tensor(places, dtype=torch.long, device=weight.device)
            changed |= bool(weight[rows].any())
            weight.index_fill_(0, rows, 0.0)
        return changed

    def _apart(self, network: Network, keep: float) -> dict[str, list[int]]:
        """Return the filters to zero of every convolution, each for itself."""
        gone = {}
        for name in self._zeroed(network.graph):
            scores = filter_norms(network.weight(name).double(), 2).cpu().numpy()
            stays = best(scores, _kept(len(scores), keep))
            gone[name] = sorted({*range(len(scores))} - {*stays})
        return gone

    def _together(self, network: Network, keep: float) -> dict[str, list[int]]:
        """Return the filters to zero of every convolution, the same channels in all of a group."""
        graph = network.graph
        groups = couple(graph)
        taking_part, _ = self._groups(graph)
        scores = {g.name: norm_scores(network, groups, g, 2, self.reduction) for g in taking_part}
        selections = {g.name: _best_of(g, scores, keep) for g in taking_part}
        _, legal = fitted(graph, groups, Proposal(selections=selections, scores=scores))
        gone: dict[str, list[int]] = {name: [] for name in self._zeroed(graph)}
        for name, places in gone.items():
            for group, own in channel_places(groups.axes[name], groups.widths):
                lost = {*range(len(own))} - {*legal.get(group, range(len(own)))}
                places += [int(place) for channel in sorted(lost) for place in own[channel]]
        return gone


def _convolutions(graph: Graph) -> list[str]:
    """Return the dense and grouped convolutions whose outputs are all of free groups."""
    groups = couple(graph)
    free = {group.name for group in groups.free}
    return [
        node.name
        for node in graph.nodes
        if isinstance(node.op, Conv2d | Conv1d)
        and node.weights is None
        and all({*part.groups} and {*part.groups} <= free for part in groups.axes[node.name])
    ]


def _kept(width: int, keep: float) -> int:
    """Return how many of ``width`` filters are not zeroed: one at least."""
    # 20 * (1 - 0.9) falls short of the 2 that are meant.
    return max(1, width - whole_count(width, 1 - keep))


def _best_of(group: ChannelGroup, scores: Scores, keep: float) -> tuple[int, ...]:
    """Return the best channels of a group; a divisor that does not fit keeps more."""
    count = -(-_kept(group.width, keep) // group.divisor) * group.divisor
    return best(scores[group.name], count)


def _zeros(network: Network, name: str) -> NDArray[np.bool_]:
    """Return which filters of a layer are zero ``[out]``."""
    gone: NDArray[np.bool_] = (~network.weight(name).flatten(1).any(dim=1)).cpu().numpy()
    return gone


def _still_there(group: ChannelGroup, scores: NDArray[np.float64]) -> tuple[int, ...]:
    """Return the channels that some layer of the group has not zeroed, as a divisor allows.

    Equal parts stay equally wide: as wide as the widest of them.
    """
    parts = scores.reshape(group.divisor, -1)
    each = max(1, int((parts > 0).sum(axis=1).max()))
    size = parts.shape[1]
    return tuple(part * size + i for part in range(len(parts)) for i in best(parts[part], each))
