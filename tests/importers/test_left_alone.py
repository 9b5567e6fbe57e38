"""Tracing ends in time, and leaves the module that it looks at as it was."""

import threading
import time

import pytest
import torch
from torch import nn

from prunenas.errors import TraceError
from prunenas.importers.trace import import_network, trace
from tests.importers.nets import SIZE, ByShape, ByValue, Net, OneUnknown, TwoUnknown, lively


def refusal(module, size=SIZE, **options):
    with pytest.raises(TraceError) as error:
        trace(module, size, **options)
    return str(error.value)


# Time


@pytest.mark.parametrize("limit", [0, -1, float("inf"), float("nan")])
def test_time_limits_that_are_none_are_refused(limit):
    assert "time_limit is in seconds, above 0" in refusal(Net(), time_limit=limit)


class Slow(Net):
    def forward(self, x):
        for _ in range(200):
            time.sleep(0.05)
        return super().forward(x)


def test_a_time_limit_ends_with_what_was_being_traced():
    started = time.monotonic()
    told = refusal(nn.Sequential(Slow()), time_limit=0.3)
    assert time.monotonic() - started < 5
    assert "longer than 0.3 s: running it on one image at 0;" in told


def test_a_time_limit_names_the_tracer():
    class SlowToTrace(Slow):
        def forward(self, x):
            return super().forward(x) if isinstance(x, torch.fx.Proxy) else Net.forward(self, x)

    told = refusal(nn.Sequential(SlowToTrace()), time_limit=0.3)
    assert "longer than 0.3 s: tracing with torch.fx at 0;" in told


def test_the_time_limit_ends_with_the_import():
    trace(Net(), SIZE, time_limit=0.5)
    time.sleep(0.6)


# The module is left alone


def state_of(module):
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return (
        {name: (id(t), t._version, t.requires_grad) for name, t in tensors.items()},
        {name: t.clone() for name, t in tensors.items()},
        [(name, part.training) for name, part in module.named_modules()],
        [
            (*part._forward_hooks, *part._forward_pre_hooks, *part._backward_hooks)
            for part in module.modules()
        ],
        {name: [*vars(part)] for name, part in module.named_modules()},
    )


@pytest.mark.parametrize("kind", [Net, ByShape, OneUnknown])
def test_the_module_is_left_as_it_was(kind):
    module = lively(kind())
    module.norm = nn.BatchNorm2d(8)
    module.train()
    module.conv1.eval()
    module.conv2.weight.requires_grad_(False)
    numbers, copies, modes, hooks, fields = state_of(module)
    before = torch.get_rng_state()
    pre_hooks = dict(nn.modules.module._global_forward_pre_hooks)
    import_network(module, SIZE, unknown="freeze")
    after = state_of(module)
    assert after[0] == numbers
    assert all(torch.equal(t, copies[name]) for name, t in after[1].items())
    assert after[2:] == (modes, hooks, fields)
    assert torch.equal(torch.get_rng_state(), before)
    assert nn.modules.module._global_forward_pre_hooks == pre_hooks
    assert module.training
    assert not module.conv1.training


class Remembers(Net):
    """Keeps a value from its first evaluation, and counts its calls."""

    calls = 0

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(8, 1, 1))
        self.kept = {}

    def body(self, x):
        self.calls += 1
        if str(x.device) not in self.kept:
            self.kept[str(x.device)] = self.scale + 1
        return super().body(x) * self.kept[str(x.device)]

    def train(self, mode=True):
        self.kept = {}
        return super().train(mode)


def test_what_forwards_leave_behind_is_not_left_in_the_module():
    module = Remembers().eval()
    x = torch.rand(1, *SIZE)
    with torch.no_grad():
        before = module(x)
        imported = import_network(module, SIZE)
        assert module.calls == 1
        assert [*module.kept] == ["cpu"]
        assert torch.equal(module(x), before)
    assert "scale.value" in imported.state


def test_a_module_that_cannot_be_copied_is_traced_as_it_is():
    module = lively(Net())
    module.lock = threading.Lock()
    assert trace(module, SIZE) == trace(Net(), SIZE)


@pytest.mark.parametrize("kind", [ByValue, TwoUnknown, Slow])
def test_the_module_is_left_as_it_was_by_a_refusal(kind):
    module = kind().train()
    before = state_of(module)
    refusal(module, time_limit=0.5 if kind is Slow else 60)
    after = state_of(module)
    assert after[0] == before[0]
    assert after[2:] == before[2:]
    assert not nn.modules.module._global_forward_pre_hooks


@pytest.mark.parametrize("kind", [Net, ByShape])
def test_tracing_works_in_another_thread(kind):
    found = []
    thread = threading.Thread(target=lambda: found.append(trace(kind(), SIZE)))
    thread.start()
    thread.join()
    assert found[0] == trace(kind(), SIZE)


def test_a_time_limit_holds_in_another_thread():
    found = []
    thread = threading.Thread(
        target=lambda: found.append(
            refusal(nn.Sequential(*[Pause() for _ in range(100)]), time_limit=0.3)
        )
    )
    thread.start()
    thread.join(20)
    assert "longer than 0.3 s" in found[0]


class Pause(nn.Module):
    def forward(self, x):
        time.sleep(0.05)
        return x


class OneLayerUnderTwoNames(nn.Module):
    """A layer that stands in two places, with a bias that a fresh network has at zero."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        nn.init.zeros_(self.conv.bias)
        self.block = nn.Sequential(self.conv, nn.ReLU())
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(self.block(self.conv(self.stem(x))).mean((2, 3)))


def test_a_layer_under_two_names_stays_one_parameter():
    module = OneLayerUnderTwoNames()
    imported = import_network(module, (3, 8, 8))
    assert imported.front_end == "torch.fx"
    assert isinstance(module.block[0].weight, nn.Parameter)
    assert module.block[0].weight is module.conv.weight
    assert [n.weights for n in imported.graph.nodes].count(None) == len(imported.graph.nodes) - 1
