"""The pages on training work as they are typed."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

DOCS = Path(__file__).parents[2] / "docs"
BIN = Path(sys.executable).parent
ON_DISK = "/data/imagenet"
"""Where the pages have what no test has."""

NEEDED = {
    "measuring": "generate uniform --reference vgg11 --width 0.25 --keep 0.5 --out found.json",
}
"""What a page takes as given."""

SHORT = {
    "measuring": " --seconds 0.05",
    "streaming": " --epochs 1 --seeds 1 --width 0.125 --recipe-set batch=4 --device cpu",
}
"""What makes a page's commands short; of an option said twice the last one counts."""


def blocks(page, language):
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def lines_of(page):
    return [line for block in blocks(page, "bash") for line in block.strip().splitlines()]


@pytest.fixture
def typed(here):
    """What a page says, with a small folder of images in the place of the large one."""
    for part in ("train", "val"):
        for colour in (40, 200):
            folder = here / "imagenet" / part / str(colour)
            folder.mkdir(parents=True)
            for place in range(4):
                Image.new("RGB", (240, 230), (colour, 30 * place, 90)).save(folder / f"{place}.jpg")
    return lambda text: text.replace(ON_DISK, str(here / "imagenet"))


def process(command, here):
    """Run a command beside this process, as a shell would."""
    told = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=here, env=os.environ | told, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
@pytest.mark.parametrize("page", ["training", "measuring", "streaming"])
def test_the_commands_of_a_page_run_one_after_the_other(call, typed, page):
    if page in NEEDED:
        assert call(NEEDED[page]).code == 0
    lines = [line for line in lines_of(page) if line.startswith("prunenas ")]
    assert len(lines) == len(lines_of(page))
    for line in lines:
        if "--device cuda" in line and not torch.cuda.is_available():
            continue
        done = call(typed(line).removeprefix("prunenas ") + SHORT.get(page, ""))
        assert done.code == 0, (line, done.err)


@pytest.mark.slow
def test_the_python_of_the_training_page_runs(capsys, here):
    code = "\n".join(blocks("training", "python"))
    exec(compile(code, "docs/training.md", "exec"), {})
    assert "fine-tune inherited weights 0.9" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("page", "told"),
    [
        pytest.param("measuring", r"\d+ [\d.]+e?-?\d* [\d.]+", marks=pytest.mark.slow),
        ("streaming", "2 8"),
    ],
)
def test_the_python_of_a_page_runs(capsys, typed, page, told):
    exec(compile(typed("\n".join(blocks(page, "python"))), page, "exec"), {})
    assert re.fullmatch(told, capsys.readouterr().out.strip())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "start", "told"),
    [
        ("many-candidates", (sys.executable,), r"(0\.\d+\s){3}"),
        ("distributed", (sys.executable,), r"0\.\d+ \w+.*\s"),
        (
            "distributed",
            (str(BIN / "torchrun"), "--standalone", "--nproc-per-node", "2"),
            r"0\.\d+ \w+.* 2 processes, 2 parts a batch\s",
        ),
    ],
)
def test_the_script_of_a_page_runs(here, page, start, told):
    (here / "script.py").write_text("\n".join(blocks(page, "python")))
    done = process([*start, "script.py"], here)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(told, done.stdout)


@pytest.mark.slow
def test_the_distributed_command_for_cpus_runs(here):
    (line,) = [line for line in lines_of("distributed") if "--device cpu" in line]
    done = process(shlex.split(line), here)
    assert done.returncode == 0, done.stderr
    assert "2 processes" in done.stdout
    assert (here / "runs" / "both" / "spec.json").exists()


@pytest.mark.slow
def test_the_script_that_the_page_on_many_candidates_names_takes_its_options(here):
    words = shlex.split(" ".join(lines_of("many-candidates")))
    (script,) = {word for word in words if word.endswith(".py")}
    told = process([sys.executable, str(DOCS.parent / script), "--help"], here).stdout
    options = [word for word in words if word.startswith("--")]
    assert len(options) > 4
    assert not [option for option in options if option not in told]
