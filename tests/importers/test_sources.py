"""Networks by name."""

import sys
import types

import pytest
from torch import nn

from prunenas.errors import DataError, InputError, TraceError, UnknownNameError
from prunenas.importers.sources import find, is_source
from prunenas.importers.trace import import_network, trace
from prunenas.ir.canonical import digest

OWN = """
from torch import nn

class Small(nn.Sequential):
    input_size = (3, 8, 8)

    def __init__(self, classes=4):
        super().__init__(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, classes))

def small():
    return Small()

def sizeless():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(288, 4))

def number():
    return 3

def demanding(width):
    return Small()

def missing():
    raise FileNotFoundError("weights.pt")

class Zoo:
    make = staticmethod(small)

made = Small(5)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("")
    (tmp_path / "pkg" / "nets.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield "pkg.nets"
    for name in ("pkg", "pkg.nets"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("torchvision:resnet18", True),
        ("timm:resnet10t", True),
        ("my.nets:make", True),
        ("my.nets:Zoo.make", True),
        ("resnet18", False),
        ("spec.json", False),
        ("C:", False),
        (":resnet18", False),
        ("./nets.py:make", False),
        ("", False),
    ],
)
def test_what_looks_like_a_network_by_name(name, answer):
    assert is_source(name) is answer


# torchvision


def test_torchvisions_network_brings_its_image_size_and_published_parameters():
    source = find("torchvision:squeezenet1_1")
    assert source.input_size == (3, 224, 224)
    assert source.published == sum(p.numel() for p in source.module.parameters())
    assert source.weights is None


def test_classes_are_the_networks_last_width():
    assert trace("torchvision:squeezenet1_1", (3, 64, 64)).classes == 1000
    graph = import_network("torchvision:squeezenet1_1", (3, 64, 64), classes=7).graph
    assert graph.classes == 7
    assert find("torchvision:squeezenet1_1", classes=7).published is None


def test_unknown_networks_of_torchvision_are_refused_with_near_ones():
    with pytest.raises(UnknownNameError, match=r"torchvision:resnet19 \(did you mean resnet18"):
        find("torchvision:resnet19")
    with pytest.raises(UnknownNameError, match=r"there is no network torchvision:qqqqqqq$"):
        find("torchvision:qqqqqqq")


def test_networks_for_other_tasks_are_not_among_them():
    with pytest.raises(UnknownNameError):
        find("torchvision:fcn_resnet50")


def test_transformers_are_as_large_as_the_image_of_their_weights():
    source = find("torchvision:vit_b_16")
    assert source.input_size == (3, 224, 224)
    assert source.module.image_size == 224
    assert source.published == sum(p.numel() for p in source.module.parameters())


def test_trained_weights_have_their_own_classes():
    with pytest.raises(InputError, match="have 1000 classes"):
        find("torchvision:squeezenet1_1", classes=7, pretrained=True)


def test_weights_that_cannot_be_had_are_told(monkeypatch):
    from torchvision import models

    def offline(name, weights=None, **options):
        assert weights is not None
        raise OSError("no network")

    monkeypatch.setattr(models, "get_model", offline)
    with pytest.raises(DataError, match=r"weights of torchvision:alexnet cannot be had: no net"):
        find("torchvision:alexnet", pretrained=True)


# timm


def test_timms_network_brings_its_image_size():
    source = find("timm:test_resnet", classes=3)
    assert source.input_size == (3, 160, 160)
    assert import_network("timm:test_resnet", classes=3).graph.classes == 3


def test_unknown_networks_of_timm_are_refused_with_near_ones():
    with pytest.raises(UnknownNameError, match=r"timm:resnet10x \(did you mean .*resnet10t"):
        find("timm:resnet10x")


def test_timm_need_not_be_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"needs timm: pip install 'prunenas\[timm\]'"):
        find("timm:resnet10t")


# The user's own


@pytest.mark.parametrize("what", ["small", "Small", "Zoo.make", "made"])
def test_a_function_a_class_or_a_module_of_the_users_own(own, what):
    source = find(f"{own}:{what}")
    assert isinstance(source.module, nn.Module)
    assert source.input_size == (3, 8, 8)
    graph = trace(f"{own}:{what}")
    assert graph.classes == (5 if what == "made" else 4)
    assert digest(graph) == digest(trace(source.module, (3, 8, 8)))


def test_a_size_that_is_given_counts_more_than_the_networks_own(own):
    with pytest.raises(TraceError, match="does not run on an image"):
        trace(f"{own}:small", (3, 16, 16))


def test_a_network_without_a_size_asks_for_one(own):
    assert find(f"{own}:sizeless").input_size is None
    with pytest.raises(TraceError, match="input_size is needed"):
        trace(f"{own}:sizeless")
    assert trace(f"{own}:sizeless", (3, 8, 8)).classes == 4


def test_names_that_a_package_has_not_are_told_with_a_near_one(own):
    with pytest.raises(UnknownNameError, match=r"pkg\.nets has no 'smal'; did you mean 'small'"):
        find(f"{own}:smal")


def test_packages_that_are_not_there_are_told():
    with pytest.raises(InputError, match=r"nopkg\.nets cannot be imported .*torchvision:NAME"):
        find("nopkg.nets:make")


def test_what_gives_no_module_is_refused(own):
    with pytest.raises(InputError, match=r"pkg\.nets:number gave a int, not a torch module"):
        find(f"{own}:number")


def test_what_wants_arguments_is_refused(own):
    with pytest.raises(TraceError, match=r"pkg\.nets:demanding cannot be made: .*width"):
        find(f"{own}:demanding")
    with pytest.raises(InputError):
        find("types:ModuleType")
    assert types.ModuleType


def test_weights_that_are_missing_are_told(own):
    with pytest.raises(DataError, match=r"weights of pkg\.nets:missing cannot be had"):
        find(f"{own}:missing")


@pytest.mark.parametrize("options", [{"classes": 3}, {"pretrained": True}])
def test_the_users_own_say_classes_and_weights_themselves(own, options):
    with pytest.raises(InputError, match="called without arguments"):
        find(f"{own}:small", **options)
    with pytest.raises(TraceError, match="networks by name"):
        import_network(nn.Flatten(), (3, 8, 8), **options)
