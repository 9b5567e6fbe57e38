"""L1-norm filter pruning."""

from dataclasses import dataclass
from typing import final

from torch import Tensor

from prunenas.errors import ShapeError
from prunenas.generators.base import GENERATORS, Generator, Proposal, Subject
from prunenas.generators.base.scores import best_of_each, group_scores, kernel


def filter_l1(weight: Tensor) -> Tensor:
    """Score each filter by the sum of its absolute weights.

    Args:
        weight: Kernel of a convolution ``[out in kh kw]`` or of a linear layer ``[out in]``.

    Returns:
        Scores ``[out]``, non-negative; a larger score is kept longer.

    Raises:
        ShapeError: ``weight`` has fewer than 2 dimensions.

    Source: Li et al. 2017, arXiv:1608.08710, section 3.1.
    """
    if weight.dim() < 2:
        raise ShapeError(f"filters have at least 2 dimensions, got {list(weight.shape)}")
    return weight.abs().flatten(1).sum(dim=1)


@GENERATORS.register("l1_norm")
@final
@dataclass(frozen=True, slots=True, kw_only=True)
class L1Norm(Generator):
    """Keep the filters with the largest absolute sums of every layer.

    The keep holds for every free group by itself, and a group of ``w`` keeps ``int(w * keep)`` (57
    of 64 at 0.9), as the source counts; at least its divisor. A coupled group's score is the sum
    over all its producing layers, a head's the sum over its rows of each of them. Filters are
    scored on the unpruned input (the source's "independent" variant). Channel selections have no
    filters: they follow their source.

    Source: Li et al. 2017, arXiv:1608.08710, section 3.1.
    """

    def propose(self, subject: Subject) -> Proposal:
        """Return the kept filters of every free group."""
        network = subject.trained
        groups = [group for group in subject.groups.free if not group.select]
        scores = {
            group.name: group_scores(
                network,
                subject.groups,
                group,
                lambda name: filter_l1(kernel(network, name)),
                "sum",
            )
            for group in groups
        }
        keeps = {group.name: subject.keep for group in groups}
        selections, emptied = best_of_each(groups, scores, keeps)
        return Proposal(selections=selections, scores=scores, kept_best=emptied)
