"""Figures of what methods measured: accuracy against the keep of one group."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_NAMED = 12
"""Groups that the legend names: those that lose most."""


def draw_curves(found: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Draw the curves that ``sensitivity`` found into the PNG file at ``path``.

    One line a group, dark at the network's input and light at its output; the legend names the
    groups that lose most at their smallest keep, the worst first.

    Args:
        found: ``Origin.found`` of the method: ``baseline``, and ``curves`` by group, with ``keep``
            and ``accuracy``.
        path: Where to write.

    Source: Li et al. 2017, arXiv:1608.08710, figure 2b.
    """
    curves, baseline = found["curves"], found["baseline"]
    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shades = matplotlib.colormaps["viridis"]
    worst = sorted(curves, key=lambda name: min(curves[name]["accuracy"]))[:_NAMED]
    lines = {}
    for place, (name, curve) in enumerate(curves.items()):
        points = [*sorted(zip(curve["keep"], curve["accuracy"], strict=True)), (1.0, baseline)]
        lines[name] = axes.plot(
            [keep for keep, _ in points],
            [100 * accuracy for _, accuracy in points],
            color=shades(0.9 * place / max(1, len(curves) - 1)),
            marker="o",
            markersize=3,
            linewidth=1.8 if name in worst else 0.9,
            label=name,
        )[0]
    whole = axes.axhline(100 * baseline, color="#555555", linestyle="--", linewidth=1)
    axes.set_xlim(1.02, 0)
    axes.set_xlabel("keep of this group alone, all others whole")
    axes.set_ylabel("validation accuracy (%), not retrained")
    axes.set_title("What each group costs in accuracy")
    axes.grid(alpha=0.3)
    axes.legend(
        [whole, *(lines[name] for name in worst)],
        ["reference", *worst],
        fontsize=8,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        title="most sensitive first",
    )
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=130)
    return target
