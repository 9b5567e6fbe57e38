"""What ``prunenas train`` keeps, finds again and says meanwhile."""

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from prunenas.arch.spec import load
from prunenas.cli.progress import Display, worth_a_line
from prunenas.training.keeping.journal import Journal, Tail
from prunenas.training.keeping.run_folder import claim
from tests.cli.conftest import DATA

ROOT = Path(__file__).parents[2]
DRIVER = Path(__file__).with_name("train_driver.py")
SMALL = f"train lenet5 --width 0.2 --data {DATA} --recipe-set batch=8 --recipe-set lr=0.01"
TRAIN = f"{SMALL} --epochs 3 --seeds 2"


def events(folder):
    return Tail(folder / "log.jsonl").new()


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    return {path: path.read_bytes() for path in files}


def names(folder):
    return [entry["event"] for entry in events(folder)]


def reached(told):
    """What a training came to, but for the time it took."""
    results = told["metrics"]["results"]
    return [{k: v for k, v in one.items() if k != "seconds"} for one in results]


@pytest.fixture
def untrainable(monkeypatch):
    """No training may begin any more."""

    def trains(*args, **options):
        raise AssertionError("it trains")

    def forbid():
        monkeypatch.setattr(
            importlib.import_module("prunenas.training.loop"), "carried_out", trains
        )

    return forbid


@pytest.fixture
def interrupted(monkeypatch):
    """Ctrl-C as the first epoch is told."""
    shown = Display.epoch

    def epoch(self, report, of="epochs"):
        shown(self, report, of)
        if report.epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)

    def arm():
        monkeypatch.setattr(Display, "epoch", epoch)

    def disarm():
        monkeypatch.setattr(Display, "epoch", shown)

    return arm, disarm


def test_the_same_command_again_finds_what_it_trained(call, here, untrainable):
    first = call(f"{TRAIN} --json").json
    folder = here / first["run"]
    assert folder.parent == here / "runs"
    assert folder.name.startswith("lenet5-")
    before = contents(folder)
    untrainable()
    again = call(f"{TRAIN} --json")
    assert again.json == first | {"found": True}
    assert "nothing is trained" in again.err
    assert contents(folder) == before
    assert load(folder / "spec.json").metrics.n == 2


def test_how_it_is_told_does_not_change_the_folder_and_what_is_trained_does(call, here):
    base = f"{SMALL} --epochs 1 --seeds 1"
    told = {flags: call(f"{base} --json {flags}").json["run"] for flags in ("", "--quiet")}
    assert len({*told.values()}) == 1
    others = ["--seed 1", "--recipe-set momentum=0.8", "--layout channels_last", "--held-out"]
    folders = [call(f"{base} --json {flags}").json["run"] for flags in others]
    assert len({*folders, *told.values()}) == 5


def test_a_folder_of_another_training_is_refused_with_the_differences(call, here):
    call(f"{SMALL} --epochs 1 --seeds 1 --run mine")
    before = contents(here / "mine")
    call(f"{SMALL} --epochs 2 --seeds 1 --run mine").refused(
        "mine belongs to another training", "recipe.epochs: the folder has 1, asked for 2"
    )
    assert contents(here / "mine") == before
    call("search space.toml --out mine").refused("space.toml")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--protocol scratch-b --cap 0.5", "a cap below 1"),
        ("--protocol scratch-b --cap 0.5 --cost seconds", "a cap below 1"),
        ("--protocol scratch-b --cost hours", "unknown cost 'hours'"),
        ("--cap 2", "cap is for scratch-b"),
        ("--recipe-set momentum=2", "momentum"),
    ],
)
def test_what_is_refused_leaves_no_folder(call, here, spec, flags, told):
    call(f"train half.json --data {DATA} {flags}").refused(told)
    assert not (here / "runs").exists()


def test_while_one_process_trains_a_second_is_refused(call, here):
    once = f"{SMALL} --epochs 1 --seeds 1 --run mine"
    call(once)
    facts = json.loads((here / "mine" / "run.json").read_text())
    with claim(here / "mine", facts, work="search"):
        call(once).refused("another process is working in mine", "prunenas watch mine")


def test_after_ctrl_c_it_says_where_it_stopped_and_the_same_command_ends_the_same(
    call, here, interrupted
):
    weights = "--save-weights w{}.safetensors --epochs 3 --seeds 1"
    unbroken = call(f"{SMALL} {weights.format(1)} --run other --json").json
    arm, disarm = interrupted
    arm()
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    line = f"{SMALL} {weights.format(2)} --run mine --json"
    stopped = call(line)
    assert (stopped.code, stopped.out) == (1, "")
    assert "stopped at epoch 2, batch 1 of 5" in stopped.err.splitlines()[-1]
    assert "Traceback" not in stopped.err
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert names(here / "mine") == ["begun", "epoch", "stopped"]
    disarm()
    resumed = call(line)
    assert "mine: seed 0 goes on after epoch 2, batch 1" in resumed.err
    assert reached(resumed.json) == reached(unbroken)
    assert (here / "w2.safetensors").read_bytes() == (here / "w1.safetensors").read_bytes()
    assert names(here / "mine")[3:] == ["begun", "epoch", "epoch", "finished"]


def test_generate_goes_on_too_where_it_keeps_its_trainings(call, here, interrupted):
    line = f"generate l1_norm --reference lenet5 --width 0.3 --data {DATA} --keep 0.5"
    line += " --epochs 3 --recipe-set batch=8 --recipe-set lr=0.01"
    unbroken = call(f"{line} --out a.json --json").json
    arm, disarm = interrupted
    arm()
    stopped = call(f"{line} --out b.json --checkpoints kept")
    assert (stopped.code, stopped.out) == (1, "")
    assert "stopped at epoch 2, batch 1" in stopped.err.splitlines()[-1]
    disarm()
    resumed = call(f"{line} --out b.json --checkpoints kept --json")
    assert "epoch 1/3" not in resumed.err
    assert "epoch 2/3" in resumed.err
    assert resumed.json["digest"] == unbroken["digest"]
    found = [load(here / name).descriptor.selections for name in ("a.json", "b.json")]
    assert found[0] == found[1]


def test_a_second_ctrl_c_ends_it_at_once(call, here, monkeypatch):
    def epoch(self, report, of="epochs"):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("it goes on")

    monkeypatch.setattr(Display, "epoch", epoch)
    # As a terminal would have it: elsewhere the one who runs the tests may not listen.
    monkeypatch.setattr(signal, "default_int_handler", signal.default_int_handler)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        done = call(f"{SMALL} --epochs 2 --seeds 1 --run mine")
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.code == 1
    assert done.err.splitlines()[-1] == "stopped"
    assert names(here / "mine")[-1] == "stopped"


def test_killed_with_9_the_same_command_goes_on_and_ends_the_same(call, here):
    line = f"{TRAIN} --json"
    unbroken = call(f"{line} --run other").json

    def start(kill_after):
        return subprocess.run(
            [sys.executable, "-W", "error", DRIVER, str(kill_after), *f"{line} --run mine".split()],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            timeout=120,
        )

    assert start(4).returncode == -signal.SIGKILL
    assert names(here / "mine") == ["begun", *["epoch"] * 4]
    once = call("watch mine --once --json").json
    assert (once["standing"], once["done"], once["total"]) == ("killed", 4, 6)
    resumed = call(f"{line} --run mine")
    assert "mine: seed 0 is done" in resumed.err
    assert "mine: seed 1 goes on after the end of epoch 1" in resumed.err
    assert reached(resumed.json) == reached(unbroken)


def test_the_log_tells_what_was_trained_and_how_it_went(call, here):
    told = call(f"{TRAIN} --run mine --json").json
    begun, *middle, finished = events(here / "mine")
    assert begun["command"].startswith("prunenas train lenet5")
    assert (begun["work"], begun["seeds"], begun["epochs"]) == ("training", [0, 1], 3)
    assert begun["facts"] == json.loads((here / "mine" / "run.json").read_text())
    assert {"torch", "prunenas"} <= {*begun["versions"]}
    assert [(e["event"], e["of"], e["epoch"]) for e in middle] == [
        ("epoch", f"seed {seed}", epoch) for seed in (0, 1) for epoch in (1, 2, 3)
    ]
    for epoch in middle:
        assert epoch["loss"] > 0
        assert epoch["learning_rate"] == pytest.approx(0.01 * 0.1 ** (epoch["epoch"] - 1))
        assert epoch["images_per_second"] > 0
    assert finished["event"] == "finished"
    assert finished["metrics"] == told["metrics"]


def test_a_training_that_diverges_is_logged_as_such(call, here):
    done = call(f"{SMALL} --epochs 2 --seeds 1 --recipe-set lr=1e30 --run mine")
    assert done.code == 1
    last = events(here / "mine")[-1]
    assert last["event"] == "diverged"
    assert "lower the recipe's lr" in last["message"]


def test_quiet_says_nothing_but_the_result(call, here):
    done = call(f"{TRAIN} --quiet")
    assert (done.code, done.err) == (0, "")
    assert "(n=2)" in done.out
    assert call(f"{TRAIN} --quiet").err == ""


def test_without_a_terminal_a_training_is_told_in_lines(call, here):
    lines = call(f"{SMALL} --epochs 2 --seeds 1").err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["seed 0, epoch 1/2", "seed 0, epoch 2/2"]
    assert "images/s" in lines[0]


@pytest.mark.parametrize("epochs", [1, 2, 19, 20, 21, 160, 333])
def test_there_are_at_most_some_twenty_lines_and_one_for_the_last_epoch(epochs):
    told = [epoch for epoch in range(1, epochs + 1) if worth_a_line(epoch, epochs)]
    assert told[-1] == epochs
    assert min(epochs, 10) <= len(told) <= 21


def test_last_and_best_epoch_are_told_apart(call, here):
    line = f"{TRAIN} --held-out"
    plain, told = call(line), call(f"{line} --json").json
    assert told["part"] == "validation"
    best = [one["best_accuracy"] for one in told["metrics"]["results"]]
    assert all(best) and told["accuracy"] <= sum(best) / 2
    assert "validation accuracy after the last epoch" in plain.out
    assert f"best epoch by the same images: {100 * sum(best) / 2:.2f}" in plain.out
    assert "test accuracy after the last epoch" in call(TRAIN).out


def test_out_is_written_once_and_the_same_command_finds_it(call, here, untrainable):
    line = f"{SMALL} --epochs 1 --seeds 1 --out t.json"
    assert call(line).code == 0
    before = (here / "t.json").read_bytes()
    untrainable()
    assert call(line).code == 0
    assert (here / "t.json").read_bytes() == before
    call(f"{SMALL} --epochs 2 --seeds 1 --out t.json").refused("t.json exists")


def test_weights_of_a_finished_training_can_be_had_later(call, here):
    line = f"{SMALL} --epochs 1 --seeds 1"
    call(f"{line} --run other --save-weights w1.safetensors")
    call(f"{line} --run mine")
    assert call(f"{line} --run mine --save-weights w2.safetensors").code == 0
    assert (here / "w2.safetensors").read_bytes() == (here / "w1.safetensors").read_bytes()
    assert names(here / "mine").count("epoch") == 1


def test_how_to_train_is_the_engines_affair(call, here):
    flags = "--accumulate 2 --deterministic --no-capture --layout channels_last"
    told = call(f"{SMALL} --epochs 1 --seeds 1 {flags} --run mine --json").json
    assert "channels last" in told["execution"]
    assert "2 parts" in told["execution"]
    training = load(here / "mine" / "spec.json").provenance["training"]
    assert training["engine"]["accumulate"] == 2
    assert training["engine"]["capture"] is False
    call(f"{SMALL} --accumulate many").refused("--accumulate is a number of parts or auto")
    call(f"{SMALL} --layout rows").refused("layout=rows")
    assert [*here.glob("runs/*")] == []


def test_the_recipe_that_is_recorded_is_the_one_that_was_followed(call, here):
    call(f"{SMALL} --recipe fast --epochs 1 --seeds 1 --run mine")
    spec = load(here / "mine" / "spec.json")
    precision = spec.provenance["training"]["recipe"]["precision"]
    assert precision in ("fp32", "bf16")
    assert spec.metrics.execution.startswith(precision)


class Writer:
    """Stands in for TensorBoard's."""

    told: list = []  # noqa: RUF012  tests look at it
    open = 0

    def __init__(self, folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        Writer.told.clear()
        Writer.open += 1

    def add_scalar(self, name, value, step):
        Writer.told.append((name, value, step))

    def flush(self):
        pass

    def close(self):
        Writer.open -= 1


@pytest.fixture
def tensorboard(monkeypatch):
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)


def test_tensorboard_gets_the_numbers_of_the_log(call, here, tensorboard):
    told = call(f"{TRAIN} --tensorboard --run mine --json").json
    losses = {(e["of"], e["epoch"]): e["loss"] for e in events(here / "mine") if "loss" in e}
    assert {
        (name.partition("/")[0], step): value
        for name, value, step in Writer.told
        if name.endswith("/loss")
    } == losses
    results = told["metrics"]["results"]
    assert ("seed 1/test_accuracy", results[1]["accuracy"], 3) in Writer.told
    assert Writer.open == 0
    assert (here / "mine" / "tensorboard").is_dir()


def test_tensorboard_is_fed_by_searches_too(call, here, training, space_file, tensorboard):
    told = call("search space.toml --out run --tensorboard --json").json
    steps = [step for name, _, step in Writer.told if name == "trials/accuracy"]
    assert steps == [1, 2, 3, 4]
    assert any(name == "confirm/accuracy" for name, *_ in Writer.told)
    assert told["trials"] == 4
    assert Writer.open == 0


def test_without_tensorboard_its_extra_is_named_before_anything_is_done(call, here, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    call(f"{TRAIN} --tensorboard --run mine").refused("prunenas[tensorboard]")
    assert not (here / "mine").exists()


def test_a_log_on_a_full_disk_ends_the_training_with_a_word(call, here, monkeypatch):
    write = Journal.write

    def full(self, event, **facts):
        if event == "epoch":
            self._path.unlink()
            self._path.mkdir()
        write(self, event, **facts)

    monkeypatch.setattr(Journal, "write", full)
    done = call(f"{SMALL} --epochs 1 --seeds 1 --run mine")
    assert done.code == 1
    assert "failed: the log" in done.err
    assert "Traceback" not in done.err
