"""What ``inspect`` shows of an architecture."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from prunenas.arch.descriptor import Descriptor, Origin
from prunenas.arch.spec import ArchSpec
from prunenas.ir.blocks import blocks
from prunenas.ir.canonical import encode
from prunenas.ir.cost import effective_macs, is_sparse, macs, nonzero_params, params
from prunenas.ir.coupling import couple
from prunenas.ir.graph import Graph
from prunenas.ir.stages import stages
from prunenas.report.layers import layer_rows, layer_table
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
    known |= _sparse_costs(graph)
    known |= {key: spec.provenance[key] for key in _OF_TRACING if key in spec.provenance}
    if spec.reference is not None:
        before = spec.reference
        known["reference"] = {
            "params": params(before),
            "macs": macs(before),
            **_sparse_costs(before),
        }
    if spec.descriptor is not None and spec.descriptor.origin is not None:
        known["origin"] = encode(spec.descriptor.origin)
    if spec.descriptor is not None:
        known["layers"] = [asdict(row) for row in layer_rows(spec)]
    if spec.profile is not None:
        known["keeps"] = dict(spec.profile.keeps)
    if spec.metrics is not None:
        known["accuracy"] = spec.metrics.accuracy
        known["metrics"] = encode(spec.metrics)
    return known


def _sparse_costs(graph: Graph) -> dict[str, int]:
    """Return the costs after masks; nothing of a dense network."""
    if not is_sparse(graph):
        return {}
    return {"nonzero_params": nonzero_params(graph), "effective_macs": effective_macs(graph)}


def print_facts(spec: ArchSpec, console: Console, *, layers: bool = False) -> None:
    """Print cost, and groups with their stages; or layer by layer what is kept."""
    graph = spec.graph
    title = f"{spec.name}: {params(graph):,} params, {macs(graph):,} MACs, digest {spec.digest}"
    console.print(title, highlight=False, soft_wrap=True, style="bold")
    if spec.reference is not None:
        p, m = params(graph) / params(spec.reference), macs(graph) / macs(spec.reference)
        console.print(f"{p:.1%} of the reference's params, {m:.1%} of its MACs", highlight=False)
    if is_sparse(graph):
        _print_sparsity(graph, console)
    _print_tracing(spec, console)
    _print_origin(spec.descriptor, console)
    console.print(layer_table(spec) if layers else _group_table(spec))
    if spec.metrics is not None:
        metrics = spec.metrics
        console.print(
            f"{metrics.part} accuracy {accuracy_text(metrics)} % on {metrics.data}",
            highlight=False,
        )


def _print_sparsity(graph: Graph, console: Console) -> None:
    nonzero, effective = nonzero_params(graph), effective_macs(graph)
    console.print(
        f"after masks: {nonzero:,} nonzero params ({nonzero / params(graph):.1%}), "
        f"{effective:,} effective MACs ({effective / macs(graph):.1%})",
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
    if origin.reached is not None:
        asked = "" if origin.keep is None else f"keep asked {origin.keep:g}, "
        console.print(f"{origin.method}: {asked}reached {origin.reached:.4f}", highlight=False)
    notes = [f"left alone: {name}, {why}" for name, why in _left_alone(origin).items()]
    if origin.kept_best:
        notes.insert(0, f"would have emptied, so their best stays: {', '.join(origin.kept_best)}")
    for note in notes:
        console.print(note, highlight=False, style="yellow", soft_wrap=True)


def _left_alone(origin: Origin) -> dict[str, str]:
    """Return the groups that the method could not score, with the reason."""
    told = origin.found.get("left_alone", {})
    return dict(told) if isinstance(told, Mapping) else {}


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


def drawn(spec: ArchSpec, path: Path) -> Path | None:
    """Draw the curves that a method found, if it found some and no file is there; tell where."""
    origin = None if spec.descriptor is None else spec.descriptor.origin
    if origin is None or "curves" not in origin.found or path.exists():
        return None
    # Not at the top: matplotlib is slow to come, and few methods draw.
    from prunenas.report.curves import draw_curves

    return draw_curves(origin.found, path)
