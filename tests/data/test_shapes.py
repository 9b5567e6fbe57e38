"""Shapes: a synthetic set that a network can learn."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from prunenas.data.base import dataset
from prunenas.data.shapes import shapes
from prunenas.errors import DataError


def test_the_registered_set_is_the_default():
    assert dataset("shapes").digest == shapes().digest
    assert dataset("shapes").input_size == (3, 32, 32)


def test_another_seed_gives_other_images():
    assert shapes(train=40, test=10).digest != shapes(train=40, test=10, seed=1).digest


def test_every_shape_stands_out_from_its_ground():
    data = shapes(train=200, test=10)
    grey = data.train_images.double().mean(1).flatten(1)
    # The paint is 50 to 100 levels above the ground, the noise at most 30.
    assert bool((grey.amax(1) - grey.amin(1) > 50).all())


def test_a_mirrored_image_keeps_its_class():
    # Each class has its own spread over columns; mirrored images must be classed as well as plain.
    data = shapes(train=1500, test=300)

    def features(images):
        grey = images.double().mean(1)
        clean = (grey - grey.flatten(1).median(1).values[:, None, None]).clamp(min=25) - 25
        return np.abs(np.fft.rfft2(clean.numpy()))[:, :, :9].reshape(len(images), -1) / 1000

    model = LogisticRegression(max_iter=300).fit(features(data.train_images), data.train_labels)
    plain = model.score(features(data.test_images), data.test_labels)
    mirrored = model.score(features(data.test_images.flip(3)), data.test_labels)
    assert data.flip
    assert plain > 0.5
    assert abs(plain - mirrored) < 0.05


@pytest.mark.parametrize("wrong", [{"train": 19}, {"test": 9}, {"side": 15}])
def test_too_few_or_too_small_images_are_refused(wrong):
    with pytest.raises(DataError, match=r"train >= 20, test >= 10, side >= 16"):
        shapes(**wrong)
