"""Figures of fronts."""

import os
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from prunenas.search.front import Front

_BEST = "#c1272d"
_FRONT = "#1f5fa8"
_CONTROLS = ("#555555", "#b07d2b", "#3a8f5c", "#7b5aa6")


def draw_front(front: Front, path: str | os.PathLike[str]) -> Path:
    """Draw accuracy against macs, and keep per stage, into the PNG file at ``path``.

    Where a network is sparse, macs are effective ones, and the axis says so.
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_accuracies(front, left)
    _draw_keeps(front, right)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=130)
    return target


def _styles(front: Front) -> list[dict[str, Any]]:
    """Return marker, colour and label of each row; Pareto points share one label."""
    controls = iter(_CONTROLS * len(front.rows))
    styles: list[dict[str, Any]] = []
    for row in front.rows:
        if row.role == "best":
            styles.append({"marker": "*", "color": _BEST, "markersize": 14, "label": "best found"})
        elif row.role == "front":
            styles.append({"marker": "o", "color": _FRONT, "markersize": 6, "label": "front"})
        else:
            colour = next(controls)
            styles.append({"marker": "s", "color": colour, "markersize": 6, "label": row.spec.name})
    return styles


def _draw_accuracies(front: Front, axes: Axes) -> None:
    seen: set[str] = set()
    for row, style in zip(front.rows, _styles(front), strict=True):
        metrics = row.confirmed
        place = (metrics.compared_macs / 1e6, 100 * metrics.accuracy)
        if metrics.n > 1:
            axes.errorbar(
                *place, yerr=100 * metrics.std, fmt="none", ecolor=style["color"], capsize=3
            )
        shown = {"label": None} if style["label"] in seen else {}
        axes.plot(*place, linestyle="none", **(style | shown))
        seen.add(style["label"])
    metrics = front.rows[0].confirmed
    axes.set_xlabel(macs_label(front))
    axes.set_ylabel(f"{metrics.part} accuracy (%), mean ± std, n={metrics.n}")
    axes.set_title(f"{metrics.data}: {front.trials} trials", parse_math=False)
    axes.grid(alpha=0.3)
    axes.margins(x=0.12, y=0.12)
    axes.legend(fontsize=8)


def macs_label(front: Front) -> str:
    """Return what the axis of costs counts."""
    return f"million {'effective MACs (after masks)' if front.is_sparse else 'MACs'} for one image"


def _draw_keeps(front: Front, axes: Axes) -> None:
    for row, style in zip(front.rows, _styles(front), strict=True):
        profile = row.spec.profile
        if profile is None or row.role == "front":
            continue
        best = row.role == "best"
        axes.plot(
            [*profile.keeps],
            [*profile.keeps.values()],
            linewidth=2.2 if best else 1.2,
            linestyle="-" if best else "--",
            **style,
        )
    axes.set_ylim(0, 1.05)
    axes.set_ylabel("keep (kept / full width, mean over layers)")
    axes.set_title("What each keeps of its stages")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
