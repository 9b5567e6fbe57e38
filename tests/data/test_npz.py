"""``npz:FILE``: arrays of your own."""

from pathlib import Path

import numpy as np
import pytest
import torch

from prunenas.data.base import dataset
from prunenas.errors import DataError

IMAGES = (np.arange(40 * 16 * 12 * 3) % 249).astype(np.uint8).reshape(40, 16, 12, 3)
LABELS = np.arange(40) % 4
GOOD = {
    "train_images": IMAGES,
    "train_labels": LABELS,
    "test_images": IMAGES[:8],
    "test_labels": LABELS[:8],
}


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "mine.npz"


def test_channels_last_and_first_give_the_same_data(file):
    np.savez(file, **GOOD)
    last = dataset(f"npz:{file}")
    np.savez(file, **{k: v.transpose(0, 3, 1, 2) if v.ndim > 1 else v for k, v in GOOD.items()})
    assert dataset(f"npz:{file}").digest == last.digest
    assert (last.input_size, last.classes, last.name) == ((3, 16, 12), 4, "npz:mine.npz")
    assert torch.equal(last.train_images[5, 1], torch.from_numpy(IMAGES[5, :, :, 1]))
    assert (last.flip, last.crop_padding, last.notes) == (False, 2, ())


def test_images_without_channels_have_one(file):
    np.savez(file, train_images=IMAGES[..., 0], train_labels=LABELS)
    assert dataset(f"npz:{file}").input_size == (1, 16, 12)


def test_without_a_test_part_a_stated_fifth_is_held_out(file):
    np.savez_compressed(file, train_images=IMAGES, train_labels=LABELS)
    data = dataset(f"npz:{file}")
    assert torch.bincount(data.test_labels).tolist() == [2, 2, 2, 2]
    assert "8 images held out" in data.notes[0]


@pytest.mark.parametrize("kind", ["u1", "<i4", ">i8", "u8"])
def test_labels_of_any_whole_type_and_as_a_column_are_read(file, kind):
    np.savez(file, train_images=IMAGES, train_labels=LABELS.astype(kind)[:, None])
    assert dataset(f"npz:{file}").classes == 4


def test_arrays_that_are_not_read_are_noted(file):
    np.savez(file, **GOOD, val_images=IMAGES)
    assert dataset(f"npz:{file}").notes == ("arrays not read: val_images",)


def test_options_are_followed_and_unknown_ones_refused(file):
    np.savez(file, **GOOD)
    data = dataset(f"npz:{file}?flip=true&crop_padding=0")
    assert (data.flip, data.crop_padding) == (True, 0)
    with pytest.raises(DataError, match="unknown option 'size'; legal: crop_padding, flip, layout"):
        dataset(f"npz:{file}?size=8")


def test_a_layout_that_cannot_be_told_is_asked_for(file):
    np.savez(file, train_images=IMAGES.reshape(40, 9, 8, 8), train_labels=LABELS)
    with pytest.raises(DataError, match=r"train_images \[40, 9, 8, 8\] may be.*layout=nhwc"):
        dataset(f"npz:{file}")
    assert dataset(f"npz:{file}?layout=nchw").input_size == (9, 8, 8)
    assert dataset(f"npz:{file}?layout=nhwc").input_size == (8, 9, 8)
    with pytest.raises(DataError, match="layout=chwn: must be nhwc or nchw"):
        dataset(f"npz:{file}?layout=chwn")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": None}, "the array train_images is missing"),
        ({"test_labels": None}, "the array test_labels is missing"),
        ({"test_images": None}, "the array test_images is missing"),
        ({"train_images": IMAGES / 255}, r"train_images must be uint8 .*got float64 \[40, 16"),
        ({"train_images": IMAGES[0, 0]}, "train_images must be uint8"),
        ({"train_images": IMAGES[:0]}, "not empty, got"),
        ({"train_images": IMAGES[:39]}, "train_images has 39 images, but there are 40 labels"),
        ({"train_labels": LABELS * 1.0}, "train_labels must be whole numbers"),
        (
            {"train_labels": np.eye(40, 4, dtype=int)},
            r"\[n\] or \[n 1\], not empty, got int64 \[40",
        ),
        ({"train_labels": LABELS + 1}, "must be 0 to k-1, each in use, .* got 1, 2, 3, 4"),
        ({"train_labels": LABELS * 2}, "must be 0 to k-1, each in use"),
        ({"train_labels": LABELS * 0}, "k at least 2, got 0"),
        ({"train_labels": LABELS - 1}, "got -1, 0, 1, 2"),
        (
            {"test_labels": LABELS[:8] + 2},
            r"test_labels has classes that training has not: \[4, 5\]",
        ),
        ({"test_images": IMAGES[:8, :8]}, "test images uint8"),
    ],
)
def test_arrays_that_will_not_do_are_explained(file, changes, message):
    np.savez(file, **{k: v for k, v in {**GOOD, **changes}.items() if v is not None})
    with pytest.raises(DataError, match=message):
        dataset(f"npz:{file}")


def test_all_bad_arrays_are_listed_at_once(file):
    np.savez(file, train_images=IMAGES * 1.0, train_labels=LABELS + 1, test_labels=LABELS)
    with pytest.raises(DataError) as caught:
        dataset(f"npz:{file}")
    for part in ("test_images is missing", "train_images must be", "train_labels must be"):
        assert part in str(caught.value)


def test_objects_are_never_unpickled(file):
    np.savez(file, train_images=np.array([{}, 1], dtype=object), train_labels=LABELS)
    with pytest.raises(DataError, match="allow_pickle=False"):
        dataset(f"npz:{file}")


def test_a_file_that_is_absent_or_damaged_is_named(file):
    with pytest.raises(DataError, match=r"mine\.npz: there is no such file"):
        dataset(f"npz:{file}")
    np.savez_compressed(file, **GOOD)
    whole = file.read_bytes()
    broken = bytearray(whole)
    broken[200] ^= 0xFF
    for content in (b"", b"text", whole[: len(whole) // 2], bytes(broken)):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"mine\.npz is damaged"):
            dataset(f"npz:{file}")


def test_a_single_array_is_no_npz(file):
    with file.open("wb") as stream:
        np.save(stream, IMAGES)
    with pytest.raises(DataError, match=r"was not written by numpy\.savez"):
        dataset(f"npz:{file}")
