"""Gradients of the loss by kernels, batch by batch, on a copy of the network."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional

from prunenas.errors import MethodError
from prunenas.generators.base.method import Subject
from prunenas.ir.ops import Convolve
from prunenas.training.randomness import seeded


@final
class Twin:
    """A copy of a subject's network, to be differentiated by some layers' kernels.

    The copy takes what scoring does to a network: batch statistics, flags, hooks. Kernels that are
    computed are cut off from what they are computed from, and differentiated as they are used.

    Args:
        subject: What is looked at.
        layers: The layers that count; none where values are looked at instead of kernels.
        training: Batch norms by the batch's statistics and dropout drawn by the seed; else as in
            evaluation.
    """

    def __init__(self, subject: Subject, layers: Sequence[str], *, training: bool) -> None:
        self.network = subject.copy().train(training).requires_grad_(False)
        self._seed = subject.seed
        self._device = subject.device
        self._passes = 0
        self._kernels: dict[str, Tensor] = {}
        for name in layers:
            module = self.network.node(name)
            if isinstance(subject.graph[name].op, Convolve):
                self._kernels[name] = torch.empty(0)
                module.register_forward_pre_hook(self._cut(name))
            else:
                self._kernels[name] = module.get_parameter("weight").requires_grad_(True)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the class scores ``[n classes]``; the global random state stays."""
        with seeded(self._seed + self._passes, self._device), torch.enable_grad():
            self._passes += 1
            scores: Tensor = self.network(images)
        return scores

    def gradients(self, loss: Tensor, *, again: bool = False) -> dict[str, Tensor]:
        """Return the gradient of ``loss`` by each layer's kernel, zero where it does not matter.

        Args:
            loss: A number that follows from the last call.
            again: Whether the same call is differentiated once more.
        """
        if not self._kernels:
            return {}
        found = torch.autograd.grad(
            loss, [*self._kernels.values()], retain_graph=again, materialize_grads=True
        )
        return dict(zip(self._kernels, found, strict=True))

    def _cut(self, name: str) -> Callable[..., tuple[Any, ...]]:
        def before(module: torch.nn.Module, read: tuple[Any, ...]) -> tuple[Any, ...]:
            image, kernel = read
            self._kernels[name] = kernel.detach().requires_grad_(True)
            return image, self._kernels[name]

        return before


def training_batches(
    subject: Subject, *, images: int, batch: int, training: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the subject's batches, in training mode without a last one of a single image.

    Raises:
        MethodError: Nothing is left.
    """
    seen = 0
    for pixels, labels in subject.batches(images, batch=batch):
        # No batch norm has statistics of a single image.
        if len(labels) > 1 or not training:
            seen += len(labels)
            yield pixels, labels
    if not seen:
        raise MethodError("batch statistics need at least two images a batch, there are fewer")


def loss_gradients(
    subject: Subject, layers: Sequence[str], *, images: int, batch: int, training: bool
) -> Iterator[tuple[dict[str, Tensor], int]]:
    """Yield the gradient of the mean cross-entropy of each batch by each kernel, and its images.

    Only the batch at hand is held: the receiver adds up what it needs.

    Args:
        subject: What is looked at.
        layers: The layers that count.
        images: Images in all.
        batch: Images a batch.
        training: As for ``Twin``.
    """
    twin = Twin(subject, layers, training=training)
    batches = training_batches(subject, images=images, batch=batch, training=training)
    for pixels, labels in batches:
        yield twin.gradients(functional.cross_entropy(twin(pixels), labels)), len(labels)


def mean_gradients(
    subject: Subject, layers: Sequence[str], *, images: int, batch: int, training: bool
) -> dict[str, Tensor]:
    """Return the gradient of the mean cross-entropy over all ``images``, as ``loss_gradients``."""
    total: dict[str, Tensor] = {}
    seen = 0
    for found, count in loss_gradients(
        subject, layers, images=images, batch=batch, training=training
    ):
        seen += count
        for name, gradient in found.items():
            if name in total:
                total[name].add_(gradient, alpha=count)
            else:
                total[name] = gradient.mul(count)
    return {name: gradient.div_(seen) for name, gradient in total.items()}
