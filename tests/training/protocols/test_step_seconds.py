"""Seconds of a step: taken turn by turn, kept for a training that goes on, and nothing touched."""

import itertools
from dataclasses import replace

import pytest
import torch

from prunenas.build.execution import device_name
from prunenas.errors import SpecError
from prunenas.training.execution.engine import Engine
from prunenas.training.protocols import step_seconds as module
from prunenas.training.protocols.budgets import StepSeconds
from prunenas.training.protocols.step_seconds import step_seconds
from prunenas.training.recipe import Recipe, SparsePhase
from prunenas.training.run import Run
from tests.training.networks import every_kernel, linear, small

RECIPE = Recipe(batch=16)


@pytest.fixture
def clock(monkeypatch):
    """Let a turn of a graph take as long as the list says, again and again."""
    turns, now = [], itertools.count(0.0, 0.0)
    plain = Run.steps_of_epoch
    state = {"now": 0.0}

    def set_up(**seconds):
        taken = {name: itertools.cycle(values) for name, values in seconds.items()}

        def steps_of_epoch(run):
            name = "large" if "conv0" in run.network.graph.shapes else "small"
            turns.append((name, run.epoch, len(run.batches)))
            state["now"] += next(taken[name])
            return plain(run)

        monkeypatch.setattr(Run, "steps_of_epoch", steps_of_epoch)
        monkeypatch.setattr(module, "perf_counter", lambda: state["now"] + next(now))
        return turns

    return set_up


def test_the_networks_take_turns_and_the_first_of_each_does_not_count(clock):
    turns = clock(large=[1000.0, 8.0, 6.0, 70.0], small=[500.0, 2.0, 2.0, 2.0])
    found = step_seconds(small(size=(1, 8, 8)), linear(size=(1, 8, 8)), RECIPE, turns=3)
    assert [name for name, _, _ in turns] == ["large", "small"] * 4
    assert {batches for _, _, batches in turns} == {2}
    # The medians of 8, 6, 70 and of 2, 2, 2, for two steps each.
    assert (found.reference, found.candidate, found.ratio) == (4.0, 1.0, 4.0)
    assert (found.steps, found.execution) == (6, "fp32, contiguous")
    assert found.device == device_name(torch.device("cpu"))


@pytest.mark.slow
def test_a_wider_network_takes_longer():
    wide, narrow = (small(widths=(w, w, w)) for w in (64, 4))
    assert step_seconds(wide, narrow, RECIPE, turns=3).ratio > 1.5


@pytest.mark.parametrize(
    "recipe",
    [
        replace(
            RECIPE, schedule="one_cycle", label_smoothing=0.1, nesterov=True, decay_norms=False
        ),
        replace(RECIPE, lr=1e30, precision="auto", cutout=2),
        replace(RECIPE, warmup_epochs=3, sparse=SparsePhase(keep=0.5, start=0.1, end=0.9)),
    ],
)
@pytest.mark.parametrize("engine", [Engine(), Engine(accumulate=2), Engine(accumulate="auto")])
def test_any_recipe_can_be_timed_and_no_random_state_is_touched(recipe, engine):
    before = torch.get_rng_state()
    found = step_seconds(
        small(size=(1, 8, 8), dropout=0.5), linear(size=(1, 8, 8)), recipe, engine=engine, turns=1
    )
    assert found.candidate > 0
    assert found.reference > 0
    assert torch.equal(before, torch.get_rng_state())


def test_images_of_any_size_and_several_classes_fit():
    graph = every_kernel()
    assert step_seconds(graph, graph, RECIPE, turns=1).steps == 2


def test_what_was_measured_is_kept_for_the_same_training_and_no_other(tmp_path, monkeypatch):
    graph = linear()
    first = step_seconds(graph, graph, RECIPE, turns=1, folder=tmp_path)
    assert [path.name[:13] for path in tmp_path.iterdir()] == ["step-seconds-"]

    def refused(*arguments):
        raise AssertionError("it was measured before")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_measured", refused)
        assert step_seconds(graph, graph, RECIPE, folder=tmp_path) == first
        for other in (
            {"recipe": replace(RECIPE, batch=8)},
            {"reference": linear(classes=5)},
            {"candidate": linear(classes=5)},
            {"engine": Engine(layout="channels_last")},
        ):
            with pytest.raises(AssertionError, match="before"):
                step_seconds(
                    **{"reference": graph, "candidate": graph, "recipe": RECIPE} | other,
                    folder=tmp_path,
                )


def test_a_damaged_measurement_is_refused_and_not_measured_again(tmp_path):
    graph = linear()
    step_seconds(graph, graph, RECIPE, turns=1, folder=tmp_path)
    (file,) = tmp_path.iterdir()
    for text, told in (("{", "JSON"), ('{"schema": 1, "reference": 1.0}', "candidate")):
        file.write_text(text)
        with pytest.raises(SpecError, match=told):
            step_seconds(graph, graph, RECIPE, turns=1, folder=tmp_path)


def test_seconds_are_told_with_where_and_how():
    found = StepSeconds(reference=3.0, candidate=2.0, device="a CPU", execution="fp32", steps=8)
    assert found.ratio == 1.5


@pytest.mark.gpu
def test_captured_steps_are_timed_on_cuda():
    wide, narrow = (small(widths=(w, w, w)) for w in (256, 8))
    found = step_seconds(wide, narrow, replace(RECIPE, batch=256), device="cuda")
    assert found.ratio > 1
    assert "captured" in found.execution
