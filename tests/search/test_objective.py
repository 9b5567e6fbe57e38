from dataclasses import replace

import pytest
import torch

from prunenas.errors import DivergenceError, SpecError
from prunenas.ir.canonical import digest
from prunenas.search.objective import Objective
from prunenas.training.execution.engine import settle
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


def test_a_training_that_diverged_is_no_result_and_is_not_repeated(training, tmp_path):
    training.diverges = lambda graph, held_out: True
    with pytest.raises(DivergenceError, match="the loss is inf"):
        objective(tmp_path).search_score(GRAPH, seed=0)
    assert not objective(tmp_path).known(GRAPH, seed=0, held_out=True)
    training.diverges = lambda graph, held_out: False
    for judge in (objective(tmp_path), objective(tmp_path)):
        with pytest.raises(DivergenceError, match="the loss is inf"):
            judge.search_score(GRAPH, seed=0)
    assert len(training.calls) == 1
    # Of another seed nothing is known.
    assert objective(tmp_path).search_score(GRAPH, seed=1).n == 1


def test_what_auto_stands_for_is_what_a_result_is_filed_under(training, tmp_path):
    auto = replace(RECIPE, precision="auto")
    objective(tmp_path, recipe=settle(auto, "cpu")).search_score(GRAPH, seed=0)
    assert objective(tmp_path, recipe=auto).known(GRAPH, seed=0, held_out=True)


def test_a_training_keeps_its_state_apart_and_only_while_it_lasts(training, tmp_path):
    folders = []

    def look(graph, held_out):
        folders.append(training.checkpoints.folder)
        folders[-1].mkdir(parents=True, exist_ok=True)
        if len(folders) == 1:
            raise KeyboardInterrupt
        return len(folders) == 4

    training.diverges = look
    judge = objective(tmp_path / "results", checkpoints=tmp_path / "checkpoints")
    with pytest.raises(KeyboardInterrupt):
        judge.search_score(GRAPH, seed=0)
    assert folders[0].is_dir() and folders[0].parent == tmp_path / "checkpoints"
    judge.search_score(GRAPH, seed=0)
    judge.search_score(GRAPH, seed=1)
    assert folders[0] == folders[1] != folders[2]
    with pytest.raises(DivergenceError):
        judge.search_score(GRAPH, seed=2)
    assert len(folders) == 4
    assert [*(tmp_path / "checkpoints").iterdir()] == []


def test_a_state_left_between_result_and_removal_goes_later(training, tmp_path):
    judge = objective(tmp_path / "results", checkpoints=tmp_path / "checkpoints")
    judge.search_score(GRAPH, seed=0)
    training.checkpoints.folder.mkdir(parents=True)
    judge.search_score(GRAPH, seed=0)
    assert not training.checkpoints.folder.exists()


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
