"""The named networks of L1-norm filter pruning: which convolutions lose which part."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from prunenas.errors import MethodError
from prunenas.families.base import reference
from prunenas.ir.coupling import couple
from prunenas.ir.graph import Graph
from prunenas.ir.ops import Conv2d


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A network of the paper.

    Args:
        family: The reference that it is cut from.
        stages: Numbers of the convolutions of each stage, and the part that each of them loses.
            They count from 1 in forward order; projection shortcuts (1x1) have no number.
        skip: Numbers of those that stay whole.
    """

    family: str
    stages: tuple[tuple[range, float], ...]
    skip: tuple[int, ...] = ()


def _resnet(
    family: str, last: tuple[int, ...], removed: tuple[float, ...], skip: tuple[int, ...]
) -> Preset:
    """Return a preset of basic blocks, of which the first convolutions (even numbers) shrink."""
    starts = (2, *(number + 2 for number in last[:-1]))
    stages = (range(start, end + 1, 2) for start, end in zip(starts, last, strict=True))
    return Preset(family=family, stages=tuple(zip(stages, removed, strict=True)), skip=skip)


_56 = ("resnet56", (18, 36, 54))
_110 = ("resnet110", (36, 72, 108))
_34 = ("resnet34", (6, 14, 26, 32))

PRESETS: Mapping[str, Preset] = {
    "vgg16-A": Preset(family="vgg16_l1", stages=((range(1, 2), 0.5), (range(8, 14), 0.5))),
    "resnet56-A": _resnet(*_56, (0.1, 0.1, 0.1), (16, 20, 38, 54)),
    "resnet56-B": _resnet(*_56, (0.6, 0.3, 0.1), (16, 18, 20, 34, 38, 54)),
    "resnet110-A": _resnet(*_110, (0.5, 0.0, 0.0), (36,)),
    "resnet110-B": _resnet(*_110, (0.5, 0.4, 0.3), (36, 38, 74)),
    "resnet34-A": _resnet(*_34, (0.3, 0.3, 0.3, 0.0), (2, 8, 14, 16, 26, 28, 30, 32)),
    "resnet34-B": _resnet(*_34, (0.5, 0.6, 0.4, 0.0), (2, 8, 14, 16, 26, 28, 30, 32)),
}
"""By name. Source: Li et al. 2017, arXiv:1608.08710, sections 4.1 to 4.3, and the released code of
Liu et al. 2019, arXiv:1810.05270."""


def preset_keeps(graph: Graph, name: str) -> dict[str, float]:
    """Return the keep of every group that a preset narrows; all others stay whole.

    Raises:
        MethodError: The graph is not of the preset's family; the message tells which that is.
    """
    preset = PRESETS[name]
    groups = couple(graph)
    fitting = couple(reference(preset.family))
    wanted, found = ({g.name: g.width for g in each.free} for each in (fitting, groups))
    if wanted != found:
        others = [other for other, one in PRESETS.items() if _has_widths(one.family, found)]
        raise MethodError(
            f"the preset {name} fits the reference {preset.family}, and this graph has other "
            f"groups; presets that fit it: {', '.join(others) or 'none'}"
        )
    numbered = [
        node.name
        for node in graph.nodes
        if isinstance(node.op, Conv2d) and node.op.kernel != (1, 1)
    ]
    return {
        groups.axes[numbered[number - 1]][0].group: 1 - removed
        for numbers, removed in preset.stages
        for number in numbers
        if number not in preset.skip
    }


def _has_widths(family: str, widths: Mapping[str, int]) -> bool:
    return {group.name: group.width for group in couple(reference(family)).free} == widths
