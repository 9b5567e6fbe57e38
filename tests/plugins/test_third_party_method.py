"""The package in docs/add-a-method.md, as it stands there: installed, used, held to its suite."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "add-a-method.md"
ROOT = Path(__file__).parents[2]


def blocks():
    """Return the first block under each heading that names a file."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"^## \d\. [^\n]*`([\w.]+)`\n\n```\w+\n(.*?)^```", text, re.M | re.S)
    return dict(found)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The folder of the package, written from the page."""
    folder = tmp_path_factory.mktemp("prunenas-spread")
    assert {*blocks()} == {"pyproject.toml", "prunenas_spread.py", "test_spread.py"}
    for name, text in blocks().items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def python(package, tmp_path_factory):
    """A call of Python where the package is installed, and nothing of the network is asked."""
    site = tmp_path_factory.mktemp("site")
    work = tmp_path_factory.mktemp("work")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]),
        "OMP_NUM_THREADS": "1",
        "NO_COLOR": "1",
        "COLUMNS": "120",
    }

    def call(*words):
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            env=environment,
            cwd=work,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    call("-m", "pip", "install", "-q", *offline, "--target", site, package)
    return call


def prunenas(python, *words):
    return python("-c", "from prunenas.cli import main; main()", *words)


def test_it_is_listed_beside_ours(python):
    names = json.loads(prunenas(python, "list", "--json"))["generators"]
    assert "weight_spread" in names
    assert "uniform" in names


def test_its_help_tells_its_own_options(python):
    text = prunenas(python, "generate", "weight_spread", "--help")
    assert "whose weights differ most from their mean" in text
    assert "strength" in text
    assert "0.0001" in text


def test_the_command_of_the_page_finds_an_architecture(python):
    (line,) = re.findall(
        r"^prunenas (generate weight_spread --reference.*)$", PAGE.read_text(), re.M
    )
    found = json.loads(prunenas(python, *line.split(), "--width", "0.25", "--json"))
    assert found["out"] == "small.json"
    assert found["params"] > 0


def test_it_keeps_the_contract(package, python):
    said = python(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "-W", "error"),
        *("--rootdir", package, package / "test_spread.py"),
    )
    passed, skipped = (int(re.search(rf"(\d+) {word}", said)[1]) for word in ("passed", "skipped"))
    assert passed > 200
    assert skipped < passed / 5


def test_a_method_that_breaks_a_promise_fails_its_contract(package, python, tmp_path):
    """The suite can fail: this one changes what it looks at."""
    (tmp_path / "test_rude.py").write_text(
        "import torch\n"
        "from prunenas.testing.generators import GeneratorContract\n"
        "from prunenas_spread import WeightSpread\n"
        "def propose(self, subject):\n"
        "    network = subject.trained\n"
        "    kept = spread(self, subject)\n"
        "    next(network.parameters()).data.add_(torch.rand(1))\n"
        "    return kept\n"
        "spread, WeightSpread.propose = WeightSpread.propose, propose\n"
        "class TestRude(GeneratorContract):\n"
        "    method = 'weight_spread'\n",
        encoding="utf-8",
    )
    said = python(
        "-c",
        "import sys, pytest; pytest.main(sys.argv[1:])",
        *("-q", "-p", "no:cacheprovider", "-c", os.devnull, "--tb=line"),
        *("-k", "looking", "--rootdir", tmp_path, tmp_path / "test_rude.py"),
    )
    assert "torch's generator was drawn from" in said
    assert re.search(r"\b10 failed", said)
    assert "passed" not in said
