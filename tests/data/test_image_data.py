"""The value every data set becomes."""

from dataclasses import replace

import pytest
import torch

from prunenas.data.base import ImageData
from prunenas.errors import DataError


def test_what_it_says_about_itself(make):
    data = make()
    assert data.input_size == (2, 8, 6)
    assert data.device == torch.device("cpu")
    assert "2x8x6, 3 classes, 60 train (6 of them validation), 12 test" in repr(data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": torch.zeros(60, 2, 8, 6)}, "train_images must be uint8"),
        ({"train_images": torch.zeros(60, 8, 6, dtype=torch.uint8)}, "train_images must be uint8"),
        ({"test_images": torch.zeros(0, 2, 8, 6, dtype=torch.uint8)}, "not empty"),
        ({"train_labels": torch.zeros(60)}, "train_labels must be int64"),
        ({"train_labels": torch.zeros(59, dtype=torch.int64)}, "60 train_images but 59"),
        ({"test_labels": torch.arange(12)}, "test_labels must lie in 0 to 2, got 0 to 11"),
        ({"test_labels": torch.arange(12) % 3 - 1}, "test_labels must lie in 0 to 2, got -1 to 1"),
        (
            {"test_images": torch.zeros(12, 2, 8, 8, dtype=torch.uint8)},
            r"test images uint8 \[12, 2, 8, 8\]",
        ),
        ({"classes": 1}, "classes must be at least 2"),
        ({"mean": (0.5,)}, "mean must be 2 numbers"),
        ({"mean": (125.3, 123.0)}, "mean must be 2 numbers in 0..1"),
        ({"mean": (float("nan"), 0.1)}, "mean must be 2 numbers in 0..1"),
        ({"std": (0.2, 0.0)}, "std must be 2 numbers"),
        ({"crop_padding": -1}, "crop_padding must be 0 or more"),
        ({"crop_padding": 6}, "below the image's sides"),
        ({"validation": torch.tensor([0.5])}, "validation must be int64"),
        ({"validation": torch.tensor([3, 2])}, "validation must be ascending"),
        ({"validation": torch.tensor([2, 2])}, "validation must be ascending"),
        ({"validation": torch.tensor([5, 60])}, "validation must be ascending"),
        ({"validation": torch.tensor([-1, 5])}, "validation must be ascending"),
        ({"validation": torch.arange(60)}, "leaves no training image"),
    ],
)
def test_a_piece_that_does_not_fit_is_refused(make, changes, message):
    with pytest.raises(DataError, match=message):
        make(**changes)


def test_all_violations_are_listed_at_once(make):
    with pytest.raises(DataError) as caught:
        make(mean=(), crop_padding=-2, test_labels=torch.full((12,), 9))
    for part in ("mean must be", "crop_padding must be", "test_labels must lie"):
        assert part in str(caught.value)


def test_an_unknown_part_lists_the_known_ones(make):
    with pytest.raises(DataError, match="no part 'val'; parts: fit, validation, train, test"):
        make().part("val")


def test_an_empty_part_is_refused_and_without_validation_fit_is_all(make):
    data = make(validation=torch.zeros(0, dtype=torch.int64))
    with pytest.raises(DataError, match="no image in its part 'validation'"):
        data.part("validation")
    assert data.part("fit").images is data.train_images


def test_fit_and_validation_hold_each_training_image_once(make):
    data = make()
    fit, validation = data.part("fit"), data.part("validation")
    together = torch.cat([fit.images, validation.images]).flatten(1).tolist()
    assert sorted(together) == sorted(data.train_images.flatten(1).tolist())


def test_a_part_asked_for_again_is_not_copied_again(make):
    data = make()
    for name in ("fit", "validation", "train", "test"):
        assert data.part(name) is data.part(name)
    assert data.part("train").images is data.train_images
    assert data.part("test").images is data.test_images


def test_the_digest_has_16_hex_digits_and_ignores_name_and_notes(make):
    digest = make().digest
    assert len(digest) == 16
    assert int(digest, 16) >= 0
    assert make(name="other", notes=("a note",)).digest == digest


def _with_one_changed(data: ImageData, field: str, index: tuple[int, ...]) -> ImageData:
    tensor = getattr(data, field).clone()
    tensor[index] = (tensor[index] + 1) % 3
    return replace(data, **{field: tensor})


@pytest.mark.parametrize(
    ("field", "index"),
    [
        ("train_images", (59, 1, 7, 5)),
        ("test_images", (0, 0, 0, 0)),
        ("train_labels", (7,)),
        ("test_labels", (11,)),
    ],
)
def test_the_digest_changes_with_one_pixel_or_label(make, field, index):
    assert _with_one_changed(make(), field, index).digest != make().digest


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": (0.5, 0.41)},
        {"std": (0.2, 0.31)},
        {"flip": False},
        {"crop_padding": 2},
        {"classes": 4},
        {"validation": torch.tensor([0, 1, 2])},
    ],
)
def test_the_digest_changes_with_each_fact(make, changes):
    assert make(**changes).digest != make().digest


def test_the_digest_knows_the_shape_of_the_pixels(make):
    data = make()
    turned = {
        name: getattr(data, name).reshape(-1, 2, 6, 8) for name in ("train_images", "test_images")
    }
    assert replace(data, **turned).digest != data.digest


def test_on_its_own_device_it_is_itself(make):
    data = make()
    assert data.to("cpu") is data


@pytest.mark.gpu
def test_on_a_gpu_it_keeps_its_digest_and_parts(make):
    data = make()
    moved = data.to("cuda")
    assert moved.device.type == "cuda"
    assert moved.digest == data.digest
    for name in ("fit", "validation", "train", "test"):
        assert moved.part(name).images.is_cuda
        assert torch.equal(moved.part(name).images.cpu(), data.part(name).images)
    assert moved.small(20, 6).device.type == "cuda"


def test_a_small_subset_has_the_asked_numbers_in_proportion(make):
    small = make().small(30, 6, seed=3)
    assert torch.bincount(small.train_labels).tolist() == [10, 10, 10]
    assert torch.bincount(small.test_labels).tolist() == [2, 2, 2]
    assert len(small.validation) == 3


def test_a_small_subset_validates_on_images_kept_for_validation(make):
    data = make()
    small = data.small(30, 6)
    kept = data.part("validation").images.flatten(1).tolist()
    assert all(image in kept for image in small.part("validation").images.flatten(1).tolist())
    assert not any(image in kept for image in small.part("fit").images.flatten(1).tolist())


def test_a_small_subset_is_fixed_by_its_seed(make):
    assert make().small(20, 6, seed=1).digest == make().small(20, 6, seed=1).digest
    assert make().small(20, 6, seed=1).digest != make().small(20, 6, seed=2).digest


def test_the_whole_is_a_small_subset_of_itself(make):
    assert make().small(60, 12).digest == make().digest


@pytest.mark.parametrize(("train", "test"), [(61, 6), (20, 13), (1, 6), (20, 0)])
def test_a_small_subset_larger_than_the_set_or_empty_is_refused(make, train, test):
    with pytest.raises(DataError, match="cannot take"):
        make().small(train, test)


def test_a_subset_of_two_images_still_leaves_one_to_fit_on(make):
    small = make().small(2, 1)
    assert len(small.part("fit")) == len(small.part("validation")) == 1
