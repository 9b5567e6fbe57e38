"""ThiNet: channels that the next layer can do without, found on sampled responses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunenas.build.network import Network
from prunenas.build.silence import silence
from prunenas.errors import MethodError
from prunenas.generators.base import GENERATORS, Generator, Proposal, Subject, is_amount, need
from prunenas.generators.base.least_squares import nearest_solution
from prunenas.generators.base.readers import (
    NOBODY,
    WHOLE,
    Plan,
    Reader,
    Whole,
    lost,
    plan,
    tied_by_place,
)
from prunenas.generators.base.responses import (
    contributions,
    dense_kernel,
    locations,
    sampled,
    scale_inputs,
    scored_images,
    silence_the_rest,
)
from prunenas.ir.coupling import ChannelGroup
from prunenas.ir.draw import uniform
from prunenas.training.hooks import Hooks
from prunenas.training.protocols.budgets import fine_tune

_Grams = Mapping[str, tuple[Tensor, float]]
"""By layer: what channels contribute, multiplied pair by pair and summed over all samples
``[width width]``, and the summed square of the layer's responses, its bias left out."""


def discard_order(
    gram: NDArray[np.float64],
    discards: int,
    *,
    parts: int = 1,
    go: Sequence[int] = (),
    stay: Sequence[int] = (),
) -> tuple[int, ...]:
    """Return all channels in the order in which they are discarded.

    At each step the channel goes with which the sum of all discarded columns has the smallest
    norm; the first of several that tie.

    Args:
        gram: Products of every two columns of contributions ``[width width]``.
        discards: How many are discarded in earnest: equally many of each part.
        parts: Into how many equal parts the channels are cut.
        go: Channels that are discarded before all others.
        stay: Channels that are discarded after all others.

    Source: Luo et al. 2017, arXiv:1707.06342, algorithm 1.
    """
    width = len(gram)
    quota = np.full(parts, discards // parts)
    free = np.ones(width, dtype=np.bool_)
    part = np.arange(width) * parts // width
    must_go, must_stay = np.isin(np.arange(width), [*go]), np.isin(np.arange(width), [*stay])
    norm, products = 0.0, np.zeros(width)
    order: list[int] = []
    while len(order) < width:
        # From the narrowest choice to the widest: the first that is not empty.
        allowed = next(
            choice
            for choice in (
                free & must_go,
                free & ~must_stay & (quota[part] > 0),
                free & ~must_stay,
                free,
            )
            if choice.any()
        )
        channel = int(np.argmin(np.where(allowed, norm + 2 * products + np.diag(gram), np.inf)))
        norm += 2 * products[channel] + gram[channel, channel]
        products = products + gram[channel]
        quota[part[channel]] -= 1
        free[channel] = False
        order.append(channel)
    return tuple(order)


@GENERATORS.register("thinet")
@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ThiNet(Generator):
    """Discard the channels whose contributions to the next layers cancel best, layer by layer.

    Layers are taken in forward order, and see the inputs that the network gives them that is
    pruned so far. From drawn images, locations and outputs of every layer that reads a group comes
    one row a sample: what each channel contributes to that output there. Channels are discarded
    one by one so that the squared norm of the sum of the discarded columns stays smallest, until
    ``int(w * keep)`` of ``w`` are left, at least the divisor. Then least squares finds a factor
    for every kept channel, which goes into the kernels of the layers that read it.

    Where several layers read a group (a residual trunk, a squeeze-excite gate beside its image),
    the rows of all of them count, each layer's divided by the root of its mean squared response,
    and each layer has factors of its own. Groups that no convolution or linear layer reads are
    left alone and listed in ``found``. Where the kept channels leave factors open, these are the
    ones nearest to 1. Behind a shortcut that appends channels the wider group keeps, of those that
    the shortcut reaches, what the narrower one keeps.

    Args:
        images: Images to sample, of the training images less the validation part; all if there
            are fewer. The source takes 10 of each of 1000 classes.
        locations: Samples of each image and layer, each a random location and output.
        refit: Whether the factors are found and put into the kernels.
        whole: Which groups stay whole. ``selected``: those that channel selections choose from,
            whose selections are cut instead. ``joined``: also those that additions join, as the
            source leaves the outputs and shortcuts of residual blocks. ``none``: none.
        tune_epochs: Epochs of training after every layer; the source's 1 to 2 cost more than all
            the rest.
        tune_lr: Constant learning rate of that training.

    Source: Luo et al. 2017, arXiv:1707.06342, sections 3.2 and 3.3; learning rate and samples as
    in the released code.
    """

    reads: ClassVar[bool] = True

    images: int = 5000
    locations: int = 10
    refit: bool = True
    whole: Whole = "selected"
    tune_epochs: int = 0
    tune_lr: float = 0.001

    def __post_init__(self) -> None:
        need(
            "thinet",
            images=(self.images, self.images >= 1, "is at least 1"),
            locations=(self.locations, self.locations >= 1, "is at least 1"),
            whole=(self.whole, self.whole in WHOLE, f"is one of {', '.join(WHOLE)}"),
            tune_epochs=(self.tune_epochs, self.tune_epochs >= 0, "is not negative"),
            tune_lr=(
                self.tune_lr,
                is_amount(self.tune_lr) and self.tune_lr > 0,
                "is positive and finite",
            ),
        )

    def propose(self, subject: Subject) -> Proposal:
        """Return the kept channels of every group that dense layers read."""
        graph, groups = subject.graph, subject.groups
        planned = plan(graph, groups, subject.keep, self.whole)
        if not planned.readers:
            raise MethodError(f"thinet has nothing to prune: {_told(planned.left_alone)}")
        working = subject.copy()
        gone: dict[str, tuple[int, ...]] = {}
        selections, scores, errors = {}, {}, {}
        for name in (name for _, decided in planned.turns(graph) for name in decided):
            tied = tied_by_place(graph, groups, name, gone)
            grams = self._look(subject, working, planned, name)
            order = _ordered(grams, groups[name], planned.counts[name], tied)
            selections[name] = tuple(sorted(order[groups[name].width - planned.counts[name] :]))
            scores[name] = np.argsort(order).astype(np.float64)
            factors = _factors(grams, selections[name], refit=self.refit)
            errors[name] = _errors(grams, selections[name], factors)
            _scale(working, planned.readers[name], factors)
            removed = tuple(sorted({*order} - {*selections[name]}))
            gone = lost(graph, groups, {**gone, name: removed})
            silence(working, groups, gone)
            self._tune(subject, working, gone)
        proposal = Proposal(
            selections=selections,
            scores=scores,
            kept_best=planned.kept_best,
            found={"left_alone": dict(planned.left_alone), "errors": errors},
            refit=working if self.refit or self.tune_epochs else None,
        )
        silence_the_rest(graph, groups, proposal, working)
        return proposal

    def _look(self, subject: Subject, working: Network, planned: Plan, name: str) -> _Grams:
        """Return the contributions of a group's channels to all layers that read it."""
        graph, width = subject.graph, subject.groups[name].width
        readers = {reader.node: reader for reader in planned.readers[name]}
        count = scored_images(subject, self.images)
        kernels = {reader.layer: dense_kernel(working, reader.layer) for reader in readers.values()}
        where = {
            node: locations(graph, node, count, self.locations, seed=subject.seed)
            for node in readers
        }
        grams: dict[str, tuple[Tensor, float]] = {}
        outputs = {
            node: self._outputs(len(kernels[readers[node].layer]), node, count, subject)
            for node in readers
        }
        for node, (read,), rows in sampled(subject, (working,), where, count):
            reader = readers[node]
            drawn = outputs[node][rows].to(read.device)
            found = contributions(read, kernels[reader.layer], drawn, reader.owners, width)
            mine = found[:, :-1]
            gram, energy = grams.get(reader.layer, (0.0, 0.0))
            energy += float(found.sum(dim=1).square().sum())
            grams[reader.layer] = (gram + mine.T @ mine, energy)
        return grams

    def _outputs(self, width: int, node: str, images: int, subject: Subject) -> Tensor:
        """Return one output of a layer for every sample ``[images x locations]``."""
        stream = f"outputs of {node}"
        drawn = uniform(images * self.locations, seed=subject.seed, stream=stream)
        return torch.from_numpy((drawn * width).astype(np.int64))

    def _tune(
        self, subject: Subject, working: Network, gone: Mapping[str, tuple[int, ...]]
    ) -> None:
        """Train what is left for a while; what is gone stays silent."""
        if not self.tune_epochs:
            return
        recipe = fine_tune(subject.recipe, epochs=self.tune_epochs, lr=self.tune_lr)

        def keep_silent(network: Network, _: object) -> None:
            silence(network, subject.groups, gone)

        subject.train(working, recipe, Hooks(after_step=keep_silent, in_place=True))
        working.eval().zero_grad(set_to_none=True)


def _ordered(
    grams: _Grams, group: ChannelGroup, count: int, tied: tuple[Sequence[int], Sequence[int]]
) -> tuple[int, ...]:
    """Return the order of discards over all layers, each divided by the scale of its response."""
    total = np.zeros((group.width, group.width))
    for gram, energy in grams.values():
        if energy > 0:
            total += (gram / energy).cpu().numpy()
    return discard_order(total, group.width - count, parts=group.divisor, go=tied[0], stay=tied[1])


def _factors(grams: _Grams, kept: Sequence[int], *, refit: bool) -> dict[str, Tensor]:
    """Return by layer the factor of each channel ``[width]``; those of discarded ones are 0.

    They minimise what the kept columns, each times its factor, miss of the sum of all columns.
    """
    factors = {}
    for layer, (gram, _) in grams.items():
        own = gram.new_zeros(len(gram))
        own[[*kept]] = 1.0
        if refit:
            missing = gram[[*kept]] @ (1 - own)
            own[[*kept]] += nearest_solution(gram[[*kept]][:, [*kept]], missing)
        factors[layer] = own
    return factors


def _errors(grams: _Grams, kept: Sequence[int], factors: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the squared error of the group's contribution, relative, without and with refit."""
    missed = {"cut": 0.0, "refit": 0.0}
    whole = 0.0
    for layer, (gram, energy) in grams.items():
        if energy <= 0:
            continue
        every = gram.new_ones(len(gram))
        cut = every.clone()
        cut[[*kept]] = 0.0
        left = {"cut": cut, "refit": every - factors[layer]}
        whole += float(every @ gram @ every) / energy
        for name, column in left.items():
            missed[name] += float(column @ gram @ column) / energy
    return {name: round(error / whole, 6) if whole else 0.0 for name, error in missed.items()}


def _scale(network: Network, readers: Sequence[Reader], factors: Mapping[str, Tensor]) -> None:
    """Put the factors of the group's channels into the kernels of the layers that read it."""
    owners = {reader.layer: reader.owners for reader in readers}
    for layer, of_channel in factors.items():
        at_places = torch.ones(len(owners[layer]), dtype=torch.float64)
        mine = owners[layer] != NOBODY
        at_places[torch.from_numpy(mine)] = of_channel.cpu()[owners[layer][mine]]
        scale_inputs(network, layer, at_places.to(of_channel.device))


def _told(left_alone: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in left_alone.items())
