"""Measure how many candidates the cost model costs a second, against counting one at a time.

Usage: python scripts/bench_cost.py
"""

import platform
import statistics
import time
from collections.abc import Callable

import numpy as np

import prunenas as pn
from prunenas.ir.cost import CostModel, macs, params

CANDIDATES = 100_000
REPEATS = 7
SINGLE = 50


def seconds(work: Callable[[], object]) -> float:
    """Return the wall seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Print a table of candidates a second; both columns count params and macs."""
    print(f"{platform.machine()}, one process, numpy {np.__version__}, median of {REPEATS}")
    print(f"{'family':<12}{'cost model':>14}{'one graph':>12}{'ratio':>8}{'spread':>9}")
    for name in ("vgg16", "resnet56", "preresnet164", "densenet40"):
        graph = pn.reference(name)
        model = CostModel.of(graph)
        full = model_widths(graph, model)
        drawn = np.random.default_rng(0).integers(1, full + 1, (CANDIDATES, len(full)))
        runs = [
            CANDIDATES / seconds(lambda m=model, w=drawn: (m.params(w), m.macs(w)))
            for _ in range(REPEATS)
        ]
        single = SINGLE / seconds(lambda g=graph: [(params(g), macs(g)) for _ in range(SINGLE)])
        middle = statistics.median(runs)
        spread = (max(runs) - min(runs)) / middle
        print(f"{name:<12}{middle:>14,.0f}{single:>12,.0f}{middle / single:>8.0f}{spread:>9.0%}")


def model_widths(graph: pn.Graph, model: CostModel) -> np.ndarray:
    """Return the full width of each of the model's groups."""
    from prunenas.ir.coupling import couple

    widths = couple(graph).widths
    return np.array([widths[name] for name in model.groups])


if __name__ == "__main__":
    main()
