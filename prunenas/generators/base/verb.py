"""The verbs: a method's name and a reference in, what it found out."""

import math
from dataclasses import dataclass, fields
from typing import Any, final

import torch

from prunenas.arch.descriptor import Descriptor, Origin, check_keep, reached_keep
from prunenas.build.inherit import inherit
from prunenas.build.initialise import build
from prunenas.build.network import Network
from prunenas.data.base import ImageSet
from prunenas.errors import KeepError, MethodError
from prunenas.generators.base.fit import fitted
from prunenas.generators.base.method import (
    Generator,
    Proposal,
    Subject,
    kept_in,
    make_generator,
)
from prunenas.ir.blocks import blocks
from prunenas.ir.canonical import digest, encode
from prunenas.ir.coupling import ChannelGroups, couple
from prunenas.ir.graph import Graph
from prunenas.ir.masks import kept_weights, sparsity_of
from prunenas.ir.ops import Conv2d, ExactMask, KernelSparsity
from prunenas.training.execution.engine import settle
from prunenas.training.follow import OnEpoch, Stop
from prunenas.training.keeping.checkpoint import Checkpoints
from prunenas.training.loop import check_fit, train
from prunenas.training.recipe import Recipe


@final
@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What a method found, and the weights that it looked at.

    Args:
        descriptor: The architecture.
        reference: The network that was looked at, trained here or given; None where the method
            looks at the graph alone, or only at networks of its own.
        refit: The same with weights that the method fitted anew for what is kept; None where it
            fits none.
    """

    descriptor: Descriptor
    reference: Network | None
    refit: Network | None = None

    def network(self) -> Network:
        """Return the pruned network with the weights that remain: where fine-tuning starts.

        Raises:
            MethodError: The method looked at no weights.
            DescriptorError: The method tells widths without telling channels.
        """
        source = self.refit or self.reference
        if source is None:
            raise MethodError("the method looked at no weights, so there are none to inherit")
        return inherit(source, self.descriptor)


def generate(
    method: str,
    graph: Graph,
    data: ImageSet | None = None,
    *,
    keep: float | None = None,
    recipe: Recipe | None = None,
    seed: int = 0,
    network: Network | None = None,
    device: torch.device | str = "cpu",
    checkpoints: Checkpoints | None = None,
    stop: Stop | None = None,
    on_epoch: OnEpoch | None = None,
    **options: Any,
) -> Descriptor:
    """Return the architecture that a pruning method finds in ``graph``.

    The arguments and errors are those of ``prune``, which returns the weights too.
    """
    return prune(
        method,
        graph,
        data,
        keep=keep,
        recipe=recipe,
        seed=seed,
        network=network,
        device=device,
        checkpoints=checkpoints,
        stop=stop,
        on_epoch=on_epoch,
        **options,
    ).descriptor


def prune(
    method: str,
    graph: Graph,
    data: ImageSet | None = None,
    *,
    keep: float | None = None,
    recipe: Recipe | None = None,
    seed: int = 0,
    network: Network | None = None,
    device: torch.device | str = "cpu",
    checkpoints: Checkpoints | None = None,
    stop: Stop | None = None,
    on_epoch: OnEpoch | None = None,
    **options: Any,
) -> Pruned:
    """Return the architecture that a pruning method finds in ``graph``, and the weights behind it.

    Args:
        method: Name of the method.
        graph: The reference.
        data: For methods that train or look at images: they see the training set less its
            validation part, which judges. The test set stays unread.
        keep: Fraction to keep, in (0, 1], of what the method counts: channels, weights, blocks
            or parts of convolutions. 1 is the identity and trains nothing. None where an option of
            the method says how much.
        recipe: How to train the reference; the method's own by default.
        seed: Seed of weights, training and draws.
        network: A trained reference to look at instead of training one; it is not changed.
        device: Where to train.
        checkpoints: Where trainings are kept on disk: the same call goes on where it was cut
            short, and finished ones come back at once. One whose hooks may remember things begins
            anew.
        stop: Asked after every step of a training; where it says so, ``StoppedError`` is raised.
        on_epoch: Called after every epoch.
        options: The method's own.

    Raises:
        UnknownNameError: No such method.
        KeepError: ``keep`` is outside (0, 1], missing, or given beside an option that says it.
        MethodError: Unknown options, or nothing to train on, to look at or to prune.
        BudgetError: A method that never exceeds ``keep`` cannot get down to it.
        DataError: The data does not fit the graph.
    """
    generator = make_generator(method, **options)
    _check_keep(method, generator, keep)
    groups = couple(graph)
    # What is told is what is done: where the device leaves a choice, it is made here.
    recipe = settle(recipe or generator.recipe, _device(network, device))
    told = {name: encode(value) for name, value in _options(generator).items()} | {"seed": seed}
    if network is not None and digest(network.graph) != digest(graph):
        raise MethodError(
            f"the network is of the graph {digest(network.graph)}, the reference is {digest(graph)}"
        )
    if keep == 1:
        origin = Origin(method=method, keep=keep, reached=1.0, options=told)
        identity = Descriptor(reference=digest(graph), origin=origin)
        return Pruned(descriptor=identity, reference=network)
    generator.check(graph)
    if not groups.free and generator.counts == "channels":
        fixed = "; ".join(f"{group.name}: {group.fixed}" for group in groups)
        raise MethodError(f"{method} has nothing to prune, every group is fixed: {fixed}")
    _check_data(method, generator, graph, data, network)
    told |= _circumstances(generator, data, recipe, network)
    given = network
    if network is None and generator.looks_at != "graph":
        network = build(graph, seed=seed, device=device)
        if generator.looks_at == "trained":
            assert data is not None, "checked above"
            hooks = generator.hooks(keep)
            reached = train(
                network,
                data,
                recipe,
                seed=seed,
                held_out=True,
                hooks=hooks,
                checkpoints=kept_in(checkpoints, network, recipe, hooks),
                stop=stop,
                on_epoch=on_epoch,
            )
            told |= {"accuracy": reached.accuracy}
    if data is not None and network is not None:
        # Once here, and not each time that the method looks at images.
        data = data.to(next(network.parameters()).device)
    proposal = generator.propose(
        Subject(
            graph=graph,
            groups=groups,
            asked=keep,
            seed=seed,
            network=network,
            data=data,
            recipe=recipe,
            given=given is not None,
            checkpoints=checkpoints,
            stop=stop,
            on_epoch=on_epoch,
        )
    )
    told_of = Origin(method=method, keep=keep, options=told)
    descriptor = _descriptor(graph, groups, generator, proposal, told_of, seed)
    # Where an own training begins with fresh weights, nobody looked at these.
    looked_at = given if generator.looks_at == "own" else network
    return Pruned(descriptor=descriptor, reference=looked_at, refit=proposal.refit)


def _device(network: Network | None, device: torch.device | str) -> torch.device | str:
    return device if network is None else next(network.parameters()).device


def _circumstances(
    generator: Generator, data: ImageSet | None, recipe: Recipe, network: Network | None
) -> dict[str, Any]:
    """Return where the weights come from, and what was read and trained with, as JSON values."""
    here = {"trained": "trained here", "initial": "fresh", "own": "fresh", "graph": None}
    weights = here[generator.looks_at] if network is None else "given"
    trains = generator.looks_at == "own" or weights == "trained here"
    told = {
        "weights": weights,
        "data": data.name if data and (trains or generator.reads) else None,
        "recipe": encode(recipe) if trains else None,
    }
    return {name: value for name, value in told.items() if value is not None}


def _check_keep(method: str, generator: Generator, keep: float | None) -> None:
    option = generator.says_how_much
    if keep is not None:
        check_keep(keep)
    if keep is None and option is None:
        raise KeepError(f"{method} needs keep, a fraction in (0, 1]")
    if keep is not None and option is not None:
        raise KeepError(f"{method}: {option} says how much is kept, so {keep=} cannot; leave one")


def _check_data(
    method: str,
    generator: Generator,
    graph: Graph,
    data: ImageSet | None,
    network: Network | None,
) -> None:
    trains = generator.looks_at == "trained" and network is None
    if data is not None and (trains or generator.reads or generator.looks_at == "own"):
        check_fit(graph, data)
    elif trains:
        raise MethodError(f"{method} trains the reference: give it data, or a trained network")
    elif data is None and generator.looks_at == "own":
        raise MethodError(f"{method} trains by itself: give it data")
    elif data is None and generator.reads:
        raise MethodError(f"{method} looks at images: give it data")


def _options(generator: Generator) -> dict[str, Any]:
    return {f.name: getattr(generator, f.name) for f in fields(generator)}


def _descriptor(
    graph: Graph,
    groups: ChannelGroups,
    generator: Generator,
    proposal: Proposal,
    told: Origin,
    seed: int,
) -> Descriptor:
    widths, selections = fitted(graph, groups, proposal)
    masks = {name: ExactMask.of(kept) for name, kept in proposal.masks.items()}
    parts = {name: _parts(graph, name) for name in proposal.part_counts}
    every = widths | {name: len(kept) for name, kept in selections.items()}
    reached = {
        "channels": lambda: reached_keep(groups, every),
        "weights": lambda: _reached_weights(graph, proposal, seed),
        "blocks": lambda: 1 - len(proposal.dropped) / len(blocks(graph)),
        "parts": lambda: sum(proposal.part_counts.values()) / sum(parts.values()),
    }
    return Descriptor(
        reference=digest(graph),
        widths=widths,
        selections=selections,
        dropped=proposal.dropped,
        part_counts={n: c for n, c in proposal.part_counts.items() if c != parts[n]},
        densities=proposal.densities,
        masks=masks,
        seed=seed,
        origin=Origin(
            method=told.method,
            keep=told.keep,
            reached=reached[generator.counts](),
            kept_best=proposal.kept_best,
            options=told.options,
            nominal=proposal.nominal,
            found=proposal.found,
        ),
    )


def _parts(graph: Graph, name: str) -> int:
    """Return how many parts a convolution has."""
    op = graph[name].op
    assert isinstance(op, Conv2d), "methods count parts of convolutions"
    return op.groups


def _reached_weights(graph: Graph, proposal: Proposal, seed: int) -> float:
    """Return kept / all weights of the layers that the method masks.

    Those that a mask of the reference has removed are none of them.
    """
    shapes = graph.parameters()
    kept = full = 0
    for name in {**proposal.masks, **proposal.densities}:
        shape, before = shapes[f"{name}.weight"], sparsity_of(graph[name].op)
        if name in proposal.masks:
            kept += int(proposal.masks[name].sum())
        else:
            pattern = KernelSparsity(density=proposal.densities[name], seed=seed)
            kept += kept_weights(pattern, shape, name)
        full += math.prod(shape) if before is None else kept_weights(before, shape, name)
    return kept / full if full else 1.0
