"""Layer by layer: what an architecture keeps of its reference, and what that costs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from rich.box import SIMPLE
from rich.table import Table

from prunenas.arch.spec import ArchSpec
from prunenas.ir.cost import NodeCost, is_sparse, node_costs
from prunenas.ir.coupling import couple
from prunenas.ir.graph import Graph
from prunenas.ir.masks import kept_weights, sparsity_of
from prunenas.ir.ops import KernelOp, Select

HEADER = ("layer", "full", "kept", "nominal", "actual", "params", "of", "MACs", "of")
SPARSE_HEADER = (
    *("layer", "full", "kept", "nominal", "actual"),
    *("nonzero params", "of", "effective MACs", "of"),
)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRow:
    """One layer with a kernel, or one channel selection.

    Args:
        name: The layer.
        full: Channels in the reference.
        kept: Channels left; 0 where the layer's block is dropped.
        nominal: Keep that the method meant for the layer: its own word, else the overall keep;
            None where the layer's width is fixed, or no keep was asked for.
        actual: Kept / full channels; of a layer under a mask, kept / all weights.
        params: Parameters that no mask sets to zero.
        full_params: Parameters in the reference.
        macs: Multiply-accumulates with weights that no mask sets to zero, one image.
        full_macs: Multiply-accumulates in the reference.
    """

    name: str
    full: int
    kept: int
    nominal: float | None
    actual: float
    params: int
    full_params: int
    macs: int
    full_macs: int


def layer_rows(spec: ArchSpec) -> tuple[LayerRow, ...]:
    """Return a row for each layer of the reference (of the graph, where there is none)."""
    reference = spec.reference or spec.graph
    now, then = ({c.name: c for c in node_costs(g)} for g in (spec.graph, reference))
    return tuple(
        _row(spec, reference, node.name, now.get(node.name), then[node.name])
        for node in reference.nodes
        if isinstance(node.op, KernelOp | Select)
    )


def _row(
    spec: ArchSpec, reference: Graph, name: str, now: NodeCost | None, then: NodeCost
) -> LayerRow:
    full = _width(reference, name)
    kept = 0 if now is None else _width(spec.graph, name)
    return LayerRow(
        name=name,
        full=full,
        kept=kept,
        nominal=_nominal(spec, reference, name),
        actual=kept / full * (1.0 if now is None else _density(spec.graph, name)),
        params=0 if now is None else now.nonzero_params,
        full_params=then.params,
        macs=0 if now is None else now.effective_macs,
        full_macs=then.macs,
    )


def _width(graph: Graph, name: str) -> int:
    return graph.shapes[name].sizes[graph[name].op.channel]


def _density(graph: Graph, name: str) -> float:
    """Return what part of a layer's weights its mask keeps; 1 where there is none."""
    owner = graph[graph[name].weights or name]
    sparsity = sparsity_of(owner.op)
    if sparsity is None:
        return 1.0
    shape = owner.op.parameters(graph.input_shapes(owner), graph.shapes[owner.name])["weight"]
    return kept_weights(sparsity, shape, owner.name) / math.prod(shape)


def _nominal(spec: ArchSpec, reference: Graph, name: str) -> float | None:
    origin = spec.descriptor.origin if spec.descriptor else None
    if origin is None:
        return None
    groups = couple(reference)
    owners = [groups[part] for segment in groups.axes[name] for part in segment.groups]
    for told in (name, *(group.name for group in owners)):
        if told in origin.nominal:
            return origin.nominal[told]
    if spec.descriptor is not None and name in {
        **spec.descriptor.masks,
        **spec.descriptor.densities,
    }:
        return origin.keep
    return origin.keep if any(group.fixed is None for group in owners) else None


def layer_cells(rows: Sequence[LayerRow]) -> list[tuple[str, ...]]:
    """Return the cells of each row, in the order of ``HEADER``, and of all together."""
    cells = [
        (
            row.name,
            str(row.full),
            str(row.kept),
            "" if row.nominal is None else f"{row.nominal:.3f}",
            f"{row.actual:.3f}",
            *_costs(row.params, row.full_params),
            *_costs(row.macs, row.full_macs),
        )
        for row in rows
    ]
    sums = [
        sum(values)
        for values in zip(
            *((r.params, r.full_params, r.macs, r.full_macs) for r in rows), strict=True
        )
    ] or [0] * 4
    return [*cells, ("all of these", "", "", "", "", *_costs(*sums[:2]), *_costs(*sums[2:]))]


def _costs(now: int, then: int) -> tuple[str, str]:
    return f"{now:,}", f"{now / then:.1%}" if then else ""


def layer_table(spec: ArchSpec) -> Table:
    """Return the rows of ``spec`` as a table for the terminal."""
    # Eighty columns hold the names and numbers of most networks only without a frame.
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for title in SPARSE_HEADER if is_sparse(spec.graph) else HEADER:
        name = title == "layer"
        table.add_column(title, justify="left" if name else "right", no_wrap=name)
    for cells in layer_cells(layer_rows(spec)):
        table.add_row(*cells)
    return table
