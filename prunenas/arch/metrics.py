"""Metrics: what was measured of one architecture, over seeds."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, final

from prunenas.errors import InputError

PartName = Literal["validation", "test"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Seeds:
    """The seed of each thing that a training draws.

    Args:
        order: Order of the images in each epoch.
        augmentation: Crops, flips and holes.
        layers: Draws of layers, such as dropout's.
        init: Fresh weights; None where they were given or inherited.
        masks: Masks that are drawn from densities, each seed once; empty where there are none.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    order: int
    augmentation: int
    layers: int
    init: int | None = None
    masks: tuple[int, ...] = ()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SeedResult:
    """One training.

    Args:
        seed: Seed of data order and augmentation, and of the weights where they are fresh.
        accuracy: Fraction of right answers after the last epoch.
        loss: Mean cross-entropy on the same images after the last epoch.
        epochs: Epochs trained.
        seconds: Wall time of training and evaluation.
        top5: Fraction with the right answer among the first five, from 100 classes up.
        best_accuracy: Largest validation accuracy of any epoch; None where there was none.
        best_epoch: The epoch of ``best_accuracy``, from 1.
        seeds: What each draw began with; None in results from before they were told apart.
        peak_bytes: Most memory of the device that tensors took at once; None on a CPU.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    seed: int
    accuracy: float
    loss: float
    epochs: int
    seconds: float
    top5: float | None = None
    best_accuracy: float | None = None
    best_epoch: int | None = None
    seeds: Seeds | None = field(default=None, metadata={"omit": True})
    peak_bytes: int | None = field(default=None, metadata={"omit": True})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Accuracy over seeds, with cost.

    Args:
        results: One a seed.
        part: The images that the accuracies speak of.
        params: Trainable parameters, dense.
        macs: Multiply-accumulates for one image, dense.
        device: Where it was trained, in words.
        data: Name of the data set.
        protocol: How the training relates to the reference's, where it was told: ``scratch-e``,
            ``scratch-b``, ``fine-tune`` or ``rewind``.
        start: Where the weights came from, in words, likewise.
        nonzero_params: Parameters that no mask sets to zero; None of a dense network.
        effective_macs: Multiply-accumulates with such weights; None of a dense network.
        execution: How the training was carried out, in words: precision, layout, capture.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    results: tuple[SeedResult, ...]
    part: PartName
    params: int
    macs: int
    device: str
    data: str
    protocol: str | None = field(default=None, metadata={"omit": True})
    start: str | None = field(default=None, metadata={"omit": True})
    nonzero_params: int | None = field(default=None, metadata={"omit": True})
    effective_macs: int | None = field(default=None, metadata={"omit": True})
    execution: str | None = field(default=None, metadata={"omit": True})

    def __post_init__(self) -> None:
        if not self.results:
            raise InputError("metrics need the result of at least one seed")

    @staticmethod
    def together(runs: "Sequence[Metrics]") -> "Metrics":
        """Return trainings of one architecture with several seeds as one, in order.

        How they were carried out is told of the first.

        Raises:
            InputError: There is none, or they are not of one architecture, data set and part.
        """
        if not runs:
            raise InputError("metrics need the result of at least one seed")
        faults = []
        for name in ("params", "macs", "nonzero_params", "effective_macs", "data", "part"):
            found = [*dict.fromkeys(getattr(run, name) for run in runs)]
            if len(found) > 1:
                faults.append(f"{name} is {' and '.join(map(str, found))}")
        if faults:
            raise InputError(f"results of different trainings are no seeds: {'; '.join(faults)}")
        return replace(runs[0], results=tuple(result for run in runs for result in run.results))

    @property
    def is_sparse(self) -> bool:
        """Whether the network has kernels under masks."""
        return self.nonzero_params is not None or self.effective_macs is not None

    @property
    def compared_params(self) -> int:
        """What networks are compared by: nonzero parameters; of a dense network they are all."""
        return self.params if self.nonzero_params is None else self.nonzero_params

    @property
    def compared_macs(self) -> int:
        """What networks are compared by: effective macs; of a dense network they are all."""
        return self.macs if self.effective_macs is None else self.effective_macs

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.results)

    @property
    def accuracy(self) -> float:
        """Mean accuracy over seeds."""
        return statistics.fmean(result.accuracy for result in self.results)

    @property
    def std(self) -> float:
        """Sample standard deviation of the accuracy; 0 for one seed."""
        return statistics.stdev(r.accuracy for r in self.results) if self.n > 1 else 0.0

    @property
    def top5(self) -> float | None:
        """Mean top-5 accuracy; None below 100 classes."""
        values = [r.top5 for r in self.results if r.top5 is not None]
        return statistics.fmean(values) if values else None

    @property
    def seconds(self) -> float:
        """Seconds of all seeds together."""
        return sum(result.seconds for result in self.results)
