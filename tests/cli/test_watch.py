"""Runs that are looked at, and stopped, from another terminal."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from prunenas.training.keeping.journal import Journal
from prunenas.training.keeping.run_folder import claim
from tests.cli.conftest import DATA
from tests.cli.test_stopping import wait_for

ROOT = Path(__file__).parents[2]
DRIVER = Path(__file__).with_name("train_driver.py")
TRAIN = f"train lenet5 --width 0.2 --data {DATA} --recipe-set batch=8 --recipe-set lr=0.01"


@pytest.fixture
def finished(call, here):
    told = call(f"{TRAIN} --epochs 3 --seeds 2 --run mine --json")
    assert told.code == 0
    return told.json


def test_a_finished_training_is_told_with_its_result(call, finished):
    state = call("watch mine --once --json").json
    assert (state["work"], state["standing"]) == ("training", "finished")
    assert (state["done"], state["total"], state["pid"]) == (6, 6, None)
    assert (state["best"], state["part"]) == (pytest.approx(finished["accuracy"]), "test")
    assert state["images_per_second"] > 0
    shown = call("watch mine --once")
    assert shown.code == 0
    assert shown.out.startswith("training mine: finished")
    assert f"best: test {100 * finished['accuracy']:.2f} % (mean of 2 seeds)" in shown.out


def test_to_follow_what_has_ended_ends_at_once_with_all_that_was_said(call, finished):
    lines = call("watch mine").out.splitlines()
    assert [line.split(":")[0] for line in lines[:6]] == [
        f"seed {seed}, epoch {epoch}/3" for seed in (0, 1) for epoch in (1, 2, 3)
    ]
    assert lines[6].startswith("training mine: finished")


def test_a_finished_search_is_told_with_its_front(call, here, training, space_file):
    told = call("search space.toml --out run --json").json
    state = call("watch run --once --json").json
    assert (state["work"], state["standing"], state["phase"]) == ("search", "finished", "confirm")
    confirmed = [r["confirmed"]["accuracy"] for r in told["rows"] if r["role"] != "control"]
    assert (state["best"], state["part"]) == (max(confirmed), "test")
    lines = call("watch run").out.splitlines()
    assert [line.split("  ")[0] for line in lines[:4]] == [f"trials {n}/4" for n in range(1, 5)]


def test_it_follows_until_the_run_ends(call, here):
    """Another thread is the process that trains."""
    (here / "mine").mkdir()

    def work():
        with claim(here / "mine", {}, work="search"):
            journal = Journal(here / "mine" / "log.jsonl")
            journal.write("begun", work="training", seeds=[0], epochs=2)
            (here / "begun").touch()
            time.sleep(0.7)
            epoch = {"of": "seed 0", "seed": 0, "epoch": 1, "epochs": 2, "accuracy": None}
            journal.write("epoch", **epoch, loss=0.5, images_per_second=None)
            journal.write("stopped", message="stopped at epoch 2, batch 1 of 5")

    worker = threading.Thread(target=work)
    worker.start()
    wait_for(here / "begun")
    running = call("watch mine --once --json").json
    assert (running["standing"], running["pid"]) == ("running", os.getpid())
    followed = call("watch mine")
    worker.join()
    assert followed.code == 0
    assert followed.out.splitlines()[0] == "seed 0, epoch 1/2: loss 0.500"
    assert "stopped: stopped at epoch 2, batch 1 of 5" in followed.out


def test_what_is_no_run_is_refused(call, here):
    call("watch nowhere").refused("nowhere is no run: it is not there")
    (here / "mine").mkdir()
    call("watch mine --once").refused("run.json")
    call("stop mine").refused("run.json")


def test_there_is_nothing_to_stop_where_nothing_works(call, finished):
    call("stop mine").refused("no process works on mine")


def test_a_process_of_another_machine_is_left_alone(call, finished, here):
    """Its number may be anybody's here."""
    facts = json.loads((here / "mine" / "run.json").read_text())
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with claim(here / "mine", facts, work="search"):
            (here / "mine" / "lock").write_text(str(stranger.pid))
            call("stop mine").refused("is not on this machine")
        assert stranger.poll() is None
    finally:
        stranger.communicate(b"\n")


def test_a_run_is_stopped_from_elsewhere_and_goes_on(call, here):
    line = f"{TRAIN} --epochs 100000 --seeds 1 --run mine"
    process = subprocess.Popen(
        [sys.executable, "-W", "error", DRIVER, "0", *line.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        wait_for(here / "mine" / "log.jsonl")
        assert call("stop mine --json").json == {"run": "mine", "pid": process.pid}
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, out) == (1, "")
    assert err.splitlines()[-1].startswith("stopped at epoch")
    state = call("watch mine --once --json").json
    assert (state["standing"], state["pid"]) == ("stopped", None)
    assert state["message"] == err.splitlines()[-1]
