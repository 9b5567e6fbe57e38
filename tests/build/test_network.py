"""A network is what its graph says: shapes, names, parameters, cost, function."""

import copy
from dataclasses import replace

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.swin_transformer import shifted_window_attention

from prunenas.arch.descriptor import Descriptor, apply
from prunenas.build.initialise import build
from prunenas.build.network import Network
from prunenas.errors import GraphError, ShapeError
from prunenas.families.base import reference
from prunenas.ir import cost
from prunenas.ir.canonical import digest
from prunenas.ir.coupling import couple
from prunenas.ir.ops import (
    BatchNorm,
    Constant,
    Conv1d,
    Conv2d,
    Convolve,
    GroupNorm,
    Input,
    PadChannels,
    Parameter,
    Select,
)
from prunenas.ir.writer import GraphWriter
from tests.build.attending import swin, vit
from tests.build.examples import sizes
from tests.build.networks import FAMILIES, images, lively, positions, tensor_axes
from tests.graphs import graphs, legal_widths


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return FAMILIES[request.param]()


@pytest.fixture(scope="module", params=[vit, swin])
def tokens(request):
    return request.param()


def check_shapes(graph):
    network, x = build(graph).eval(), images(graph, 2).float()
    values = {}
    with torch.no_grad():
        for node in graph.nodes:
            inputs = [x] if isinstance(node.op, Input) else [values[name] for name in node.inputs]
            values[node.name] = network.node(node.name)(*inputs)
            assert values[node.name].shape == sizes(graph.shapes[node.name], 2), node.name
        # Node by node and as a whole are the same function.
        assert torch.equal(network(x), values[graph.output])


@settings(max_examples=30)
@given(graphs())
def test_inferred_shapes_are_the_shapes_that_run(graph):
    check_shapes(graph)


def test_inferred_shapes_of_families_are_the_shapes_that_run(family):
    check_shapes(family)


@settings(max_examples=30)
@given(st.data(), graphs())
def test_every_legal_descriptor_builds_and_trains_a_step(data, graph):
    widths = data.draw(legal_widths(graph))
    narrow = apply(graph, Descriptor(reference=digest(graph), widths=widths))
    network = build(narrow).train()
    scores = network(images(graph, 3).float())
    assert scores.shape == (3, graph.classes)
    scores.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def check_state(graph):
    """Norm statistics aside, the state dict is the graph's parameters, name by name."""
    state = build(graph).state_dict()
    norms = {n.name for n in graph.nodes if isinstance(n.op, BatchNorm) and n.weights is None}
    statistics = {
        f"{name}.{key}"
        for name in norms
        for key in ("running_mean", "running_var", "num_batches_tracked")
    }
    shapes = {key: tuple(t.shape) for key, t in state.items() if key not in statistics}
    assert statistics <= state.keys()
    assert shapes == graph.parameters()


def check_cost(graph):
    network = build(graph).eval()
    assert sum(p.numel() for p in network.parameters()) == cost.params(graph)
    # With gradients: the counter stumbles over views of parameters that are made without.
    with FlopCounterMode(display=False) as counter:
        network(images(graph, 1).float())
    # The counter counts a multiply-accumulate as two.
    assert counter.get_total_flops() == 2 * cost.macs(graph)


@settings(max_examples=30)
@given(graphs())
def test_the_state_dict_has_the_graphs_names(graph):
    check_state(graph)


def test_the_state_dict_of_families_has_the_graphs_names(family):
    check_state(family)


@settings(max_examples=30)
@given(graphs())
def test_costs_are_what_torch_counts(graph):
    check_cost(graph)


def test_costs_of_families_are_what_torch_counts(family):
    check_cost(family)


@pytest.mark.parametrize("check", [check_shapes, check_state, check_cost])
def test_networks_of_tokens_are_what_their_graphs_say(tokens, check):
    check(tokens)


# Permuting the channels of a group, in all its members, changes nothing.


def permutable(graph):
    """Return the free groups whose channels no op tells apart by their place."""
    groups = couple(graph)
    told_apart = {group.name for group in groups if group.ordered}
    for node in graph.nodes:
        if isinstance(node.op, PadChannels):
            axes = [groups.read(node, 0), groups.read(node, 1)]
        elif isinstance(node.op, GroupNorm | Conv1d | Conv2d) and getattr(node.op, "groups", 1) > 1:
            axes = [groups.read(node), groups.axes[node.name]]
        elif isinstance(node.op, Convolve) and node.op.groups > 1:
            axes = [groups.axes[node.name]]
        else:
            continue
        told_apart |= {name for axis in axes for segment in axis for name in segment.groups}
    return [group for group in groups.free if group.name not in told_apart]


def permute(network, orders, *, but=()):
    """Reorder the channels of groups in every tensor, except in the nodes named in ``but``."""
    graph = network.graph
    groups = couple(graph)

    def where(axis):
        return torch.tensor(positions(axis, orders, groups.widths))

    for node in graph.nodes:
        if node.weights is not None or node.name in but:
            continue
        module = network.node(node.name)
        if isinstance(node.op, Select):
            out, into = where(groups.axes[node.name]), where(groups.read(node))
            module.everything = False
            module.indices = into.argsort()[module.indices[out]]
            continue
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        for tensor in tensors.values():
            for dim, axis in enumerate(tensor_axes(node, groups)[: tensor.dim()]):
                tensor.data = tensor.data.index_select(dim, where(axis))


def drawn_orders(groups, seed):
    generator = torch.Generator().manual_seed(seed)
    return {g.name: torch.randperm(g.width, generator=generator).tolist() for g in groups}


def check_permutation(graph, seed):
    network = lively(graph, seed)
    twin = copy.deepcopy(network)
    permute(twin, drawn_orders(permutable(graph), seed))
    x = images(graph)
    with torch.no_grad():
        assert_close(twin(x), network(x), rtol=1e-9, atol=1e-9)


@settings(max_examples=40)
@given(graphs(), st.integers(0, 2**31))
def test_permuting_a_group_leaves_the_function_unchanged(graph, seed):
    check_permutation(graph, seed)


def test_permuting_the_groups_of_a_family_leaves_its_function_unchanged(family):
    assert permutable(family)
    check_permutation(family, 0)


def test_permuting_only_some_members_changes_the_function():
    """The law above can fail: one forgotten convolution of a residual trunk is seen."""
    graph = FAMILIES["resnet18"]()
    network = lively(graph)
    trunk = couple(graph)["layer2.0.conv2"]
    assert len(trunk.members) == 3
    x = images(graph)
    for member in trunk.members:
        twin = copy.deepcopy(network)
        permute(twin, drawn_orders([trunk], 0), but=(member,))
        with torch.no_grad():
            assert (twin(x) - network(x)).abs().max() > 1e-3


# torchvision as the oracle of the function.


@pytest.mark.parametrize(
    ("theirs", "ours", "side"),
    [
        ("alexnet", "alexnet", 96),
        ("resnet18", "resnet18", 64),
        ("resnet50", "resnet50", 64),
        ("mobilenet_v2", "mobilenet_v2", 64),
        # Its adaptive pooling, which ours leaves out, is the identity at this size only.
        ("vgg16_bn", "vgg16_bn_imagenet", 224),
    ],
)
def test_with_torchvisions_weights_the_function_is_torchvisions(theirs, ours, side):
    with torch.device("meta"):
        model = torchvision.models.get_model(theirs, weights=None).eval()
        network = Network(reference(ours, (3, side, side))).eval()
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.dim() > 1:
                bound = (6 / tensor[0].numel()) ** 0.5
                tensor.uniform_(-bound, bound, generator=generator)
            elif name.endswith(("running_var", "weight")):
                tensor.uniform_(0.8, 1.2, generator=generator)
            else:
                tensor.fill_(0.0625)
    network.load_state_dict(model.state_dict(), strict=True, assign=True)
    x = torch.randn(1, 3, side, side, generator=generator)
    with torch.no_grad():
        scores = model(x)
        assert scores.std() > 0
        assert torch.equal(network(x), scores)


def test_attention_in_shifted_windows_is_torchvisions():
    graph = swin()
    network = lively(graph)
    names = [key for node in ("qkv", "proj") for key in (f"{node}.weight", f"{node}.bias")]
    qkv, qkv_bias, proj, proj_bias = map(network.get_parameter, names)
    with torch.no_grad():
        bias = network.node("table").value[network.node("where").value]
        image = images(graph).permute(0, 2, 3, 1)
        attended = shifted_window_attention(
            image,
            qkv,
            proj,
            bias.view(4, 4, 2).permute(2, 0, 1).unsqueeze(0),
            window_size=[2, 2],
            num_heads=2,
            shift_size=[1, 1],
            qkv_bias=qkv_bias,
            proj_bias=proj_bias,
        )
        scores = network.node("head")((image + attended).mean((1, 2)))
        assert scores.std() > 0
        assert_close(network(images(graph)), scores)


# The network itself.


def small():
    net = GraphWriter((3, 8, 8))
    x = net.relu("relu", net.batch_norm("bn", net.conv("conv", net.input, 4, kernel=3)))
    return net.finish(net.linear("fc", net.global_pool("pool", x), 2))


def test_images_of_another_size_are_refused():
    with pytest.raises(ShapeError, match=r"takes images \[3, 8, 8\], got \[3, 8, 9\]"):
        build(small())(torch.zeros(1, 3, 8, 9))


@pytest.mark.parametrize(
    "name", ["forward", "training", "graph", "node", "_steps", "_output", "_steps.conv", "a.type"]
)
def test_names_that_torch_needs_are_refused(name):
    net = GraphWriter((3, 8, 8))
    x = net.conv(name, net.input, 4, kernel=3)
    graph = net.finish(net.linear("fc", net.global_pool("pool", x), 2))
    with pytest.raises(GraphError, match=name.split(".")[0]):
        build(graph)


def test_weights_are_found_by_node_and_carry_no_gradient():
    network = build(small())
    weight = network.weight("conv")
    assert weight.shape == (4, 3, 3, 3)
    assert not weight.requires_grad
    assert weight.data_ptr() == network.node("conv").weight.data_ptr()
    with pytest.raises(GraphError, match="relu has no weight"):
        network.weight("relu")


def test_scales_are_those_of_every_batch_norm():
    network = build(reference("vgg16_l1", width=0.125))
    names = [name for name, scale in network.scales()]
    assert names == [n.name for n in network.graph.nodes if isinstance(n.op, BatchNorm)]
    assert all(scale is network.get_parameter(f"{name}.weight") for name, scale in network.scales())


@settings(max_examples=30)
@given(graphs())
def test_masks_and_selections_are_no_part_of_the_state(graph):
    """A fresh network with the state of another is the same function."""
    one, other = lively(graph, 0), build(graph, seed=1).double().eval()
    other.load_state_dict(one.state_dict(), strict=True)
    x = images(graph)
    with torch.no_grad():
        assert torch.equal(one(x), other(x))


def test_a_copy_of_a_network_has_tensors_of_its_own():
    network = build(reference("lenet5"))
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert twin.graph == network.graph
    x = images(network.graph).float()
    assert not torch.equal(twin(x), network(x))
    assert torch.equal(network(x), build(network.graph)(x))


# Nodes that read nothing: stored tensors.


def stored(network, kind):
    return {
        node.name: network.node(node.name).value
        for node in network.graph.nodes
        if isinstance(node.op, kind)
    }


def test_constants_are_no_part_of_the_state_and_parameters_are(tokens):
    network = build(tokens)
    state = network.state_dict()
    assert not {f"{name}.value" for name in stored(network, Constant)} & state.keys()
    own = {f"{name}.value" for name in stored(network, Parameter)}
    assert own
    assert own <= state.keys() & dict(network.named_parameters()).keys()


def test_stored_tensors_move_along(tokens):
    network = build(tokens).to("meta")
    assert all(value.is_meta for value in stored(network, Constant | Parameter).values())
    assert network(torch.zeros(2, *tokens.input_size, device="meta")).shape == (2, 10)
    assert network.double()(images(tokens).to("meta")).dtype == torch.float64


def test_a_copy_has_stored_tensors_of_its_own(tokens):
    network = build(tokens)
    twin = copy.deepcopy(network)
    x = images(tokens).float()
    assert torch.equal(twin(x), network(x))
    for name, value in stored(twin, Constant | Parameter).items():
        own = network.node(name).value
        assert torch.equal(value, own)
        assert value.data_ptr() != own.data_ptr()
        with torch.no_grad():
            value.fill_(1)
    assert not torch.equal(twin(x), network(x))
    assert torch.equal(network(x), build(tokens)(x))


def test_a_stored_tensor_may_be_shared():
    graph = vit()
    nodes = tuple(
        replace(n, op=graph["block.scale"].op, weights="block.scale")
        if n.name == "block.shift"
        else n
        for n in graph.nodes
    )
    network = build(replace(graph, nodes=nodes))
    assert network.node("block.shift") is network.node("block.scale")
    assert "block.shift.value" not in network.state_dict()
    network(images(graph).float()).sum().backward()


def test_images_of_a_batch_do_not_see_one_another(tokens):
    network, x = lively(tokens), images(tokens, 3)
    with torch.no_grad():
        assert_close(network(x), torch.cat([network(one) for one in x.split(1)]))


def test_every_parameter_of_a_network_of_tokens_is_trained(tokens):
    network = build(tokens).train()
    network(images(tokens, 3).float()).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
