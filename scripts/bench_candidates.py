r"""Measure how many small candidates an hour are trained, one at a time and several at once.

Every candidate has less than a million parameters. A row WORKERSxTHREADS trains all of them: one
after another in this process where WORKERS is 1, else by ``train_many``. Seconds are wall seconds;
those of workers include their start (a process each that imports torch), which is told too. The
rows take turns in every repeat, and the table has medians.

What the trainings reach is compared, seed by seed, with the row before that has as many threads,
or with the first row: on a CPU the number of threads changes the last bits.

Usage: python scripts/bench_candidates.py [--out docs/many-candidates-table.md]
       python scripts/bench_candidates.py --device cuda --rows 1x8,2x4,4x2,8x2 --data cifar10
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import prunenas as pn
from prunenas.arch.metrics import Metrics
from prunenas.build.execution import processor
from prunenas.data.base import ImageData
from prunenas.ir.cost import macs, params
from prunenas.training.loop import train_seeds
from prunenas.training.own_process import cores
from prunenas.training.workers.train_many import Job, Outcome, train_many

CANDIDATES = (
    *[("vgg11", width) for width in (0.05, 0.1, 0.15, 0.2)],
    *[("resnet20", width) for width in (0.25, 0.5, 0.75, 1.0)],
)
COLUMNS = (
    "workers x threads",
    "seconds",
    "spread",
    "of them start",
    "candidates an hour",
    "without start",
    "against the first row",
    "results",
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """So many trainings at once, each with so many threads."""

    workers: int
    threads: int

    def __str__(self) -> str:
        return f"{self.workers} x {self.threads}"


@dataclass(frozen=True, kw_only=True)
class Pass:
    """All candidates trained once."""

    seconds: float
    start: float
    outcomes: tuple[Outcome, ...]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", default="fashion_mnist", help="data set")
    parser.add_argument("--images", type=int, default=4000, help="training images; 0 takes all")
    parser.add_argument("--epochs", type=int, default=2, help="of every training")
    parser.add_argument("--recipe", default="fast", help="named recipe")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each candidate")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rows", default="", help="such as 1x2,1x1,2x1; by default by the cores")
    parser.add_argument("--repeats", type=int, default=3, help="passes of each row")
    parser.add_argument("--note", default="", help="a sentence to put below the table")
    parser.add_argument("--out", type=Path, help="a Markdown file to write the table to")
    return parser.parse_args()


def rows_of(text: str) -> list[Row]:
    """Return the rows that are asked for; by default one training at a time, then 2, 4 and 8."""
    if not text:
        pairs = [(1, cores()), *[(n, max(1, cores() // n)) for n in (2, 4, 8) if n <= 2 * cores()]]
        if cores() > 1:
            pairs.insert(1, (1, 1))
    else:
        pairs = [(int(w), int(t)) for w, t in (item.split("x") for item in text.split(","))]
    return [Row(workers=w, threads=t) for w, t in pairs]


def made_jobs(asked: argparse.Namespace, data: ImageData) -> list[Job]:
    recipe = replace(pn.named_recipe(asked.recipe), epochs=asked.epochs)
    graphs = [
        pn.reference(family, data.input_size, data.classes, width=width)
        for family, width in CANDIDATES
    ]
    assert max(map(params, graphs)) < 1_000_000
    # The longest first, as whoever fills a machine would do.
    graphs.sort(key=macs, reverse=True)
    return [
        Job(graph=graph, recipe=recipe, seeds=(seed,))
        for graph in graphs
        for seed in range(asked.seeds)
    ]


def measured(row: Row, jobs: Sequence[Job], data: ImageData, device: str) -> Pass:
    """Return what one pass of a row costs and reaches."""
    began = time.perf_counter()
    if row.workers == 1:
        torch.set_num_threads(row.threads)
        done = [
            train_seeds(job.graph, data, job.recipe, seeds=job.seeds, device=device) for job in jobs
        ]
        return Pass(seconds=time.perf_counter() - began, start=0.0, outcomes=tuple(done))
    starts = []

    def arrived(place: int, outcome: Outcome) -> None:
        if isinstance(outcome, Metrics):
            starts.append(time.perf_counter() - began - outcome.seconds)

    outcomes = train_many(
        jobs,
        data,
        workers=row.workers,
        threads=row.threads,
        device=device,
        on_result=arrived,
    )
    seconds = time.perf_counter() - began
    return Pass(seconds=seconds, start=min(starts, default=0.0), outcomes=tuple(outcomes))


def compared(found: Sequence[Outcome], reference: Sequence[Outcome]) -> str:
    """Return in words how far the results of two passes are apart, seed by seed."""
    failed = [str(one) for one in (*found, *reference) if not isinstance(one, Metrics)]
    if failed:
        return f"failed: {failed[0]}"
    pairs = [
        (mine, other)
        for one, two in zip(found, reference, strict=True)
        if isinstance(one, Metrics) and isinstance(two, Metrics)
        for mine, other in zip(one.results, two.results, strict=True)
    ]
    accuracy = max(abs(mine.accuracy - other.accuracy) for mine, other in pairs)
    loss = max(abs(mine.loss - other.loss) for mine, other in pairs)
    if accuracy == loss == 0:
        return "the same bits"
    return f"accuracy within {100 * accuracy:.2f} %, loss within {loss:.2g}"


def table(rows: Sequence[Row], passes: Sequence[Sequence[Pass]], trainings: int) -> list[str]:
    """Return the lines of the table."""
    lines = [f"| {' | '.join(COLUMNS)} |", "| --- " * len(COLUMNS) + "|"]
    first = statistics.median(one.seconds for one in passes[0])
    for place, (row, runs) in enumerate(zip(rows, passes, strict=True)):
        seconds = [one.seconds for one in runs]
        middle = statistics.median(seconds)
        start = statistics.median(one.start for one in runs)
        like = next(i for i, other in enumerate(rows) if other.threads == row.threads)
        against = like if like < place else 0
        words = compared(runs[0].outcomes, passes[against][0].outcomes)
        cells = (
            str(row),
            f"{middle:.1f}",
            f"{(max(seconds) - min(seconds)) / middle:.0%}" if len(seconds) > 1 else "",
            f"{start:.1f}" if row.workers > 1 else "",
            f"{3600 * trainings / middle:.0f}",
            f"{3600 * trainings / (middle - start):.0f}",
            f"{first / middle:.2f}",
            f"{words} as {rows[against]}" if place else "",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def machine(device: str) -> str:
    """Return processor, GPU and versions in words."""
    words = [f"{processor()}, {cores()} cores"]
    if torch.device(device).type == "cuda":
        words.insert(0, torch.cuda.get_device_name(device))
    return "; ".join([*words, f"torch {torch.__version__}"])


def main() -> None:
    """Print the table, and write it where it is asked for."""
    asked = arguments()
    data = pn.dataset(asked.data)
    if asked.images:
        tests = min(1000, len(data.test_labels))
        data = data.small(min(asked.images, len(data.train_labels)), tests)
    data = data.to(asked.device)
    rows, jobs = rows_of(asked.rows), made_jobs(asked, data)
    load = os.getloadavg()[0]
    # What torch imports at the first step is no candidate's cost.
    train_seeds(
        jobs[-1].graph, data, replace(jobs[-1].recipe, epochs=1), seeds=[0], device=data.device
    )
    passes: list[list[Pass]] = [[] for _ in rows]
    for repeat in range(asked.repeats):
        for row, done in zip(rows, passes, strict=True):
            done.append(measured(row, jobs, data, asked.device))
            print(f"{repeat + 1}/{asked.repeats} {row}: {done[-1].seconds:.1f} s", flush=True)
    sizes = [params(job.graph) for job in jobs]
    head = (
        f"{len(CANDIDATES)} candidates of {min(sizes):,} to {max(sizes):,} parameters, "
        f"{asked.seeds} seed{'s' * (asked.seeds > 1)} each, on `{data.name}`, "
        f"recipe `{asked.recipe}` with {asked.epochs} epochs; {machine(asked.device)}; "
        f"n = {asked.repeats} passes a row, median; load average before: {load:.1f}."
    )
    lines = ["# Small candidates an hour", "", head, ""]
    lines += table(rows, passes, len(jobs))
    lines += ["", asked.note] if asked.note else []
    print("\n".join(lines))
    if asked.out:
        lines.insert(2, f"Written by `python {' '.join(sys.argv)}`.\n")
        asked.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
