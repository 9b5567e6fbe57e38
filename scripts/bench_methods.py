r"""Measure what every pruning method costs, and how much of it is training.

Each run has a process of its own, so that its peak memory is its own: the largest resident set of
the process, with torch and the images in it. Seconds are wall seconds of one call of ``prune``,
which trains the reference first where the method looks at a trained one; imports and the making of
images are left out. CPU seconds are those of all threads: on a machine that others use too, they
tell more than wall seconds do.

Usage: python scripts/bench_methods.py [--out docs/method-costs.md]
       python scripts/bench_methods.py --network vgg16 --width 1 --images 5000 \
           --only thinet,regression
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

COLUMNS = ("method", "seconds", "of them training", "spread", "CPU seconds", "peak MiB", "kept")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", default="vgg11", help="family of the reference")
    parser.add_argument("--width", type=float, default=0.25, help="its width multiplier")
    parser.add_argument("--side", type=int, default=32, help="height and width of the images")
    parser.add_argument("--images", type=int, default=1000, help="images that are trained on")
    parser.add_argument("--epochs", type=int, default=1, help="of every training, in epochs")
    parser.add_argument("--keep", type=float, default=0.5, help="fraction that is kept")
    parser.add_argument("--only", default="", help="methods, between commas; all by default")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each method")
    parser.add_argument("--out", type=Path, help="a Markdown file to write the table to")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def measured(asked: argparse.Namespace, method: str) -> dict[str, Any]:
    """Return what one call of a method costs, in this process."""
    import torch

    import prunenas as pn
    from prunenas.data.shapes import shapes
    from prunenas.errors import PruneNASError
    from prunenas.generators.base import make_generator, prune
    from prunenas.training.follow import EpochReport
    from prunenas.training.recipe import Recipe

    torch.set_num_threads(asked.threads)
    graph = pn.reference(asked.network, (3, asked.side, asked.side), 10, width=asked.width)
    # A tenth is held out for validation.
    data = shapes(train=-(-asked.images * 10 // 9), test=100, side=asked.side)
    training = 0.0

    def on_epoch(report: EpochReport) -> None:
        nonlocal training
        if report.epoch == report.epochs:
            training += report.seconds

    recipe = Recipe(epochs=asked.epochs, lr=0.01)
    keep = None if make_generator(method).says_how_much else asked.keep
    started, used = time.perf_counter(), time.process_time()
    try:
        found = prune(method, graph, data, keep=keep, recipe=recipe, on_epoch=on_epoch)
    except PruneNASError as refusal:
        return {"refused": str(refusal).partition("\n")[0]}
    seconds = time.perf_counter() - started
    origin = found.descriptor.origin
    return {
        "seconds": seconds,
        "training": training,
        "cpu": time.process_time() - used,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "kept": None if origin is None else origin.reached,
    }


def row(method: str, runs: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return a row of the table from all runs of one method."""
    refused = [run["refused"] for run in runs if "refused" in run]
    if refused:
        return (method, "refused:", refused[0], *[""] * (len(COLUMNS) - 3))
    seconds = [run["seconds"] for run in runs]
    middle = statistics.median(seconds)
    return (
        method,
        f"{middle:.1f}",
        f"{statistics.median([run['training'] for run in runs]):.1f}",
        f"{(max(seconds) - min(seconds)) / middle:.0%}" if len(runs) > 1 else "",
        f"{statistics.median([run['cpu'] for run in runs]):.0f}",
        f"{max(run['peak'] for run in runs):.0f}",
        f"{runs[0]['kept']:.3f}",
    )


def main() -> None:
    """Print the table, and write it where it is asked for."""
    asked = arguments()
    if asked.child:
        print(json.dumps(measured(asked, asked.child)))
        return
    from prunenas.build.execution import processor
    from prunenas.generators.base import GENERATORS

    methods = asked.only.split(",") if asked.only else GENERATORS.names()
    head = (
        f"`{asked.network}` of width {asked.width:g} on {asked.images} synthetic images of "
        f"{asked.side} x {asked.side} (`shapes`), keep {asked.keep:g}, {asked.epochs} "
        f"epoch{'s' * (asked.epochs > 1)} a training; {processor()}, {os.cpu_count()} cores, "
        f"{asked.threads} threads, n = {asked.repeats} each, median"
    )
    lines = ["# What every method costs", "", head + ".", "", f"| {' | '.join(COLUMNS)} |"]
    lines.append("| --- " * len(COLUMNS) + "|")
    print("\n".join(lines), flush=True)
    for method in methods:
        runs = []
        for _ in range(asked.repeats):
            command = [sys.executable, *sys.argv, "--child", method]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
        lines.append(f"| {' | '.join(row(method, runs))} |")
        print(lines[-1], flush=True)
    if asked.out:
        lines.insert(2, f"Written by `python {' '.join(sys.argv)}`.\n")
        asked.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
