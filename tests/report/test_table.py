import io

from rich.console import Console

from prunenas.report.table import (
    HEADER,
    accuracy_text,
    caption,
    front_cells,
    front_markdown,
    front_table,
    markdown,
)
from prunenas.search.front import Front
from tests.report.fronts import made_front, metrics, row


def test_an_accuracy_has_mean_sample_deviation_and_n():
    assert accuracy_text(metrics(0.80, 0.84)) == "82.00 ± 2.83 (n=2)"
    assert accuracy_text(metrics(0.80, 0.80, 0.80)) == "80.00 ± 0.00 (n=3)"


def test_one_seed_has_no_deviation():
    assert accuracy_text(metrics(0.8)) == "80.00 (n=1)"


def test_top_5_stands_beside_top_1_where_there_is_one():
    assert accuracy_text(metrics(0.5, 0.5, top5=0.75)) == "50.00 ± 0.00, top-5 75.00 (n=2)"


def test_cells_tell_role_accuracy_costs_and_keeps_in_the_order_of_the_header():
    cells = front_cells(made_front())
    assert all(len(line) == len(HEADER) for line in cells)
    assert [line[0] for line in cells] == [
        "uniform, equal MACs",
        "guided",
        "front (trial 4)",
        "best found (trial 9)",
    ]
    assert cells[0][1:4] == ("71.00 ± 1.41 (n=2)", "6,789", "12,345")
    assert cells[0][4] == "0.50 0.50 0.50"


def test_the_caption_says_what_the_numbers_are():
    assert caption(made_front()) == (
        "made: test accuracy after the last epoch, mean and sample deviation over n seeds; "
        "17 trials; a device"
    )
    assert "; 3 Pareto points not shown; " in caption(made_front(left_out=3))


def test_what_is_not_confirmed_says_so():
    front = Front(rows=(row("best", "trial 1", 0.5),), trials=1)
    assert "validation accuracy of one seed: nothing is confirmed" in caption(front)
    assert front_cells(front)[0][1] == "50.00 (n=1)"


def test_markdown_is_a_table_of_all_rows_with_the_caption():
    text = front_markdown(made_front())
    head, rule, *lines = [line for line in text.splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in head.strip("|").split("|")] == [*HEADER]
    assert {*rule} == {"|", "-", " "}
    assert len(lines) == 4
    assert {line.count("|") for line in (head, rule, *lines)} == {len(HEADER) + 1}
    assert caption(made_front()) in text
    assert markdown(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"


def test_the_terminal_table_shows_every_cell_and_brackets_as_they_are():
    stream = io.StringIO()
    Console(file=stream, width=200, markup=False).print(front_table(made_front(data="x [/b] y")))
    for line in front_cells(made_front()):
        assert all(cell in stream.getvalue() for cell in line)
    assert "x [/b] y" in stream.getvalue()
