"""What tracing promises, on networks of a few layers."""

import warnings

import pytest
import torch
from torch import nn

from prunenas.errors import TraceError
from prunenas.importers.trace import import_network, trace
from prunenas.ir.canonical import digest
from prunenas.ir.cost import macs, params
from prunenas.ir.coupling import couple
from prunenas.ir.ops import BatchNorm, Dropout, DropPath, Opaque
from tests.importers.nets import (
    SIZE,
    Auxiliary,
    ByShape,
    ByValue,
    Net,
    OneUnknown,
    Tied,
    Twice,
    TwoUnknown,
    between,
    lively,
)


def kinds(graph):
    return [node.op.kind for node in graph.nodes]


def refusal(module, size=SIZE, **options):
    with pytest.raises(TraceError) as error:
        trace(module, size, **options)
    return str(error.value)


# Front ends


def test_torch_fx_is_tried_first():
    assert import_network(Net(), SIZE).front_end == "torch.fx"


def test_control_flow_by_sizes_is_followed_by_torch_export():
    imported = import_network(lively(ByShape()), SIZE)
    assert imported.front_end == "torch.export"
    assert kinds(imported.graph).count("Pool2d") == 2
    assert imported.certificate.difference <= imported.certificate.bound


def test_control_flow_by_values_is_refused_by_name():
    told = refusal(ByValue())
    assert "its control flow depends on the values of tensors" in told
    assert "nets.py:" in told
    assert "if x.sum() > 0" in told


# What no op describes


def test_all_unknown_calls_are_told_together_with_module_and_line():
    told = refusal(nn.Sequential(TwoUnknown()))
    assert "no op of the graph describes these calls" in told
    lines = [line for line in told.splitlines() if "aten." in line]
    assert len(lines) == 2
    for line, call, source in zip(
        lines,
        ("cumsum", "logcumsumexp"),
        ("x = x.cumsum(1)", "x = torch.logcumsumexp(x, 2)"),
        strict=True,
    ):
        assert f"aten.{call}" in line
        assert " in 0 (" in line
        assert "nets.py:" in line
        assert source in line
    assert "unknown='freeze'" in told


def test_equal_unknown_calls_are_told_once():
    told = refusal(between(lambda x: x.cumsum(1).cumsum(1)))
    assert told.count("aten.cumsum") == 1
    assert "and 1 more" in told


def test_a_frozen_call_is_repeated_and_fixes_what_it_reads():
    module = lively(OneUnknown())
    imported = import_network(module, SIZE, unknown="freeze")
    (name,) = imported.frozen
    graph, groups = imported.graph, couple(imported.graph)
    assert isinstance(graph[name].op, Opaque)
    assert graph[name].op.call == "cumsum.default"
    assert "cumsum" in groups["conv2"].fixed
    assert {group.name for group in groups.free} == {"conv1", "conv3"}
    assert imported.certificate.difference <= imported.certificate.bound
    assert graph[name].op.macs([], graph.shapes[name]) == 0
    assert params(graph) == sum(p.numel() for p in module.parameters())
    x = torch.randn(2, *SIZE)
    with torch.no_grad():
        assert torch.allclose(imported.network()(x), module(x), atol=1e-6)


def test_a_call_that_would_never_be_built_is_not_frozen():
    told = refusal(between(lambda x: x + torch.rand_like(x)), unknown="freeze")
    assert "aten op rand_like.default" in told
    assert "is never called" in told


class Recurrent(Net):
    def __init__(self):
        super().__init__()
        self.rows = nn.LSTM(SIZE[2], SIZE[2], batch_first=True)

    def forward(self, x):
        return super().forward(self.rows(x.flatten(1, 2))[0].reshape(x.shape))


def test_a_frozen_recurrent_layer_runs_on_any_batch():
    imported = import_network(Recurrent(), SIZE, unknown="freeze")
    assert imported.frozen
    assert imported.network()(torch.randn(3, *SIZE)).shape[0] == 3


def test_freezing_changes_nothing_where_all_calls_are_known():
    assert trace(Net(), SIZE, unknown="freeze") == trace(Net(), SIZE)


def test_there_is_no_third_way_with_unknown_calls():
    assert "unknown is 'refuse' or 'freeze', got 'drop'" in refusal(Net(), unknown="drop")


def test_no_free_width_is_said_aloud():
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    with pytest.warns(UserWarning, match=r"no width .*: .*network output") as told:
        graph = trace(module, SIZE)
    assert len(told) == 1
    assert told[0].filename == __file__
    assert not couple(graph).free


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.BatchNorm2d(8, affine=False), "a batch norm without scale"),
        (nn.BatchNorm2d(8, track_running_stats=False), "a batch norm"),
        (nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"), "padding of the kind circular"),
        (nn.GroupNorm(2, 8, affine=False), "a group norm without scale"),
        (nn.ELU(0.5), "ELU with alpha=0.5"),
        (nn.ConvTranspose2d(8, 8, 1), "no op for it"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_layers_with_options_that_no_op_has(layer, words):
    assert words in refusal(Net(8, layer))


# What goes in and comes out


class Returns(Net):
    def __init__(self, what):
        super().__init__()
        self.what = what

    def forward(self, x):
        return self.what(super().forward(x))


def test_a_network_that_returns_one_tensor_in_a_tuple_is_taken():
    assert trace(Returns(lambda y: (y,)), SIZE).classes == 5


@pytest.mark.parametrize("what", [lambda y: (y, y), lambda y: {"a": y, "b": y}, lambda y: None])
def test_a_network_that_returns_several_tensors_is_refused(what):
    assert "must return one tensor" in refusal(Returns(what))


@pytest.mark.parametrize("size", [(3, 8), (8,), (3, 8, 8, 8), (3, 8, -1), (0, 8, 8)])
def test_sizes_that_are_none_are_refused(size):
    assert "input_size is channels, height and width" in refusal(Net(), size)


def test_a_module_needs_a_size():
    assert "input_size is needed" in refusal(Net(), None)


def test_images_that_do_not_fit_are_refused():
    assert "does not run on an image [4, 8, 8]: RuntimeError" in refusal(Net(), (4, 8, 8))
    flat = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(288, 5))
    assert "does not run on an image [3, 16, 16]: RuntimeError" in refusal(flat, (3, 16, 16))


def test_an_assertion_of_the_network_is_told_as_a_refusal():
    class Strict(Net):
        def forward(self, x):
            torch._assert(x.shape[-1] == 16, "images of 16 are needed")
            return super().forward(x)

    assert "images of 16 are needed" in refusal(Strict())


def test_what_only_training_uses_is_dropped_and_listed():
    imported = import_network(Auxiliary().train(), SIZE)
    assert imported.dropped == {"aux": 45}
    assert not any("aux" in node.name for node in imported.graph.nodes)


def test_only_modules_are_taken():
    assert "a torch module or a name is needed, got function" in refusal(lambda x: x)
    assert "needed, got DataParallel" in refusal(nn.DataParallel(Net()))


# Identity


@pytest.mark.parametrize("kind", [Net, ByShape])
def test_two_imports_of_one_architecture_have_one_digest(kind):
    first, second = kind(), lively(kind(), seed=1)
    assert digest(trace(first, SIZE)) == digest(trace(second, SIZE)) == digest(trace(first, SIZE))
    assert digest(trace(kind(12), SIZE)) != digest(trace(first, SIZE))


def test_a_module_that_is_called_twice_shares_its_weights():
    module = lively(Twice())
    imported = import_network(module, SIZE)
    assert [node.weights for node in imported.graph.nodes if node.weights] == ["conv"]
    assert params(imported.graph) == sum(p.numel() for p in module.parameters())
    assert macs(imported.graph) == 64 * 9 * 8 * (3 + 8 + 8) + 8 * 5
    assert couple(imported.graph)["stem"].members == ("stem", "conv", "conv_again")


def test_tied_parameters_are_one():
    module = lively(Tied())
    imported = import_network(module, SIZE)
    assert params(imported.graph) == sum(p.numel() for p in module.parameters())
    assert [node.weights for node in imported.graph.nodes if node.weights] == ["one"]


def test_probabilities_of_dropout_are_kept():
    class StochasticDepth(nn.Module):
        def __init__(self):
            super().__init__()
            self.p, self.mode = 0.3, "row"

        def forward(self, x):
            return x if not self.training else x * 2

    module = Net(8, nn.Sequential(nn.Dropout(0.25), nn.Dropout(0.0), StochasticDepth()))
    graph = trace(module, SIZE)
    assert [node.op.p for node in graph.nodes if isinstance(node.op, Dropout)] == [0.25]
    assert [node.op.p for node in graph.nodes if isinstance(node.op, DropPath)] == [0.3]


def test_nodes_have_the_names_of_the_modules():
    module = nn.Sequential(Net(8, nn.Sequential(nn.BatchNorm2d(8), nn.ReLU())))
    graph = trace(module, SIZE)
    assert [n.name for n in graph.nodes] == [
        "input",
        "0.conv1",
        "0.middle.0",
        "0.middle.1.activation",
        "0.conv2",
        "0.global_pool",
        "0.flatten",
        "0.head",
    ]
    assert isinstance(graph["0.middle.0"].op, BatchNorm)


@pytest.mark.parametrize("taken", ["graph", "node", "weight", "scales", "_steps", "input"])
def test_layers_may_have_names_that_a_network_keeps_for_itself(taken):
    class Named(Net):
        def __init__(self):
            super().__init__()
            setattr(self, taken, nn.Conv2d(8, 8, 1))
            self.inner = nn.ModuleDict({taken: nn.Conv2d(8, 8, 1)})

        def body(self, x):
            return self.inner[taken](getattr(self, taken)(super().body(x)))

    module = lively(Named())
    imported = import_network(module, SIZE)
    assert {*imported.state.values()} == module.state_dict().keys()
    assert couple(imported.graph)[f"inner.{taken}"].fixed is None


def test_tracing_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace(ByShape(), SIZE)
