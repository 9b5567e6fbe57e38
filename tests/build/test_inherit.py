"""Inherited weights: what is removed equals what is silenced."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from prunenas.arch.descriptor import Descriptor, kept_positions
from prunenas.build.inherit import inherit
from prunenas.build.initialise import build
from prunenas.errors import DescriptorError
from prunenas.families.base import reference
from prunenas.ir.blocks import blocks
from prunenas.ir.canonical import digest
from prunenas.ir.coupling import axis_width, couple
from prunenas.ir.graph import Graph
from prunenas.ir.ops import (
    Attention,
    BatchNorm,
    Conv2d,
    Convolve,
    GroupNorm,
    Input,
    KernelSparsity,
    LayerNorm,
    PadChannels,
    Parameter,
    Reduce,
    RmsNorm,
    Select,
    Shuffle,
    Softmax,
    Split,
)
from prunenas.ir.writer import GraphWriter
from tests.build.networks import FAMILIES, images, lively, positions
from tests.graphs import graphs, sizes_of, sizes_under


def told(graph, **fields):
    return Descriptor(reference=digest(graph), **fields)


@settings(max_examples=30)
@given(graphs())
def test_keeping_everything_is_the_identity(graph):
    network = lively(graph).float()
    twin = inherit(network, told(graph)).eval()
    assert twin.graph == graph
    x = images(graph).float()
    with torch.no_grad():
        assert torch.equal(twin(x), network(x))


def test_every_tensor_is_copied_bit_for_bit():
    network = lively(reference("resnet20")).float()
    network.node("bn1").num_batches_tracked.fill_(17)
    twin = inherit(network, told(network.graph))
    for name, tensor in network.state_dict().items():
        assert torch.equal(twin.state_dict()[name], tensor), name


def counted(node, groups):
    """Return the axes along which an op tells zeros from entries that are not there."""
    op, dims = node.op, groups.dims[node.name]
    if isinstance(op, LayerNorm):
        return dims[-op.dims :]
    if isinstance(op, RmsNorm | GroupNorm):
        return [groups.axes[node.name]]
    if isinstance(op, Softmax):
        return [dims[op.dim]]
    if isinstance(op, Reduce) and op.function in ("mean", "max", "variance"):
        return [groups.dims[node.inputs[0]][dim] for dim in op.dims]
    if isinstance(op, Attention):
        query, key = (groups.dims[name] for name in node.inputs[:2])
        # One softmax over the keys, and a scale that follows the width of the queries.
        return [key[-2], *([query[-1]] if op.scale is None else [])]
    if isinstance(op, PadChannels):
        return [groups.read(node, 0), groups.read(node, 1)]
    return []


def untouchable(graph):
    """Return groups of which all channels stay: an op tells apart or counts their channels."""
    groups = couple(graph)
    found = {g.name for g in groups if g.divisor > 1 or g.fixed is not None or g.ordered}
    for node in graph.nodes:
        axes = [*counted(node, groups)]
        if isinstance(node.op, Select):
            mixed = groups[groups.axes[node.name][0].group]
            if len(mixed.members) > 1 or mixed.fixed:
                axes += [groups.axes[node.name], groups.read(node)]
        found |= {name for axis in axes for segment in axis for name in segment.groups}
    return found


@st.composite
def selections(draw, graph):
    """Kept channels of some groups; a selection of channels keeps none that its source lost."""
    groups, frozen = couple(graph), untouchable(graph)
    kept: dict[str, tuple[int, ...]] = {}
    for group in groups.free:
        if group.name in frozen:
            continue
        choice = {*range(group.width)}
        if group.select:
            node = graph[group.name]
            there = {*kept_positions(groups.read(node), groups, told(graph, selections=kept))}
            choice = {i for i in choice if node.op.indices[i] in there}
            assume(choice)
        kept[group.name] = tuple(sorted(draw(st.sets(st.sampled_from(sorted(choice)), min_size=1))))
    return kept


def silence(network, kept):
    """Set all that makes a removed channel to zero: filters, biases, scales, shifts.

    A selection has no parameter, so its output is multiplied by zero there.
    """
    graph = network.graph
    groups = couple(graph)
    full = groups.widths
    gone = {name: sorted({*range(full[name])} - {*stay}) for name, stay in kept.items()}
    # What `gone` does not name loses nothing.
    gone = {name: gone.get(name, []) for name in full}
    with torch.no_grad():
        for node in graph.nodes:
            places = positions(groups.axes[node.name], gone, full)
            for parameter in network.node(node.name).parameters() if places else ():
                parameter[places] = 0
            if isinstance(node.op, Select) and places:
                left = torch.ones(graph.shapes[node.name].channels, 1, 1)
                left[places] = 0
                network.node(node.name).register_forward_hook(
                    lambda module, inputs, out, left=left: out * left
                )


def muted(network, kept, x):
    """Return the output where every node's value is zero at the places of removed channels."""
    graph = network.graph
    groups = couple(graph)
    values = {}
    for node in graph.nodes:
        read = [x] if isinstance(node.op, Input) else [values[name] for name in node.inputs]
        value = network.node(node.name)(*read)
        for dim, axis in enumerate(groups.dims[node.name]):
            left = torch.zeros(axis_width(axis, groups.widths), dtype=torch.bool)
            left[positions(axis, kept, groups.widths)] = True
            # The batch has these entries once for each image.
            left = left.repeat(value.shape[dim] // len(left))
            value = value.index_fill(dim, (~left).nonzero().flatten(), 0)
        values[node.name] = value
    return values[graph.output]


def shrunk(network, kept):
    """Return the network without the removed channels, in double precision."""
    graph = network.graph
    # Inheriting draws in single precision first, so the weights are copied after that.
    small = inherit(network.float(), told(graph, selections=kept)).double().eval()
    widths = {name: len(stay) for name, stay in kept.items()}
    assert sizes_of(small.graph) == sizes_under(graph, widths)
    return small


def check_removal(graph, kept):
    network = lively(graph)
    silent = copy.deepcopy(network)
    silence(silent, kept)
    small = shrunk(network, kept)
    silent = silent.float().double()
    x = images(graph)
    with torch.no_grad():
        assert_close(small(x), silent(x), rtol=1e-9, atol=1e-9)


@st.composite
def cases(draw):
    graph = draw(graphs())
    dense = tuple(
        replace(n, op=replace(n.op, sparsity=None)) if isinstance(n.op, Conv2d) else n
        for n in graph.nodes
    )
    graph = replace(graph, nodes=dense)
    return graph, draw(selections(graph))


@given(cases())
def test_removed_equals_zero_wherever_it_is_computed(case):
    """Not of what norms, means or softmaxes run over, nor of the width of queries and keys."""
    graph, kept = case
    network, x = lively(graph), images(graph)
    small = shrunk(network, kept)
    with torch.no_grad():
        assert_close(small(x), muted(network.double(), kept, x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [n for n in FAMILIES if n != "resnet20"])
def test_removed_equals_silenced_in_families(name):
    graph = FAMILIES[name]()
    frozen = untouchable(graph)
    kept = {
        g.name: tuple(i for i in range(g.width) if (i * 7 + len(g.name)) % 3) or (0,)
        for g in couple(graph).free
        if g.name not in frozen and not g.select
    }
    assert kept
    groups = couple(graph)
    for group in groups.free:
        if group.select:
            source = groups.read(graph[group.name])
            there = kept_positions(source, groups, told(graph, selections=kept))
            kept[group.name] = tuple(i for i in there if i % 2 == 0) or (there[0],)
    check_removal(graph, kept)


def test_the_inner_layers_of_a_padded_residual_net_can_go():
    graph = reference("resnet20")
    inner = [n.name for n in graph.nodes if n.name.startswith("layer") and "conv1" in n.name]
    check_removal(graph, dict.fromkeys(inner, (1, 2, 5, 11)))


def test_zeroed_scales_and_shifts_are_what_slimming_removes():
    """In a chain of convolution, norm and ReLU the filters themselves may stay as they are."""
    graph = reference("vgg16", width=0.125)
    network = lively(graph).float()
    kept = {g.name: tuple(range(1, g.width, 2)) for g in couple(graph).free}
    silent = copy.deepcopy(network)
    with torch.no_grad():
        for node in graph.nodes:
            if isinstance(node.op, BatchNorm):
                gone = sorted({*range(graph.shapes[node.name].channels)} - {*kept[node.inputs[0]]})
                silent.node(node.name).weight[gone] = 0
                silent.node(node.name).bias[gone] = 0
    small = inherit(network, told(graph, selections=kept)).eval()
    x = images(graph)
    with torch.no_grad():
        assert_close(small.double()(x), silent.double()(x), rtol=1e-9, atol=1e-9)


def test_the_reference_is_not_changed():
    network = lively(reference("lenet5")).float()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    conv = couple(network.graph).free[0].name
    small = inherit(network, told(network.graph, selections={conv: (0, 2)}))
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.zero_()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_dropped_block_equals_a_silent_branch():
    graph = FAMILIES["resnet18"]()
    network = lively(graph).float()
    dropped = blocks(graph)[0]
    silent = copy.deepcopy(network)
    last = dropped.branch[-1]
    assert isinstance(graph[last].op, BatchNorm)
    with torch.no_grad():
        for parameter in silent.node(last).parameters():
            parameter.zero_()
    kept = {"layer3.0.conv1": (0, 3, 4)}
    silence(silent, kept)
    small = inherit(network, told(graph, dropped=(dropped.name,), selections=kept)).eval()
    x = images(graph)
    assert dropped.branch[0] not in small.graph
    with torch.no_grad():
        assert_close(small.double()(x), silent.double()(x), rtol=1e-9, atol=1e-9)


def test_widths_without_channels_are_refused_all_at_once():
    network = lively(reference("lenet5"))
    first, second, *_ = (g.name for g in couple(network.graph).free)
    with pytest.raises(DescriptorError, match="widths alone are given for") as caught:
        inherit(network, told(network.graph, widths={first: 2, second: 3}))
    assert first in str(caught.value)
    assert second in str(caught.value)


def grouped() -> Graph:
    net = GraphWriter((3, 8, 8))
    x = net.relu("relu", net.batch_norm("bn", net.conv("before", net.input, 6, kernel=3)))
    x = net.batch_norm("bn2", net.conv("grouped", x, 8, kernel=3, groups=2))
    return net.finish(net.linear("fc", net.global_pool("pool", net.relu("relu2", x)), 2))


def test_balanced_parts_of_a_grouped_convolution_are_inherited():
    check_removal(grouped(), {"before": (0, 2, 3, 4), "grouped": (0, 3, 5, 6)})


@pytest.mark.parametrize(
    "kept",
    [
        {"before": (0, 1, 2, 3)},
        {"grouped": (0, 1, 2, 7)},
        {"before": (0, 1, 2, 3, 4, 5), "grouped": (4, 5)},
    ],
)
def test_unbalanced_parts_of_a_grouped_convolution_are_refused(kept):
    with pytest.raises(DescriptorError, match="grouped: the 2 groups must keep equally many"):
        inherit(lively(grouped()), told(grouped(), selections=kept))


def test_unbalanced_parts_of_a_computed_kernel_are_refused():
    net = GraphWriter((4, 8, 8))
    kernel = net.add("kernel", Parameter(sizes=(8, 2, 1, 1)))
    x = net.add("grouped", Convolve(groups=2), net.input, kernel)
    graph = net.finish(net.linear("fc", net.global_pool("pool", x), 2))
    balanced = told(graph, selections={"grouped": (0, 3, 5, 6)})
    assert inherit(lively(graph), balanced).node("kernel").value.shape == (4, 2, 1, 1)
    with pytest.raises(DescriptorError, match="grouped: the 2 groups must keep equally many"):
        inherit(lively(graph), told(graph, selections={"grouped": (0, 1, 2, 7)}))


def picking(indices):
    net = GraphWriter((3, 8, 8))
    x = net.batch_norm("bn", net.conv("stem", net.input, 8, kernel=3))
    x = net.relu("relu", net.add("pick", Select(indices=indices), x))
    x = net.conv("body", x, 6, kernel=3)
    return net.finish(net.linear("fc", net.global_pool("pool", x), 5))


def test_a_selection_that_is_not_named_goes_on_reading_its_channels():
    check_removal(picking((0, 2, 5)), {"stem": (0, 2, 3, 5, 7)})


def test_a_selection_robbed_of_channels_unsaid_is_refused():
    graph = picking((0, 2, 5))
    with pytest.raises(DescriptorError, match="pick lost some of its source's channels"):
        inherit(lively(graph), told(graph, selections={"stem": (0, 2, 3, 7)}))


def test_inherited_weights_obey_a_new_mask():
    graph = picking(tuple(range(8)))
    network = lively(graph).float()
    small = inherit(network, told(graph, densities={"body": (0.5,) * 9}))
    body = small.node("body")
    assert not body.weight[body.mask == 0].any()
    assert torch.equal(body.weight[body.mask == 1], network.weight("body")[body.mask == 1])


def test_a_descriptor_of_another_graph_is_refused():
    with pytest.raises(DescriptorError, match="carry it over as a profile"):
        inherit(lively(grouped()), told(picking((0, 1))))


def test_a_mask_of_the_reference_is_kept_where_nothing_is_removed():
    graph = picking(tuple(range(8)))
    sparse = replace(
        graph,
        nodes=tuple(
            replace(n, op=replace(n.op, sparsity=KernelSparsity(density=(0.5,) * 9)))
            if n.name == "stem"
            else n
            for n in graph.nodes
        ),
    )
    network = lively(sparse).float()
    twin = inherit(network, told(sparse)).eval()
    x = images(sparse).float()
    with torch.no_grad():
        assert torch.equal(twin(x), network.eval()(x))


def test_channels_that_are_joined_by_their_place_are_warned_of() -> None:
    net = GraphWriter((3, 8, 8))
    parts = [net.conv(f"conv{i}", net.input, 4, kernel=3) for i in range(2)]
    shuffled = net.add("shuffle", Shuffle(groups=2), net.concat("concat", *parts))
    part = net.add("part1", Split(parts=2, index=1), shuffled)
    graph = net.finish(net.linear("fc", net.global_pool("pool", part), 2))
    network = build(graph)
    with pytest.warns(UserWarning, match=r"conv0 \(part1 takes a part of interleaved channels\)"):
        small = inherit(network, told(graph, selections={"conv0": (0, 1, 3)}))
    assert small.graph.shapes["part1"].channels == 3


def test_a_padded_shortcut_that_no_longer_lines_up_is_warned_of() -> None:
    graph = reference("resnet20", (3, 8, 8), 10, width=0.25)
    network = build(graph, seed=0)
    shifted = Descriptor(reference=digest(graph), selections={"conv1": (1, 2, 3)})
    with pytest.warns(UserWarning, match="layer2.0.shortcut"):
        inherit(network, shifted)
