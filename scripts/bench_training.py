"""Measure trainings beside the loop of the paper's released code, in one run.

Usage: python scripts/bench_training.py [--device cuda] [--quick] [--compile] [--only NETWORK]
           [--out FILE.md] [--json FILE]

Every network has a process of its own. In it all contestants are made and warmed up first (8 steps
each, what is recorded or compiled included), then they take turns, a burst each, so that what else
the machine does meets all alike. Told are the medians of the bursts, the least and the most. The
images are noise in CIFAR's or Fashion-MNIST's format: nothing is downloaded, and no speed depends
on what they show. The loop (``bench_training_loop.py``) has as many worker processes as serve it
best here.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from bench_training_child import Asked, measured

CIFAR, FASHION = (3, 32, 32), (1, 28, 28)
NETWORKS = {
    "cuda": [
        (name, 1.0, CIFAR)
        for name in ("resnet56", "resnet110", "preresnet164", "densenet40", "vgg16")
    ],
    "cpu": [
        ("vgg16", 1.0, CIFAR),
        ("resnet56", 1.0, CIFAR),
        ("vgg11", 0.085, FASHION),
        ("vgg11", 0.045, FASHION),
    ],
}
"""Family, width multiplier and images. The two narrow ones have 69 k and 19 k parameters."""

LIMIT, COMPILE_LIMIT = 3600.0, 420.0
"""Seconds that a process may take, and one that compiles first."""

Found = dict[str, Any]


def main() -> None:
    """Measure all networks, print their tables, save them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--quick", action="store_true", help="few and short bursts")
    parser.add_argument("--compile", action="store_true", help="torch.compile too")
    parser.add_argument("--only", help="one family, such as vgg16")
    parser.add_argument("--out", type=Path, help="a Markdown file to write the tables to")
    parser.add_argument("--json", type=Path, help="a file to write the numbers to")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--compiled", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if given.child is not None:
        print(json.dumps(measured(asked(given))))
        return
    pieces, everything = [machine(given.device)], []
    print(pieces[0], flush=True)
    for number, (name, _, _) in enumerate(NETWORKS[given.device]):
        if given.only in (None, name):
            everything.append(of_network(given, number))
            pieces.append(told(everything[-1]))
            print(pieces[-1], flush=True)
    if given.out:
        given.out.write_text("\n".join(pieces), encoding="utf-8")
    if given.json:
        given.json.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")


def asked(given: argparse.Namespace) -> Asked:
    """Return what a child is to measure."""
    network, width, size = NETWORKS[given.device][given.child]
    return Asked(
        network=network,
        width=width,
        size=size,
        device=torch.device(given.device),
        rounds=5 if given.quick else 9,
        seconds=1.0 if given.quick else 2.0,
        compiled=given.compiled,
    )


def of_network(given: argparse.Namespace, number: int) -> Found:
    """Return what is found about one network, by one process or two."""
    name, width, size = NETWORKS[given.device][number]
    found: Found = {"name": name, "width": width, "images": "x".join(map(str, size))}
    found |= child(given, number, limit=LIMIT)
    if given.compile:
        found["compiled"] = child(given, number, "--compiled", limit=COMPILE_LIMIT)
    return found


def child(given: argparse.Namespace, number: int, *more: str, limit: float) -> Found:
    """Return what a process of its own finds, or why it found nothing."""
    command = [sys.executable, __file__, "--device", given.device, "--child", str(number), *more]
    command += ["--quick"] * given.quick
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": f"it took more than {limit:.0f} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {"failed": lines[-1]}
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def machine(device: str) -> str:
    """Return in words what the numbers depend on."""
    cpu, info = platform.machine(), Path("/proc/cpuinfo")
    if info.exists():
        named = [line for line in info.read_text().splitlines() if "model name" in line]
        cpu = named[0].partition(":")[2].strip() if named else cpu
    words = [f"{cpu}, {os.cpu_count()} cores, {torch.get_num_threads()} threads of torch"]
    words += [torch.cuda.get_device_name()] if device == "cuda" else []
    words += [f"Python {platform.python_version()}", f"torch {torch.__version__}"]
    return f"Machine: {', '.join(words)}; load before {os.getloadavg()[0]:.1f}.\n"


def told(found: Found) -> str:
    """Return the tables of one network as Markdown."""
    title = f"\n## {found['name']} at width {found['width']:g}, images {found['images']}\n\n"
    if "failed" in found:
        return f"{title}Left out: {found['failed']}.\n"
    text = f"{title}{found['params']:,} parameters, {found['macs']:,} MACs.\n"
    text += rates("training", found["training"], found["execution"])
    if "compiled" in found:
        text += compiled(found["compiled"])
    text += rates("data path alone", found["data path"], {})
    text += rates("evaluation", found["evaluation"], {})
    builds = found["build seconds"]
    text += (
        f"\nBuilt and initialised in {statistics.median(builds):.3f} s "
        f"(n={len(builds)}, {min(builds):.3f} to {max(builds):.3f}).\n"
    )
    return text + once(found.get("cuda", {}))


def rates(what: str, found: dict[str, list[float]], execution: dict[str, str]) -> str:
    """Return a table of images a second beside the paper's loop's."""
    first = statistics.median(next(iter(found.values())))
    base = next(iter(found))
    lines = [
        f"\n| {what} | how | images/s, median of {len(found[base])} | least to most "
        f"| times {base} |",
        "|---|---|---|---|---|",
    ]
    for words, values in found.items():
        middle = statistics.median(values)
        lines.append(
            f"| {words} | {execution.get(words, '')} | {middle:,.0f} "
            f"| {min(values):,.0f} to {max(values):,.0f} | {middle / first:.2f} |"
        )
    return "\n".join(lines) + "\n"


def compiled(found: Found) -> str:
    """Return what compiling gains, or why nothing is known."""
    if "failed" in found:
        return f"\n`torch.compile` left out: {found['failed']}.\n"
    return rates("compiled", found["training"], found["execution"])


def once(found: dict[str, dict[str, float]]) -> str:
    """Return the table of what a candidate costs once on CUDA."""
    if not found:
        return ""
    lines = ["\n| once | capture, s | peak memory, MiB |", "|---|---|---|"]
    lines += [
        f"| {words} | {row['capture seconds']:.2f} | {row['peak MiB']:,.0f} |"
        for words, row in found.items()
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
