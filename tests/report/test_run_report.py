import subprocess

import matplotlib.image
import numpy as np
import pytest

from prunenas.report.figures import draw_front, macs_label
from prunenas.report.run_report import write_report
from prunenas.search.front import Front
from tests.report.fronts import made_front, metrics, row, sparse_front

COMMAND = "prunenas search 'a space.toml' --out run"


def colours(path, rgb):
    """Return how many pixels of the picture are of that colour."""
    image = (matplotlib.image.imread(path)[:, :, :3] * 255).round().astype(int)
    return int((image == rgb).all(axis=2).sum())


def test_the_picture_shows_the_best_the_front_and_the_controls(tmp_path):
    path = draw_front(made_front(), tmp_path / "deep" / "front.png")
    assert path == tmp_path / "deep" / "front.png"
    assert matplotlib.image.imread(path).shape[0] > 400
    for rgb in ((0xC1, 0x27, 0x2D), (0x1F, 0x5F, 0xA8), (0x77, 0x77, 0x77)):
        assert colours(path, rgb) > 20


def test_the_axis_says_which_macs_it_counts(tmp_path):
    assert macs_label(made_front()) == "million MACs for one image"
    assert macs_label(sparse_front()) == "million effective MACs (after masks) for one image"
    table = (
        write_report(sparse_front(), tmp_path / "run", command=COMMAND) / "table.md"
    ).read_text()
    assert "effective MACs" in table
    assert "4,444" in table


def test_another_front_is_another_picture(tmp_path):
    one = matplotlib.image.imread(draw_front(made_front(), tmp_path / "a.png"))
    rows = (row("control", "guided", 0.5), row("best", "trial 1", 0.3, metrics(0.9)))
    front = Front(rows=rows, trials=1)
    other = matplotlib.image.imread(draw_front(front, tmp_path / "b.png"))
    assert one.shape == other.shape
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("name", ["$x^{$", "_x_ [/b] {y}", "npz:/data/ü.npz"])
def test_any_name_of_a_data_set_can_be_drawn(tmp_path, name):
    assert colours(draw_front(made_front(data=name), tmp_path / "f.png"), (0xC1, 0x27, 0x2D)) > 20


def test_a_report_has_table_picture_and_command(tmp_path):
    folder = write_report(made_front(), tmp_path / "run", command=COMMAND)
    assert {path.name for path in folder.iterdir()} == {"table.md", "front.png", "reproduce.sh"}
    table = (folder / "table.md").read_text()
    assert "| best found (trial 9) | 82.00 ± 2.83 (n=2) |" in table
    assert "![front](front.png)" in table
    assert COMMAND in table


def test_the_script_runs_the_command_word_for_word(tmp_path):
    folder = write_report(made_front(), tmp_path / "run", command=COMMAND)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "prunenas").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tools / "prunenas").chmod(0o755)
    done = subprocess.run(
        ["/usr/bin/env", f"PATH={tools}:/usr/bin:/bin", "bash", folder / "reproduce.sh"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["search", "a space.toml", "--out", "run"]


def test_a_report_written_again_is_the_same_bytes_and_replaces_an_older_one(tmp_path):
    write_report(made_front(trials=1), tmp_path, command="older")
    write_report(made_front(), tmp_path, command=COMMAND)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write_report(made_front(), tmp_path, command=COMMAND)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert b"older" not in before["table.md"] + before["reproduce.sh"]
