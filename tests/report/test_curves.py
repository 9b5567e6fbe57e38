"""The figure of sensitivity curves."""

import matplotlib.image
import numpy as np
import pytest

from prunenas.report import curves
from prunenas.report.curves import draw_curves


def found(groups=3, baseline=0.9):
    keeps = [0.9, 0.5, 0.1]
    return {
        "baseline": baseline,
        "curves": {
            f"layer{i}.conv": {
                "keep": keeps,
                "accuracy": [baseline - (i + 1) * (1 - keep) / 50 for keep in keeps],
            }
            for i in range(groups)
        },
    }


@pytest.mark.parametrize("groups", [1, 3, 40])
def test_the_figure_is_a_png_where_it_is_asked_for(tmp_path, groups):
    path = draw_curves(found(groups), tmp_path / "below" / "curves.png")
    assert path == tmp_path / "below" / "curves.png"
    picture = matplotlib.image.imread(path)
    assert picture.shape[0] > 300
    assert picture.shape[1] > 600
    assert len(np.unique(picture[:, :, 0])) > 20


def test_lines_show_every_group_and_the_legend_the_most_sensitive_first(tmp_path, monkeypatch):
    drawn = []

    class Spy(curves.Figure):
        def savefig(self, *args, **options):
            drawn.append(self)
            super().savefig(*args, **options)

    monkeypatch.setattr(curves, "Figure", Spy)
    draw_curves(found(40), tmp_path / "curves.png")
    (axes,) = drawn[0].axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    first = lines["layer0.conv"]
    np.testing.assert_allclose(first.get_xdata(), [0.1, 0.5, 0.9, 1.0])
    np.testing.assert_allclose(first.get_ydata(), [88.2, 89.0, 89.8, 90.0])
    assert sum(label.startswith("layer") for label in lines) == 40
    named = [text.get_text() for text in axes.get_legend().get_texts()]
    assert named == ["reference", *(f"layer{i}.conv" for i in range(39, 27, -1))]
