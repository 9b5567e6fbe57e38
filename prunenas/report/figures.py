"""Figures of fronts."""

import os
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from prunenas.search.front import Front

_COLOURS = {"best": "#c1272d", "front": "#1f5fa8", "control": "#777777"}
_MARKERS = {"best": "*", "front": "o", "control": "s"}
_LABELS = {"best": "best found", "front": "Pareto point", "control": "control"}


def draw_front(front: Front, path: str | os.PathLike[str]) -> Path:
    """Draw accuracy against macs, and keep per stage, into the PNG file at ``path``."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_accuracies(front, left)
    _draw_keeps(front, right)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=130)
    return target


def _draw_accuracies(front: Front, axes: Axes) -> None:
    seen = set()
    for row in front.rows:
        metrics = row.confirmed
        axes.errorbar(
            metrics.macs / 1e6,
            100 * metrics.accuracy,
            yerr=100 * metrics.std if metrics.n > 1 else None,
            fmt=_MARKERS[row.role],
            color=_COLOURS[row.role],
            markersize=13 if row.role == "best" else 7,
            capsize=3,
            label=None if row.role in seen else _LABELS[row.role],
        )
        seen.add(row.role)
        if row.role != "front":
            axes.annotate(
                "best found" if row.role == "best" else row.spec.name,
                (metrics.macs / 1e6, 100 * metrics.accuracy),
                xytext=(7, 7 if row.role == "best" else -12),
                textcoords="offset points",
                fontsize=8,
                color=_COLOURS[row.role],
            )
    metrics = front.rows[0].confirmed
    axes.set_xlabel("million MACs for one image")
    axes.set_ylabel(f"{metrics.part} accuracy (%), mean ± std, n={metrics.n}")
    axes.set_title(f"{metrics.data}: {front.trials} trials", parse_math=False)
    axes.grid(alpha=0.3)
    axes.margins(x=0.15, y=0.12)
    axes.legend(fontsize=8)


def _draw_keeps(front: Front, axes: Axes) -> None:
    for row in front.rows:
        profile = row.spec.profile
        if profile is None or row.role == "front":
            continue
        best = row.role == "best"
        axes.plot(
            [*profile.keeps],
            [*profile.keeps.values()],
            marker=_MARKERS[row.role],
            linewidth=2.2 if best else 1.2,
            linestyle="-" if best else "--",
            color=_COLOURS["best"] if best else None,
            label="best found" if best else row.spec.name,
        )
    axes.set_ylim(0, 1.05)
    axes.set_ylabel("keep (kept / full width, mean over layers)")
    axes.set_title("What each keeps of its stages")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
