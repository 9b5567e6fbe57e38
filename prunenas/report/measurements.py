"""What networks cost on a machine: tables for the terminal, and the same as JSON values."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from prunenas.build.measure import BatchMeasurement, Measurement
from prunenas.ir.canonical import encode

Named = Sequence[tuple[str, Measurement]]
"""Measurements with the names of their networks, of the same batches; the first is compared to."""

_Cell = Callable[[BatchMeasurement, BatchMeasurement], str]
"""Given what is shown, and the first network's at the same batch."""

_COLUMNS: Mapping[str, _Cell] = {
    "median\nms": lambda one, _: _ms(one.latency.median_seconds),
    "p95\nms": lambda one, _: _ms(one.latency.p95_seconds),
    "images/\ns": lambda one, _: f"{one.throughput:,.0f}",
    "times\nfirst": lambda one, first: f"{_times(one, first):.2f}",
    "peak\nMiB": lambda one, _: f"{one.peak_bytes / 2**20:,.1f}",
    "J/\nimage": lambda one, _: (
        "" if one.joules_per_image is None else f"{one.joules_per_image:.2g}"
    ),
    "ONNX\nms": lambda one, _: "" if one.onnx is None else _ms(one.onnx.median_seconds),
}


def _ms(seconds: float) -> str:
    milliseconds = 1000 * seconds
    return f"{milliseconds:,.{3 if milliseconds < 1 else 2 if milliseconds < 100 else 0}f}"


def _times(one: BatchMeasurement, first: BatchMeasurement) -> float:
    """Return the median time as a multiple of the first network's."""
    return one.latency.median_seconds / first.latency.median_seconds


def measurement_values(found: Named) -> list[dict[str, Any]]:
    """Return measurements as JSON values.

    Beside what a measurement holds they tell its network, throughputs, and times as multiples of
    the first network's.
    """
    _, first = found[0]
    return [
        {
            "name": name,
            **encode(one),
            "batches": [
                {
                    **encode(at),
                    "throughput": at.throughput,
                    "times_the_first": _times(at, first.at(at.batch)),
                }
                for at in one.batches
            ],
        }
        for name, one in found
    ]


def cost_table(found: Named) -> Table:
    """Return a table of what the networks cost on any machine."""
    sparse = any(one.effective_macs is not None for _, one in found)
    table = Table("architecture", title="Costs of one image")
    for title in ("params", "MACs", *(("nonzero params", "effective MACs") if sparse else ())):
        table.add_column(title, justify="right")
    for name, one in found:
        counts = [one.params, one.macs]
        if sparse:
            # Of a dense network all weights count.
            counts += [one.nonzero_params or one.params, one.effective_macs or one.macs]
        table.add_row(name, *(f"{count:,}" for count in counts))
    return table


def measurement_table(found: Named) -> Table:
    """Return a table of what was measured; a column that no network has is left out."""
    _, first = found[0]
    rows = [
        (name, at, [cell(at, first.at(at.batch)) for cell in _COLUMNS.values()])
        for batch in (at.batch for at in first.batches)
        for name, at in ((name, one.at(batch)) for name, one in found)
    ]
    shown = [place for place in range(len(_COLUMNS)) if any(cells[place] for *_, cells in rows)]
    table = Table(title="Measured", caption=conditions_text(found))
    table.add_column("architecture", overflow="fold")
    for title in ("batch", *([*_COLUMNS][place] for place in shown)):
        table.add_column(title, justify="right")
    for name, at, cells in rows:
        table.add_row(name, str(at.batch), *(cells[place] for place in shown))
    return table


def conditions_text(found: Named) -> str:
    """Return in words how the networks were measured."""
    _, first = found[0]
    layouts = [*dict.fromkeys(one.layout.replace("_", " ") for _, one in found)]
    repeats = min(at.latency.repeats for _, one in found for at in one.batches)
    onnx = any(at.onnx is not None for _, one in found for at in one.batches)
    return ", ".join(
        [
            first.device,
            f"torch {first.torch}",
            first.precision,
            " or ".join(layouts),
            *["captured"] * first.captured,
            f"at least {repeats} repeats; fresh weights, on which time does not depend",
        ]
    ) + ("; ONNX Runtime in fp32" if onnx else "")


def left_out_lines(found: Named) -> Iterator[str]:
    """Yield what was not measured and why; what holds for all networks is told once."""
    told: dict[str, list[str]] = {}
    for name, one in found:
        for what, why in one.left_out.items():
            told.setdefault(f"{what}: {why}", []).append(name)
    for line, names in told.items():
        yield line if len(names) == len(found) else f"{', '.join(names)}: {line}"
