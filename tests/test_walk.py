"""The whole walk on real data: method, profile, search, retrained front, spec, plain PyTorch."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

import prunenas as pn
from prunenas.data.base import ImageData
from prunenas.errors import DataError

GET_FASHION = "Fashion-MNIST is absent: apt-get install dataset-fashion-mnist"


def fashion_mnist() -> ImageData:
    try:
        return pn.dataset("fashion_mnist", download=False)
    except DataError as error:
        pytest.skip(f"{GET_FASHION} ({error})")


def load_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def network_class(module: Any) -> type[torch.nn.Module]:
    found = [
        thing
        for thing in vars(module).values()
        if isinstance(thing, type)
        and issubclass(thing, torch.nn.Module)
        and thing.__module__ == module.__name__
    ]
    return found[-1]


def walk(data: ImageData, folder: Path, *, epochs: int, trials: int, width: float) -> pn.ArchSpec:
    size = data.input_size
    small = pn.reference("vgg11", size, data.classes, width=width)
    target = pn.reference("vgg13", size, data.classes, width=width)
    recipe = pn.named_recipe("fast", epochs=epochs, batch=64, lr=0.2, precision="fp32")

    found = pn.generate("network_slimming", small, data, keep=0.5, recipe=recipe, strength=1e-3)
    pn.StageProfile.of(small, found).save(folder / "guide.json")
    guide = pn.StageProfile.load(folder / "guide.json")
    space = pn.SearchSpace.around(guide, target=target, radius=0.2, max_macs=target_macs(target))
    front = pn.search(
        space, data, recipe=recipe, trials=trials, confirm_seeds=2, front_size=1, out=folder / "run"
    )

    best = pn.load(folder / "run" / "specs" / f"{best_name(front)}.json")
    assert best == front.best("accuracy")
    assert best.reference == target
    assert best.descriptor is not None and best.graph == pn.apply(target, best.descriptor)
    assert best.metrics is not None and best.metrics.part == "test" and best.metrics.n == 2
    assert best.metrics.macs <= target_macs(target)
    controls = {row.spec.name for row in front.rows if row.role == "control"}
    assert controls == {"uniform, equal MACs", "uniform, equal params", "guided"}

    network = pn.build(best.graph, seed=5).eval()
    path = pn.export(best, "python", path=folder / "best.py")
    twin = network_class(load_file(path))().eval()
    twin.load_state_dict(network.state_dict(), strict=True)
    images = torch.randn(3, *size, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network(images), twin(images))
    return best


def best_name(front: Any) -> str:
    from prunenas.arch.files import file_name

    return file_name(front.best("accuracy").name)


def target_macs(target: pn.Graph) -> int:
    from prunenas.ir.cost import macs

    return macs(target) // 3


def test_the_whole_walk_on_digits(tmp_path: Path) -> None:
    best = walk(pn.dataset("digits"), tmp_path, epochs=6, trials=3, width=0.125)
    assert best.metrics is not None
    assert best.metrics.accuracy > 0.7


def test_lenet_learns_real_fashion_mnist() -> None:
    data = fashion_mnist()
    graph = pn.reference("lenet5", data.input_size, data.classes)
    recipe = pn.named_recipe("fast", epochs=1, batch=128, lr=0.1, precision="fp32")
    metrics = pn.train_seeds(graph, data, recipe, seeds=[0])
    # 10,000 test images: five sigma around 0.8 is 0.02, and one epoch reaches more than 0.8.
    assert metrics.part == "test"
    assert metrics.accuracy > 0.78


@pytest.mark.slow
def test_the_whole_walk_on_real_fashion_mnist(tmp_path: Path) -> None:
    best = walk(fashion_mnist().small(8_000, 4_000), tmp_path, epochs=3, trials=4, width=0.125)
    assert best.metrics is not None
    assert best.metrics.accuracy > 0.6
