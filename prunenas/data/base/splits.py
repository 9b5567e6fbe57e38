"""Which images: stratified splits and draws, the same on each machine."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prunenas.errors import DataError

Indices = npt.NDArray[np.int64]


def split_validation(labels: Tensor, fraction: float = 0.1, seed: int = 0) -> Tensor:
    """Return the ascending indices held out of ``labels`` ``[n]``, the same on each machine.

    Each class gives the nearest whole number to its share, at least 1 image and never its last.

    Raises:
        DataError: ``fraction`` is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise DataError(f"the fraction held out lies between 0 and 1, got {fraction=}")
    values = labels.cpu().numpy()
    counts = np.bincount(values)
    quotas = np.maximum(1, np.floor(counts * fraction + 0.5).astype(np.int64))
    chosen = _pick(values, np.minimum(quotas, np.maximum(counts - 1, 0)), seed)
    return torch.from_numpy(chosen).to(labels.device)


def _pick(labels: Indices, quotas: Indices, seed: int) -> Indices:
    """Return ascending indices of ``quotas[c]`` random images of each class ``c``."""
    # numpy promises Philox's raw bits for ever, but not what a Generator makes of them.
    keys = np.random.Philox(seed).random_raw(len(labels))
    order = np.lexsort((keys, labels))
    counts = np.bincount(labels, minlength=len(quotas))
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(order[rank < np.repeat(quotas, counts)])


def draw(labels: Indices, count: int, seed: int) -> Indices:
    """Return ascending indices of exactly ``count`` images, in proportion to the classes.

    Where ``count`` allows, each class that occurs is drawn at least once.
    """
    if not 0 <= count <= len(labels):
        raise DataError(f"cannot draw {count} of {len(labels)} images")
    counts = np.bincount(labels)
    first = (counts > 0).astype(np.int64)
    if count < first.sum():
        first[:] = 0
    rest = count - int(first.sum())
    exact = (counts - first) * rest / max(1, len(labels) - int(first.sum()))
    quotas = first + np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(np.floor(exact) - exact, kind="stable")
    quotas[by_remainder[: count - int(quotas.sum())]] += 1
    return _pick(labels, quotas, seed)
