"""Measure tracing, coupling and narrowing of whole networks, beside Torch-Pruning on the same.

Usage: python scripts/bench_graph.py [--quick] [--only PART] [--json FILE]

Torch-Pruning (``pip install 'prunenas[bench]'``) is a peer to measure against, never a part of
prunenas. It runs in processes with a time limit (``bench_graph_child.py``), since some networks it
never finishes. Nothing is downloaded: all weights are fresh.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from bench_graph_child import KEEP, Row, made, timed, warm_up
from torchvision import models

import prunenas as pn
from prunenas.build.execution import device_name
from prunenas.importers.verify import certify
from prunenas.ir import ops
from prunenas.ir.canonical import digest
from prunenas.ir.cost import CostModel
from prunenas.ir.coupling import couple
from prunenas.ir.graph import Node

MOST = 100e6
"""Parameters of the largest networks that are traced."""

LARGE = 30e6
"""Parameters from which on a network is traced once only, and not taken the whole path."""

LIMIT = 90.0
"""Seconds that a process of the peer may take."""

QUICK = ("mobilenet_v2", "densenet121", "resnet18", "resnet50", "swin_t")
MEMORY = ("mobilenet_v2", "densenet201", "resnet50", "regnet_y_16gf", "swin_b", "vgg16")
CHAINS = (100, 300, 1_000, 3_000, 10_000)


def main() -> None:
    """Run the parts that are asked for, print their tables, save their numbers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few networks of each kind")
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--json", type=Path, help="where the numbers are saved")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    found: dict[str, Any] = {"machine": machine()}
    print("\n".join(f"{key}: {value}" for key, value in found["machine"].items()))
    for name, part in PARTS.items():
        if given.only in (None, name):
            print(f"\n== {name}: {part.__doc__}", flush=True)
            found[name] = part(given.quick)
    print(f"\nload after: {os.getloadavg()[0]:.2f}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


def machine() -> dict[str, str]:
    """Return what the numbers depend on."""
    return {
        "machine": f"{device_name(torch.device('cpu'))} of torch, {os.cpu_count()} cores",
        "python": f"{platform.python_version()}, "
        + ", ".join(f"{p} {version(p)}" for p in ("torch", "torchvision", "torch-pruning")),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def version(package: str) -> str:
    """Return the installed version of a package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def child(what: str, name: str, limit: float = 600.0) -> tuple[list[Row], str]:
    """Return the rows that a process of its own printed, and how it failed where it did."""
    script = Path(__file__).with_name("bench_graph_child.py")
    command = [sys.executable, str(script), what, name]
    try:
        done = subprocess.run(command, capture_output=True, timeout=limit, check=False)
        text, fault = done.stdout, done.stderr.decode().strip() if done.returncode else ""
    except subprocess.TimeoutExpired as error:
        text, fault = error.stdout or b"", f"not done after {limit:.0f} s"
    rows = [json.loads(line) for line in text.decode().splitlines() if line.startswith("{")]
    return rows, fault.rpartition("\n")[2][:70]


def spread(runs: Sequence[float]) -> str:
    """Return the least and the greatest of several runs."""
    return f"{min(runs):.3g} to {max(runs):.3g}"


def names(quick: bool) -> list[str]:
    """Return torchvision's classifiers of at most 100 M parameters, the small ones first."""
    every = models.list_models(module=models)
    return sorted((n for n in (QUICK if quick else every) if size(n) <= MOST), key=size)


def size(name: str) -> int:
    """Return the number of parameters that torchvision states."""
    return int(models.get_model_weights(name).DEFAULT.meta["num_params"])


def trace(quick: bool) -> list[Row]:
    """Seconds of trace and certificate, images of 224 x 224 (inception_v3: 299)."""
    warm_up()
    print(f"{'model':<20}{'Mparams':>8}{'nodes':>7}{'n':>3}{'all':>8}{'trace':>8}{'certif.':>8}")
    rows = []
    for name in names(quick):
        module, image = made(name)
        runs, checks = [], []
        for _ in range(1 if size(name) > LARGE else 3):
            one, duration = timed(pn.import_network, module, image)
            runs.append(duration)
            checks.append(timed(certify, one.graph, module, one.state)[1])
        rows.append({"model": name, "runs": runs, "certificates": checks})
        middle, check = statistics.median(runs), statistics.median(checks)
        print(
            f"{name:<20}{size(name) / 1e6:>8.1f}{len(one.graph.nodes):>7}{len(runs):>3}"
            f"{middle:>8.2f}{middle - check:>8.2f}{check:>8.2f}  {one.front_end:<13}"
            f"{spread(runs)}",
            flush=True,
        )
    print("The certificate was timed once more by itself; the trace is the rest of the whole.")
    slowest = max(rows, key=lambda row: statistics.median(row["runs"]))
    print(f"slowest: {slowest['model']}, {statistics.median(slowest['runs']):.2f} s")
    return rows


def narrow(quick: bool) -> Row:
    """Milliseconds of couple + allocate + apply, and of the peer's global pruning step."""
    name = "densenet121" if quick else "densenet201"
    [own], _ = child("narrowing", name)
    print(f"{name}, {own['nodes']} nodes; median of 9, each on a fresh graph object")
    for budget in ("keep", "max_macs"):
        sums = [sum(run) for run in zip(*own[budget].values(), strict=True)]
        told = " + ".join(f"{k} {statistics.median(runs):.1f}" for k, runs in own[budget].items())
        print(f"  {budget:<10}{statistics.median(sums):>9.1f}  {told}; {spread(sums)}")
    peer, fault = child("peer_global", name, LIMIT)
    for row in peer:
        print(f"  {'peer':<10}{row['ms']:>9.0f}  {row['call']}, once")
    if fault:
        print(f"  peer: {fault}")
    return {"model": name, "own": own, "peer": peer, "peer_fault": fault}


def paths(quick: bool) -> list[Row]:
    """Seconds from the module to a network of half the widths, median of 3, a process a model."""
    print("  fresh: import_network with its certificate, uniform profile, apply, build")
    print("  bare: the same without the comparison, which only this script leaves out")
    print("  kept: the same with l1_norm and inherit, so that the weights come along as the peer's")
    print("  peer: BasePruner(MagnitudeImportance, pruning_ratio=0.5) and its step; no comparison")
    print("  p: parameters left. Models up to 30 M; once only where a run takes 20 s")
    print(f"{'model':<20}{'fresh':>8}{'bare':>8}{'kept':>8}{'peer':>8}{'p':>6}{'p peer':>8}")
    rows = []
    for name in (n for n in names(quick) if size(n) <= LARGE):
        found, fault = child("paths", name, LIMIT)
        rows.append({"model": name, "fault": fault} | {row["who"]: row for row in found})
        print(_path_line(rows[-1]), flush=True)
    both = [row for row in rows if "fresh" in row and "peer" in row]
    print(f"of {len(rows)} models both can {len(both)}")
    for who in ("fresh", "bare", "kept"):
        times = [(_middle(row, who), _middle(row, "peer")) for row in both if who in row]
        if times:
            ratios = [peer / own for own, peer in times]
            own, peer = (statistics.median(column) for column in zip(*times, strict=True))
            print(
                f"{who:<6} median {own:.2f} s, peer {peer:.2f} s; peer / {who}: median of ratios "
                f"{statistics.median(ratios):.1f}, {spread(ratios)}, {len(ratios)} models"
            )
    return rows


def _path_line(row: Row) -> str:
    line = f"{row['model']:<20}"
    for who in ("fresh", "bare", "kept", "peer"):
        line += f"{_middle(row, who):>8.2f}" if who in row else f"{'-':>8}"
    for who, width in (("fresh", 6), ("peer", 8)):
        line += f"{row[who]['left']:>{width}.0%}" if who in row else f"{'-':>{width}}"
    return f"{line}  {row['fault']}"


def _middle(row: Row, who: str) -> float:
    return float(statistics.median(row[who]["runs"]))


def memory(quick: bool) -> list[Row]:
    """MiB of resident memory at the peak of import_network, a process each."""
    print("  forward: what one forward of 2 images adds; import: what import_network adds")
    print(f"{'model':<20}{'tensors':>9}{'forward':>9}{'import':>9}  (tensors + import) / tensors")
    rows = []
    for name in MEMORY[:2] if quick else MEMORY:
        [forward], _ = child("forward_memory", name)
        [imported], _ = child("import_memory", name)
        row = {"model": name, "forward": forward["added"], "import": imported["added"]}
        rows.append(row | {"own": forward["own"]})
        ratio = 1 + imported["added"] / forward["own"]
        print(
            f"{name:<20}{forward['own']:>9.0f}{forward['added']:>9.0f}{imported['added']:>9.0f}"
            f"{ratio:>8.2f}",
            flush=True,
        )
    return rows


def chains(quick: bool) -> list[Row]:
    """Milliseconds for each 1,000 nodes of residual chains, median of 3: linear where level."""
    steps = ("graph", "couple", "costs", "digest", "allocate", "apply")
    print("nodes".rjust(8) + "".join(f"{step:>10}" for step in steps))
    rows = []
    for count in CHAINS[:3] if quick else CHAINS:
        runs = [_chain_run(count) for _ in range(3)]
        row = {step: statistics.median(run[step] for run in runs) for step in steps}
        rows.append({"nodes": count} | row)
        print(f"{count:>8,}" + "".join(f"{row[s] / count * 1e6:>10.2f}" for s in steps), flush=True)
    print("Blocks that concatenate all before (DenseNet) hold a number of segments that is")
    print("quadratic in their layers, so what is told of their axes grows with it.")
    return rows


def _chain_run(count: int) -> dict[str, float]:
    nodes, run = chain(count), {}
    graph, run["graph"] = timed(pn.Graph, nodes=nodes, output=nodes[-1].name)
    _, run["couple"] = timed(couple, graph)
    _, run["costs"] = timed(CostModel.of, graph)
    _, run["digest"] = timed(digest, graph)
    profile = pn.StageProfile.uniform(graph, KEEP)
    descriptor, run["allocate"] = timed(pn.allocate, graph, profile, keep=KEEP)
    _, run["apply"] = timed(pn.apply, graph, descriptor)
    return run


def chain(count: int) -> tuple[Node, ...]:
    """Return a network of ``count`` nodes: residual blocks, and norms up to the number."""
    conv = ops.Conv2d(width=16, kernel=(3, 3), padding=(1, 1))
    block = (conv, ops.BatchNorm(), ops.Activation(function="relu"), conv, ops.BatchNorm())
    nodes = [Node(name="input", op=ops.Input(width=3, spatial=(8, 8)))]

    def add(op: ops.AnyOp, *others: str) -> None:
        nodes.append(Node(name=f"node{len(nodes)}", op=op, inputs=(nodes[-1].name, *others)))

    add(conv)
    while len(nodes) + len(block) + 1 <= count - 3:
        entry = nodes[-1].name
        for op in block:
            add(op)
        add(ops.Add(), entry)
    while len(nodes) < count - 3:
        add(ops.BatchNorm())
    for op in (ops.GlobalPool(), ops.Flatten(), ops.Linear(width=10)):
        add(op)
    return tuple(nodes)


PARTS = {"trace": trace, "narrow": narrow, "paths": paths, "memory": memory, "chains": chains}


if __name__ == "__main__":
    main()
