"""How a training is carried out: what layouts are chosen, what is refused, what memory is kept."""

import platform
import subprocess
import sys

import pytest
import torch

from prunenas.build import execution
from prunenas.build.execution import natural_layout
from prunenas.errors import RecipeError
from prunenas.families.base import reference
from prunenas.training.execution import engine as engines
from prunenas.training.execution.engine import FAST, SLOW, Engine, memory_format, settings, settle
from prunenas.training.recipe import Recipe
from tests.training.networks import linear, small

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def of_widths(*widths):
    return small(widths=widths)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_wide_networks_are_channels_last_on_a_cpu_and_narrow_ones_are_not(precision):
    assert natural_layout(of_widths(16, 32, 64), precision, CPU) == "channels_last"
    assert natural_layout(of_widths(4, 8, 16), precision, CPU) == "contiguous"


def test_threads_that_share_sums_need_more_channels():
    medium = of_widths(12, 24, 48)
    torch.set_num_threads(2)
    assert natural_layout(medium, "bf16", CPU) == "contiguous"
    torch.set_num_threads(1)
    assert natural_layout(medium, "bf16", CPU) == "channels_last"


def test_few_narrow_maps_do_not_decide():
    """Measured: DenseNet-40 gains, whose layers are 12 wide and whose norms are not."""
    torch.set_num_threads(2)
    assert natural_layout(reference("densenet40", (3, 32, 32), 10), "bf16", CPU) == "channels_last"


def test_where_nothing_is_convolved_nothing_is_laid_out():
    assert natural_layout(linear(), "bf16", CPU) == "contiguous"
    assert natural_layout(linear(), "bf16", CUDA) == "contiguous"


def test_tensor_cores_get_channels_last():
    narrow = of_widths(4, 8, 16)
    assert natural_layout(narrow, "bf16", CUDA) == "channels_last"
    assert natural_layout(narrow, "fp32", CUDA) == "contiguous"


def test_what_the_engine_says_of_the_layout_holds():
    wide, narrow = of_widths(16, 32, 64), of_widths(4, 8, 16)
    assert memory_format(FAST, wide, Recipe(), CPU) == "channels_last"
    assert memory_format(SLOW, wide, Recipe(), CPU) == "contiguous"
    last = Engine(layout="channels_last")
    assert memory_format(last, narrow, Recipe(), CPU) == "channels_last"


def test_all_that_cannot_be_carried_out_is_told_at_once():
    with pytest.raises(RecipeError) as told:
        Engine(layout="rows", accumulate=0)  # type: ignore[arg-type]
    assert "layout=rows" in str(told.value) and "accumulate=0" in str(told.value)


@pytest.mark.parametrize(("computes", "settled"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_what_the_processor_computes_in(monkeypatch, computes, settled):
    monkeypatch.setattr(execution, "computes_bf16", lambda device: computes)
    assert settle(Recipe(precision="auto"), "cpu").precision == settled
    assert settle(Recipe(precision="fp32"), "cpu").precision == "fp32"
    assert settle(Recipe(precision="bf16"), "cpu").precision == "bf16"


@pytest.mark.parametrize(("engine", "times"), [(FAST, 1), (SLOW, 0)])
def test_memory_is_kept_where_the_engine_says_so(monkeypatch, engine, times):
    kept = []
    monkeypatch.setattr(engines, "keep_freed", lambda: kept.append(True))
    with settings(engine, CPU):
        assert len(kept) == times


FAULTS = """
import resource, sys
import numpy
from prunenas.training.execution.heap import keep_freed
if sys.argv[1] == "kept" and not keep_freed():
    sys.exit("no glibc")
def step():
    pieces = [numpy.ones(250_000) for _ in range(8)]
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_kept_memory_is_not_fetched_from_the_system_again():
    """Each step frees 16 MB in pieces of 2 MB, 500 pages each, as a training does."""

    def faults(how):
        command = [sys.executable, "-c", FAULTS, how]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults("kept") < 5_000 < 40_000 < faults("plain")
