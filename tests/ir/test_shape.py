"""Sliding windows, against counting them one by one."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunenas.errors import ShapeError
from prunenas.ir.shape import Shape, need_padding, need_positive, window


def slides(n: int, k: int, s: int, p: int, d: int, *, ceil: bool) -> int:
    """Count the starts of a window over ``n`` cells, as the words of torch's manual say it."""
    reach = d * (k - 1) + 1
    starts = range(-p, n + p, s)
    whole = [start for start in starts if start + reach <= n + p]
    if not ceil:
        return len(whole)
    # One more window may run out of the right padding, if it starts inside image or left padding.
    missing = [start for start in starts if start not in whole][:1]
    covered = bool(whole) and whole[-1] + reach == n + p
    return len(whole) + (0 if covered else sum(start < n for start in missing))


@given(
    n=st.integers(1, 12),
    k=st.integers(1, 5),
    s=st.integers(1, 4),
    p=st.integers(0, 2),
    d=st.integers(1, 3),
)
def test_a_window_slides_as_often_as_it_fits(n: int, k: int, s: int, p: int, d: int) -> None:
    expected = slides(n, k, s, p, d, ceil=False)
    arguments = {"kernel": (k, 1), "stride": (s, 1), "padding": (p, 0), "dilation": (d, 1)}
    if expected:
        assert window((n, 7), **arguments) == (expected, 7)
    else:
        with pytest.raises(ShapeError, match="does not fit"):
            window((n, 7), **arguments)


@given(n=st.integers(1, 12), k=st.integers(1, 5), s=st.integers(1, 4), half=st.booleans())
def test_ceil_mode_keeps_the_last_window_that_starts_inside(
    n: int, k: int, s: int, half: bool
) -> None:
    p = k // 2 if half else 0
    if n + 2 * p >= k:
        size = window((7, n), kernel=(1, k), stride=(1, s), padding=(0, p), ceil_mode=True)
        assert size == (7, slides(n, k, s, p, 1, ceil=True))


# Sizes that torch.nn.functional.max_pool2d returns.
@pytest.mark.parametrize(
    ("n", "k", "s", "p", "size"),
    [(5, 2, 2, 0, 3), (4, 3, 2, 0, 2), (2, 3, 2, 0, 1), (4, 2, 3, 1, 2), (6, 1, 4, 0, 2)],
)
def test_ceil_mode_gives_what_torch_gives(n: int, k: int, s: int, p: int, size: int) -> None:
    found = window((n, n), kernel=(k, k), stride=(s, s), padding=(p, p), ceil_mode=True)
    assert found == (size, size)


def test_a_window_that_does_not_fit_prints_what_was_asked() -> None:
    with pytest.raises(ShapeError, match=re.escape("(3, 3) does not fit into (2, 8)")):
        window((2, 8), kernel=(3, 3), stride=(1, 1), padding=(0, 0))
    with pytest.raises(ShapeError, match="does not fit"):
        window((2, 8), kernel=(4, 4), stride=(2, 2), padding=(0, 0), ceil_mode=True)


def test_a_shape_knows_its_positions_and_elements() -> None:
    assert (Shape.of(3, (4, 5)).positions, Shape.of(3, (4, 5)).numel) == (20, 60)
    assert (Shape.of(3).positions, Shape.of(3).numel) == (1, 3)
    assert Shape.of(3, (4, 5)).size() == (4, 5)


def test_a_vector_has_no_size() -> None:
    with pytest.raises(ShapeError, match=re.escape("an image [c h w] is needed, got [3]")):
        Shape.of(3).size()


def test_a_batch_counts_entries_for_each_image() -> None:
    windows, table = Shape((4, 6), 9), Shape((7, 2), None)
    assert (windows.numel, windows.sizes, str(windows)) == (9 * 4 * 6, (9, 4, 6), "9 x [4 6]")
    assert (table.numel, table.sizes, str(table)) == (14, (7, 2), "[7 2] for all images")
    for shape in (windows, table, Shape.of(3, (4, 5))):
        assert Shape.from_sizes(shape.sizes, batched=shape.lead is not None) == shape


def test_what_is_the_same_for_all_images_and_a_single_number_are_no_images() -> None:
    with pytest.raises(ShapeError, match="for all images"):
        Shape((3, 4, 5), None).size()
    with pytest.raises(ShapeError, match=re.escape("a tensor with channels is needed, got []")):
        Shape(()).channels  # noqa: B018


def test_all_values_that_are_not_positive_are_told_at_once() -> None:
    need_positive("Pool2d", kernel=(1, 2), stride=1)
    with pytest.raises(ShapeError, match=re.escape("Pool2d needs positive integers")) as told:
        need_positive("Pool2d", kernel=(0, 2), stride=-1, groups=2)
    assert "kernel=(0, 2), stride=-1" in str(told.value)
    assert "groups" not in str(told.value)


def test_paddings_below_zero_or_above_the_most_are_refused() -> None:
    need_padding("Conv2d", (0, 9))
    with pytest.raises(ShapeError, match=re.escape("from 0 on, got (0, -1)")):
        need_padding("Conv2d", (0, -1))
    with pytest.raises(ShapeError, match="at most half its kernel"):
        need_padding("Pool2d", (1, 2), most=(1, 1))
