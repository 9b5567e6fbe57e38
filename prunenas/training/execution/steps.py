"""One step of a training: gradients of a batch, and the update; plainly, or replayed on CUDA."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD

from prunenas.build.capture import CudaRecorder, Recorded, Recorder, Work, beside
from prunenas.build.execution import Layout
from prunenas.build.network import Network
from prunenas.errors import InputError
from prunenas.training.batches.base import Batches, Draw, split
from prunenas.training.execution.distributed import SOLO, Team
from prunenas.training.execution.engine import precision
from prunenas.training.recipe import Recipe

_WARM_UP = 2
"""Steps done before one is recorded: libraries make their handles and choose algorithms then."""


class Steps(ABC):
    """What the loop does with each batch. Between the two calls it may look at the gradients."""

    @abstractmethod
    def gradients(self, draw: Draw, images: int | None = None) -> Tensor:
        """Leave the gradients of a batch's mean loss in the network; return the loss.

        The next call may overwrite what is returned.

        Args:
            draw: Of the batch, or of this process's share of it.
            images: Of the whole batch, where the draw is a share. The gradients are those of the
                whole batch's mean loss all the same; the losses of all shares add up to it.
        """

    @abstractmethod
    def update(self, rate: float) -> None:
        """Change the weights by the gradients, at this learning rate."""


@final
class EagerSteps(Steps):
    """Steps done one call after another, on any device.

    Args:
        network: What is trained.
        forward: The network, or what computes it: a compiled one, say.
        optimizer: Of its weights.
        batches: Makes images of draws.
        recipe: Says smoothing and precision.
        layout: Order of the images in memory.
        parts: Parts that each batch, or this process's share of it, is cut into.
        team: The processes whose gradients ``forward`` brings together, as their mean.
        apart: Makes the context of a part whose gradients wait for those of the next.
    """

    def __init__(
        self,
        network: Network,
        optimizer: SGD,
        batches: Batches,
        recipe: Recipe,
        *,
        forward: Callable[[Tensor], Tensor] | None = None,
        layout: Layout = "contiguous",
        parts: int = 1,
        team: Team = SOLO,
        apart: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.network, self.optimizer = network, optimizer
        self._forward = network if forward is None else forward
        self._team, self._apart = team, apart
        self._batches, self._recipe, self._layout, self._parts = batches, recipe, layout, parts

    def gradients(self, draw: Draw, images: int | None = None) -> Tensor:
        """Leave the gradients of a batch's mean loss in the network; return the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        # The mean over the processes is taken of the gradients, and not of the loss.
        whole, size = images or len(draw[0]), self._team.size
        for place, part in enumerate(split(draw, self._parts), start=1):
            with nullcontext() if place == self._parts else self._apart():
                loss = self._loss(part) * (size * len(part[0]) / whole)
                loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        total = losses[0] if self._parts == 1 else torch.stack(losses).sum()
        return total if size == 1 else total / size

    def update(self, rate: float) -> None:
        """Change the weights by the gradients, at this learning rate."""
        set_rate(self.optimizer, rate)
        self.optimizer.step()

    def _loss(self, draw: Draw) -> Tensor:
        images, labels = self._batches.load(draw)
        with precision(self._recipe, images.device):
            scores = self._forward(laid_out(images, self._layout))
        return functional.cross_entropy(
            scores.float(), labels, label_smoothing=self._recipe.label_smoothing
        )


@final
class CapturedSteps(Steps):
    """Steps recorded once for each number of images and replayed: what is left on CUDA is work.

    Gradients and update are recorded apart, so that hooks between them are run as they are. To
    record leaves weights, momentum and random states as they were.

    Args:
        steps: What is recorded. The learning rate of its optimizer becomes a tensor.
        device: Where it is.
        record: Records; tests hand in one that needs no CUDA.
        warm_up: Does work before it is recorded.
    """

    def __init__(
        self,
        steps: EagerSteps,
        device: torch.device,
        *,
        record: Recorder | None = None,
        warm_up: Callable[[torch.device, Work], None] = beside,
    ) -> None:
        self._steps, self._device, self._warm_up = steps, device, warm_up
        self._record = record or CudaRecorder(device)
        self._weights = [*steps.network.parameters()]
        rate = torch.zeros((), device=device)
        for group in steps.optimizer.param_groups:
            # A number would be recorded as it is.
            group["lr"] = rate
        self._recorded: dict[int, _Recorded] = {}
        self._current: _Recorded | None = None
        self._left: list[Tensor | None] = []

    def gradients(self, draw: Draw, images: int | None = None) -> Tensor:
        """Replay the gradients of a batch; the first batch of its length is recorded before."""
        count = len(draw[0])
        if count not in self._recorded:
            self._recorded[count] = self._recording(draw)
        current = self._recorded[count]
        if current is not self._current:
            self._current = current
            for weight, grad in zip(self._weights, current.grads, strict=True):
                weight.grad = grad
        loss = current.gradients(draw)
        self._left = [weight.grad for weight in self._weights]
        assert isinstance(loss, Tensor)
        return loss

    def update(self, rate: float) -> None:
        """Replay the update, at this learning rate."""
        assert self._current is not None, "gradients come before the update"
        pairs = zip(self._weights, self._left, strict=True)
        if any(weight.grad is not grad for weight, grad in pairs):
            raise InputError(
                "a hook put another tensor in the place of a gradient, and the captured update "
                "reads the old one: change gradients in place, or say Hooks(in_place=False)"
            )
        set_rate(self._steps.optimizer, rate)
        self._current.update()

    def _recording(self, draw: Draw) -> "_Recorded":
        steps = self._steps

        def update() -> None:
            steps.optimizer.step()

        def once() -> None:
            for _ in range(_WARM_UP):
                steps.gradients(draw)
                update()

        with untouched(steps.network, steps.optimizer, self._device):
            self._warm_up(self._device, once)
            gradients = Recorded(steps.gradients, draw, self._record)
            grads = [weight.grad for weight in self._weights]
            return _Recorded(gradients=gradients, grads=grads, update=self._record(update))


@final
@dataclass(frozen=True, kw_only=True)
class _Recorded:
    """The two works of a step, and the gradients that lie between them."""

    gradients: Recorded
    grads: list[Tensor | None]
    update: Work


@contextmanager
def untouched(network: nn.Module, optimizer: SGD, device: torch.device) -> Iterator[None]:
    """Give weights, buffers, momentum and random states back as they were before.

    They stay where they are in memory. A momentum that is new is zero afterwards, with which the
    next step is a first one.
    """
    weights = [*network.parameters()]
    before = [tensor.detach().clone() for tensor in network.state_dict().values()]
    momentum = [None if m is None else m.clone() for m in _momentums(optimizer, weights)]
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(network.state_dict().values(), before, strict=True):
                tensor.copy_(value)
            for now, then in zip(_momentums(optimizer, weights), momentum, strict=True):
                if now is not None:
                    now.zero_() if then is None else now.copy_(then)


def _momentums(optimizer: SGD, weights: Sequence[Tensor]) -> list[Tensor | None]:
    # To ask for a state that is not there would make one.
    return [
        optimizer.state[weight].get("momentum_buffer") if weight in optimizer.state else None
        for weight in weights
    ]


def set_rate(optimizer: SGD, rate: float) -> None:
    """Set the learning rate, in place where it is a tensor."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def optimizer_of(network: Network, recipe: Recipe) -> SGD:
    """Return the optimizer of ``recipe``."""
    every = [*network.parameters()]
    decaying = [p for p in every if recipe.decay_norms or p.dim() > 1]
    others = [p for p in every if not recipe.decay_norms and p.dim() <= 1]
    groups: list[dict[str, Any]] = [{"params": decaying, "weight_decay": recipe.weight_decay}]
    if others:
        groups.append({"params": others, "weight_decay": 0.0})
    momentum, nesterov = recipe.momentum, recipe.nesterov
    return SGD(groups, lr=recipe.lr, momentum=momentum, nesterov=nesterov, fused=True)


def laid_out(images: Tensor, layout: Layout) -> Tensor:
    """Return images in the order in memory that the network is in."""
    if layout == "channels_last":
        return images.contiguous(memory_format=torch.channels_last)
    return images
