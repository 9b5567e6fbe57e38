"""Accuracy of a network on a part of a data set."""

from dataclasses import dataclass
from typing import final

import torch
from torch.nn import functional

from prunenas.build.network import Network
from prunenas.data.base import ImageData, Part
from prunenas.training.augment import normalise

TOP5_FROM = 100
"""Number of classes from which the top-5 accuracy is reported too."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Fraction of right answers, of right answers among the first five, mean cross-entropy."""

    accuracy: float
    top5: float | None
    loss: float


@torch.no_grad()
def evaluate(network: Network, data: ImageData, part: Part, *, batch: int = 500) -> Evaluation:
    """Return how well ``network`` does on the plain images of ``part``.

    The network is put into evaluation mode meanwhile.
    """
    was_training = network.training
    network.eval()
    right = torch.zeros((), dtype=torch.long, device=part.labels.device)
    right5 = torch.zeros_like(right)
    loss = torch.zeros((), dtype=torch.float64, device=part.labels.device)
    for start in range(0, len(part), batch):
        labels = part.labels[start : start + batch]
        scores = network(normalise(part.images[start : start + batch], data)).float()
        right += (scores.argmax(dim=1) == labels).sum()
        loss += functional.cross_entropy(scores, labels, reduction="sum")
        if data.classes >= TOP5_FROM:
            right5 += (scores.topk(5, dim=1).indices == labels[:, None]).sum()
    network.train(was_training)
    return Evaluation(
        accuracy=right.item() / len(part),
        top5=right5.item() / len(part) if data.classes >= TOP5_FROM else None,
        loss=loss.item() / len(part),
    )
