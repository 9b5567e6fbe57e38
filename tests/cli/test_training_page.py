"""The page on training works as it is typed."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.slow
def test_the_commands_of_the_page_run_one_after_the_other(call):
    lines = [line for block in blocks("bash") for line in block.strip().splitlines()]
    assert len(lines) > 8
    for line in lines:
        done = call(line.removeprefix("prunenas "))
        assert done.code == 0, (line, done.err)


@pytest.mark.slow
def test_the_python_of_the_page_runs(capsys, here):
    code = "\n".join(blocks("python"))
    exec(compile(code, "docs/training.md", "exec"), {})
    assert "fine-tune inherited weights 0.9" in capsys.readouterr().out
