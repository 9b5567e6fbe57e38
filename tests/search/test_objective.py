from dataclasses import replace

import pytest
import torch

from prunenas.errors import DivergenceError, SpecError
from prunenas.ir.canonical import digest
from prunenas.search.objective import Objective
from tests.search.fakes import RECIPE, target, tiny_data

GRAPH = target(0.5)


def objective(folder=None, **changes):
    fields = {"data": tiny_data(), "recipe": RECIPE, "device": torch.device("cpu")} | changes
    return Objective(folder=folder, **fields)


def test_a_result_is_trained_once_in_memory(training):
    judge = objective()
    first = judge.search_score(GRAPH, seed=3)
    assert judge.search_score(target(0.5), seed=3) == first
    assert training.calls == [(digest(GRAPH), 3, True)]


def test_a_result_is_trained_once_for_all_processes(training, tmp_path):
    first = objective(tmp_path).search_score(GRAPH, seed=3)
    assert objective(tmp_path).search_score(GRAPH, seed=3) == first
    assert len(training.calls) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"recipe": replace(RECIPE, epochs=3)},
        {"recipe": replace(RECIPE, precision="bf16")},
        {"data": tiny_data(validation=torch.arange(11))},
        {"data": tiny_data(flip=True)},
    ],
)
def test_another_recipe_or_split_is_another_result(training, tmp_path, other):
    objective(tmp_path).search_score(GRAPH, seed=0)
    assert not objective(tmp_path, **other).known(GRAPH, seed=0, held_out=True)
    objective(tmp_path, **other).search_score(GRAPH, seed=0)
    assert len(training.calls) == 2


def test_another_graph_seed_or_part_is_another_result(training, tmp_path):
    judge = objective(tmp_path)
    judge.search_score(GRAPH, seed=0)
    assert judge.known(GRAPH, seed=0, held_out=True)
    assert not judge.known(GRAPH, seed=1, held_out=True)
    assert not judge.known(GRAPH, seed=0, held_out=False)
    assert not judge.known(target(), seed=0, held_out=True)


def test_a_renamed_data_set_finds_its_results(training, tmp_path):
    objective(tmp_path).search_score(GRAPH, seed=0)
    assert objective(tmp_path, data=tiny_data(name="renamed")).known(GRAPH, seed=0, held_out=True)


def test_confirming_is_one_test_result_a_seed_and_trains_only_missing_ones(training, tmp_path):
    judge = objective(tmp_path)
    two = judge.confirm(GRAPH, seeds=[4, 5])
    three = judge.confirm(GRAPH, seeds=[4, 5, 6])
    assert (two.part, two.n, three.n) == ("test", 2, 3)
    assert [r.seed for r in three.results] == [4, 5, 6]
    assert three.results[:2] == two.results
    assert training.calls == [(digest(GRAPH), seed, False) for seed in (4, 5, 6)]
    assert three.accuracy == pytest.approx(sum(r.accuracy for r in three.results) / 3)
    assert three.std > 0


def test_a_training_that_diverged_leaves_no_result(training, tmp_path):
    training.diverges = lambda graph, held_out: True
    with pytest.raises(DivergenceError):
        objective(tmp_path).search_score(GRAPH, seed=0)
    assert not objective(tmp_path).known(GRAPH, seed=0, held_out=True)
    assert [*tmp_path.rglob("*.json")] == []


def test_a_damaged_result_is_refused_by_its_path(training, tmp_path):
    objective(tmp_path).search_score(GRAPH, seed=0)
    (path,) = tmp_path.rglob("*.json")
    path.write_text(path.read_text()[:-20])
    with pytest.raises(SpecError, match=r"validation-seed0\.json"):
        objective(tmp_path).search_score(GRAPH, seed=0)


def test_epochs_are_told(training):
    told = []
    objective().search_score(GRAPH, seed=0, on_epoch=told.append)
    assert [report.epoch for report in told] == [1, 2]
