"""Exported files of networks under masks: every kind of kernel, drawn masks and exact ones."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunenas.arch.descriptor import Descriptor, apply
from prunenas.arch.spec import ArchSpec
from prunenas.build.initialise import build
from prunenas.families.base import reference
from prunenas.ir.canonical import digest
from prunenas.ir.cost import effective_macs, nonzero_params
from prunenas.ir.graph import Graph, Init
from prunenas.ir.masks import sparsity_of
from prunenas.ir.ops import (
    Conv1d,
    Conv2d,
    Depthwise2d,
    ExactMask,
    Flatten,
    KernelSparsity,
    Linear,
    Reduce,
    Reshape,
)
from prunenas.ir.writer import GraphWriter
from tests.export.source import assert_same_function, namespace, networks, source_of
from tests.graphs import graphs, kernel_masks, with_exact_masks

KINDS = ("Conv2d", "Depthwise2d", "Conv1d", "Linear")


def exact(*shape: int) -> ExactMask:
    kept = np.random.default_rng(sum(shape)).random(shape) < 0.4
    kept.flat[0] = True
    return ExactMask.of(kept)


def pattern(area: int) -> KernelSparsity:
    return KernelSparsity(density=tuple(np.linspace(0.2, 0.8, area).tolist()), seed=area)


def every_kind(init: Init | None = None, *, drawn: bool = False) -> Graph:
    """Each kind of kernel once under a mask, and once without."""
    net = GraphWriter((3, 8, 8))
    sparsity = {
        "conv": pattern(9) if drawn else exact(64, 3, 3, 3),
        "grouped": pattern(4) if drawn else exact(64, 16, 2, 2),
        "depthwise": pattern(9) if drawn else exact(64, 1, 3, 3),
        "row": pattern(3) if drawn else exact(48, 64, 3),
        "fc": pattern(1) if drawn else exact(32, 48),
    }
    op = Conv2d(width=64, kernel=(3, 3), padding=(1, 1), bias=True, sparsity=sparsity["conv"])
    x = net.add("conv", op, net.input)
    op = Conv2d(width=64, kernel=(2, 2), groups=4, sparsity=sparsity["grouped"])
    x = net.add("grouped", op, net.relu("relu", net.conv("plain", x, 64, kernel=1)))
    op = Depthwise2d(kernel=(3, 3), padding=(1, 1), sparsity=sparsity["depthwise"])
    x = net.depthwise("plain_depthwise", net.add("depthwise", op, x), kernel=3)
    x = net.add("rows", Reshape(sizes=(64, 49)), x)
    x = net.add("row", Conv1d(width=48, kernel=3, sparsity=sparsity["row"]), x)
    x = net.add("plain_row", Conv1d(width=48, kernel=1), x)
    x = net.add("flat", Flatten(), net.add("mean", Reduce(dims=(2,), keep=True), x))
    x = net.relu("act", net.add("fc", Linear(width=32, sparsity=sparsity["fc"]), x))
    return net.finish(net.linear("classes", x, 5), init)


@pytest.mark.parametrize("drawn", [False, True])
def test_every_kind_of_kernel_keeps_its_mask_bit_for_bit(drawn):
    graph = every_kind(drawn=drawn)
    assert {n.op.kind for n in graph.nodes if sparsity_of(n.op) is not None} == {*KINDS}
    theirs, ours = assert_same_function(graph, training=True), build(graph)
    masks = {key: value for key, value in ours.named_buffers() if key.endswith("mask")}
    assert len(masks) == 5
    assert {key for key, _ in theirs.named_buffers() if key.endswith("mask")} == {*masks}
    assert all(torch.equal(mask, theirs.get_buffer(key)) for key, mask in masks.items())


@pytest.mark.parametrize("conv", ["fan_out", "fan_in", "torch"])
@pytest.mark.parametrize("linear", ["torch", "normal_0.01", "normal_0.02"])
def test_fresh_weights_are_drawn_as_build_draws_them(conv, linear):
    graph = every_kind(Init(conv=conv, linear=linear))
    (kind,) = networks(source_of(graph))
    torch.manual_seed(0)
    theirs, ours = kind(), build(graph, seed=1)
    for name, weight in ours.named_parameters():
        fresh = theirs.get_parameter(name).detach()
        if not name.endswith("weight"):
            continue
        layer = name.removesuffix(".weight")
        if isinstance(sparsity_of(graph[layer].op), ExactMask):
            kept = torch.from_numpy(graph[layer].op.sparsity.array())
            assert not fresh[~kept].any()
            assert fresh[kept].all()
            fresh, weight = fresh[kept], weight.detach()[kept]
        # Each has a hundred weights at least, so the spread is known to a tenth and better.
        assert fresh.std() == pytest.approx(
            weight.std().item(), rel=4 / len(fresh.flatten()) ** 0.5
        )


def test_masked_weights_stay_exactly_zero_in_training():
    (kind,) = networks(source_of(every_kind()))
    network = kind()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    before = network.get_parameter("fc.weight").detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        network(x).square().sum().backward()
        optimizer.step()
    for name, mask in network.named_buffers():
        if name.endswith("mask"):
            weight = network.get_parameter(name.removesuffix("mask") + "weight")
            assert not weight[mask == 0].any()
    assert not torch.equal(before, network.get_parameter("fc.weight"))


@settings(max_examples=30)
@given(st.data(), graphs())
def test_a_random_network_under_masks_is_the_same_network(data, graph):
    sparse = with_exact_masks(graph, data.draw(kernel_masks(graph)))
    assert_same_function(sparse, source=source_of(sparse))


def test_only_the_layers_that_are_used_are_defined():
    graph = reference("lenet5")
    kept = np.ones((84, 120), dtype=bool)
    source = source_of(with_exact_masks(graph, {"fc2": kept}))
    assert "class MaskedLinear" in source
    assert "MaskedConv" not in source
    assert max(map(len, source.splitlines())) <= 100
    assert "put_under" not in source_of(graph)


def test_a_class_of_that_name_is_not_hidden():
    graph = with_exact_masks(reference("lenet5"), {"fc2": np.ones((84, 120), dtype=bool)})
    assert_same_function(graph, source=source_of(graph, "masked linear"))


def test_the_docstring_tells_costs_after_masks():
    graph = reference("lenet5")
    densities = {"fc1": (0.25,), "fc2": (0.5,)}
    told = Descriptor(reference=digest(graph), densities=densities)
    spec = ArchSpec.of(graph, told, name="sparse")
    doc = namespace(source_of(spec.graph, reference=graph, descriptor=told))["__doc__"]
    assert f"Nonzero parameters: {nonzero_params(spec.graph):,}" in doc
    assert f"Effective multiply-accumulates: {effective_macs(spec.graph):,}" in doc
    assert "Reference, nonzero" not in doc
    twice = Descriptor(reference=digest(spec.graph), densities={"fc2": (0.1,)})
    after = apply(spec.graph, twice)
    doc = namespace(source_of(after, reference=spec.graph, descriptor=twice))["__doc__"]
    assert f"Reference, nonzero parameters: {nonzero_params(spec.graph):,}" in doc
    assert "onzero" not in namespace(source_of(graph))["__doc__"]
