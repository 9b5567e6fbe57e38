"""``folder:PATH``: images of your own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prunenas.data.base import dataset
from prunenas.errors import DataError


def save(path: Path, value: int, *, width: int = 12, height: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((height, width, 3), value, dtype=np.uint8)
    pixels[0, 0] = (value, 0, 255)
    Image.fromarray(pixels).save(path)


def fill(folder: Path, classes: str = "ab", count: int = 10) -> Path:
    for label, kind in enumerate(classes):
        for index in range(count):
            save(folder / kind / f"{index}.png", 100 * label + index)
    return folder


@pytest.fixture
def parted(tmp_path) -> Path:
    fill(tmp_path / "train")
    fill(tmp_path / "test", count=3)
    return tmp_path


def test_train_and_test_folders_are_read_as_rgb_with_classes_sorted(parted):
    data = dataset(f"folder:{parted}")
    assert (data.input_size, data.classes) == ((3, 8, 12), 2)
    assert data.train_labels.tolist() == [0] * 10 + [1] * 10
    assert data.test_labels.tolist() == [0] * 3 + [1] * 3
    assert data.train_images[11, :, 0, 0].tolist() == [101, 0, 255]
    assert data.train_images[11, :, 5, 5].tolist() == [101, 101, 101]
    assert (data.flip, data.crop_padding, data.notes) == (False, 1, ())
    assert data.name == f"folder:{parted.name}"


def test_its_normalisation_is_measured_on_the_training_images(parted):
    data = dataset(f"folder:{parted}")
    pixels = data.train_images.double().div(255).transpose(0, 1).flatten(1)
    assert data.mean == pytest.approx(pixels.mean(1).tolist(), abs=6e-5)


def test_val_stands_in_for_test(parted):
    whole = dataset(f"folder:{parted}").digest
    (parted / "test").rename(parted / "val")
    assert dataset(f"folder:{parted}").digest == whole


def test_where_test_and_val_stand_val_is_noted_as_unread(parted):
    fill(parted / "val", count=2)
    assert dataset(f"folder:{parted}").notes == ("val/ was not read, test/ was",)


def test_of_class_folders_alone_a_stated_fifth_becomes_the_test_part(tmp_path):
    data = dataset(f"folder:{fill(tmp_path)}")
    assert torch.bincount(data.test_labels).tolist() == [2, 2]
    assert len(data.train_labels) == 16
    assert "4 images held out, stratified, seed=0" in data.notes[0]
    assert dataset(f"folder:{tmp_path}").digest == data.digest


def test_options_are_followed(parted):
    data = dataset(f"folder:{parted}?size=16&flip=true&crop_padding=3")
    assert (data.input_size, data.flip, data.crop_padding) == ((3, 16, 16), True, 3)


def test_size_scales_the_short_side_and_cuts_the_middle(tmp_path):
    for kind in "ab":
        for index in range(5):
            pixels = np.zeros((16, 48, 3), dtype=np.uint8)
            pixels[:, 16:32] = 200
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / kind / f"{index}.png")
    data = dataset(f"folder:{tmp_path}?size=8")
    assert bool((data.train_images[:, :, :, 2:6] == 200).all())
    assert data.input_size == (3, 8, 8)


def test_images_of_other_modes_become_rgb(tmp_path):
    fill(tmp_path)
    for mode in ("L", "RGBA", "1"):
        Image.new(mode, (12, 8)).save(tmp_path / "a" / f"{mode}.png")
    assert dataset(f"folder:{tmp_path}").input_size == (3, 8, 12)


def test_what_is_no_image_is_left_out_and_noted(parted):
    (parted / "train" / "a" / "notes.txt").write_text("x")
    (parted / "train" / ".cache").mkdir()
    assert "1 files or folders" in dataset(f"folder:{parted}").notes[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "zoom=2",
            "unknown option 'zoom'; legal: crop_padding, flip, mean, size, std, stream, workers",
        ),
        ("size=big", "option size=big: must be a whole number of pixels"),
        ("size=-8", "must be a whole number"),
        ("size=4", "size must be at least 8 pixels, got 4"),
        ("flip=yes", "option flip=yes: must be true or false"),
        ("flip=true&flip=false", "option 'flip' is given twice"),
        ("flip", "option flip=: must be true or false"),
        ("crop_padding=8", "crop_padding must be 0 or more and below"),
    ],
)
def test_an_option_that_will_not_do_is_explained(parted, options, message):
    with pytest.raises(DataError, match=message):
        dataset(f"folder:{parted}?{options}")


def test_all_bad_options_are_listed_at_once():
    with pytest.raises(DataError, match=r"path is missing(.|\n)*'zoom'(.|\n)*flip=1"):
        dataset("folder:?zoom=2&flip=1")


@pytest.mark.parametrize("name", ["folder", "folder:"])
def test_a_missing_path_is_asked_for(name):
    with pytest.raises(DataError, match="the path is missing: write folder:PATH"):
        dataset(name)


def test_an_absent_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="absent: there is no such folder"):
        dataset(f"folder:{tmp_path / 'absent'}")


def test_a_folder_without_classes_or_images_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"at least 2 class folders are needed, found \[\]"):
        dataset(f"folder:{tmp_path}")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match=r"no image in the training folder of class 'a'(.|\n)*'b'"):
        dataset(f"folder:{tmp_path}")


def test_an_empty_test_folder_is_not_passed_over(parted):
    for path in sorted((parted / "test").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    with pytest.raises(DataError, match="class 'a' is missing in the test part"):
        dataset(f"folder:{parted}")


def test_classes_that_differ_between_the_parts_are_all_named(parted):
    (parted / "test" / "b").rename(parted / "test" / "c")
    with pytest.raises(DataError) as caught:
        dataset(f"folder:{parted}")
    assert "class 'b' is missing in the test part" in str(caught.value)
    assert "class 'c' is missing in training" in str(caught.value)


def test_sizes_that_differ_show_two_examples_and_the_way_out(parted):
    save(parted / "test" / "b" / "odd.png", 3, width=9)
    with pytest.raises(DataError, match=r"0\.png is 12x8, .*odd\.png is 9x8; .*\?size=64"):
        dataset(f"folder:{parted}")
    assert dataset(f"folder:{parted}?size=8").input_size == (3, 8, 8)


@pytest.mark.parametrize("options", ["", "?size=8"])
def test_a_damaged_image_is_named(parted, options):
    victim = parted / "train" / "a" / "3.png"
    whole = victim.read_bytes()
    for content in (b"no image at all", whole[: len(whole) // 2], whole[:40]):
        victim.write_bytes(content)
        with pytest.raises(DataError, match=r"train/a/3\.png is damaged"):
            dataset(f"folder:{parted}{options}")


def test_an_image_of_more_than_8_bits_is_refused(parted):
    wide = Image.fromarray(np.full((8, 12), 40_000, dtype=np.uint16))
    wide.save(parted / "train" / "a" / "3.png")
    with pytest.raises(DataError, match=r"3\.png has more than 8 bits a channel"):
        dataset(f"folder:{parted}")


def test_an_image_large_enough_to_be_an_attack_is_refused(parted, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)
    with pytest.raises(DataError, match=r"0\.png is refused: Image size"):
        dataset(f"folder:{parted}")
