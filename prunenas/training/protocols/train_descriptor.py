"""The four ways to train what pruning found: from scratch twice, inherited, and rewound."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from prunenas.arch.descriptor import Descriptor, apply
from prunenas.arch.metrics import Metrics
from prunenas.build.inherit import inherit
from prunenas.build.initialise import build
from prunenas.build.network import Network
from prunenas.data.base import ImageSet
from prunenas.errors import DescriptorError, RecipeError
from prunenas.ir.graph import Graph
from prunenas.training.execution.engine import FAST, Engine, settle
from prunenas.training.follow import OnEpoch, Stop
from prunenas.training.keeping.checkpoint import Checkpoints
from prunenas.training.loop import OnTrained, check_fit, train_each
from prunenas.training.protocols.budgets import (
    Protocol,
    StepSeconds,
    check_cost,
    fine_tune,
    known_protocol,
    protocol_recipe,
)
from prunenas.training.protocols.step_seconds import step_seconds
from prunenas.training.recipe import Recipe


def train_descriptor(
    graph: Graph,
    descriptor: Descriptor,
    data: ImageSet,
    recipe: Recipe,
    *,
    protocol: Protocol,
    network: Network | None = None,
    initial_seed: int | None = None,
    fine_tuning: Recipe | None = None,
    cost: str = "repo_flops",
    cap: float | None = None,
    count_fine_tuning: int = 0,
    seconds: StepSeconds | None = None,
    seeds: Sequence[int] = (0,),
    device: torch.device | str = "cpu",
    held_out: bool = False,
    engine: Engine = FAST,
    checkpoints: Checkpoints | None = None,
    stop: Stop | None = None,
    on_epoch: OnEpoch | None = None,
    on_trained: OnTrained | None = None,
) -> Metrics:
    """Train what ``descriptor`` makes of ``graph`` under a protocol, once a seed.

    The result says its protocol and where the weights came from. Weights under a mask stay exactly
    zero, whichever the protocol.

    Args:
        graph: The reference.
        descriptor: Must tell for ``fine-tune`` and ``rewind`` which channels or weights are kept:
            widths alone do not say what to inherit.
        data: The data set.
        recipe: Budget and schedule of the reference. ``scratch-e`` and ``rewind`` take it as it
            is, ``scratch-b`` stretches its epochs, ``fine-tune`` makes 40 epochs at a constant
            0.001 of it.
        protocol: ``scratch-e``, ``scratch-b``, ``fine-tune`` or ``rewind``.
        network: The full-size network to inherit from; it is not changed. For ``fine-tune`` the
            trained reference, or what a method fitted anew (``Pruned.refit``). For ``rewind`` the
            reference as it was before its training, if ``initial_seed`` does not say it.
        initial_seed: For ``rewind``: the reference began as ``build(graph, seed=initial_seed)``.
            Where a method trained its reference itself, the descriptor's origin tells the seed.
        fine_tuning: Recipe of ``fine-tune`` instead of the one made of ``recipe``.
        cost: For ``scratch-b``, as in the function of that name. ``seconds`` are measured here,
            for ``device`` and ``engine``, if they are not given, and kept with the checkpoints.
        cap: Likewise.
        count_fine_tuning: For ``scratch-e`` and ``scratch-b``, as in the functions of that name.
        seconds: For ``scratch-b`` by ``seconds``: what ``step_seconds`` measured before.
        seeds: Each is the seed of a training: of its data order, augmentation and dropout, and
            where the weights are fresh of these too.
        device: Where to train.
        held_out: As in ``train``.
        engine: As in ``train``.
        checkpoints: As in ``train_seeds``.
        stop: As in ``train``.
        on_epoch: As in ``train``.
        on_trained: Called with each seed and its trained network.

    Raises:
        RecipeError: The protocol is unknown, or what it needs is not given, or what it cannot use
            is.
        DescriptorError: The descriptor does not fit, or does not tell what to inherit.
        DataError: As in ``train``.
        DivergenceError: As in ``train``.

    Source: Liu et al. 2019, arXiv:1810.05270, section 3 and appendix on the lottery ticket;
        Frankle and Carbin 2019, arXiv:1803.03635 (rewinding).
    """
    candidate, start, begin = prepared(
        graph,
        descriptor,
        data,
        protocol=protocol,
        network=network,
        initial_seed=initial_seed,
        fine_tuning=fine_tuning,
        cost=cost,
        cap=cap,
        count_fine_tuning=count_fine_tuning,
        seconds=seconds,
        device=device,
    )
    recipe = settle(recipe, device)
    if protocol == "fine-tune":
        chosen = fine_tuning or fine_tune(recipe)
    else:
        if protocol == "scratch-b" and cost == "seconds" and seconds is None:
            folder = None if checkpoints is None else checkpoints.folder
            seconds = step_seconds(
                graph, candidate, recipe, device=device, engine=engine, folder=folder
            )
        chosen = protocol_recipe(
            protocol,
            recipe,
            reference=graph,
            candidate=candidate,
            cost=cost,
            cap=cap,
            count_fine_tuning=count_fine_tuning,
            seconds=seconds,
        )
    metrics = train_each(
        begin,
        data,
        chosen,
        seeds=seeds,
        held_out=held_out,
        engine=engine,
        checkpoints=checkpoints,
        stop=stop,
        on_epoch=on_epoch,
        on_trained=on_trained,
    )
    return replace(metrics, protocol=protocol, start=start)


def prepared(
    graph: Graph,
    descriptor: Descriptor,
    data: ImageSet,
    *,
    protocol: Protocol,
    network: Network | None = None,
    initial_seed: int | None = None,
    fine_tuning: Recipe | None = None,
    cost: str = "repo_flops",
    cap: float | None = None,
    count_fine_tuning: int = 0,
    seconds: StepSeconds | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Graph, str, Callable[[int], Network]]:
    """Return what is trained, where its weights come from, and what makes it for each seed.

    Nothing is trained, measured or written: what ``train_descriptor`` would refuse is refused here.
    The arguments and errors are those of ``train_descriptor``.
    """
    _check(
        protocol,
        {
            "a network": network,
            "initial_seed": initial_seed,
            "fine_tuning": fine_tuning,
            "cap": cap,
            "count_fine_tuning": count_fine_tuning or None,
            "seconds": seconds,
        },
    )
    check_cost(cost)
    candidate = apply(graph, descriptor)
    check_fit(candidate, data)
    start, begin = _start(graph, descriptor, candidate, protocol, network, initial_seed, device)
    return candidate, start, begin


def first_seed(descriptor: Descriptor) -> int | None:
    """Return the seed that the reference began with, where a method built and trained it itself."""
    options = descriptor.origin.options if descriptor.origin else {}
    seed = options.get("seed")
    built = options.get("weights") in ("trained here", "fresh")
    return seed if built and isinstance(seed, int) else None


_USERS: Mapping[str, frozenset[str]] = {
    "a network": frozenset({"fine-tune", "rewind"}),
    "initial_seed": frozenset({"rewind"}),
    "fine_tuning": frozenset({"fine-tune"}),
    "cap": frozenset({"scratch-b"}),
    "count_fine_tuning": frozenset({"scratch-b", "scratch-e"}),
    "seconds": frozenset({"scratch-b"}),
}
"""What only some protocols can use."""


def _check(protocol: str, given: Mapping[str, object]) -> None:
    """Refuse what a protocol lacks or cannot use, all at once."""
    known_protocol(protocol)
    there = {what for what, value in given.items() if value is not None}
    faults = [
        f"{what} is for {' and '.join(sorted(users))}"
        for what, users in _USERS.items()
        if what in there and protocol not in users
    ]
    if protocol == "fine-tune" and "a network" not in there:
        faults.append("it starts from a trained network of the reference, which is not given")
    if {"a network", "initial_seed"} <= there and protocol == "rewind":
        faults.append("the initial weights are a network or a seed, not both")
    if faults:
        raise RecipeError(f"{protocol}: " + "; ".join(faults))


def _start(
    graph: Graph,
    descriptor: Descriptor,
    candidate: Graph,
    protocol: Protocol,
    network: Network | None,
    initial_seed: int | None,
    device: torch.device | str,
) -> tuple[str, Callable[[int], Network]]:
    """Return where the weights come from, in words, and what makes the network of each seed."""
    if protocol in ("scratch-e", "scratch-b"):
        return "fresh weights", lambda seed: build(candidate, seed=seed, device=device)
    words = "inherited weights" if protocol == "fine-tune" else "initial weights, given"
    if network is None:
        seed = first_seed(descriptor) if initial_seed is None else initial_seed
        if seed is None:
            raise RecipeError(
                "rewind: the descriptor does not tell which weights the reference began with: give "
                "its initial network, or initial_seed if it was built from one"
            )
        network, words = build(graph, seed=seed), f"initial weights, seed {seed}"
    try:
        inherited = inherit(network, descriptor).to(device)
    except DescriptorError as error:
        raise DescriptorError(
            f"{protocol} starts from the reference's weights: {error}; scratch-e and scratch-b do "
            "not need them"
        ) from None
    return words, lambda seed: copy.deepcopy(inherited)
