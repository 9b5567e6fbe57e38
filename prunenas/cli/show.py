"""What ``inspect`` shows of an architecture."""

from typing import Any

from rich.console import Console
from rich.table import Table

from prunenas.arch.descriptor import Descriptor
from prunenas.arch.spec import ArchSpec
from prunenas.ir.blocks import blocks
from prunenas.ir.canonical import encode
from prunenas.ir.cost import macs, params
from prunenas.ir.coupling import couple
from prunenas.ir.stages import stages
from prunenas.report.table import accuracy_text

_OF_TRACING = ("source", "front_end", "difference", "dropped", "frozen")


def facts(spec: ArchSpec) -> dict[str, Any]:
    """Return what is known of an architecture, as JSON values."""
    graph = spec.graph
    groups = couple(graph)
    known: dict[str, Any] = {
        "name": spec.name,
        "digest": spec.digest,
        "input_size": list(graph.input_size),
        "classes": graph.classes,
        "params": params(graph),
        "macs": macs(graph),
        "groups": [
            {
                "name": group.name,
                "width": group.width,
                "members": list(group.members),
                "divisor": group.divisor,
                "fixed": group.fixed,
                "ordered": group.ordered,
            }
            for group in groups
        ],
        "stages": [
            {
                "name": stage.name,
                "spatial": list(stage.spatial),
                "groups": [group.name for group in stage.groups],
            }
            for stage in stages(graph)
        ],
        "blocks": [block.name for block in blocks(graph)],
    }
    known |= {key: spec.provenance[key] for key in _OF_TRACING if key in spec.provenance}
    if spec.reference is not None:
        known["reference"] = {"params": params(spec.reference), "macs": macs(spec.reference)}
    if spec.descriptor is not None and spec.descriptor.origin is not None:
        known["origin"] = encode(spec.descriptor.origin)
    if spec.profile is not None:
        known["keeps"] = dict(spec.profile.keeps)
    if spec.metrics is not None:
        known["accuracy"] = spec.metrics.accuracy
        known["metrics"] = encode(spec.metrics)
    return known


def print_facts(spec: ArchSpec, console: Console) -> None:
    """Print cost, groups and stages."""
    graph = spec.graph
    title = f"{spec.name}: {params(graph):,} params, {macs(graph):,} MACs, digest {spec.digest}"
    console.print(title, highlight=False, soft_wrap=True, style="bold")
    if spec.reference is not None:
        p, m = params(graph) / params(spec.reference), macs(graph) / macs(spec.reference)
        console.print(f"{p:.1%} of the reference's params, {m:.1%} of its MACs", highlight=False)
    _print_tracing(spec, console)
    _print_origin(spec.descriptor, console)
    console.print(_group_table(spec))
    if spec.metrics is not None:
        metrics = spec.metrics
        console.print(
            f"{metrics.part} accuracy {accuracy_text(metrics)} % on {metrics.data}",
            highlight=False,
        )


def _print_tracing(spec: ArchSpec, console: Console) -> None:
    told = spec.provenance
    if "front_end" not in told:
        return
    console.print(
        f"traced with {told['front_end']}; same weights, same outputs: they differ by "
        f"{told['difference']:.1e} of their spread",
        highlight=False,
    )
    for name, count in told.get("dropped", {}).items():
        console.print(f"left out, since evaluation does not use it: {name}, {count:,} params")
    for name in told.get("frozen", ()):
        console.print(f"frozen as it is, its cost is not counted: {name}", style="yellow")


def _print_origin(descriptor: Descriptor | None, console: Console) -> None:
    origin = None if descriptor is None else descriptor.origin
    if origin is None:
        return
    if origin.keep is not None and origin.reached is not None:
        console.print(
            f"{origin.method}: keep asked {origin.keep:g}, reached {origin.reached:.4f}",
            highlight=False,
        )
    if origin.kept_best:
        console.print(
            f"would have emptied, so their best channels stay: {', '.join(origin.kept_best)}",
            highlight=False,
            style="yellow",
        )


def _group_table(spec: ArchSpec) -> Table:
    full = couple(spec.reference).widths if spec.reference is not None else {}
    stage_of = {g.name: stage.name for stage in stages(spec.graph) for g in stage.groups}
    table = Table()
    for title in ("stage", "group", "width", "of", "members", "divisor", "fixed"):
        table.add_column(title, justify="right" if title in ("width", "of", "divisor") else "left")
    for group in couple(spec.graph):
        others = len(group.members) - 1
        table.add_row(
            stage_of.get(group.name, ""),
            group.name,
            str(group.width),
            str(full.get(group.name, "")),
            f"and {others} more" if others else "",
            str(group.divisor) if group.divisor > 1 else "",
            group.fixed or (f"no; in order: {group.ordered}" if group.ordered else ""),
        )
    return table
