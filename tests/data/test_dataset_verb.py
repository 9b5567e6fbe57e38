"""``dataset``: from a name to data on a device."""

from pathlib import Path

import platformdirs
import pytest

from prunenas.data.base import DATASETS, ImageData, dataset
from prunenas.errors import DataError, UnknownNameError

MODULE = """
from prunenas.data.shapes import shapes

NUMBER = 3

def mine():
    return shapes(train=20, test=10, side=16)

def nothing():
    return None
"""


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"did you mean 'cifar10'.*digits.*svhn"):
        dataset("cifar11")


@pytest.mark.parametrize("device", ["gpu", "cpu:zero", "meta"])
def test_an_unusable_device_is_named(device):
    with pytest.raises(DataError, match=device):
        dataset("digits", device=device)


def test_a_cuda_device_that_is_not_here_is_refused_before_anything_is_read(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(DataError, match=r"'cuda:1' is not here: torch sees 1 CUDA.*device='cpu'"):
        dataset("folder:/absent", device="cuda:1")


@pytest.fixture
def roots(make, monkeypatch) -> list[Path]:
    """Return the list in which the data set ``rooted`` leaves the root it was given."""
    seen: list[Path] = []

    def rooted(argument: str, root: Path, download: bool) -> ImageData:
        seen.append(root)
        return make()

    monkeypatch.setitem(DATASETS._entries, "rooted", rooted)
    return seen


def test_the_root_is_the_argument_then_the_environment_then_the_cache(roots, monkeypatch):
    monkeypatch.setenv("PRUNENAS_DATA", "/from/environment")
    dataset("rooted", root="/given")
    dataset("rooted")
    monkeypatch.delenv("PRUNENAS_DATA")
    dataset("rooted")
    cache = platformdirs.user_cache_path("prunenas") / "data"
    assert roots == [Path("/given"), Path("/from/environment"), cache]


def test_a_name_is_split_at_its_first_colon(make, monkeypatch):
    seen = []

    def loader(argument: str, root: Path, download: bool) -> ImageData:
        seen.append((argument, download))
        return make()

    monkeypatch.setitem(DATASETS._entries, "echo", loader)
    dataset("echo:a:b", download=False)
    dataset("echo")
    assert seen == [("a:b", False), ("", True)]


@pytest.fixture
def module(tmp_path, monkeypatch) -> str:
    (tmp_path / "my_images_for_a_test.py").write_text(MODULE)
    (tmp_path / "my_broken_module.py").write_text("import a_module_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    return "my_images_for_a_test"


def test_a_function_of_a_module_may_give_the_data(module):
    assert dataset(f"{module}:mine").input_size == (3, 16, 16)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("absent", "must be a function; the module 'my_images_for_a_test' has nothing there"),
        ("NUMBER", "must be a function.* has a int there"),
        ("nothing", "must return an ImageData or a StreamedData, got a NoneType"),
    ],
)
def test_a_function_that_will_not_do_is_explained(module, function, message):
    with pytest.raises(DataError, match=message):
        dataset(f"{module}:{function}")


def test_a_module_that_is_not_there_is_taken_for_a_slip(module):
    with pytest.raises(DataError, match=r"unknown data set 'fodler' \(did you mean 'folder'\?\)"):
        dataset("fodler:images")
    with pytest.raises(DataError, match=r"nor is there a module 'no_such\.module'.*PYTHONPATH"):
        dataset("no_such.module:f")


@pytest.mark.parametrize("name", [":f", ".x:f", "a b:f"])
def test_a_prefix_that_is_no_module_name_is_refused(name):
    with pytest.raises(DataError, match="be the name of a module"):
        dataset(name)


def test_a_module_that_misses_an_import_of_its_own_says_so_itself(module):
    with pytest.raises(DataError, match="a_module_nobody_has"):
        dataset("my_broken_module:f")
