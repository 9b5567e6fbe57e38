import io

from rich.console import Console

from prunenas.report.table import (
    HEADER,
    accuracy_text,
    caption,
    costs_text,
    front_cells,
    front_header,
    front_markdown,
    front_table,
    markdown,
)
from prunenas.search.front import Front
from tests.report.fronts import made_front, metrics, row, sparse_front


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


def test_costs_of_a_front_with_a_sparse_network_are_those_after_masks_and_say_so():
    front = sparse_front()
    assert front_header(front)[2:4] == ("nonzero params", "effective MACs")
    dense, sparse = front_cells(front)
    assert dense[2:4] == ("6,789", "4,400")
    assert sparse[2:4] == ("2,222", "4,444")
    text = front_markdown(front)
    assert "| nonzero params | effective MACs |" in text
    assert "costs count weights that no mask sets to zero" in caption(front)
    assert [column.header for column in front_table(front).columns] == [*front_header(front)]


def test_a_dense_front_says_nothing_of_masks():
    assert front_header(made_front()) == HEADER
    assert "mask" not in front_markdown(made_front())


def test_costs_say_how_they_are_counted():
    assert costs_text(metrics(0.5)) == "6,789 params, 12,345 MACs"
    after = metrics(0.5, nonzero_params=1_000, effective_macs=2_000)
    assert costs_text(after) == "1,000 nonzero params, 2,000 effective MACs"
