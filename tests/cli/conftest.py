"""The command line in this process: arguments in, exit code and both streams out."""

import json
import shlex
import sys
from dataclasses import dataclass

import optuna
import pytest

from prunenas.cli import main
from tests.search.fakes import FakeTraining, install

DATA = "tests.search.fakes:tiny_data"
"""Forty images of 1x16x16 in ten classes."""

QUICK = f"--data {DATA} --epochs 1 --recipe paper --recipe-set batch=8 --recipe-set lr=0.01"

SPACE = f"""schema = 1
reference = {{ family = "lenet5", input_size = [1, 16, 16], classes = 10 }}
guide = {{ keeps = [0.6, 0.5], head = 0.4 }}
keep = {{ radius = 0.3, step = 0.1 }}
max_macs = 25_000
[run]
data = "{DATA}"
recipe = {{ name = "paper", epochs = 2, batch = 8, lr = 0.01 }}
trials = 4
confirm_seeds = 2
front_size = 2
"""


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        """The one JSON object on stdout, with nothing else beside it."""
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value

    def refused(self, *told: str) -> None:
        """Bad input: exit code 2, one message on stderr, no traceback."""
        assert (self.code, self.out) == (2, ""), self
        assert "Traceback" not in self.err
        assert self.err.count("error:") == 1, self.err
        for words in told:
            assert words in self.err, self.err


@pytest.fixture
def call(monkeypatch, capsys):
    def called(line: str) -> Outcome:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["prunenas", *shlex.split(line)])
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
        streams = capsys.readouterr()
        return Outcome(code, streams.out, streams.err)

    return called


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Work in an empty folder, and leave Optuna as talkative as it was."""
    monkeypatch.chdir(tmp_path)
    before = optuna.logging.get_verbosity()
    yield tmp_path
    optuna.logging.set_verbosity(before)


@pytest.fixture
def training(monkeypatch) -> FakeTraining:
    return install(monkeypatch)


@pytest.fixture
def space_file(here):
    (here / "space.toml").write_text(SPACE)
    return here / "space.toml"


@pytest.fixture
def spec(call, here):
    """A spec that ``generate`` wrote."""
    done = call(f"generate uniform --reference lenet5 --data {DATA} --keep 0.5 --out half.json")
    assert done.code == 0
    return here / "half.json"
