"""Accuracy of a network on a part of a data set."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from prunenas.build.capture import CudaRecorder, Recorded, Recorder, Work, beside
from prunenas.build.execution import Layout
from prunenas.build.network import Network
from prunenas.data.base import ImagePart, ImageSet
from prunenas.training.batches.base import Draw
from prunenas.training.batches.supply import plain_of
from prunenas.training.execution.distributed import SOLO, Team
from prunenas.training.execution.engine import precision
from prunenas.training.execution.steps import laid_out
from prunenas.training.recipe import Recipe

TOP5_FROM = 100
"""Number of classes from which the top-5 accuracy is reported too."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Fraction of right answers, of right answers among the first five, mean cross-entropy."""

    accuracy: float
    top5: float | None
    loss: float


@final
class Evaluator:
    """Says how well a network does on the plain images of a part, again and again.

    Args:
        network: What is judged; it may change between calls.
        data: The data set.
        part: The images.
        batch: Images at a time; by default as many as fit for the kind of data set.
        recipe: Says the precision; single without one.
        layout: Order of the images in memory.
        capture: Record the work as CUDA graphs.
        record: As in ``CapturedSteps``.
        warm_up: Likewise.
        team: The processes that judge together, each a share of the images.
    """

    def __init__(
        self,
        network: Network,
        data: ImageSet,
        part: ImagePart,
        *,
        batch: int | None = None,
        recipe: Recipe | None = None,
        layout: Layout = "contiguous",
        capture: bool = False,
        record: Recorder | None = None,
        warm_up: Callable[[torch.device, Work], None] = beside,
        team: Team = SOLO,
    ) -> None:
        self._network, self._count, self._team = network, len(part), team
        self._batches = plain_of(data, part, batch=batch, share=team.share)
        self._recipe, self._layout = recipe or Recipe(), layout
        self._device = data.device
        self._counts_top5 = data.classes >= TOP5_FROM
        self._record = (record or CudaRecorder(self._device)) if capture else None
        self._warm_up = warm_up
        self._recorded: dict[int, Recorded] = {}
        # Right answers, right ones among the first five, and the sum of losses.
        self._sums = torch.zeros(3, dtype=torch.float64, device=self._device)

    @torch.no_grad()
    def __call__(self) -> Evaluation:
        """Return how well the network does now; it is in evaluation mode meanwhile."""
        network, count = self._network, self._count
        was_training = network.training
        network.eval()
        self._sums.zero_()
        try:
            for draw in self._batches.draws(1):
                # The share of a small last batch may be empty.
                if len(draw[0]):
                    self._sums.add_(self._judged(draw))
        finally:
            network.train(was_training)
        right, right5, loss = self._team.add(self._sums).tolist()
        return Evaluation(
            accuracy=right / count,
            top5=right5 / count if self._counts_top5 else None,
            loss=loss / count,
        )

    def _judged(self, draw: Draw) -> Tensor:
        if self._record is None:
            return self._judge(draw)
        images = len(draw[0])
        if images not in self._recorded:
            self._warm_up(self._device, partial(self._warm, draw))
            self._recorded[images] = Recorded(self._judge, draw, self._record)
        sums = self._recorded[images](draw)
        assert isinstance(sums, Tensor)
        return sums

    def _warm(self, draw: Draw) -> None:
        self._judge(draw)

    def _judge(self, draw: Draw) -> Tensor:
        """Return the three sums of a batch."""
        images, labels = self._batches.load(draw)
        with precision(self._recipe, self._device):
            scores = self._network(laid_out(images, self._layout)).float()
        right = (scores.argmax(dim=1) == labels).sum()
        right5 = torch.zeros_like(right)
        if self._counts_top5:
            right5 = (scores.topk(5, dim=1).indices == labels[:, None]).sum()
        loss = functional.cross_entropy(scores, labels, reduction="sum")
        return torch.stack([right.double(), right5.double(), loss.double()])


def evaluate(
    network: Network, data: ImageSet, part: ImagePart, *, batch: int | None = None
) -> Evaluation:
    """Return how well ``network`` does on the plain images of ``part``, in single precision.

    The network is put into evaluation mode meanwhile.
    """
    return Evaluator(network, data, part, batch=batch)()
