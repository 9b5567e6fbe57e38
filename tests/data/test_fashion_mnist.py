"""Fashion-MNIST: the idx format, where it is looked for, and what is refused."""

import gzip
import shutil
import struct
from pathlib import Path

import pytest
import torch

from prunenas.data import fashion_mnist
from prunenas.data.base import dataset
from prunenas.data.fashion_mnist import FILES, read_idx
from prunenas.errors import DataError


def idx(*sides: int, kind: int = 8, payload: bytes | None = None) -> bytes:
    count = 1
    for side in sides:
        count *= side
    values = bytes(i % 256 for i in range(count)) if payload is None else payload
    return (
        struct.pack(">HBB", 0, kind, len(sides)) + struct.pack(f">{len(sides)}I", *sides) + values
    )


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content, 1, mtime=0))
    return path


def test_a_file_is_read_in_its_own_shape(tmp_path):
    read = read_idx(write(tmp_path / "a.gz", idx(2, 3, 4)))
    assert torch.equal(read, torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx(2, 3, payload=b"12345"), r"promises \[2, 3\], which are 6 bytes, it holds 5"),
        (idx(2, 3, payload=b"1234567"), "it holds 7"),
        (idx(2, kind=13), "idx type 0x0d; only unsigned bytes"),
        (b"\0\0\x08\x03\0\0", "ends inside its header"),
        (b"\x01\0\x08\x01\0\0\0\x01a", "is not an idx file: it begins with 01000801"),
        (b"\0\0\x08\0a", "is not an idx file"),
        (b"", "begins with nothing"),
    ],
)
def test_a_file_whose_header_lies_is_refused_by_name(tmp_path, content, message):
    with pytest.raises(DataError, match=rf"a\.gz.*{message}"):
        read_idx(write(tmp_path / "a.gz", content))


def test_a_file_that_is_cut_off_altered_or_no_gzip_is_damaged(tmp_path):
    whole = write(tmp_path / "a.gz", idx(64, 64)).read_bytes()
    altered = bytearray(whole)
    altered[-6] ^= 1  # in the checksum
    inside = bytearray(whole)
    inside[12] = 0xFF
    for content in (whole[: len(whole) // 2], b"plain", bytes(altered), bytes(inside)):
        (tmp_path / "a.gz").write_bytes(content)
        with pytest.raises(DataError, match=r"a\.gz is damaged"):
            read_idx(tmp_path / "a.gz")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Return a folder with black images in the real format and number, equal in classes."""
    folder = tmp_path_factory.mktemp("fashion")
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        images = idx(count, 28, 28, payload=b"\xff" * (count * 28 * 28))
        write(folder / f"{part}-images-idx3-ubyte.gz", images)
        labels = idx(count, payload=bytes(i % 10 for i in range(count)))
        write(folder / f"{part}-labels-idx1-ubyte.gz", labels)
    return folder


@pytest.fixture
def alone(monkeypatch, tmp_path) -> Path:
    """Return a root without files, Debian's folder out of sight."""
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "debian")
    return tmp_path / "root"


@pytest.mark.parametrize("place", ["", "FashionMNIST/raw", "fashion-mnist"])
def test_its_files_are_found_where_they_are_kept_and_padded(whole, alone, place):
    shutil.copytree(whole, alone / place)
    data = dataset("fashion_mnist", root=alone, download=False)
    assert data.input_size == (1, 32, 32)
    assert len(data.train_labels) == 60_000
    frame = torch.zeros(32, 32, dtype=torch.uint8)
    frame[2:30, 2:30] = 255
    assert bool((data.test_images == frame).all())


def test_absent_files_name_every_place_and_the_ways_to_get_them(alone):
    with pytest.raises(DataError) as caught:
        dataset("fashion_mnist", root=alone, download=False)
    for place in (
        alone,
        alone / "FashionMNIST/raw",
        alone / "fashion-mnist",
        alone.parent / "debian",
    ):
        assert f"{place}: none of them" in str(caught.value)
    assert "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k" in str(caught.value)
    assert "apt-get install dataset-fashion-mnist" in str(caught.value)
    assert f'FashionMNIST("{alone}", download=True)' in str(caught.value)
    assert not alone.exists()


def test_a_folder_with_some_of_the_files_is_told_what_it_lacks(whole, alone):
    shutil.copytree(whole, alone)
    (alone / FILES[2]).unlink()
    with pytest.raises(DataError, match=f"{alone}: lacks {FILES[2]}"):
        dataset("fashion_mnist", root=alone, download=False)


def test_a_download_that_fails_says_so_and_leaves_nothing(alone, offline):
    with pytest.raises(DataError, match=r"cannot be downloaded(.|\n)*no network(.|\n)*apt-get"):
        dataset("fashion_mnist", root=alone)
    assert not alone.exists()


def test_a_download_puts_whole_files_in_place(whole, alone, monkeypatch):
    def fetched(folder: Path, download: bool) -> None:
        shutil.copytree(whole, folder / "FashionMNIST" / "raw")

    monkeypatch.setattr("torchvision.datasets.FashionMNIST", fetched)
    assert dataset("fashion_mnist", root=alone).classes == 10
    assert sorted(p.name for p in (alone / "FashionMNIST" / "raw").iterdir()) == sorted(FILES)
    assert [p.name for p in alone.iterdir()] == ["FashionMNIST"]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (FILES[1], idx(60_000, payload=b"\0" * 60_000), "perhaps of MNIST"),
        (FILES[1], idx(7), r"must hold \[60000\], got \[7\]"),
        (FILES[0], idx(3, 28, 28), r"must hold \[60000, 28, 28\], got \[3, 28, 28\]"),
    ],
)
def test_files_of_another_set_are_refused_by_name(whole, alone, file, content, message):
    shutil.copytree(whole, alone)
    write(alone / file, content)
    with pytest.raises(DataError, match=f"{file}.*{message}"):
        dataset("fashion_mnist", root=alone)
