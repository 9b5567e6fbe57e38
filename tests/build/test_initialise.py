"""Fresh weights: the named schemes, seeds, and nothing touched besides."""

import math
from dataclasses import replace
from unittest import mock

import numpy
import pytest
import torch
from hypothesis import given, settings

from prunenas.build.initialise import build
from prunenas.build.network import Network
from prunenas.families.base import reference
from prunenas.ir.graph import Graph, Init, Node
from prunenas.ir.ops import (
    Arithmetic,
    Constant,
    Conv1d,
    Conv2d,
    Filled,
    GroupNorm,
    Input,
    KernelSparsity,
    LayerNorm,
    MatMul,
    Parameter,
    Reshape,
    RmsNorm,
    Select,
)
from prunenas.ir.writer import GraphWriter
from tests.build.attending import swin, vit
from tests.build.examples import constant
from tests.graphs import graphs


def wide(init=None, sparsity=None, bias=False):
    """A 3x3 convolution from 64 to 128, a depthwise one, norms of both kinds, two linear layers."""
    net = GraphWriter((64, 4, 4))
    op = Conv2d(width=128, kernel=(3, 3), padding=(1, 1), bias=bias, sparsity=sparsity)
    x = net.batch_norm("bn", net.add("conv", op, net.input))
    x = net.depthwise("depth", x, kernel=3)
    x = net.linear("hidden", net.global_pool("pool", x), 500)
    return net.finish(net.linear("fc", net.batch_norm("vector_bn", x), 100), init or Init())


def about(tensor, std):
    """Return whether mean and deviation are those asked for, within five standard errors."""
    error = 5 / math.sqrt(tensor.numel())
    return abs(tensor.mean() / std) < error and abs(tensor.std() / std - 1) < error


def same(one, other):
    """Return whether two state dicts are equal bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@settings(max_examples=30)
@given(graphs())
def test_a_seed_gives_the_same_weights_and_no_global_state_is_touched(graph):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = build(graph, seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert same(first, build(graph, seed=3).state_dict())
    assert all(tensor.isfinite().all() for tensor in first.values())


def test_another_seed_gives_other_weights_everywhere():
    graph = reference("lenet5")
    one, other = (build(graph, seed=seed) for seed in (0, 1))
    for name, parameter in one.named_parameters():
        if parameter.dim() > 1:
            assert not torch.equal(parameter, other.get_parameter(name)), name


@pytest.mark.parametrize(
    ("scheme", "std"),
    [("fan_out", math.sqrt(2 / (9 * 128))), ("fan_in", math.sqrt(2 / (9 * 64)))],
)
def test_convolutions_are_normal_by_their_fan(scheme, std):
    network = build(wide(Init(conv=scheme), bias=True))
    assert about(network.weight("conv"), std)
    # Normal, not merely of that deviation: 4.55 percent lie beyond two.
    outside = (network.weight("conv").abs() > 2 * std).double().mean()
    assert outside == pytest.approx(0.0455, abs=0.005)
    assert not network.node("conv").bias.any()


def test_a_depthwise_convolution_has_one_input_and_all_outputs():
    assert about(build(wide(Init(conv="fan_in"))).weight("depth"), math.sqrt(2 / 9))
    assert about(build(wide(Init(conv="fan_out"))).weight("depth"), math.sqrt(2 / (9 * 128)))


def test_the_frameworks_own_scheme_is_uniform_by_fan_in():
    network = build(wide(Init(conv="torch", linear="torch"), bias=True))
    for name, fan in (("conv", 9 * 64), ("depth", 9), ("hidden", 128), ("fc", 500)):
        bound = 1 / math.sqrt(fan)
        weight = network.weight(name)
        assert 0.98 * bound < weight.abs().max() <= bound, name
        assert about(weight, bound / math.sqrt(3)), name
    for name, fan in (("conv", 9 * 64), ("hidden", 128)):
        bias = network.node(name).bias
        assert 0.9 / math.sqrt(fan) < bias.abs().max() <= 1 / math.sqrt(fan), name


def test_linear_layers_of_the_released_vggs():
    network = build(wide(Init(linear="normal_0.01")))
    assert about(network.weight("hidden"), 0.01)
    assert not network.node("hidden").bias.any()


@pytest.mark.parametrize(("scale", "vector_scale"), [(1.0, 1.0), (0.5, 1.0), (0.5, 0.5)])
def test_norms_start_at_their_scale(scale, vector_scale):
    network = build(wide(Init(scale=scale, vector_scale=vector_scale)))
    for name, start in (("bn", scale), ("vector_bn", vector_scale)):
        norm = network.node(name)
        assert (norm.weight == start).all()
        assert not norm.bias.any()
        assert not norm.running_mean.any()
        assert (norm.running_var == 1).all()
        assert norm.num_batches_tracked == 0


@pytest.mark.parametrize(
    ("name", "scale"),
    [("vgg16", 0.5), ("vgg16_biased", 1.0), ("densenet", 0.5), ("resnet20", 1.0)],
)
def test_families_start_as_the_released_code_does(name, scale):
    network = build(reference(name, width=0.25))
    scales = [parameter for _, parameter in network.scales()]
    assert scales
    assert all((parameter == scale).all() for parameter in scales)


@pytest.mark.parametrize("scheme", ["fan_out", "fan_in"])
@pytest.mark.parametrize("density", [0.198, 0.5])
def test_under_a_mask_the_surviving_fan_counts(scheme, density):
    graph = wide(Init(conv=scheme), KernelSparsity(density=(density,) * 9))
    conv = build(graph).node("conv")
    fan = 9 * (128 if scheme == "fan_out" else 64)
    left = conv.mask.mean().item()
    assert left == pytest.approx(density, abs=0.01)
    assert about(conv.weight[conv.mask == 1], math.sqrt(2 / fan / left))


def test_the_deviation_of_the_released_sparse_scheme():
    """Measured in the released code: 0.0935 against 0.0417 dense, at density 0.198."""
    network = build(wide(sparsity=KernelSparsity(density=(0.198,) * 9)))
    mask = network.node("conv").mask
    assert network.weight("conv")[mask == 1].std() == pytest.approx(0.0935, rel=0.04)
    assert build(wide()).weight("conv").std() == pytest.approx(0.0417, rel=0.02)


def test_a_shared_weight_is_drawn_once():
    net = GraphWriter((4, 8, 8))
    x = net.conv("first", net.input, 4, kernel=3)
    x = net.conv("second", net.relu("relu", x), 4, kernel=3)
    graph = net.finish(net.linear("fc", net.global_pool("pool", x), 2))
    nodes = tuple(replace(n, weights="first") if n.name == "second" else n for n in graph.nodes)
    network = build(replace(graph, nodes=nodes))
    assert network.node("second") is network.node("first")
    assert "second.weight" not in network.state_dict()


# What transformers need.


def stored(start):
    """A parameter of 100 x 100, times a vector."""
    op = Parameter(sizes=(1, 100, 100), start=start)
    nodes = (
        Node(name="input", op=Input(width=100)),
        Node(name="rows", op=Reshape(sizes=(1, 100)), inputs=("input",)),
        Node(name="matrix", op=op),
        Node(name="product", op=MatMul(), inputs=("rows", "matrix")),
        Node(name="norm", op=LayerNorm(dims=2), inputs=("product",)),
        Node(name="rms", op=RmsNorm(), inputs=("norm",)),
    )
    return Graph(nodes=nodes, output="rms")


@pytest.mark.parametrize("start", ["normal", "ones", "zeros"])
def test_parameters_start_as_they_say(start):
    value = build(stored(start)).node("matrix").value
    if start == "normal":
        assert about(value, 0.02)
    else:
        assert (value == (start == "ones")).all()


def test_norms_of_tokens_start_as_the_identity():
    network = build(stored("zeros"))
    assert (network.weight("norm") == 1).all()
    assert not network.node("norm").bias.any()
    assert (network.weight("rms") == 1).all()


@pytest.mark.parametrize(
    ("scheme", "std"),
    [
        ("fan_out", math.sqrt(2 / (3 * 128))),
        ("fan_in", math.sqrt(2 / (3 * 64))),
        ("torch", 1 / math.sqrt(3 * 3 * 64)),
    ],
)
def test_convolutions_of_rows_are_drawn_as_those_of_images(scheme, std):
    nodes = (
        Node(name="input", op=Input(width=64 * 9)),
        Node(name="rows", op=Reshape(sizes=(64, 9)), inputs=("input",)),
        Node(name="conv", op=Conv1d(width=128, kernel=3, bias=True), inputs=("rows",)),
    )
    network = build(Graph(nodes=nodes, output="conv", init=Init(conv=scheme)))
    assert about(network.weight("conv"), std)
    assert network.node("conv").bias.any() == (scheme == "torch")


def test_linear_layers_of_transformers():
    network = build(wide(Init(linear="normal_0.02")))
    assert about(network.weight("hidden"), 0.02)
    assert network.weight("hidden").abs().max() < 2
    assert not network.node("hidden").bias.any()


def everywhere():
    """Little graphs that hold every op which has a tensor."""
    yield from (vit(), swin(), wide(Init(conv="torch"), KernelSparsity(density=(0.5,) * 9), True))
    net = GraphWriter((4, 4, 4))
    x = net.add("grouped", GroupNorm(groups=2), net.input)
    x = net.add("selected", Select(indices=(1, 3)), x)
    flags = net.add("flags", constant(numpy.array([[True], [False]])))
    number = net.add("number", constant(numpy.array(2.5)))
    flags = net.add("places", Reshape(sizes=(2, 1, 1)), flags)
    x = net.add("flagged", Arithmetic(function="multiply"), x, flags)
    x = net.add("numbered", Arithmetic(), x, number)
    same = net.add("same", Filled(sizes=(4,), value=3.0))
    yield net.finish(net.add("more", Arithmetic(), x, same))


@pytest.fixture
def garbage():
    """New memory holds nan, the largest integer, or True."""
    assert torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def tensors(network):
    """Return all tensors, also those that are no part of the state."""
    return dict([*network.named_parameters(), *network.named_buffers()])


@pytest.mark.parametrize("graph", [*everywhere()], ids=lambda graph: graph.output)
def test_no_tensor_keeps_what_was_in_its_memory(garbage, graph):
    network = build(graph, seed=3)
    filled = tensors(network)
    assert all(tensor.isfinite().all() for tensor in filled.values())
    torch.use_deterministic_algorithms(False)
    with torch.device("meta"):
        twin = Network(graph)
    assert filled.keys() == tensors(twin).keys()
    # Memory of zeros is another garbage: what is left of it would differ.
    with mock.patch.object(torch, "empty_like", torch.zeros_like):
        assert same(filled, tensors(build(graph, seed=3)))
    for node in graph.nodes:
        if isinstance(node.op, Constant):
            expected = numpy.frombuffer(node.op.bytes(), node.op.dtype).reshape(node.op.sizes)
            assert network.node(node.name).value.tolist() == expected.tolist()
        elif isinstance(node.op, Filled):
            assert (network.node(node.name).value == node.op.value).all()


def test_transformers_touch_no_global_state_either():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for graph in (vit(), swin()):
        assert same(build(graph, seed=1).state_dict(), build(graph, seed=1).state_dict())
        for name, tensor in build(graph, seed=2).named_parameters():
            other = build(graph, seed=1).get_parameter(name)
            assert torch.equal(tensor, other) == (tensor.unique().numel() == 1), name
    assert torch.equal(torch.get_rng_state(), before)


def test_on_a_cpu_it_makes_no_difference_where_weights_are_drawn():
    one, other = build(wide(), seed=3), build(wide(), seed=3, draw_on="device")
    assert other.init_seed == 3
    states = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in states)


@pytest.mark.gpu
def test_weights_drawn_on_a_gpu_have_their_deviation_and_no_seed_of_a_cpu():
    networks = [build(wide(), seed=3, device="cuda", draw_on="device") for _ in range(2)]
    here = build(wide(), seed=3, device="cuda")
    drawn = [network.weight("conv") for network in networks]
    assert torch.equal(*drawn) and not torch.equal(drawn[0], here.weight("conv"))
    assert math.isclose(drawn[0].std().item(), here.weight("conv").std().item(), rel_tol=0.02)
    assert (networks[0].init_seed, here.init_seed) == (None, 3)
