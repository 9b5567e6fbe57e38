"""CIFAR and SVHN: torchvision's own readers, on small files in the real format.

The files are written as the real ones are (Python 2 pickles of old numpy arrays, version 5 ``.mat``
files); torchvision's tables of names and MD5 sums are replaced by those of the small files, so that
its check of the sums runs as well.
"""

import hashlib
import io
import pickle  # noqa: TID251 - the format of CIFAR; torchvision checks the sums before it reads
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from torchvision import datasets

from prunenas.data.base import dataset
from prunenas.errors import DataError

META = {"cifar10": ("batches.meta", "label_names"), "cifar100": ("meta", "fine_label_names")}


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def old_pickle(value: object) -> bytes:
    """Return ``value`` pickled as Python 2 with numpy 1 did."""
    stream = io.BytesIO()
    pickler = pickle._Pickler(stream, 2)
    state = (3, "|", None, None, None, -1, -1, 0)
    pickler.dispatch_table = {type(np.dtype("u1")): lambda kind: (np.dtype, ("u1", 0, 1), state)}
    pickler.dump(value)
    return stream.getvalue().replace(b"numpy._core", b"numpy.core")


def batch(labels: list[int], key: str) -> bytes:
    pixels = np.arange(len(labels) * 3072).reshape(-1, 3072) % 251
    return old_pickle({"data": pixels.astype(np.uint8), key: labels})


@pytest.fixture
def cifar10(tmp_path, monkeypatch) -> Path:
    kind, folder = datasets.CIFAR10, tmp_path / "kept" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for file, _ in [*kind.train_list, *kind.test_list]:
        (folder / file).write_bytes(batch([i % 10 for i in range(20)], "labels"))
    (folder / "batches.meta").write_bytes(old_pickle({"label_names": list("abcdefghij")}))
    patch_sums(monkeypatch, kind, folder)
    return folder.parent


@pytest.fixture
def cifar100(tmp_path, monkeypatch) -> Path:
    kind, folder = datasets.CIFAR100, tmp_path / "kept" / "cifar-100-python"
    folder.mkdir(parents=True)
    for file in ("train", "test"):
        (folder / file).write_bytes(batch([i % 100 for i in range(300)], "fine_labels"))
    (folder / "meta").write_bytes(old_pickle({"fine_label_names": [str(i) for i in range(100)]}))
    patch_sums(monkeypatch, kind, folder)
    return folder.parent


def patch_sums(monkeypatch: pytest.MonkeyPatch, kind: type, folder: Path) -> None:
    for name in ("train_list", "test_list"):
        sums = [[file, md5(folder / file)] for file, _ in getattr(kind, name)]
        monkeypatch.setattr(kind, name, sums)
    meta = {**kind.meta, "md5": md5(folder / kind.meta["filename"])}
    monkeypatch.setattr(kind, "meta", meta)


@pytest.fixture
def svhn(tmp_path, monkeypatch) -> Path:
    folder, sums = tmp_path / "kept", {}
    folder.mkdir()
    for split, count in (("train", 40), ("test", 20)):
        pixels = (np.arange(32 * 32 * 3 * count) % 253).astype(np.uint8)
        labels = (np.arange(count) % 10 + 1).astype(np.uint8)[
            :, None
        ]  # the digit 0 is stored as 10
        path = folder / f"{split}_32x32.mat"
        scipy.io.savemat(path, {"X": pixels.reshape(32, 32, 3, count), "y": labels})
        sums[split] = [f"http://nowhere.invalid/{path.name}", path.name, md5(path)]
    monkeypatch.setattr(datasets.SVHN, "split_list", sums)
    return folder


@pytest.fixture(params=["cifar10", "cifar100", "svhn"])
def kept(request: pytest.FixtureRequest) -> tuple[str, Path]:
    """Return the name of a public set and the folder in which it is whole."""
    return request.param, request.getfixturevalue(request.param)


@pytest.mark.parametrize(
    ("name", "classes", "train", "test"), [("cifar10", 10, 100, 20), ("cifar100", 100, 300, 300)]
)
def test_cifar_is_read_with_channels_first_and_one_normalisation(
    request, name, classes, train, test
):
    data = dataset(name, root=request.getfixturevalue(name), download=False)
    assert (data.classes, len(data.train_labels), len(data.test_labels)) == (classes, train, test)
    first = torch.from_numpy(np.arange(3072).reshape(3, 32, 32) % 251)
    assert torch.equal(data.train_images[0].long(), first)
    assert data.test_labels[:3].tolist() == [0, 1, 2]
    assert data.mean == (0.4914, 0.4822, 0.4465)
    assert data.std == (0.2023, 0.1994, 0.2010)
    assert (data.flip, data.crop_padding) == (True, 4)


def test_svhn_is_read_with_channels_first_its_zeros_as_zero_and_never_flipped(svhn):
    data = dataset("svhn", root=svhn, download=False)
    assert data.train_labels[:10].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    stored = scipy.io.loadmat(svhn / "test_32x32.mat")["X"]
    assert int(data.test_images[7, 2, 30, 4]) == stored[30, 4, 2, 7]
    assert (data.input_size, data.flip) == ((3, 32, 32), False)


def test_an_absent_set_names_the_folder_the_files_and_the_command(kept, tmp_path):
    name, _ = kept
    with pytest.raises(DataError) as caught:
        dataset(name, root=tmp_path / "empty", download=False)
    command = "SVHN(" if name == "svhn" else f"{name.upper()}("
    for part in (f"{name} is not in {tmp_path / 'empty'}", "no ", command, "PRUNENAS_DATA"):
        assert part in str(caught.value)
    assert not (tmp_path / "empty").exists()


def test_a_download_that_fails_says_so_and_leaves_nothing(kept, tmp_path, offline):
    name, _ = kept
    with pytest.raises(DataError, match=r"cannot be downloaded.\nURLError.*no network(.|\n)*run: "):
        dataset(name, root=tmp_path / "empty")
    assert not (tmp_path / "empty").exists()


def test_a_damaged_file_is_named_and_kept(kept, offline):
    name, folder = kept
    victim = sorted(path for path in folder.rglob("*") if path.is_file())[0]
    victim.write_bytes(b"x")
    with pytest.raises(DataError, match=f"{name} is damaged: {victim}. Delete"):
        dataset(name, root=folder)
    assert victim.read_bytes() == b"x"


def test_a_download_brings_what_is_missing_and_leaves_no_other_file(kept, tmp_path, monkeypatch):
    name, folder = kept

    def fetch(self: object) -> None:
        shutil.copytree(folder, self.root, dirs_exist_ok=True)

    monkeypatch.setattr(datasets.SVHN if name == "svhn" else datasets.CIFAR10, "download", fetch)
    root = tmp_path / "new" / "root"
    assert dataset(name, root=root).digest == dataset(name, root=folder).digest
    wanted = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*")) == wanted


def test_a_download_that_breaks_off_leaves_no_half_file(kept, tmp_path, monkeypatch):
    name, _ = kept

    def break_off(self: object) -> None:
        Path(self.root, "half").write_bytes(b"half a file")
        raise ConnectionResetError("the line went dead")

    monkeypatch.setattr(
        datasets.SVHN if name == "svhn" else datasets.CIFAR10, "download", break_off
    )
    (tmp_path / "root").mkdir()
    with pytest.raises(DataError, match="ConnectionResetError: the line went dead"):
        dataset(name, root=tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []
