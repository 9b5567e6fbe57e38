"""What is measured of a network: laws, and that nothing else is touched."""

import copy
import itertools
import json
import os
import random
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from prunenas.arch.descriptor import Descriptor, apply
from prunenas.build.execution import computes_bf16, known_device, natural_layout, processor
from prunenas.build.initialise import build
from prunenas.build.measure import (
    Conditions,
    Measurement,
    energy,
    measure,
    measure_together,
    onnx_runtime,
    subject,
    timing,
)
from prunenas.build.measure.memory import peak_bytes
from prunenas.build.measure.values import BatchMeasurement, Latency
from prunenas.errors import InputError, MeasureError, MemoryShortageError
from prunenas.families.base import reference
from prunenas.ir.canonical import decode, digest, encode
from prunenas.ir.cost import macs, params

CPU = torch.device("cpu")
GRAPH = reference("lenet5", (1, 16, 16), 10)
QUICK = {"batches": (1, 4), "onnx": False, "seconds": 0.002}


@pytest.fixture(scope="module")
def found() -> Measurement:
    return measure(GRAPH, **QUICK)


def test_each_batch_is_measured_and_its_figures_hang_together(found):
    assert [one.batch for one in found.batches] == [1, 4]
    for one in found.batches:
        assert 0 < one.latency.median_seconds <= one.latency.p95_seconds
        assert one.latency.repeats >= 20
        assert one.throughput == one.batch / one.latency.median_seconds
        assert found.at(one.batch) is one
    with pytest.raises(MeasureError, match="batch 2 was not measured, but 1, 4"):
        found.at(2)


def test_the_counted_costs_are_those_of_the_graph(found):
    assert (found.digest, found.params, found.macs) == (digest(GRAPH), params(GRAPH), macs(GRAPH))
    assert (found.nonzero_params, found.effective_macs) == (None, None)
    wide = measure(reference("lenet5", (1, 16, 16), 10, width=2.0), **QUICK)
    assert wide.macs > found.macs and wide.params > found.params


def test_masks_change_the_counts_after_masks_only(found):
    told = Descriptor(reference=digest(GRAPH), densities={"fc1": (0.5,)})
    sparse = measure(apply(GRAPH, told), **QUICK)
    assert (sparse.params, sparse.macs) == (found.params, found.macs)
    assert sparse.nonzero_params < sparse.params and sparse.effective_macs < sparse.macs


def test_the_machine_is_told(found):
    assert found.threads == 1 and found.device == f"{processor()}, 1 thread"
    assert found.torch == torch.__version__
    assert found.precision == ("bf16" if computes_bf16(CPU) else "fp32")
    assert found.layout == natural_layout(GRAPH, found.precision, CPU) and not found.captured
    assert "NVML" in found.left_out["energy"] and found.left_out["onnx"] == "not asked for"
    assert all(one.joules_per_image is None and one.onnx is None for one in found.batches)


def test_the_threads_that_are_asked_for_compute():
    seen = []
    network = build(GRAPH)
    network.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    assert measure(network, threads=2, **(QUICK | {"batches": (1,)})).threads == 2
    assert {*seen} == {2}


@pytest.mark.parametrize(("asked", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_precision_that_is_asked_for_computes(asked, dtype):
    seen = []
    network = build(GRAPH).double()
    network.node("fc1").register_forward_hook(lambda *call: seen.append(call[2].dtype))
    assert measure(network, precision=asked, **QUICK).precision == asked
    assert {*seen} == {dtype}


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_the_layout_that_is_asked_for_is_the_images_and_the_weights(layout):
    seen = []
    network = build(reference("resnet20", width=0.5))
    network.register_forward_pre_hook(
        lambda module, images: seen.extend([module.weight("conv1"), images[0]])
    )
    assert measure(network, layout=layout, batches=(2,), onnx=False, seconds=1e-3).layout == layout
    last = {x.is_contiguous(memory_format=torch.channels_last) for x in seen}
    assert last == {layout == "channels_last"}


def test_weights_are_cast_once_and_not_at_every_repeat():
    shape = build(GRAPH).weight("fc1").shape
    casts = []

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten._to_copy.default and args[0].shape == shape:
                casts.append(kwargs["dtype"])
            return func(*args, **(kwargs or {}))

    with Counting():
        one = measure(GRAPH, batches=(2,), precision="bf16", onnx=False, seconds=1e-3)
    assert one.at(2).latency.repeats >= 20
    # Twice before the timing, once in it.
    assert casts == [torch.bfloat16] * 3


def test_a_measurement_is_json_both_ways(found):
    text = json.dumps(encode(found))
    assert decode(Measurement, json.loads(text), "measurement") == found


def test_auto_is_the_layout_that_suits_the_network(monkeypatch):
    monkeypatch.setattr(subject, "natural_layout", _suits)
    narrow, wide = measure_together(
        [GRAPH, reference("lenet5", (1, 28, 28), 10)],
        Conditions(batches=(1,), threads=2, onnx=False, seconds=1e-3),
    )
    assert (narrow.layout, wide.layout) == ("contiguous", "channels_last")


def _suits(graph, precision, device):
    # Asked with the threads that will compute.
    assert torch.get_num_threads() == 2 and device == CPU
    return "contiguous" if graph is GRAPH else "channels_last"


def state_of_the_process() -> tuple:
    return (
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        torch.are_deterministic_algorithms_enabled(),
        torch.get_rng_state().tolist(),
        random.getstate(),
        str(np.random.get_state()),
        dict(os.environ),
    )


@pytest.mark.parametrize("fails", [False, True])
def test_the_process_and_the_network_are_as_they_were(fails, monkeypatch):
    monkeypatch.delenv("KINETO_LOG_LEVEL", raising=False)
    network = build(GRAPH).train()
    network.node("fc1").eval()
    before = copy.deepcopy(network.state_dict())
    modes = [module.training for module in network.modules()]
    strides = [tensor.stride() for tensor in before.values()]
    process = state_of_the_process()
    if fails:
        network.register_forward_hook(_fail)
        with pytest.raises(ArithmeticError):
            measure(network, threads=2, layout="channels_last", **QUICK)
    else:
        measure(network, threads=2, layout="channels_last", **QUICK)
    assert state_of_the_process() == process
    assert [module.training for module in network.modules()] == modes
    after = network.state_dict()
    assert [tensor.stride() for tensor in after.values()] == strides
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(p.grad is None and p.requires_grad for p in network.parameters())


def _fail(*_):
    raise ArithmeticError


def test_networks_are_measured_in_evaluation_mode_without_gradients():
    seen = []
    network = build(GRAPH).train()
    network.register_forward_hook(
        lambda module, _, scores: seen.append((module.training, scores.requires_grad))
    )
    measure(network, **QUICK)
    assert {*seen} == {(False, False)}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"batches": (0,)}, r"batches=\(0,\) must be different numbers from 1 up"),
        ({"batches": ()}, "batches"),
        ({"batches": (4, 4)}, "batches"),
        ({"threads": 0}, "threads=0 must be at least 1"),
        ({"precision": "fp8"}, "precision=fp8 must be fp32/bf16/auto"),
        ({"layout": "nchw"}, "layout=nchw"),
        ({"seconds": 0.0}, "seconds=0.0 must be above 0"),
        ({"seconds": float("nan")}, "seconds"),
        ({"capture": True}, "capture=True needs a CUDA device, not cpu"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes, told):
    with pytest.raises(MeasureError, match=told):
        measure(GRAPH, **changes)


def test_all_faults_are_told_at_once():
    with pytest.raises(MeasureError, match=r"batches.*threads"):
        measure(GRAPH, batches=(0,), threads=0)


@pytest.mark.parametrize(
    ("device", "told"),
    [("toaster", "got 'toaster'"), ("mps", "not on mps"), ("cuda:99", "no device cuda:99")],
)
def test_devices_that_are_not_here_are_refused(device, told):
    with pytest.raises(InputError, match=told):
        measure(GRAPH, device=device)
    assert known_device("cpu") == CPU


def test_too_little_memory_is_told_with_the_batches():
    network = build(GRAPH)
    network.register_forward_hook(_run_out)
    with pytest.raises(
        MemoryShortageError, match=r"batches of 1, 4 need more memory than .*, 1 thread has"
    ):
        measure(network, **QUICK)


def _run_out(*_):
    raise torch.OutOfMemoryError("CUDA out of memory")


def of_fake_time(costs):
    """Return calls, their clock, and the order in which they are called."""
    order: list[int] = []
    calls = [lambda place=place: order.append(place) for place in range(len(costs))]

    def clock(call):
        call()
        return costs[order[-1]]

    return calls, clock, order


def test_each_call_is_repeated_often_enough_and_long_enough():
    calls, clock, _ = of_fake_time([0.5, 0.001])
    slow, fast = timing.rounds(calls, clock, seconds=1.0)
    assert len(slow) >= 20 and set(slow) == {0.5}
    assert sum(fast) >= 1.0 and set(fast) == {0.001}


def test_calls_take_turns_and_the_first_of_a_round_changes():
    calls, clock, order = of_fake_time([0.2, 0.2, 0.2])
    timing.rounds(calls, clock, seconds=0.2, least=4)
    timed = order[-12:]
    assert timed == [0, 1, 2, 1, 2, 0, 2, 0, 1, 0, 1, 2]


def test_every_call_is_warmed_up_before_any_is_timed():
    calls, clock, order = of_fake_time([0.2, 0.2])
    samples = timing.rounds(calls, clock, seconds=0.2, least=1)
    assert order[:6] == [0, 0, 0, 1, 1, 1]
    assert sum(map(len, samples)) == len(order) - 6


def test_a_turn_is_long_for_fast_calls():
    calls, clock, order = of_fake_time([0.001, 0.001])
    timing.rounds(calls, clock, seconds=0.2)
    changes = sum(a != b for a, b in itertools.pairwise(order[100:]))
    assert changes <= 4


def test_median_and_95th_percentile_are_numpys():
    samples = [float(x) for x in np.random.default_rng(0).exponential(size=101)]
    told = Latency.of(samples)
    assert told.median_seconds == sorted(samples)[50]
    assert told.p95_seconds == pytest.approx(sorted(samples)[95])
    assert told.repeats == 101


def test_the_wall_clock_counts_what_the_call_takes():
    assert 0.02 <= timing.wall_clock(lambda: time.sleep(0.02)) < 0.5


def test_networks_are_measured_together_and_told_apart():
    small, large = measure_together(
        [GRAPH, reference("lenet5", (1, 28, 28), 10)],
        Conditions(batches=(2,), onnx=False, seconds=0.002),
    )
    assert small.macs < large.macs
    assert small.at(2).peak_bytes < large.at(2).peak_bytes


def test_peak_memory_is_what_is_alive_at_once():
    network, images = build(GRAPH), torch.zeros(1, 1, 16, 16)
    held = sum(p.nbytes for p in network.parameters()) + images.nbytes
    mega = 1 << 18

    def one_after_another():
        torch.empty(mega)
        torch.empty(mega)

    def both():
        kept = torch.empty(mega)
        torch.empty(mega)
        del kept

    assert peak_bytes(network, images, one_after_another) == held + 4 * mega
    assert peak_bytes(network, images, both) == held + 8 * mega


def test_peak_memory_holds_the_largest_map_with_what_it_is_made_of():
    graph = reference("vgg11", width=0.25)
    batch = 8
    one = measure(graph, batches=(batch,), precision="fp32", onnx=False, seconds=1e-3)
    largest = max(4 * batch * shape.numel for shape in graph.shapes.values())
    weights = 4 * params(graph)
    peak = one.at(batch).peak_bytes
    assert weights + 2 * largest <= peak <= weights + 8 * largest


def test_peak_memory_grows_with_the_batch(found):
    assert found.at(1).peak_bytes < found.at(4).peak_bytes


class FakeNvml:
    NVMLError = type("NVMLError", (Exception,), {})

    def __init__(self, millijoules=None) -> None:
        self.millijoules = millijoules or [1000.0]

    def nvmlInit(self):  # noqa: N802
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        assert uuid == "GPU-1-2-3"
        return "handle"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):  # noqa: N802
        assert handle == "handle"
        return self.millijoules[-1]


@pytest.fixture
def nvml(monkeypatch):
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="1-2-3")
    )
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(energy, "_LEAST_SECONDS", 0.01)
    return fake


def test_energy_is_the_devices_own_count_over_the_images(nvml):
    meter = energy.meter_of(torch.device("cuda"))
    assert meter() == 1.0

    def call():
        nvml.millijoules.append(nvml.millijoules[-1] + 2000.0)

    assert energy.joules_per_image(call, 4, meter, seconds=0.001) == pytest.approx(0.5)


def test_a_device_that_does_not_tell_its_energy_is_no_error(nvml, monkeypatch):
    def refuse(_):
        raise FakeNvml.NVMLError("Not Supported")

    monkeypatch.setattr(nvml, "nvmlDeviceGetTotalEnergyConsumption", refuse)
    assert energy.meter_of(torch.device("cuda")) == "NVML does not tell: Not Supported"


def test_a_missing_nvml_is_told_and_no_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "pip install 'prunenas[energy]'" in energy.meter_of(torch.device("cuda"))


def test_a_missing_onnx_runtime_is_told_and_no_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    one = measure(GRAPH, batches=(1,), seconds=0.002)
    assert one.left_out["onnx"] == "onnxruntime not installed: pip install 'prunenas[onnx]'"
    assert one.at(1).onnx is None
    assert onnx_runtime.why_not(torch.device("cuda")) == "it is timed on CPUs only"


def test_onnx_runtime_is_timed_beside_torch_and_touches_nothing():
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network = build(GRAPH).train()
    process = state_of_the_process()
    one = measure(network, batches=(2,), precision="bf16", seconds=0.002)
    assert state_of_the_process() == process and network.training
    latency = one.at(2).onnx
    assert latency is not None and "onnx" not in one.left_out
    assert 0 < latency.median_seconds <= latency.p95_seconds and latency.repeats >= 20
    assert decode(Measurement, encode(one), "measurement") == one


class FakeSession:
    """Computes what torch does, times a factor."""

    def __init__(self, network, images, factor) -> None:
        self.network, self.factor, self.ran = network, factor, 0

    def get_inputs(self):
        return [SimpleNamespace(name="x")]

    def run(self, _, feed):
        self.ran += 1
        return [self.factor * self.network(torch.from_numpy(feed["x"])).numpy()]


@pytest.mark.parametrize(
    ("factor", "is_timed"), [(1.0, True), (1.0001, True), (1.01, False), (float("nan"), False)]
)
def test_only_what_computes_the_same_is_timed(monkeypatch, factor, is_timed):
    made = []

    def session(network, images):
        made.append(FakeSession(network, images, factor))
        return made[-1]

    monkeypatch.setattr(onnx_runtime, "_session", session)
    monkeypatch.setattr(onnx_runtime, "_NEEDED", ())
    one = measure(GRAPH, batches=(2,), precision="bf16", seconds=0.002)
    assert (one.at(2).onnx is not None) == is_timed
    if not is_timed:
        assert "differ from torch's" in one.left_out["onnx, batch 2"]
        assert made[0].ran == 1


def test_a_network_that_cannot_be_exported_is_told_with_the_cause(monkeypatch):
    def session(network, images):
        raise LookupError("no such operator\nmore lines")

    monkeypatch.setattr(onnx_runtime, "_session", session)
    monkeypatch.setattr(onnx_runtime, "_NEEDED", ())
    one = measure(GRAPH, **(QUICK | {"onnx": True}))
    why = "it cannot be had: LookupError: no such operator"
    assert one.left_out.items() >= {"onnx, batch 1": why, "onnx, batch 4": why}.items()


def test_values_can_be_compared_and_kept():
    latency = Latency(median_seconds=1.0, p95_seconds=2.0, repeats=3)
    one = BatchMeasurement(batch=4, latency=latency, peak_bytes=5)
    assert one == decode(BatchMeasurement, encode(one), "one") and one.throughput == 4.0


@pytest.mark.slow
def test_a_wide_network_takes_longer_than_a_narrow_one():
    wide, narrow = measure_together(
        [reference("vgg16"), reference("vgg16", width=0.25)],
        Conditions(batches=(1, 16), onnx=False),
    )
    for batch in (1, 16):
        assert wide.at(batch).latency.median_seconds > narrow.at(batch).latency.median_seconds


@pytest.mark.gpu
def test_cuda_is_measured_and_left_as_it_was():
    graph = reference("resnet20")
    process, before = state_of_the_process(), torch.cuda.get_rng_state()
    one = measure(graph, device="cuda", batches=(1, 64), seconds=0.1)
    assert state_of_the_process() == process
    assert torch.equal(torch.cuda.get_rng_state(), before)
    assert one.device == torch.cuda.get_device_name()
    assert one.left_out["onnx"] == "it is timed on CPUs only"
    assert ("energy" in one.left_out) == (one.at(64).joules_per_image is None)
    largest = max(2 * 64 * shape.numel for shape in graph.shapes.values())
    assert one.at(64).peak_bytes > 4 * params(graph) + largest
    assert all(at.latency.median_seconds <= at.latency.p95_seconds for at in one.batches)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_captured_network_is_faster_than_its_launches(precision):
    options = {"device": "cuda", "batches": (1,), "precision": precision, "seconds": 0.2}
    graph = reference("resnet20")
    captured, called = measure(graph, capture=True, **options), measure(graph, **options)
    assert captured.captured and not called.captured
    assert captured.at(1).latency.median_seconds < called.at(1).latency.median_seconds


@pytest.mark.gpu
@torch.no_grad()
def test_a_replay_computes_what_the_network_computes():
    network = build(reference("resnet20"), device="cuda").eval()
    images = torch.randn(4, 3, 32, 32, device="cuda")
    scores: list[torch.Tensor] = []

    def call():
        scores[:] = [network(images)]

    replay = subject._captured(call, torch.device("cuda"))
    images.mul_(2)
    replay()
    torch.testing.assert_close(scores[0], network(images), rtol=1e-3, atol=1e-3)
