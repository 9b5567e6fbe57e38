"""The exported Python file is the network, needs torch only, and reads well."""

import ast
import subprocess
import sys
from dataclasses import replace
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunenas.arch.descriptor import Descriptor, apply
from prunenas.build.initialise import build
from prunenas.errors import GraphError
from prunenas.export.python_source import SOURCES
from prunenas.families.base import FAMILIES, reference
from prunenas.ir.blocks import blocks
from prunenas.ir.canonical import digest
from prunenas.ir.graph import Graph, Init, Node
from prunenas.ir.ops import (
    Activation,
    AnyOp,
    Dropout,
    DropPath,
    Flatten,
    LayerNorm,
    Linear,
    Permute,
    Reduce,
    Select,
)
from prunenas.ir.writer import GraphWriter
from tests.export.source import assert_same_function, namespace, networks, source_of
from tests.graphs import graphs, legal_widths, with_widths

STDLIB = {"base64", "zlib"}


def is_random(graph: Graph) -> bool:
    return any(isinstance(node.op, Dropout | DropPath) for node in graph.nodes)


def assert_needs_torch_only(source: str) -> None:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= {"torch", *STDLIB}
        elif isinstance(node, ast.ImportFrom):
            assert node.module == "torch"


def assert_nothing_is_unused(source: str) -> None:
    """All that the file defines is used in it, save one class: the network."""
    tree = ast.parse(source)
    defined = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    (kind,) = networks(source)
    assert defined - used == {kind.__name__}


def test_every_op_has_a_source() -> None:
    assert {*SOURCES} == {*get_args(AnyOp)}


@pytest.mark.parametrize("name", FAMILIES.names())
def test_every_family_is_the_same_network(name):
    graph = reference(name, width=0.06)
    source = source_of(graph, name)
    assert_same_function(graph, source=source)
    assert_needs_torch_only(source)
    assert_nothing_is_unused(source)
    assert max(map(len, source.splitlines())) <= 100


@settings(max_examples=80)
@given(st.data(), graphs())
def test_a_random_graph_is_the_same_network_at_any_widths(data, graph):
    source = source_of(graph)
    assert_same_function(graph, source=source)
    assert_needs_torch_only(source)
    assert_nothing_is_unused(source)
    narrow = with_widths(graph, data.draw(legal_widths(graph)))
    assert_same_function(narrow, training=not is_random(narrow))


@settings(max_examples=20)
@given(st.data())
def test_dropped_blocks_leave_gaps(data):
    graph = reference("resnet56", (3, 8, 8), width=0.25)
    names = st.sampled_from([block.name for block in blocks(graph)])
    dropped = tuple(sorted(data.draw(st.sets(names, min_size=1))))
    small = apply(graph, Descriptor(reference=digest(graph), dropped=dropped))
    assert_same_function(small, training=True)


def test_of_a_dropped_block_its_last_function_is_left():
    graph = reference("resnet20")
    small = apply(graph, Descriptor(reference=digest(graph), dropped=("layer1.1.add",)))
    source = source_of(small)
    assert "ResidualBlock(16),\n            nn.ReLU(),\n            ResidualBlock(16)" in source


def test_pruned_widths_and_selections():
    graph = reference("preresnet", (3, 8, 8), depth=20, width=0.5)
    groups = {node.name: node.op.width for node in graph.nodes if node.op.kind == "Select"}
    assert groups
    chosen = {name: tuple(range(0, width, 2)) for name, width in groups.items()}
    small = apply(graph, Descriptor(reference=digest(graph), selections=chosen))
    source = source_of(small)
    assert "class ChannelSelection" in source
    assert "ChannelSelection" not in source_of(graph)
    assert_same_function(small, training=True, source=source)


def test_a_long_selection_is_broken_into_lines():
    net = GraphWriter((1, 4, 4))
    x = net.conv("conv", net.input, 700, kernel=3)
    indices = tuple(i for i in range(700) if i % 7 in (1, 2, 5))
    x = net.add("select", Select(indices=indices), x)
    graph = net.finish(net.linear("fc", net.global_pool("pool", x), 3))
    source = source_of(graph)
    assert max(map(len, source.splitlines())) <= 100
    assert '"1-2 5 8-9 12 ' in source
    theirs = assert_same_function(graph, source=source)
    assert theirs.get_buffer("select.indices").tolist() == [*indices]


def masked(conv: str = "fan_out") -> Graph:
    graph = reference("vgg11", (3, 16, 16), width=0.5)
    densities = {
        node.name: (0.1, 0.9, 0.1, 0.9, 1.0, 0.0, 0.2, 0.5, 0.3)
        for node in graph.nodes
        if node.op.kind == "Conv2d"
    }
    small = apply(graph, Descriptor(reference=digest(graph), densities=densities, seed=5))
    return replace(small, init=replace(small.init, conv=conv))


def test_masks_are_the_same_bit_for_bit():
    graph = masked()
    theirs, ours = assert_same_function(graph, training=True), build(graph)
    masks = {key: value for key, value in ours.named_buffers() if key.endswith("mask")}
    assert len(masks) == 8
    assert all(torch.equal(mask, theirs.get_buffer(key)) for key, mask in masks.items())


@pytest.mark.parametrize("conv", ["fan_out", "fan_in", "torch"])
def test_fresh_weights_stay_under_their_mask(conv):
    graph = masked(conv)
    (kind,) = networks(source_of(graph))
    torch.manual_seed(0)
    theirs, ours = kind(), build(graph)
    for key, mask in ours.named_buffers():
        if key.endswith("mask"):
            name = key.removesuffix("mask") + "weight"
            weight = theirs.get_parameter(name).detach()
            assert not weight[mask == 0].any()
            assert weight.std() == pytest.approx(ours.get_parameter(name).std().item(), rel=0.15)


def test_dense_networks_carry_no_masks():
    assert "base64" not in source_of(reference("vgg11"))
    assert "import base64" in source_of(masked())


@pytest.mark.parametrize(
    "init",
    [
        Init(),
        Init(conv="fan_in", linear="normal_0.01", scale=0.5),
        Init(conv="torch", linear="torch"),
        Init(vector_scale=0.25),
    ],
)
def test_fresh_weights_follow_the_scheme(init):
    graph = replace(reference("vgg11_l1", (3, 16, 16), width=0.5), init=init)
    (kind,) = networks(source_of(graph))
    torch.manual_seed(0)
    theirs, ours = kind(), build(graph)
    for key, value in ours.named_parameters():
        other = theirs.get_parameter(key).detach()
        if value.numel() > 500:
            assert other.std().item() == pytest.approx(value.std().item(), rel=0.15)
        elif value.std() == 0:
            assert torch.equal(other, value), key


def test_frameworks_own_scheme_needs_no_function():
    graph = replace(reference("lenet5"), init=Init(conv="torch", linear="torch"))
    assert "initialise" not in source_of(graph)


def nodes_named(*names: str) -> Graph:
    """Convolutions in a row under these names."""
    net = GraphWriter((2, 4, 4))
    x = net.input
    for name in names:
        x = net.conv(name, x, 3, kernel=3)
    return net.finish(net.linear("fc", x, 2))


@pytest.mark.parametrize(
    "names",
    [
        ("class", "lambda"),
        ("a.class", "a.b", "c.__d", "__e"),
        ("0", "1"),
        ("a.0", "a.2", "a.17", "a.x"),
        ("a.01", "a.1"),
        ("a.keys", "a.0"),
        ("a.0_1", "a.b.0", "b.0.keys", "b.1.values"),
        ("F.conv", "torch", "nn", "x", "y", "self"),
        ("\u00e9", "a.\ufb01", "a.fi", "a.\u00b2"),
        ("initialise", "MASKS", "in_width", "width"),
    ],
)
def test_any_name_that_our_network_takes_is_kept(names):
    assert_same_function(nodes_named(*names))


def test_names_that_torch_keeps_for_itself_are_refused():
    with pytest.raises(GraphError, match=r"'a\.forward'"):
        source_of(nodes_named("a.forward"))


@pytest.mark.parametrize(
    "name",
    ["resnet20", "", "2 fast", "class", "None", "f", "tensor", "Drop path", "\u7f51", "a-b_c"],
)
def test_any_name_of_a_spec_gives_one_class(name):
    graph = reference("resnet20", (3, 8, 8), width=0.25)
    assert_same_function(graph, source=source_of(graph, name))


def test_the_class_is_called_after_the_spec():
    (kind,) = networks(source_of(reference("lenet5"), "vgg19 small-2"))
    assert kind.__name__ == "Vgg19Small2"


def test_provenance_cannot_end_the_docstring():
    story = {"note": '"""\nraise SystemExit\n"""', "path": "C:\\new", "odd": "\x00\u2028\\"}
    source = source_of(reference("lenet5"), provenance=story)
    assert "SystemExit" in ast.get_docstring(ast.parse(source))
    assert networks(source)


def test_functions_take_the_numbers_that_are_free_in_a_row_of_modules():
    net = GraphWriter((2, 8, 8))
    x = net.conv("features.0", net.input, 6, kernel=3)
    x = net.add("features.permute", Permute(order=(0, 2, 3, 1)), x)
    x = net.add("features.2", LayerNorm(), x)
    x = net.add("features.gelu", Activation(function="gelu"), x)
    x = net.add("features.5", Linear(width=3), x)
    graph = net.finish(net.add("mean", Reduce(dims=(1, 2)), x))
    source = source_of(graph)
    rows = ["nn.Conv2d(2, 6, kernel_size=3, padding=1, bias=False)", "Permute(0, 2, 3, 1)"]
    rows += ["nn.LayerNorm(6)", "nn.GELU()", "nn.Identity()", "nn.Linear(6, 3)"]
    assert "".join(f"            {row},\n" for row in rows) in source
    assert_same_function(graph, source=source)


def test_long_names_leave_lines_short():
    net = GraphWriter((2, 8, 8))
    x = net.input
    for number, width in enumerate((3, 4)):
        long = f"a_part_with_a_long_name.{number}.another_layer_with_one.and_at_last"
        x = net.conv(f"{long}.the_first_convolution", x, width, kernel=1)
        x = net.conv(f"{long}.the_second_convolution", x, 5, kernel=2 * number + 1)
        x = net.relu(f"{long}.the_function", x)
    graph = net.finish(net.linear("fc", x, 2))
    source = source_of(graph)
    assert max(map(len, source.splitlines())) <= 100
    assert_same_function(graph, source=source)


def test_shared_weights_are_declared_once():
    net = GraphWriter((2, 8, 8))
    with net.scope("tower"):
        first = net.conv("0", net.input, 2, kernel=3)
        second = net.conv("1", net.relu("between", first), 2, kernel=3)
    graph = net.finish(net.linear("fc", second, 2))
    nodes = tuple(replace(n, weights=first) if n.name == second else n for n in graph.nodes)
    source = source_of(replace(graph, nodes=nodes))
    assert source.count("nn.Conv2d(") == 1
    assert_same_function(replace(graph, nodes=nodes), source=source)


def test_weights_shared_across_containers():
    net = GraphWriter((2, 8, 8))
    x = net.relu("a.relu", net.conv("a.conv", net.input, 2, kernel=3))
    x = net.relu("b.relu", net.conv("b.conv", x, 2, kernel=3))
    graph = net.finish(net.linear("fc", x, 2))
    nodes = tuple(replace(n, weights="a.conv") if n.name == "b.conv" else n for n in graph.nodes)
    assert_same_function(replace(graph, nodes=nodes))


def test_a_vector_network_without_an_activation():
    graph = Graph(
        nodes=(
            Node(name="input", op=reference("lenet5").nodes[0].op),
            Node(name="flat", op=Flatten(), inputs=("input",)),
            Node(name="fc", op=Linear(width=3), inputs=("flat",)),
        ),
        output="fc",
    )
    assert_same_function(graph)


def test_dropout_is_drawn_as_ours_is():
    graph = reference("alexnet", width=0.06)
    (kind,) = networks(source_of(graph))
    theirs, ours = kind(), build(graph)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, *graph.input_size)
    results = []
    for network in (theirs.train(), ours.train()):
        torch.manual_seed(1)
        results.append(network(x))
    assert torch.equal(*results)


def test_gradients_are_ours():
    graph = reference("resnet20", (3, 8, 8), width=0.5)
    (kind,) = networks(source_of(graph))
    theirs, ours = kind(), build(graph)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(4, *graph.input_size)
    for network in (theirs, ours):
        nn.functional.cross_entropy(network(x), torch.arange(4)).backward()
    for key, value in ours.named_parameters():
        assert torch.equal(theirs.get_parameter(key).grad, value.grad), key


def test_files_are_clean_and_can_be_imported_without_us(tmp_path):
    for name in ("resnet20", "vgg16", "densenetbc100", "mobilenet_v2", "preresnet164"):
        (tmp_path / f"{name}_file.py").write_text(source_of(reference(name), name))
    (tmp_path / "masked_file.py").write_text(source_of(masked(), "masked"))
    linted = [sys.executable, "-m", "ruff", "check", "--isolated", str(tmp_path)]
    assert subprocess.run(linted, capture_output=True, check=False).returncode == 0
    script = "import sys, resnet20_file as f; f.Resnet20(); assert 'prunenas' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)


def test_the_forward_of_a_resnet_reads_as_people_write_it():
    source = source_of(reference("resnet20"))
    assert (
        "        y = F.relu(self.bn1(self.conv1(x)))\n"
        "        y = self.bn2(self.conv2(y))\n"
        "        return F.relu(y + x)\n"
    ) in source
    assert len(source.splitlines()) < 120
    assert len(source_of(reference("resnet110")).splitlines()) < 180


def test_the_docstring_tells_the_numbers():
    doc = namespace(source_of(reference("vgg16")))["__doc__"]
    for fact in ("14,724,042", "313,201,664", "3 x 32 x 32", "Classes: 10"):
        assert fact in doc
    assert digest(reference("vgg16")) in doc
