"""What every pruning method is: a generator of descriptors."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray

from prunenas.arch.allocate import Scores, best
from prunenas.arch.descriptor import (
    Descriptor,
    Origin,
    check_keep,
    kept_positions,
    reached_keep,
    within_bounds,
)
from prunenas.build.initialise import build
from prunenas.build.network import Network
from prunenas.data.base import ImageData
from prunenas.errors import MethodError
from prunenas.ir.canonical import digest, encode
from prunenas.ir.coupling import ChannelGroup, ChannelGroups, couple
from prunenas.ir.graph import Graph
from prunenas.ir.ops import Select
from prunenas.registry import Registry
from prunenas.training.loop import Hooks, OnEpoch, train
from prunenas.training.recipe import Recipe


@final
@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a method looks at.

    Args:
        graph: The reference.
        groups: Its groups.
        keep: The keep that is asked for, in (0, 1).
        seed: Seed of whatever the method draws.
        network: The trained reference; None for methods that need none.
    """

    graph: Graph
    groups: ChannelGroups
    keep: float
    seed: int
    network: Network | None = None

    @property
    def trained(self) -> Network:
        """The trained reference.

        Raises:
            MethodError: There is none.
        """
        if self.network is None:
            raise MethodError("this method looks at a trained network, and has none")
        return self.network


@final
@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What a method wants.

    Args:
        widths: New width by group, where the method does not say which channels.
        selections: Kept channels by group, ascending.
        scores: Score of each channel by group, for those in ``selections``: where a bound of the
            graph asks for fewer channels than the method kept, the lowest scores go.
        kept_best: Groups that the method would have emptied.
        dropped: Residual blocks to leave out.
    """

    widths: Mapping[str, int] = field(default_factory=dict)
    selections: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    scores: Scores = field(default_factory=dict)
    kept_best: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Generator(ABC):
    """A pruning method. Its options are the fields of its dataclass.

    ``generate`` makes one, trains the reference with its ``hooks`` if it ``trains``, and asks it
    to ``propose`` once. A method never sees the test set, never changes the caller's network, and
    draws only from ``Subject.seed``.
    """

    trains: ClassVar[bool] = True
    """Whether the method looks at a trained network."""

    def hooks(self) -> Hooks:
        """Return what the method adds to the training of the reference."""
        return Hooks()

    @abstractmethod
    def propose(self, subject: Subject) -> Proposal:
        """Return what to keep; fixed groups are not named, divisors are respected."""


GENERATORS: Registry[type[Generator]] = Registry("method", "prunenas.generators")


def generate(
    method: str,
    graph: Graph,
    data: ImageData | None = None,
    *,
    keep: float,
    recipe: Recipe | None = None,
    seed: int = 0,
    network: Network | None = None,
    device: torch.device | str = "cpu",
    on_epoch: OnEpoch | None = None,
    **options: Any,
) -> Descriptor:
    """Return the architecture that a pruning method finds in ``graph``.

    Args:
        method: Name of the method.
        graph: The reference.
        data: For methods that train: they see the training set less its validation part, which
            judges. The test set stays unread.
        keep: Fraction of channels to keep, in (0, 1]; 1 is the identity and trains nothing.
        recipe: How to train the reference; the paper's by default.
        seed: Seed of weights, training and draws.
        network: A trained reference to look at instead of training one; it is not changed.
        device: Where to train.
        on_epoch: Called after every epoch.
        options: The method's own.

    Raises:
        UnknownNameError: No such method.
        KeepError: ``keep`` is outside (0, 1].
        MethodError: Unknown options, or nothing to train on, to look at or to prune.
        BudgetError: A method that never exceeds ``keep`` cannot get down to it.
        DataError: The data does not fit the graph.
    """
    generator = make_generator(method, **options)
    check_keep(keep)
    groups = couple(graph)
    told = {name: encode(value) for name, value in _options(generator).items()} | {"seed": seed}
    if keep == 1:
        origin = Origin(method=method, keep=keep, reached=1.0, options=told)
        return Descriptor(reference=digest(graph), origin=origin)
    if not groups.free:
        fixed = "; ".join(f"{group.name}: {group.fixed}" for group in groups)
        raise MethodError(f"{method} has nothing to prune, every group is fixed: {fixed}")
    if generator.trains and network is None:
        if data is None:
            raise MethodError(f"{method} trains the reference: give it data, or a trained network")
        recipe = recipe or Recipe()
        network = build(graph, seed=seed, device=device)
        reached = train(
            network,
            data,
            recipe,
            seed=seed,
            held_out=True,
            hooks=generator.hooks(),
            on_epoch=on_epoch,
        )
        told |= {"data": data.name, "recipe": encode(recipe), "accuracy": reached.accuracy}
    elif network is not None and digest(network.graph) != digest(graph):
        raise MethodError(
            f"the network is of the graph {digest(network.graph)}, the reference is {digest(graph)}"
        )
    proposal = generator.propose(
        Subject(graph=graph, groups=groups, keep=keep, seed=seed, network=network)
    )
    return _descriptor(graph, groups, proposal, method, keep, seed, told)


def make_generator(method: str, **options: Any) -> Generator:
    """Return the method called ``method`` with its options set.

    Raises:
        UnknownNameError: No such method.
        MethodError: It has no such option; the message lists those it has.
    """
    kind = GENERATORS[method]
    known = [f.name for f in fields(kind)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise MethodError(
            f"{method} has no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}"
        )
    return kind(**options)


def _options(generator: Generator) -> dict[str, Any]:
    return {f.name: getattr(generator, f.name) for f in fields(generator)}


def _descriptor(
    graph: Graph,
    groups: ChannelGroups,
    proposal: Proposal,
    method: str,
    keep: float,
    seed: int,
    options: Mapping[str, Any],
) -> Descriptor:
    widths, selections = _fitted(graph, groups, proposal)
    every = widths | {name: len(kept) for name, kept in selections.items()}
    return Descriptor(
        reference=digest(graph),
        widths=widths,
        selections=selections,
        dropped=proposal.dropped,
        seed=seed,
        origin=Origin(
            method=method,
            keep=keep,
            reached=reached_keep(groups, every),
            kept_best=proposal.kept_best,
            options=options,
        ),
    )


def _fitted(
    graph: Graph, groups: ChannelGroups, proposal: Proposal
) -> tuple[dict[str, int], dict[str, tuple[int, ...]]]:
    """Return the proposal fitted to divisors and bounds: widths alone, and kept channels."""
    asked = dict(proposal.widths) | {name: len(kept) for name, kept in proposal.selections.items()}
    fitted = within_bounds(groups, asked)
    alone = proposal.widths.keys() - proposal.selections
    told = Descriptor(reference=digest(graph), widths={name: fitted[name] for name in alone})
    # What a selection reads is known only when its source's channels are, so sources go first.
    for group in sorted(groups.free, key=lambda group: group.select):
        if group.name in alone:
            continue
        if group.select:
            kept = _readable(graph, groups, group, told, proposal)
        else:
            kept = _resized(group, fitted[group.name], proposal)
        if kept is not None:
            told = replace(told, selections={**told.selections, group.name: kept})
        else:
            width = len(proposal.selections.get(group.name, range(group.width)))
            bounded = within_bounds(groups, {**told.widths, group.name: width})[group.name]
            told = replace(told, widths={**told.widths, group.name: bounded})
    full = groups.widths
    return (
        {n: w for n, w in told.widths.items() if w != full[n] and n not in told.selections},
        {name: kept for name, kept in told.selections.items() if len(kept) != full[name]},
    )


def _resized(group: ChannelGroup, width: int, proposal: Proposal) -> tuple[int, ...] | None:
    """Return the proposed channels of a group, or its ``width`` best."""
    everything = tuple(range(group.width))
    wanted = proposal.selections.get(group.name, everything)
    if len(wanted) == width and group.divisor == 1:
        return wanted
    scores = proposal.scores.get(group.name, np.zeros(group.width))
    return _evenly(scores, everything, width // group.divisor, group.divisor)


def _readable(
    graph: Graph,
    groups: ChannelGroups,
    group: ChannelGroup,
    told: Descriptor,
    proposal: Proposal,
) -> tuple[int, ...] | None:
    """Return which of a selection's proposed channels its sources still have.

    Where they have none of them, the best that they have; None where that cannot be told.
    """
    there = {*range(group.width)}
    for member in group.members:
        node = graph[member]
        left = kept_positions(groups.read(node), groups, told)
        if not isinstance(node.op, Select) or left is None:
            return None
        remaining = {*left}
        there &= {i for i, channel in enumerate(node.op.indices) if channel in remaining}
    both = [i for i in proposal.selections.get(group.name, range(group.width)) if i in there]
    size = group.width // group.divisor
    each = min(sum(i // size == part for i in both) for part in range(group.divisor))
    scores = proposal.scores.get(group.name, np.zeros(group.width))
    return _evenly(scores, both if each else sorted(there), max(each, 1), group.divisor)


def _evenly(
    scores: NDArray[np.float64], there: Sequence[int], each: int, parts: int
) -> tuple[int, ...] | None:
    """Return the ``each`` best of what is ``there`` in every one of ``parts`` equal parts.

    The filters of a grouped convolution cannot change their part, and parts stay equally wide.
    None where a part has too few.
    """
    size = len(scores) // parts
    kept: list[int] = []
    for part in range(parts):
        own = [i for i in there if i // size == part]
        if len(own) < each:
            return None
        kept += [own[i] for i in best(scores[own], each)]
    return tuple(kept)
