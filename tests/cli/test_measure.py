"""``prunenas measure``: the table, the JSON, what is refused."""

import io

import pytest
import torch
from rich.console import Console

import prunenas as pn
from prunenas.build.measure import BatchMeasurement, Latency, Measurement
from prunenas.ir.cost import macs, params
from prunenas.report.measurements import (
    conditions_text,
    cost_table,
    left_out_lines,
    measurement_table,
    measurement_values,
)

QUICK = "--no-onnx --seconds 0.002 --device cpu --threads 1"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before


def test_a_network_is_measured_at_one_and_at_64_images(call):
    done = call(f"measure lenet5 {QUICK} --json")
    assert (done.code, done.err) == (0, "")
    (one,) = done.json["measurements"]
    graph = pn.reference("lenet5")
    assert (one["name"], one["params"], one["macs"]) == ("lenet5", params(graph), macs(graph))
    assert "flops" not in done.out.lower()
    assert [at["batch"] for at in one["batches"]] == [1, 64]
    for at in one["batches"]:
        assert at["throughput"] == at["batch"] / at["latency"]["median_seconds"]
        assert at["times_the_first"] == 1.0
    assert one["threads"] == 1 and "NVML" in one["left_out"]["energy"]


def test_specs_and_names_stand_side_by_side(call, spec):
    line = f"measure lenet5 {spec} {QUICK} --batch 2 --batch 1 --precision fp32"
    done = call(f"{line} --json")
    full, half = done.json["measurements"]
    assert half["name"] == "uniform of lenet5" and half["macs"] < full["macs"]
    for ours, theirs in zip(half["batches"], full["batches"], strict=True):
        ratio = ours["latency"]["median_seconds"] / theirs["latency"]["median_seconds"]
        assert ours["times_the_first"] == pytest.approx(ratio)
    assert [at["batch"] for at in half["batches"]] == [2, 1]
    assert {full["precision"], half["precision"]} == {"fp32"}


def test_people_are_shown_costs_times_and_what_is_missing(call):
    done = call(f"measure lenet5 {QUICK} --batch 3")
    assert (done.code, done.err) == (0, "")
    assert f"{macs(pn.reference('lenet5')):,}" in done.out
    assert "not measured: energy: it is read through NVML" in done.out
    assert "not measured: onnx: not asked for" in done.out
    assert f"torch {torch.__version__}" in done.out and "fresh weights" in done.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--batch 0", "batches=(0,)"),
        ("--threads 0", "threads=0 must be at least 1"),
        ("--device toaster", "got 'toaster'"),
        ("--device cuda:99", "no device cuda:99"),
        ("--capture --device cpu", "needs a CUDA device"),
        ("--seconds 0", "seconds=0.0"),
    ],
)
def test_what_cannot_be_measured_is_refused(call, arguments, told):
    call(f"measure lenet5 {arguments}").refused(told)


def test_an_unknown_network_is_refused(call):
    call("measure lenet6").refused("lenet6")


def measurement(median: float, **changes) -> Measurement:
    latency = Latency(median_seconds=median, p95_seconds=2 * median, repeats=20)
    at = BatchMeasurement(batch=8, latency=latency, peak_bytes=3 << 20, **changes)
    return Measurement(
        digest="0" * 16,
        params=1000,
        macs=2000,
        device="a machine",
        threads=1,
        torch="2.15.0",
        precision="fp32",
        layout="contiguous",
        captured=False,
        batches=(at,),
    )


def shown(table) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(table)
    return console.file.getvalue()


def test_the_table_tells_milliseconds_images_and_multiples_of_the_first():
    text = shown(measurement_table([("one", measurement(0.004)), ("two", measurement(0.006))]))
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines()]
    assert ["one", "8", "4.00", "8.00", "2,000", "1.00", "3.0"] in cells
    assert ["two", "8", "6.00", "12.00", "1,333", "1.50", "3.0"] in cells


def test_columns_that_nobody_has_are_left_out():
    plain = measurement(0.004)
    assert "ONNX" not in shown(measurement_table([("net", plain)]))
    assert "J/" not in shown(measurement_table([("net", plain)]))
    full = measurement(0.004, joules_per_image=0.012, onnx=plain.at(8).latency)
    text = shown(measurement_table([("plain", plain), ("full", full)]))
    assert "ONNX" in text and "0.012" in text
    assert "ONNX Runtime in fp32" in conditions_text([("full", full)])


def test_costs_after_masks_are_shown_where_a_network_has_masks():
    dense = measurement(0.004)
    assert "effective" not in shown(cost_table([("dense", dense)]))
    sparse = Measurement(
        **{f: getattr(dense, f) for f in dense.__slots__}
        | {"nonzero_params": 500, "effective_macs": 700}
    )
    text = shown(cost_table([("dense", dense), ("sparse", sparse)]))
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines()]
    assert ["dense", "1,000", "2,000", "1,000", "2,000"] in cells
    assert ["sparse", "1,000", "2,000", "500", "700"] in cells


def test_what_all_lack_is_told_once_and_what_one_lacks_with_its_name():
    one, two = measurement(0.004), measurement(0.004)
    one.left_out.update({"energy": "no meter"})
    two.left_out.update({"energy": "no meter", "onnx, batch 8": "it differs"})
    lines = [*left_out_lines([("one", one), ("two", two)])]
    assert lines == ["energy: no meter", "two: onnx, batch 8: it differs"]


def test_json_values_tell_all_that_the_table_tells():
    first, second = measurement_values([("a", measurement(0.004)), ("b", measurement(0.006))])
    assert [first["name"], second["name"]] == ["a", "b"]
    assert second["batches"][0]["times_the_first"] == pytest.approx(1.5)
    assert second["batches"][0]["throughput"] == pytest.approx(8 / 0.006)


def test_networks_of_one_name_are_told_apart(call):
    done = call(f"measure lenet5 vgg11 lenet5 {QUICK} --batch 1 --width 0.25 --json")
    names = [one["name"] for one in done.json["measurements"]]
    assert names == ["lenet5 (1: lenet5)", "vgg11", "lenet5 (3: lenet5)"]
