"""Splits are stratified, disjoint and the same on each machine."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunenas.data.base import Part, channel_statistics, hold_out, split_validation
from prunenas.data.base.splits import draw
from prunenas.errors import DataError

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=80).map(torch.tensor)


@given(LABELS, st.floats(0.01, 0.99), st.integers(0, 100))
def test_each_class_gives_its_share_at_least_one_and_never_its_last(labels, fraction, seed):
    held = split_validation(labels, fraction, seed)
    counts = torch.bincount(labels, minlength=5).tolist()
    given_away = torch.bincount(labels[held], minlength=5).tolist()
    for count, away in zip(counts, given_away, strict=True):
        if count < 2:
            assert away == 0
        else:
            assert 1 <= away <= count - 1
            assert abs(away - fraction * count) <= 1 + 1e-9
    assert held.tolist() == sorted(set(held.tolist()))


@given(LABELS, st.integers(0, 100))
def test_the_same_call_gives_the_same_split(labels, seed):
    assert torch.equal(split_validation(labels, 0.3, seed), split_validation(labels, 0.3, seed))


def test_another_seed_gives_another_split():
    labels = torch.arange(100) % 10
    assert not torch.equal(split_validation(labels, seed=0), split_validation(labels, seed=1))


def test_the_split_of_known_labels_stays_what_it_was():
    assert split_validation(torch.arange(40) % 4, 0.2).tolist() == [0, 8, 9, 18, 19, 26, 31, 37]


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5])
def test_a_fraction_outside_zero_and_one_is_refused(fraction):
    with pytest.raises(DataError, match="between 0 and 1"):
        split_validation(torch.arange(10), fraction)


def test_what_is_held_out_and_what_is_left_make_the_whole():
    whole = Part(torch.arange(50, dtype=torch.uint8).reshape(50, 1, 1, 1), torch.arange(50) % 5)
    train, test = hold_out(whole)
    assert torch.bincount(test.labels).tolist() == [2] * 5
    assert sorted(torch.cat([train.images, test.images]).flatten().tolist()) == list(range(50))


@given(LABELS, st.data(), st.integers(0, 100))
def test_a_draw_is_exact_and_has_each_class_where_it_can(labels, data, seed):
    count = data.draw(st.integers(0, len(labels)))
    drawn = draw(labels.numpy(), count, seed)
    assert len(set(drawn.tolist())) == count
    present = set(labels.tolist())
    if count >= len(present):
        assert set(labels[torch.from_numpy(drawn)].tolist()) == present


def test_more_than_there_is_cannot_be_drawn():
    with pytest.raises(DataError, match="cannot draw 4 of 3"):
        draw(torch.tensor([0, 1, 1]).numpy(), 4, 0)


def test_statistics_agree_with_torch():
    images = torch.randint(
        0, 256, (9, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    mean, std = channel_statistics(images)
    pixels = images.double().div(255).transpose(0, 1).flatten(1)
    assert mean == pytest.approx(pixels.mean(1).tolist(), abs=6e-5)
    assert std == pytest.approx(pixels.std(1, correction=0).tolist(), abs=6e-5)


def test_a_channel_that_never_varies_is_divided_by_one():
    assert channel_statistics(torch.full((2, 1, 3, 3), 51, dtype=torch.uint8)) == ((0.2,), (1.0,))
