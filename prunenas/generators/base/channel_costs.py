"""What one channel of each group costs: the weight of a penalty that looks at cost."""

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from prunenas.errors import MethodError
from prunenas.ir.cost import CostModel
from prunenas.ir.coupling import ChannelGroup, couple
from prunenas.ir.graph import Graph

Cost = Literal["macs", "params"]
Weighting = Literal["none", "macs", "params"]
"""What a penalty is weighted by: nothing, or what each channel costs."""

COSTS = get_args(Cost)
WEIGHTINGS = get_args(Weighting)


def total_cost(graph: Graph, cost: Cost, widths: Mapping[str, int]) -> int:
    """Return the cost of ``graph`` with some widths of free groups replaced; others stay.

    Where kernels are under masks, what these leave is counted, as budgets do: of masks that are
    drawn when widths are known, the expected share.
    """
    return int(_evaluated(graph, cost, _row(graph, widths)[None])[0])


def channel_costs(
    graph: Graph, cost: Cost, widths: Mapping[str, int] | None = None
) -> dict[str, float]:
    """Return what one more channel of each free group costs: the derivative by its width.

    It counts the channel where it is made and where it is read, with the other groups as wide as
    ``widths`` says: the weights of MorphNet's penalty.

    Args:
        graph: The network.
        cost: Multiply-accumulates of one image, or parameters; as ``total_cost`` counts them.
        widths: Width by group at which the derivative is taken, 0 allowed; groups that are not
            named, as wide as in ``graph``.

    Returns:
        Cost by group; of a channel selection, what its readers pay.

    Source: Gordon et al. 2018, arXiv:1711.06798, section 3.
    """
    row = _row(graph, widths or {})
    free = couple(graph).free
    steps = np.array([group.divisor for group in free], dtype=np.int64)
    # Costs are at most quadratic in each width, so the central difference is the derivative.
    up, down = row + np.diag(steps), row - np.diag(steps)
    change = _evaluated(graph, cost, up) - _evaluated(graph, cost, down)
    return {g.name: float(c) / (2 * g.divisor) for g, c in zip(free, change, strict=True)}


def mean_one(
    costs: Mapping[str, float], scored: Iterable[ChannelGroup]
) -> tuple[dict[str, float], float]:
    """Return the costs of the scored groups over their mean over all channels, and this mean.

    A penalty of these weights then pushes a channel on average as hard as one without weights.

    Raises:
        MethodError: None of these channels costs anything.
    """
    groups = [*scored]
    channels = sum(group.width for group in groups)
    mean = sum(costs[group.name] * group.width for group in groups) / channels
    if mean <= 0:
        raise MethodError(
            f"a weighting needs channels that cost something; these cost nothing: "
            f"{', '.join(group.name for group in groups)}"
        )
    return {group.name: costs[group.name] / mean for group in groups}, mean


def _row(graph: Graph, widths: Mapping[str, int]) -> NDArray[np.int64]:
    every = couple(graph).widths | dict(widths)
    return np.array([every[name] for name in CostModel.of(graph).groups], dtype=np.int64)


def _evaluated(graph: Graph, cost: Cost, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    model = CostModel.of(graph)
    return model.effective_macs(rows) if cost == "macs" else model.nonzero_params(rows)
