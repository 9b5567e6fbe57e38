"""Draws are the same on every machine: the numbers are frozen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunenas.ir.draw import subset, uniform


def test_the_numbers_are_frozen() -> None:
    drawn = uniform(3, seed=0, stream="conv").tolist()
    assert drawn == [0.08480854358979728, 0.9551247156084434, 0.049716524184527544]
    assert subset(16, 5, seed=7, stream="layer1.0.select") == (0, 2, 12, 13, 14)


def test_large_and_negative_seeds_are_not_rounded() -> None:
    first = [uniform(1, seed=seed, stream="conv")[0] for seed in (0, -1, 2**63, 2**63 + 1)]
    assert len({*first}) == 4


SEEDS = st.integers(-(2**63), 2**64 - 1)


@given(total=st.integers(1, 40), share=st.integers(1, 40), seed=SEEDS, stream=st.text(max_size=8))
def test_a_subset_has_the_asked_number_of_ascending_indices(
    total: int, share: int, seed: int, stream: str
) -> None:
    count = min(total, share)
    chosen = subset(total, count, seed=seed, stream=stream)
    assert len({*chosen}) == count
    assert [*chosen] == sorted(chosen)
    assert 0 <= chosen[0] <= chosen[-1] < total


@given(seed=SEEDS)
def test_uniform_numbers_lie_in_the_unit_interval_and_repeat(seed: int) -> None:
    drawn = uniform(20, seed=seed, stream="conv")
    assert np.all((drawn >= 0) & (drawn < 1))
    assert np.array_equal(drawn, uniform(20, seed=seed, stream="conv"))


@pytest.mark.parametrize("other", [{"seed": 1, "stream": "conv"}, {"seed": 0, "stream": "conv2"}])
def test_seeds_and_streams_draw_differently(other: dict[str, object]) -> None:
    first = uniform(8, seed=0, stream="conv")
    assert not np.any(first == uniform(8, **other))


def test_a_longer_draw_begins_with_the_shorter() -> None:
    long, short = (uniform(n, seed=3, stream="conv") for n in (9, 4))
    assert np.array_equal(long[:4], short)


def test_every_index_is_drawn_equally_often() -> None:
    counts = np.zeros(8)
    for seed in range(2000):
        counts[[*subset(8, 2, seed=seed, stream="select")]] += 1
    # Mean 500, standard deviation 19.4.
    assert np.all(np.abs(counts - 500) < 5 * 19.4)
