import json

import pytest

from prunenas.arch.files import file_name
from prunenas.arch.spec import load
from prunenas.errors import RunError
from prunenas.search.space_file import load_space
from prunenas.search.study import search
from tests.cli.conftest import DATA, SPACE
from tests.search.fakes import profile, tiny_data


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_search_leaves_specs_report_model_and_facts(call, here, training, space_file):
    done = call("search space.toml --out run")
    assert done.code == 0
    names = {path.name for path in (here / "run").iterdir()}
    assert names >= {
        "run.json",
        "front.json",
        "front.png",
        "table.md",
        "reproduce.sh",
        "best.py",
        "specs",
        "results",
        "study.journal",
    }
    assert "prunenas search space.toml --out run" in (here / "run" / "reproduce.sh").read_text()
    assert "Front and controls" in done.out
    assert "(n=2)" in done.out


def test_the_json_is_the_front_that_the_verb_gives(call, here, training, space_file):
    told = call("search space.toml --out run --json").json
    space, run = load_space(space_file)
    front = search(
        space,
        tiny_data(),
        recipe=run.resolved_recipe(),
        trials=4,
        confirm_seeds=2,
        front_size=2,
    )
    assert told["trials"] == 4
    assert [(r["role"], r["name"], r["digest"]) for r in told["rows"]] == [
        (row.role, row.spec.name, row.spec.digest) for row in front.rows
    ]
    for row, line in zip(front.rows, told["rows"], strict=True):
        assert line["validation"]["accuracy"] == row.validation.accuracy
        confirmed = line["confirmed"]
        assert (confirmed["part"], confirmed["n"]) == ("test", 2)
        assert (confirmed["accuracy"], confirmed["std"]) == (
            row.confirmed.accuracy,
            row.confirmed.std,
        )
        assert (
            load(here / "run" / "specs" / f"{file_name(line['name'])}.json").digest
            == (line["digest"])
        )


def test_the_same_call_again_trains_nothing_and_ends_the_same(call, here, training, space_file):
    first = call("search space.toml --out run --json").json
    before = contents(here / "run")
    training.calls.clear()
    assert call("search space.toml --out run --json").json == first
    assert training.calls == []
    after = contents(here / "run")
    changed = {path.name for path in after if after[path] != before[path]}
    assert changed <= {"lock", "study.journal", "log.jsonl"}


def test_flags_override_the_file_and_are_recorded(call, here, training, space_file):
    flags = (
        "--trials 3 --strategy random --objectives accuracy,macs --confirm-seeds 1 "
        "--front-size 1 --seed 9 --epochs 5 --recipe fast --max-macs 20000"
    )
    told = call(f"search space.toml --out run --json {flags}").json
    assert told["trials"] == 3
    facts = json.loads((here / "run" / "run.json").read_text())
    assert facts["strategy"] == {"name": "random", "sampler": "RandomSampler"}
    assert facts["objectives"] == ["accuracy", "macs"]
    assert facts["seed"] == 9
    assert (facts["recipe"]["epochs"], facts["recipe"]["schedule"]) == (5, "one_cycle")
    assert facts["space"]["max_macs"] == 20_000
    assert {row["confirmed"]["n"] for row in told["rows"]} == {1}
    assert sum(row["role"] != "control" for row in told["rows"]) == 1
    best = next(row["name"] for row in told["rows"] if row["role"] == "best")
    provenance = load(here / "run" / "specs" / f"{file_name(best)}.json").provenance
    assert provenance["overrides"] == {
        "trials": 3,
        "strategy": "random",
        "objectives": ["accuracy", "macs"],
        "confirm_seeds": 1,
        "front_size": 1,
        "seed": 9,
        "epochs": 5,
        "recipe": "fast",
        "max_macs": 20_000,
    }
    assert provenance["command"] == f"prunenas search space.toml --out run --json {flags}"
    assert provenance["space"] == "space.toml"


def test_guides_can_be_given_as_profiles(call, here, training, space_file):
    profile(0.7, 0.6, 0.5).save(here / "g.json")
    profile(0.5, 0.6, 0.7).save(here / "t.json")
    told = call("search space.toml --out run --guide g.json --transferred t.json --json").json
    assert [row["name"] for row in told["rows"] if row["role"] == "control"][2:] == [
        "guided",
        "transferred",
    ]
    facts = json.loads((here / "run" / "run.json").read_text())
    assert facts["space"]["guide"]["keeps"] == dict(profile(0.7, 0.6, 0.5).keeps)
    assert facts["space"]["transferred"]["keeps"] == dict(profile(0.5, 0.6, 0.7).keeps)


def test_the_data_set_may_be_named_on_the_command_line_alone(call, here, training):
    (here / "bare.toml").write_text(SPACE.replace(f'data = "{DATA}"\n', ""))
    call("search bare.toml --out run").refused("--data")
    assert not (here / "run").exists()
    assert call(f"search bare.toml --out run --data {DATA}").code == 0


def test_without_out_the_folder_is_named_after_the_space(call, here, training, space_file):
    assert call("search space.toml --trials 1").code == 0
    assert (here / "runs" / "space" / "front.json").exists()


def test_more_trials_continue_the_run(call, here, training, space_file):
    call("search space.toml --out run --trials 2")
    before = {call for call in training.calls if call[2]}
    training.calls.clear()
    assert call("search space.toml --out run --trials 6 --json").json["trials"] == 6
    assert not before & {*training.calls}


def test_another_searchs_folder_is_refused_and_stays_as_it_is(call, here, training, space_file):
    call("search space.toml --out run")
    before = contents(here / "run")
    call("search space.toml --out run --seed 1 --strategy random").refused(
        "another search", "seed: the folder has 0, asked for 1", "strategy.name"
    )
    assert contents(here / "run") == before


@pytest.mark.parametrize("verb", ["--json", ""])
def test_a_folder_of_other_things_is_refused_and_stays_as_it_is(
    call, here, training, space_file, verb
):
    (here / "mine").mkdir()
    (here / "mine" / "thesis.txt").write_text("years")
    call(f"search space.toml --out mine {verb}").refused("other things")
    assert [path.name for path in (here / "mine").iterdir()] == ["thesis.txt"]


def test_a_search_that_fails_ends_with_1_and_one_message(call, here, training, space_file):
    training.diverges = lambda graph, held_out: True
    done = call("search space.toml --out run --json")
    assert (done.code, done.out) == (1, "")
    assert done.err.count("failed:") == 1
    assert "diverged" in done.err
    assert "Traceback" not in done.err


def test_a_training_that_fails_ends_with_1_and_one_message(call, here):
    done = call(
        f"train lenet5 --data {DATA} --recipe-set lr=1e30 --epochs 3 --seeds 1 --out t.json"
    )
    assert done.code == 1
    assert done.err.count("failed:") == 1
    assert "lower the recipe's lr" in done.err
    assert "Traceback" not in done.err
    assert not (here / "t.json").exists()


def test_a_disk_that_cannot_be_written_is_a_run_that_failed(call, here, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    done = call("export lenet5 --out e.py")
    assert done.code == 1
    assert "No space left" in done.err
    assert "Traceback" not in done.err


def test_progress_goes_to_stderr_one_line_a_training(call, training, space_file):
    done = call("search space.toml --out run --json")
    lines = done.err.splitlines()
    assert [line.split("  ")[0] for line in lines if line.startswith("trials")] == [
        f"trials {n}/4" for n in range(1, 5)
    ]
    assert sum(line.startswith("controls") for line in lines) == 3
    assert sum(line.startswith("several seeds") for line in lines) == len(done.json["rows"])


def test_the_error_classes_decide_the_exit_code(call, monkeypatch):
    import prunenas.cli.show as show

    def fail(spec):
        raise RunError("half way through")

    monkeypatch.setattr(show, "facts", fail)
    done = call("inspect lenet5 --json")
    assert (done.code, done.out, done.err) == (1, "", "failed: half way through\n")
