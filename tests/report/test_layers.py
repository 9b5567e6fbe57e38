"""The table of layers: arithmetic on a net that is counted by hand."""

import io

import numpy as np
import pytest
from rich.console import Console

from prunenas.arch.descriptor import Descriptor, Origin
from prunenas.arch.spec import ArchSpec
from prunenas.families.base import reference
from prunenas.ir.canonical import digest
from prunenas.ir.ops import ExactMask
from prunenas.ir.writer import GraphWriter
from prunenas.report.layers import HEADER, SPARSE_HEADER, layer_cells, layer_rows, layer_table


def chain():
    """3x8x8 -> 6 channels -> 4 channels -> 5 classes; 64 positions."""
    net = GraphWriter((3, 8, 8))
    x = net.relu("relu1", net.batch_norm("bn1", net.conv("conv1", net.input, 6, kernel=3)))
    x = net.relu("relu2", net.batch_norm("bn2", net.conv("conv2", x, 4, kernel=1)))
    return net.finish(net.linear("fc", net.global_pool("pool", x), 5))


def spec_of(graph, *, nominal=None, keep=0.5, **fields):
    origin = Origin(method="by hand", keep=keep, nominal=nominal or {})
    descriptor = Descriptor(reference=digest(graph), origin=origin, **fields)
    return ArchSpec.of(graph, descriptor, name="by hand")


def rows_of(spec):
    return {row.name: row for row in layer_rows(spec)}


def test_widths_and_costs_are_those_of_the_arithmetic():
    rows = rows_of(spec_of(chain(), widths={"conv1": 3}))
    assert [*rows] == ["conv1", "conv2", "fc"]
    first, second, head = rows.values()
    assert (first.full, first.kept, first.actual) == (6, 3, 0.5)
    assert (first.params, first.full_params) == (3 * 3 * 9, 3 * 6 * 9)
    assert (first.macs, first.full_macs) == (3 * 3 * 9 * 64, 3 * 6 * 9 * 64)
    assert (second.kept, second.params, second.full_params) == (4, 3 * 4, 6 * 4)
    assert (head.kept, head.params, head.macs) == (5, 4 * 5 + 5, 4 * 5)


def test_the_nominal_keep_is_the_layers_then_the_groups_then_what_was_asked():
    told = {"conv2": 0.25}
    rows = rows_of(spec_of(chain(), widths={"conv1": 3}, nominal=told, keep=0.6))
    assert [row.nominal for row in rows.values()] == [0.6, 0.25, None]


def test_a_layer_under_a_mask_counts_its_weights():
    kept = np.zeros((4, 6, 1, 1), dtype=np.bool_)
    kept[0] = True
    spec = spec_of(chain(), masks={"conv2": ExactMask.of(kept)})
    row = rows_of(spec)["conv2"]
    assert (row.full, row.kept, row.actual) == (4, 4, 0.25)
    assert (row.params, row.macs) == (6, 6 * 64)
    assert row.nominal == 0.5


def test_layers_of_dropped_blocks_are_told_with_nothing_left():
    graph = reference("resnet20", (3, 8, 8), 5, width=0.5)
    rows = rows_of(spec_of(graph, dropped=("layer1.1.add",)))
    row = rows["layer1.1.conv1"]
    assert (row.kept, row.actual, row.params, row.macs) == (0, 0.0, 0, 0)
    assert rows["layer1.2.conv1"].actual == 1.0


def test_selections_of_channels_have_a_row_of_their_own():
    graph = reference("preresnet", (3, 8, 8), 5, width=0.5, depth=11)
    row = rows_of(spec_of(graph, selections={"layer1.0.select": (0, 1, 2)}))["layer1.0.select"]
    assert row.kept == 3
    assert row.full == graph.shapes["layer1.0.select"].channels
    assert row.params == row.macs == 0


def test_a_spec_without_reference_keeps_everything():
    rows = layer_rows(ArchSpec(name="whole", graph=chain()))
    assert all(row.actual == 1 and row.nominal is None for row in rows)


def test_the_last_row_adds_the_others():
    rows = layer_rows(spec_of(chain(), widths={"conv1": 3}))
    *_, last = layer_cells(rows)
    assert last[5] == f"{sum(row.params for row in rows):,}"
    assert last[7] == f"{sum(row.macs for row in rows):,}"


@pytest.mark.parametrize("sparse", [False, True])
def test_the_table_says_whether_costs_are_after_masks(sparse):
    fields = {"densities": {"conv1": (0.5,) * 9}} if sparse else {"widths": {"conv1": 3}}
    table = layer_table(spec_of(chain(), **fields))
    assert [column.header for column in table.columns] == [*(SPARSE_HEADER if sparse else HEADER)]
    console = Console(file=io.StringIO(), width=160)
    console.print(table)
    assert "conv1" in console.file.getvalue()
