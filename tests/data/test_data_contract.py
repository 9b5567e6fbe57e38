"""Every registered data set that can be had here keeps these promises."""

import pytest
import torch

from prunenas.data.base import DATASETS, ImageData, dataset
from prunenas.errors import DataError

NEED_A_PATH = ("folder", "npz")  # their own tests make the files
ALWAYS_HERE = ("digits", "shapes")


@pytest.fixture(scope="module", params=[n for n in DATASETS.names() if n not in NEED_A_PATH])
def data(request: pytest.FixtureRequest) -> ImageData:
    try:
        return dataset(request.param, download=False)
    except DataError as error:
        absent = "is not in " in str(error) or "is not here" in str(error)
        if request.param in ALWAYS_HERE or not absent:
            raise
        pytest.skip(str(error))


def test_it_is_named_as_it_is_registered(data):
    assert data.name in DATASETS.names()


def test_it_has_images_that_differ_and_every_class_in_each_part(data):
    assert data.train_images.float().std() > 0
    for name in ("fit", "validation", "train", "test"):
        assert set(data.part(name).labels.tolist()) == set(range(data.classes))


def test_fit_and_validation_are_disjoint_and_make_the_training_set(data):
    assert len(data.part("fit")) + len(data.part("validation")) == len(data.part("train"))
    assert len(data.validation.unique()) == len(data.validation)
    validation = data.part("validation")
    assert torch.equal(validation.images, data.train_images[data.validation])
    assert torch.equal(validation.labels, data.train_labels[data.validation])


def test_validation_is_a_tenth_of_each_class(data):
    whole = torch.bincount(data.train_labels)
    held = torch.bincount(data.part("validation").labels)
    assert bool(((held - whole / 10).abs() <= 0.5).all())


def test_its_normalisation_is_that_of_its_images(data):
    pixels = data.train_images.double().div(255).transpose(0, 1).flatten(1)
    # CIFAR's customary std is the mean over images of the images' std, hence the slack.
    assert pixels.mean(1).tolist() == pytest.approx(data.mean, abs=0.03)
    assert pixels.std(1).tolist() == pytest.approx(data.std, abs=0.07)


def test_loading_it_again_gives_the_same_digest(data):
    assert dataset(data.name, download=False).digest == data.digest


def test_it_takes_no_argument(data):
    with pytest.raises(DataError, match=f"'{data.name}' takes no argument, got 'x'"):
        dataset(f"{data.name}:x")


def test_a_small_subset_of_it_has_every_class(data):
    small = data.small(5 * data.classes, 2 * data.classes, seed=1)
    assert set(small.train_labels.tolist()) == set(range(data.classes))
    assert small.input_size == data.input_size


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("digits", "ff14d1d7553ac1a8"),
        ("shapes", "6ba139652a5f79c2"),
        ("fashion_mnist", "1f33e31763342db5"),
    ],
)
def test_pixels_splits_and_facts_are_the_same_on_each_machine(name, digest):
    try:
        data = dataset(name, download=False)
    except DataError as error:
        pytest.skip(str(error))
    assert data.digest == digest


def test_digits_keep_their_scans_and_are_never_flipped():
    data = dataset("digits")
    blocks = data.train_images.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    assert bool((blocks == blocks[..., :1]).all())
    assert data.input_size == (1, 16, 16)
    assert not data.flip
    assert len(data.train_labels) + len(data.test_labels) == 1797
