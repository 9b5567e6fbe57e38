"""L2-norm filter pruning."""

from dataclasses import dataclass
from typing import ClassVar, final

from prunenas.generators.base import GENERATORS
from prunenas.generators.base.filter_norm import FilterNorm


@GENERATORS.register("l2_norm")
@final
@dataclass(frozen=True, slots=True, kw_only=True)
class L2Norm(FilterNorm):
    """Keep the filters with the largest L2 norms of every layer.

    As ``l1_norm``, with the root of the sum of squares instead of the sum of sizes: one large
    weight counts for more. Counts, coupled groups and channel selections are treated alike.

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
        preset: Widths of a network of the L1 paper, instead of ``keep``: vgg16-A, resnet56-A,
            resnet56-B, resnet110-A, resnet110-B, resnet34-A, resnet34-B.

    Source: Li et al. 2017, arXiv:1608.08710, section 4.5 (compared with the L1 norm there).
    """

    power: ClassVar[int] = 2
