"""Every search space that is shipped loads, is within its budget, and can be sampled."""

from pathlib import Path

import numpy as np
import pytest

from prunenas.data.base import DATASETS
from prunenas.ir.cost import macs
from prunenas.search.candidate import candidate
from prunenas.search.space_file import load_space
from prunenas.search.strategies.base import STRATEGIES

FILES = sorted((Path(__file__).parents[1] / "search_spaces").glob("*.toml"))


def test_the_promised_spaces_are_there() -> None:
    names = {path.stem for path in FILES}
    assert names >= {
        "digits_vgg13",
        "fashion_mnist_vgg16",
        "cifar100_vgg19_transferred",
        "cifar10_resnet56_uniform",
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_space_can_be_sampled_within_its_budget(path: Path) -> None:
    space, run = load_space(path)
    assert run.data in DATASETS
    assert run.strategy in STRATEGIES
    assert run.resolved_recipe().epochs >= 1
    draws = np.random.default_rng(0)
    found = set()
    for i in range(5):
        drawn = {s: float(draws.uniform(low, high)) for s, (low, high) in space.intervals.items()}
        sample = candidate(space, space.snapped(drawn), name=f"sample {i}")
        assert space.max_macs is None or sample.macs <= space.max_macs
        assert sample.macs < macs(space.target)
        found.add(sample.digest)
    assert len(found) > 1


def test_the_transferred_space_holds_the_papers_stage_means() -> None:
    # Table 8 of arXiv:1810.05270v1, means of 5 runs, as kept / full of VGG-16's 13 convolutions.
    kept = [39.0, 64.0, 127.8, 128.0, 255.0, 250.5, 226.0, 217.3, 120.0, 63.0, 47.8, 62.0, 88.8]
    full = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    stages = [slice(0, 2), slice(2, 4), slice(4, 7), slice(7, 10), slice(10, 13)]
    means = [float(np.mean(np.divide(kept[s], full[s]))) for s in stages]
    (path,) = [path for path in FILES if path.stem == "cifar100_vgg19_transferred"]
    space, _ = load_space(path)
    # The third mean is .9525 by these figures; .953 is what was published of it.
    assert [*space.guide.keeps.values()] == pytest.approx(means, abs=1e-3)
