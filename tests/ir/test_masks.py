"""Exact masks: what they are, and what a graph under them costs."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunenas.build.initialise import build
from prunenas.build.modules import Masked
from prunenas.errors import MaskError, ShapeError
from prunenas.ir.canonical import digest, encode, graph_from_json, graph_to_json
from prunenas.ir.cost import (
    CostModel,
    effective_macs,
    is_sparse,
    macs,
    nonzero_params,
    params,
    repo_flops,
)
from prunenas.ir.coupling import couple
from prunenas.ir.masks import mask_of, sparsity_of
from prunenas.ir.ops import Conv2d, ExactMask, KernelOp, KernelSparsity
from prunenas.ir.writer import GraphWriter
from tests.graphs import (
    graphs,
    kernel_masks,
    legal_widths,
    sizes_of,
    with_exact_masks,
    with_widths,
)

KEPT = np.array([[True, False, False], [False, False, True]])


def test_a_mask_comes_back_weight_by_weight() -> None:
    mask = ExactMask.of(KEPT)
    assert (mask.shape, mask.kept) == ((2, 3), 2)
    assert np.array_equal(mask.array(), KEPT)
    assert np.array_equal(mask_of(mask, (2, 3), "any"), KEPT)


def test_a_mask_that_keeps_nothing_is_refused() -> None:
    with pytest.raises(ShapeError, match="at least one"):
        ExactMask.of(np.zeros((2, 3), dtype=bool))


def test_masks_are_told_apart_by_shape_and_bits_only() -> None:
    mask = ExactMask.of(KEPT)
    assert mask == ExactMask.of(KEPT.copy()) == replace(mask)
    others = [ExactMask.of(~KEPT), ExactMask.of(KEPT.T), ExactMask.of(KEPT.reshape(6))]
    assert len({mask.digest, *(other.digest for other in others)}) == 4


def test_the_bits_are_not_written_down() -> None:
    mask = ExactMask.of(KEPT)
    assert encode(mask) == {"shape": [2, 3], "kept": 2, "digest": mask.digest}
    assert encode(mask.sought_in("a file")) == encode(mask)


def test_without_bits_the_costs_are_known_and_the_missing_file_is_told() -> None:
    bare = ExactMask.of(KEPT).sought_in("net.masks.safetensors")
    assert bare == ExactMask.of(KEPT)
    with pytest.raises(MaskError, match=r"net\.masks\.safetensors is missing"):
        bare.array()
    with pytest.raises(MaskError, match="none was loaded"):
        replace(bare).array()


def test_bits_of_another_mask_are_refused() -> None:
    mask = ExactMask.of(KEPT)
    other = ExactMask.of(~KEPT)
    assert mask.bits is not None and other.bits is not None
    assert np.array_equal(replace(mask).with_bits(mask.bits, "a file").array(), KEPT)
    for wrong in (other.bits, b"", mask.bits + b"x"):
        with pytest.raises(MaskError, match="a file holds another mask"):
            replace(mask).with_bits(wrong, "a file")


def test_a_count_that_is_not_the_bits_is_refused() -> None:
    mask = ExactMask.of(KEPT)
    assert mask.bits is not None
    with pytest.raises(MaskError, match="another mask"):
        replace(mask, kept=3).with_bits(mask.bits, "a file")


def test_a_mask_of_another_kernel_is_refused() -> None:
    net = GraphWriter((1, 4, 4))
    op = Conv2d(width=2, kernel=(3, 3), sparsity=ExactMask.of(np.ones((2, 2, 3, 3), dtype=bool)))
    with pytest.raises(ShapeError, match=r"\[2, 1, 3, 3\], its exact mask is of \[2, 2, 3, 3\]"):
        net.add("conv", op, net.input)


masked_graphs = graphs().flatmap(
    lambda graph: st.tuples(st.just(graph), kernel_masks(graph)),
)


def plain(graph):
    """Return ``graph`` without patterns, so that only the masks put on it count."""
    nodes = [
        replace(n, op=replace(n.op, sparsity=None)) if isinstance(n.op, KernelOp) else n
        for n in graph.nodes
    ]
    return replace(graph, nodes=tuple(nodes))


@given(masked_graphs)
def test_masks_change_no_shape_and_no_dense_cost(drawn) -> None:
    graph, masks = drawn
    sparse = with_exact_masks(graph, masks)
    assert sizes_of(sparse) == sizes_of(graph)
    assert (params(sparse), macs(sparse)) == (params(graph), macs(graph))
    assert is_sparse(sparse) == (is_sparse(graph) or bool(masks))


@given(masked_graphs)
def test_costs_after_masks_are_the_arithmetic(drawn) -> None:
    graph, masks = drawn
    graph = plain(graph)
    sparse = with_exact_masks(graph, masks)
    zeros = sum(int((~kept).sum()) for kept in masks.values())
    assert nonzero_params(sparse) == params(graph) - zeros
    saved = 0
    for node in graph.nodes:
        if (owner := node.weights or node.name) in masks:
            out = graph.shapes[node.name]
            # Each weight works once for each place of its output.
            places = out.numel // masks[owner].shape[0]
            saved += int((~masks[owner]).sum()) * places
    assert effective_macs(sparse) == macs(graph) - saved
    assert repo_flops(sparse) == repo_flops(graph) - 2 * saved


@settings(max_examples=40)
@given(masked_graphs)
def test_nonzero_params_are_those_of_the_built_network(drawn) -> None:
    sparse = with_exact_masks(*drawn)
    network = build(sparse, seed=1)
    zeros = 0
    for module in network.modules():
        if isinstance(module, Masked):
            zeros += int((torch.ones_like(module.weight) * module.mask == 0).sum())
            assert not module.weight[module.mask == 0].any()
    assert nonzero_params(sparse) == sum(p.numel() for p in network.parameters()) - zeros


@given(graphs())
def test_of_a_dense_graph_all_costs_are_effective(graph) -> None:
    graph = plain(graph)
    assert not is_sparse(graph)
    assert (nonzero_params(graph), effective_macs(graph)) == (params(graph), macs(graph))


@given(masked_graphs)
def test_the_groups_of_a_masked_layer_are_fixed_with_the_reason(drawn) -> None:
    graph, masks = drawn
    before, after = couple(graph), couple(with_exact_masks(graph, masks))
    free = {group.name for group in before.free}
    for name in masks:
        node = graph[name]
        for axis in (after.axes[name], after.read(node)):
            for group in (after[g] for segment in axis for g in segment.groups):
                assert group.fixed is not None
                assert group.name not in free or "has an exact mask" in group.fixed
    assert {group.name for group in after.free} <= free


@given(masked_graphs)
def test_a_masked_graph_comes_back_from_json_with_its_digest_but_no_bits(drawn) -> None:
    sparse = with_exact_masks(*drawn)
    again = graph_from_json(graph_to_json(sparse))
    assert again == sparse
    assert digest(again) == digest(sparse)
    assert effective_macs(again) == effective_macs(sparse)
    assert all(
        mask.bits is None
        for node in again.nodes
        if isinstance(mask := sparsity_of(node.op), ExactMask)
    )


@given(graphs())
def test_a_dense_kernel_writes_nothing_of_its_sparsity_where_that_joined_later(graph) -> None:
    for node in json.loads(graph_to_json(plain(graph)))["nodes"]:
        assert ("sparsity" in node["op"]) == (node["op"]["kind"] == "Conv2d")


@given(st.lists(st.floats(0.01, 1.0), min_size=9, max_size=9), st.integers(1, 40))
def test_the_expected_cost_of_a_pattern_is_its_mean_rounded_up(pattern, width) -> None:
    net = GraphWriter((3, 8, 8))
    op = Conv2d(width=40, kernel=(3, 3), sparsity=KernelSparsity(density=tuple(pattern)))
    x = net.add("conv", op, net.input)
    graph = net.finish(net.linear("fc", net.global_pool("pool", x), 2))
    model = CostModel.of(graph)
    widths = np.array([[width]])
    weights, rest = 27 * width, 2 * width + 2
    mean = math.fsum(pattern) / 9 * weights + rest
    # A whole number; the sum's float noise may cost one.
    assert mean - 1.001 <= model.nonzero_params(widths)[0] <= mean + weights / 2**16
    assert model.params(widths)[0] == weights + rest


@given(st.data(), masked_graphs)
def test_costs_as_functions_of_widths_are_exact_under_exact_masks(data, drawn) -> None:
    graph, masks = drawn
    sparse = with_exact_masks(plain(graph), masks)
    model = CostModel.of(sparse)
    widths = data.draw(legal_widths(sparse))
    row = np.array([[widths[name] for name in model.groups]], dtype=np.int64)
    narrow = with_widths(sparse, widths)
    assert model.nonzero_params(row).tolist() == [nonzero_params(narrow)]
    assert model.effective_macs(row).tolist() == [effective_macs(narrow)]
    assert model.params(row).tolist() == [params(narrow)]
