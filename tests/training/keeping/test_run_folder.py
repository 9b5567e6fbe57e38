import json
import os

import pytest

from prunenas.errors import RunFolderError, SpecError
from prunenas.training.keeping.run_folder import claim

FACTS = {"seed": 0, "recipe": {"epochs": 3, "lr": 0.1}, "objectives": ["accuracy"]}


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_new_folder_is_marked_and_the_same_facts_go_on_in_it(tmp_path):
    out = tmp_path / "deep" / "run"
    for _ in range(2):
        with claim(out, FACTS, work="search") as folder:
            assert folder == out
            assert (out / "lock").read_text() == str(os.getpid())
    assert json.loads((out / "run.json").read_text()) == FACTS


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "run").mkdir()
    with claim(tmp_path / "run", FACTS, work="search"):
        pass


def test_tuples_and_whole_floats_are_the_same_facts(tmp_path):
    with claim(tmp_path, FACTS | {"lr": 1}, work="search"):
        pass
    with claim(tmp_path, FACTS | {"lr": 1.0, "objectives": ("accuracy",)}, work="search"):
        pass


def test_another_searchs_folder_is_refused_with_all_differences_and_stays_as_it_is(tmp_path):
    with claim(tmp_path, FACTS, work="search"):
        pass
    before = contents(tmp_path)
    other = {"seed": 1, "recipe": {"epochs": 4, "lr": 0.1}, "objectives": ["accuracy"], "new": 2}
    with (
        pytest.raises(RunFolderError, match="belongs to another search") as caught,
        claim(tmp_path, other, work="search"),
    ):
        pass
    lines = str(caught.value).splitlines()
    assert "  new: the folder has None, asked for 2" in lines
    assert "  recipe.epochs: the folder has 3, asked for 4" in lines
    assert "  seed: the folder has 0, asked for 1" in lines
    assert not any("lr" in line for line in lines)
    assert contents(tmp_path) == before


def test_a_folder_of_other_things_is_refused_and_stays_as_it_is(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    before = contents(tmp_path)
    with pytest.raises(RunFolderError, match="other things"), claim(tmp_path, FACTS, work="search"):
        pass
    assert contents(tmp_path) == before


def test_a_file_in_the_folders_place_is_refused_and_stays(tmp_path):
    path = tmp_path / "run"
    path.write_text("a file")
    with pytest.raises(RunFolderError, match="other things"), claim(path, FACTS, work="search"):
        pass
    assert path.read_text() == "a file"


def test_a_damaged_mark_is_refused_by_its_path(tmp_path):
    (tmp_path / "run.json").write_text('{"seed":')
    with pytest.raises(SpecError, match=r"run\.json"), claim(tmp_path, FACTS, work="search"):
        pass
    assert (tmp_path / "run.json").read_text() == '{"seed":'


def test_a_claim_ends_with_an_error_too(tmp_path):
    with pytest.raises(ZeroDivisionError), claim(tmp_path, FACTS, work="search"):
        raise ZeroDivisionError
    with claim(tmp_path, FACTS, work="search"):
        pass


def test_one_claim_excludes_another(tmp_path):
    with (
        claim(tmp_path, FACTS, work="search"),
        pytest.raises(RunFolderError, match="another process"),
        claim(tmp_path, FACTS, work="search"),
    ):
        pass
    with claim(tmp_path, FACTS, work="search"):
        pass
