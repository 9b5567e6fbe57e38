"""Import torchvision's classification networks and one of each timm family; write what came out.

Usage: python scripts/import_coverage.py [--only NAME ...] [--cache FILE] [--out FILE]

One network at a time, each measured once and appended to the cache, so that a run that was broken
off goes on where it was. ``--only`` measures the networks named, again where they are known.
"""

import argparse
import gc
import json
import os
import platform
import re
import sys
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import nn

import prunenas as pn
from prunenas.errors import TraceError
from prunenas.importers.sources import find
from prunenas.ir.cost import macs, node_costs, params
from prunenas.ir.coupling import ChannelGroups, couple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from tests.importers.models import FAMILIES, TORCHVISION  # noqa: E402

KEEP = 0.5
LEAST_CUT = 0.6
TIME_LIMIT = 1800.0
Row = dict[str, Any]
Made = tuple[nn.Module, tuple[int, int, int]]


def of_torchvision(name: str) -> Callable[[], Made]:
    def make() -> Made:
        source = find(f"torchvision:{name}")
        assert source.input_size is not None
        return source.module, source.input_size

    return make


def networks() -> dict[str, tuple[Row, Callable[[], Made]]]:
    """Return what is known of each network before it is traced, and how it is made."""
    known: dict[str, tuple[Row, Callable[[], Made]]] = {}
    for name in TORCHVISION:
        known[f"torchvision:{name}"] = {"collection": "torchvision"}, of_torchvision(name)
    for family, entry in FAMILIES.items():
        row = {"collection": "timm", "family": family, "options": dict(entry.options)}
        if not entry.traced:
            row["expected"] = entry.outcome
        known[f"timm:{entry.model}"] = row, entry.make
    return known


def measured(name: str, make: Callable[[], Made]) -> Row:
    """Return the row of one network; a refused one says why."""
    module, size = make()
    row: Row = {"name": name, "input_size": list(size)}
    started = time.process_time()
    try:
        imported = pn.import_network(module, size, time_limit=TIME_LIMIT)
    except TraceError as error:
        return row | {"refused": str(error), "seconds": time.process_time() - started}
    seconds = time.process_time() - started
    graph, groups = imported.graph, couple(imported.graph)
    narrow = pn.apply(graph, pn.StageProfile.uniform(graph, KEEP).descriptor(graph))
    return row | {
        "seconds": seconds,
        "nodes": len(graph.nodes),
        "front_end": imported.front_end,
        "params": params(graph),
        "macs": macs(graph),
        "difference": imported.certificate.difference,
        "checks": len(imported.certificate.checks),
        "free": len(groups.free),
        "fixed": len(groups.groups) - len(groups.free),
        "ordered": sum(group.ordered is not None for group in groups.free),
        "cut": 1 - macs(narrow) / macs(graph),
        "dropped": dict(imported.dropped),
        "held": held(graph, groups),
    }


def held(graph: pn.Graph, groups: ChannelGroups) -> list[Row]:
    """Return the fixed groups but the input's, with the share of MACs of their layers."""
    at: dict[str, set[str]] = defaultdict(set)
    for node in graph.nodes:
        axes = [axis for name in (*node.inputs, node.name) for axis in groups.dims[name]]
        for name in {name for axis in axes for segment in axis for name in segment.groups}:
            at[name].add(node.name)
    costs = {cost.name: cost.macs for cost in node_costs(graph)}
    whole = sum(costs.values())
    return [
        {
            "group": group.name,
            "width": group.width,
            "reason": group.fixed,
            "share": sum(costs[name] for name in at[group.name]) / whole,
        }
        for group in groups
        if group.fixed not in (None, "network input")
    ]


def run(names: Iterable[str], cache: Path, again: bool) -> None:
    """Measure the networks one after the other; each row is on disk before the next begins."""
    known, done = networks(), rows(cache)
    for name in names:
        if name in done and not again:
            continue
        gc.collect()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            row = measured(name, known[name][1])
        with cache.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        told = row.get("refused", f"{row.get('nodes')} nodes, cut {row.get('cut', 0):.3f}")
        print(f"{name}: {row['seconds']:.1f} s, {told.splitlines()[0]}", flush=True)


def rows(cache: Path) -> dict[str, Row]:
    """Return the rows measured so far, the last one of each network."""
    lines = cache.read_text(encoding="utf-8").splitlines() if cache.exists() else []
    return {row["name"]: row for row in map(json.loads, lines)}


# Writing


def page(found: Mapping[str, Row]) -> str:
    """Return the whole page."""
    lines = [*head(), *totals(found)]
    for collection in ("torchvision", "timm"):
        mine = [row for row in found.values() if row["collection"] == collection]
        lines += [f"## {collection}", "", *table(mine), *left_out(mine), *refusals(mine)]
    return "\n".join([*lines, *what_holds(found), *who_is_held(found)])


def head() -> list[str]:
    return [
        "# What is imported",
        "",
        "Every classification network of torchvision, and one small network of each family of",
        "timm, traced by `python scripts/import_coverage.py`, which wrote this page. torch "
        f"{version(torch)},",
        f"torchvision {version(torchvision)}, timm {version(timm)}; "
        f"{torch.get_num_threads()} thread of a {os.cpu_count()}-core {platform.machine()} "
        "machine.",
        "",
        "- **nodes** of the graph; **params** and **MACs** of one image.",
        "- **difference**: largest difference of an output from the module's, of how far "
        "outputs lie from",
        "  their mean, over all checks of the certificate (the bound is 1e-4).",
        "- **free**, **fixed**: groups whose width may vary, and may not. Two are fixed in every "
        "network: its",
        "  input and its classes.",
        f"- **cut**: share of the MACs that goes when every stage keeps {KEEP:g}.",
        "- **seconds** of one core for tracing and the certificate, without making the module.",
        "",
    ]


def version(package: Any) -> str:
    return str(package.__version__).partition("+")[0]


def totals(found: Mapping[str, Row]) -> list[str]:
    lines = ["| | traced | of | by torch.fx | by torch.export | exactly equal |"]
    lines += ["|---|---|---|---|---|---|"]
    for collection, what in (("torchvision", "networks"), ("timm", "families")):
        mine = [row for row in found.values() if row["collection"] == collection]
        good = [row for row in mine if "refused" not in row]
        by = Counter(row["front_end"] for row in good)
        exact = sum(row["difference"] == 0 for row in good)
        lines.append(
            f"| {collection} {what} | {len(good)} | {len(mine)} | {by['torch.fx']} | "
            f"{by['torch.export']} | {exact} |"
        )
    return [*lines, ""]


def table(mine: list[Row]) -> list[str]:
    titles = ["network", "nodes", "front end", "params", "MACs", "difference", "free", "fixed"]
    titles += ["cut", "seconds"]
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for row in sorted(mine, key=title):
        if "refused" in row:
            continue
        cells = [title(row), f"{row['nodes']:,}", row["front_end"], f"{row['params']:,}"]
        cells += [f"{row['macs']:,}", f"{row['difference']:.1e}", row["free"], row["fixed"]]
        cells += [f"{row['cut']:.3f}", f"{row['seconds']:.1f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return [*lines, ""]


def title(row: Row) -> str:
    """Return the network's name, with what of it is not its own."""
    name = row["name"].partition(":")[2]
    told = [f"{key} {value}" for key, value in row.get("options", {}).items()]
    sides = "x".join(map(str, row["input_size"][1:]))
    family = row.get("family")
    first = f"{family}: `{name}`" if family else f"`{name}`"
    return f"{first} ({', '.join([*told, sides])})"


def left_out(mine: list[Row]) -> list[str]:
    """Return what evaluation does not use."""
    dropping = [row for row in mine if row.get("dropped")]
    if not dropping:
        return []
    lines = ["Left out, since evaluation does not use it:", ""]
    for row in sorted(dropping, key=title):
        heads = ", ".join(f"`{name}` ({count:,} params)" for name, count in row["dropped"].items())
        lines.append(f"- {title(row)}: {heads}")
    return [*lines, ""]


def refusals(mine: list[Row]) -> list[str]:
    refused = [row for row in mine if "refused" in row]
    if not refused:
        return []
    lines = ["| refused | why | what is told |", "|---|---|---|"]
    for row in sorted(refused, key=title):
        calls = [line.strip() for line in row["refused"].splitlines() if line.startswith("  ")]
        told = "; ".join(calls or row["refused"].splitlines()[:1])
        told = told if len(told) <= 300 else told[:297] + "..."
        lines.append(f"| {title(row)} | {row.get('expected', '')} | {cell(told)} |")
    return [*lines, ""]


def cell(text: str) -> str:
    return text.replace("|", r"\|").replace("<", "&lt;").replace("*", r"\*").replace("`", "'")


def kind_of(reason: str) -> str:
    """Return a reason without the node that asks and the numbers it has."""
    node, _, rest = reason.partition(" ")
    return re.sub(r"\d+", "n", rest if re.search(r"[._a-z0-9]", node) else reason)


def what_holds(found: Mapping[str, Row]) -> list[str]:
    lines = ["## What holds widths back", "", "Beside input and classes:", ""]
    lines += ["| reason | groups | networks | widths | for example |", "|---|---|---|---|---|"]
    groups: dict[str, list[tuple[str, Row]]] = defaultdict(list)
    for name, row in found.items():
        for group in inner(row):
            groups[kind_of(group["reason"])].append((name, group))
    for kind, held_by in sorted(groups.items(), key=lambda item: -len(item[1])):
        names = {name for name, _ in held_by}
        name, group = held_by[0]
        example = f"`{name}`, `{group['group']}` of {group['width']}: {cell(group['reason'])}"
        widths = sorted({group["width"] for _, group in held_by})
        span = f"{widths[0]} to {widths[-1]}" if len(widths) > 1 else widths[0]
        lines.append(f"| {cell(kind)} | {len(held_by)} | {len(names)} | {span} | {example} |")
    traced = [row for row in found.values() if "refused" not in row]
    none = sum(not inner(row) for row in traced)
    lines += [
        "",
        f"{none} of {len(traced)} networks have no other fixed group. A width of 3 that is",
    ]
    lines += ["picked by its number is mostly that of queries, keys and values in one layer.", ""]
    return lines


def inner(row: Row) -> list[Row]:
    """Return the fixed groups but for input and output."""
    return [group for group in row.get("held", ()) if group["reason"] != "network output"]


def who_is_held(found: Mapping[str, Row]) -> list[str]:
    low = [row for row in found.values() if row.get("cut", 1) < LEAST_CUT]
    lines = [
        f"Networks that lose less than {LEAST_CUT:.0%} of their MACs at keep {KEEP:g}, with the"
    ]
    lines += ["fixed groups that stand in the layers of most MACs. A network without a classifier"]
    lines += ["gives its features out, so their width is the output's.", ""]
    lines += ["| network | cut | group | share of the MACs | why |", "|---|---|---|---|---|"]
    for row in sorted(low, key=lambda row: row["cut"]):
        start = f"| {title(row)} | {row['cut']:.3f} |"
        by_kind: dict[str, list[Row]] = defaultdict(list)
        for group in sorted(row["held"], key=lambda group: -group["share"]):
            by_kind[kind_of(group["reason"])].append(group)
        for alike in [*by_kind.values()][:2]:
            most, more = alike[0], f" and {len(alike) - 1} more" if len(alike) > 1 else ""
            why = cell(most["reason"])
            lines.append(f"{start} `{most['group']}`{more} | {most['share']:.2f} | {why} |")
    return [*lines, ""]


def main() -> None:
    """Measure what is not known yet; write the page when nothing is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", metavar="NAME", help="such as timm:vgg11")
    parser.add_argument("--cache", type=Path, default=Path("runs/import-coverage.jsonl"))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "import-coverage.md")
    given = parser.parse_args()
    given.cache.parent.mkdir(parents=True, exist_ok=True)
    known = networks()
    if strange := {*(given.only or ())} - {*known}:
        parser.error(f"no network {', '.join(sorted(strange))}; names are such as timm:vgg11")
    run(given.only or known, given.cache, again=given.only is not None)
    found = rows(given.cache)
    if missing := [name for name in known if name not in found]:
        print(f"{len(missing)} networks are missing, the page is not written: {missing[:5]}")
        return
    whole = {name: row | found[name] for name, (row, _) in known.items()}
    given.out.write_text(page(whole), encoding="utf-8")
    print(f"wrote {given.out}")


if __name__ == "__main__":
    main()
