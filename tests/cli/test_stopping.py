"""Processes that are killed or stopped, and what the same command does afterwards."""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prunenas.cli.stopping import stopping
from tests.cli.conftest import QUICK

ROOT = Path(__file__).parents[2]
DRIVER = Path(__file__).with_name("driver.py")
COMMAND = ("search", "space.toml", "--out", "run", "--json", "--trials", "5")


def start(*arguments, kill_at=0, wait_at=0):
    return subprocess.Popen(
        [sys.executable, "-W", "error", DRIVER, "log", str(kill_at), str(wait_at), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def finish(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def rows(out):
    return json.loads(out)["rows"]


def code_of(path):
    """What a module does: its docstring tells who wrote it."""
    return [ast.dump(node) for node in ast.parse(path.read_text()).body[1:]]


def wait_for(path):
    ends = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < ends
        time.sleep(0.02)


@pytest.fixture
def unbroken(here, call, training, space_file):
    told = call(" ".join(COMMAND)).json
    trainings = [*training.calls]
    shutil.rmtree(here / "run")
    return told, trainings


@pytest.mark.parametrize("kill_at", [3, 9], ids=["in a trial", "in a confirmation"])
def test_killed_with_9_the_same_command_repeats_nothing_and_ends_the_same(here, unbroken, kill_at):
    told, trainings = unbroken
    code, out, _ = finish(start(*COMMAND, kill_at=kill_at))
    assert code == -signal.SIGKILL
    assert out == ""
    kept = {path: path.stat().st_mtime_ns for path in (here / "run" / "results").rglob("*.json")}
    assert len(kept) == kill_at - 1
    code, out, err = finish(start(*COMMAND))
    assert code == 0, err
    assert json.loads(out) == told
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert (here / "log").read_text().splitlines() == [str(training) for training in trainings]


def test_stopped_with_ctrl_c_it_ends_with_1_and_says_where_and_goes_on(here, unbroken):
    told, trainings = unbroken
    process = start(*COMMAND, wait_at=4)
    wait_for(here / "log.waiting")
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert (code, out) == (1, "")
    assert err.splitlines()[-2:] == [
        "stopping after this step; once more ends it at once",
        "stopped at epoch 1, batch 1 of 5",
    ]
    assert "Traceback" not in err
    code, out, err = finish(start(*COMMAND))
    assert code == 0, err
    assert json.loads(out) == told
    assert (here / "log").read_text().splitlines() == [str(training) for training in trainings]


def test_while_one_process_works_a_second_is_refused(here, space_file):
    first = start(*COMMAND, wait_at=2)
    try:
        wait_for(here / "log.waiting")
        before = {p: p.read_bytes() for p in (here / "run").rglob("*") if p.is_file()}
        code, out, err = finish(start(*COMMAND))
        assert (code, out) == (2, "")
        assert "another process is working" in err
        assert "Traceback" not in err
        assert {p: p.read_bytes() for p in (here / "run").rglob("*") if p.is_file()} == before
    finally:
        first.kill()
        finish(first)


def test_the_console_script_runs_and_ends_with_2_for_bad_input(here):
    script = Path(sys.executable).with_name("prunenas")
    fine = subprocess.run([script, "list", "--json"], capture_output=True, text=True)
    assert fine.returncode == 0
    assert {*json.loads(fine.stdout)} >= {"families", "datasets", "generators"}
    assert fine.stderr == ""
    bad = subprocess.run([script, "inspect", "nope"], capture_output=True, text=True)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr.startswith("error: unknown family 'nope'")
    assert "Traceback" not in bad.stderr


def test_the_whole_walk_on_the_command_line(here, call, space_file):
    """Generate, profile, transfer, train, search, export: each reads what the last one wrote."""
    small = "--reference vgg11 --width 0.1"
    assert call(f"generate network_slimming {small} {QUICK} --keep 0.6 --out found.json").code == 0
    assert call("profile found.json --out guide.json").code == 0
    place = "--to vgg13 --input-size 1,16,16 --width 0.1"
    assert call(f"transfer guide.json {place} --max-macs 90000 --out moved.json").code == 0
    once = call(f"train moved.json {QUICK} --seeds 2 --protocol scratch-b --cap 2 --json").json
    assert once["n"] == 2
    assert once["epochs"] == 2
    space_file.write_text(
        'schema = 1\nreference = { family = "vgg13", input_size = [1, 16, 16], width = 0.1 }\n'
        'guide = "guide.json"\nmax_macs = 90_000\n[run]\ndata = "tests.search.fakes:tiny_data"\n'
        "recipe = { epochs = 1, batch = 8, lr = 0.01 }\ntrials = 3\nconfirm_seeds = 2\n"
        "front_size = 1\n"
    )
    told = call("search space.toml --out run --json").json
    best = next(row for row in told["rows"] if row["role"] == "best")
    assert best["confirmed"]["n"] == 2
    assert best["confirmed"]["macs"] <= 90_000
    spec = f"run/specs/{best['name'].replace(' ', '-')}.json"
    assert call(f"inspect {spec} --json").json["digest"] == best["digest"]
    assert call(f"export {spec} python --out best.py").code == 0
    assert code_of(here / "best.py") == code_of(here / "run" / "best.py")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_listened_to_only_while_a_run_works(number):
    def mine(*_):
        raise AssertionError("not mine")

    before = signal.signal(number, mine)
    try:
        with stopping() as stop:
            assert not stop()
        assert signal.getsignal(number) is mine
        with stopping(quiet=True) as stop:
            os.kill(os.getpid(), number)
            assert stop()
            assert signal.getsignal(number) is mine
        signal.signal(number, signal.SIG_IGN)
        with stopping() as stop:
            os.kill(os.getpid(), number)
            assert not stop()
    finally:
        signal.signal(number, before)
