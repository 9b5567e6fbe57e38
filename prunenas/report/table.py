"""Tables of fronts, for terminals and for Markdown."""

from collections.abc import Sequence
from statistics import fmean, stdev

from rich.table import Table

from prunenas.arch.metrics import Metrics
from prunenas.search.front import Front, FrontRow

HEADER = ("architecture", "accuracy (%)", "params", "MACs", "keep per stage")
SPARSE_HEADER = (*HEADER[:2], "nonzero params", "effective MACs", *HEADER[4:])

_NUMBERS = (2, 3)
"""Columns of numbers."""


def front_header(front: Front) -> tuple[str, ...]:
    """Return the titles of the columns; where a network is sparse they say how costs are counted.

    All rows are counted in one way: of a dense network nonzero params are all that it has.
    """
    return SPARSE_HEADER if front.is_sparse else HEADER


def accuracy_text(metrics: Metrics) -> str:
    """Return mean and sample deviation in percent, with the number of seeds."""
    spread = f" ± {100 * metrics.std:.2f}" if metrics.n > 1 else ""
    top5 = "" if metrics.top5 is None else f", top-5 {100 * metrics.top5:.2f}"
    return f"{100 * metrics.accuracy:.2f}{spread}{top5} (n={metrics.n})"


def best_text(metrics: Metrics) -> str | None:
    """Return mean and sample deviation, in percent, of each seed's best epoch, with the epochs.

    None where no epoch but the last was judged.
    """
    best = [r.best_accuracy for r in metrics.results if r.best_accuracy is not None]
    if not best:
        return None
    spread = f" ± {100 * stdev(best):.2f}" if len(best) > 1 else ""
    places = ", ".join(str(r.best_epoch) for r in metrics.results)
    return f"{100 * fmean(best):.2f}{spread} (epoch {places})"


def costs_text(metrics: Metrics) -> str:
    """Return params and macs, of a sparse network those after masks."""
    kinds = ("nonzero params", "effective MACs") if metrics.is_sparse else ("params", "MACs")
    return f"{metrics.compared_params:,} {kinds[0]}, {metrics.compared_macs:,} {kinds[1]}"


def front_cells(front: Front) -> list[tuple[str, ...]]:
    """Return the cells of each row of ``front``, in the order of ``front_header``."""
    return [_cells(row) for row in front.rows]


def _cells(row: FrontRow) -> tuple[str, ...]:
    titles = {"best": "best found", "front": "front", "control": "control"}
    name = row.spec.name
    title = name if row.role == "control" else f"{titles[row.role]} ({name})"
    profile = row.spec.profile
    keeps = "" if profile is None else " ".join(f"{keep:.2f}" for keep in profile.keeps.values())
    metrics = row.confirmed
    costs = f"{metrics.compared_params:,}", f"{metrics.compared_macs:,}"
    return (title, accuracy_text(metrics), *costs, keeps)


def caption(front: Front) -> str:
    """Return what the accuracies of ``front`` are, and its costs if masks are there, in words."""
    metrics = front.rows[0].confirmed
    what = (
        "test accuracy after the last epoch, mean and sample deviation over n seeds"
        if metrics.part == "test"
        else "validation accuracy of one seed: nothing is confirmed"
    )
    left_out = f"; {front.left_out} Pareto points not shown" if front.left_out else ""
    costs = "; costs count weights that no mask sets to zero" if front.is_sparse else ""
    return f"{metrics.data}: {what}{costs}; {front.trials} trials{left_out}; {metrics.device}"


def front_table(front: Front) -> Table:
    """Return ``front`` as a table for the terminal."""
    table = Table(caption=caption(front), title="Front and controls")
    for place, title in enumerate(front_header(front)):
        table.add_column(title, justify="right" if place in _NUMBERS else "left")
    for row, cells in zip(front.rows, front_cells(front), strict=True):
        table.add_row(*cells, style="bold" if row.role == "best" else None)
    return table


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def front_markdown(front: Front) -> str:
    """Return ``front`` as a Markdown table with its caption."""
    return markdown(front_header(front), front_cells(front)) + f"\n{caption(front)}\n"
