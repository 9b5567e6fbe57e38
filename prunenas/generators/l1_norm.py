"""L1-norm filter pruning."""

from dataclasses import dataclass
from typing import ClassVar, final

from prunenas.generators.base import GENERATORS
from prunenas.generators.base.filter_norm import FilterNorm


@GENERATORS.register("l1_norm")
@final
@dataclass(frozen=True, slots=True, kw_only=True)
class L1Norm(FilterNorm):
    """Keep the filters with the largest absolute sums of every layer.

    The keep holds for every free group by itself, and a group of ``w`` keeps ``int(w * keep)`` (57
    of 64 at 0.9), as the source counts; at least its divisor. A coupled group's score is reduced
    over all its producing layers, a head's is the sum over its rows of each of them. Channel
    selections have no filters: they follow their source. Groups that are left alone are listed in
    what the method found, each with the reason.

    The source prunes inner widths of residual blocks (``coupled=False``); where it prunes the last
    convolution of a block too, the projection shortcut chooses (``reduction="projection"``).

    Args:
        keeps: Keep by stage (``stage1``), group, layer or pattern of the two; instead of ``keep``.
            A name goes before a pattern, a pattern before a stage. Groups that none of them
            names stay whole.
        skip: Groups to leave alone, by their name or a layer's; ``*`` and ``?`` as in file names.
        coupled: Whether groups whose channels pass through an addition shrink too.
        reduction: Over a group's layers: sum, mean, max, min, first. ``projection`` scores a
            group by its 1x1 projection shortcut alone; a group without one by the sum over all.
        variant: ``independent`` scores filters on the unpruned input. ``greedy`` goes through the
            groups in forward order and leaves out of each filter what reads channels that are
            removed already; a coupled group is decided where its first layer stands.
        preset: A network of the paper, instead of ``keep``: vgg16-A, resnet56-A, resnet56-B,
            resnet110-A, resnet110-B, resnet34-A, resnet34-B.

    Source: Li et al. 2017, arXiv:1608.08710, sections 3.1 to 3.3; the released code of Liu et al.
        2019, arXiv:1810.05270, has the independent variant.
    """

    power: ClassVar[int] = 1
