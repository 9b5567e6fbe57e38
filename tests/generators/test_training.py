"""Methods that train: the whole way from an untrained graph to a descriptor."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from prunenas.arch.descriptor import apply
from prunenas.build import execution
from prunenas.build.initialise import build
from prunenas.data.base import ImageData
from prunenas.data.shapes import shapes
from prunenas.families.base import reference
from prunenas.generators.base import GENERATORS, generate, make_generator
from prunenas.ir.canonical import encode
from prunenas.training.loop import train
from prunenas.training.recipe import named_recipe

TRAINING = [name for name in GENERATORS.names() if GENERATORS[name].looks_at == "trained"]
RECIPE = named_recipe("fast", epochs=2, batch=27, lr=0.05, precision="fp32")


@pytest.fixture(scope="module")
def graph():
    return reference("vgg", (3, 16, 16), 10, body=[8, "M", 16, "M", 16])


@pytest.fixture(scope="module")
def data():
    return shapes(train=120, test=20, side=16)


@pytest.mark.parametrize("method", TRAINING)
def test_the_same_seed_finds_the_same_to_the_bit(method, graph, data):
    first, again = (
        generate(method, graph, data, keep=0.5, recipe=RECIPE, seed=4) for _ in range(2)
    )
    other = generate(method, graph, data, keep=0.5, recipe=RECIPE, seed=5)
    assert first == again
    assert first.origin == again.origin
    assert (first.selections, first.masks) != (other.selections, other.masks)
    assert first.origin.reached == pytest.approx(0.5, abs=0.03)
    assert apply(graph, first).classes == 10


@pytest.mark.parametrize("method", TRAINING)
def test_the_test_images_are_never_read(method, graph, data, monkeypatch):
    asked = []
    part = ImageData.part

    def watched(self, name):
        asked.append(name)
        return part(self, name)

    expected = generate(method, graph, data, keep=0.5, recipe=RECIPE)
    monkeypatch.setattr(ImageData, "part", watched)
    spoilt = replace(data, test_images=255 - data.test_images, test_labels=9 - data.test_labels)
    found = generate(method, graph, spoilt, keep=0.5, recipe=RECIPE)
    assert found == expected
    assert found.origin == expected.origin
    assert {*asked} == {"fit", "validation"}


@pytest.mark.parametrize("method", TRAINING)
def test_training_leaves_the_random_states_and_the_data_alone(method, graph, data):
    images = data.train_images.clone()
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    generate(method, graph, data, keep=0.5, recipe=replace(RECIPE, epochs=1))
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert torch.equal(data.train_images, images)


@pytest.mark.parametrize("method", TRAINING)
def test_it_tells_what_it_was_trained_with_and_reports_every_epoch(method, graph, data):
    reports = []
    found = generate(method, graph, data, keep=0.5, recipe=RECIPE, seed=6, on_epoch=reports.append)
    assert [report.epoch for report in reports] == [1, 2]
    options = found.origin.options
    assert options["data"] == "shapes"
    assert options["recipe"] == encode(RECIPE)
    assert options["seed"] == 6
    assert options["accuracy"] == reports[-1].accuracy


@pytest.mark.parametrize(("bf16", "precision"), [(False, "fp32"), (True, "bf16")])
def test_it_tells_the_precision_that_the_device_decided(graph, data, monkeypatch, bf16, precision):
    monkeypatch.setattr(execution, "computes_bf16", lambda device: bf16)
    recipe = replace(RECIPE, epochs=1, precision="auto")
    found = generate("magnitude", graph, data, keep=0.5, recipe=recipe)
    assert found.origin.options["recipe"] == encode(replace(recipe, precision=precision))
    decided = replace(recipe, precision=precision)
    assert found == generate("magnitude", graph, data, keep=0.5, recipe=decided)


@pytest.mark.parametrize("method", TRAINING)
def test_training_by_hand_and_handing_the_network_over_finds_the_same(method, graph, data):
    network = build(graph, seed=7)
    hooks = GENERATORS[method]().hooks(0.5)
    train(network, data, RECIPE, seed=7, held_out=True, hooks=hooks)
    seen = data if make_generator(method).reads else None
    by_hand = generate(method, graph, seen, keep=0.5, seed=7, network=network)
    assert by_hand == generate(method, graph, data, keep=0.5, recipe=RECIPE, seed=7)


def test_the_penalty_decides_what_slimming_finds(graph, data):
    found = [
        generate("network_slimming", graph, data, keep=0.5, recipe=RECIPE, strength=strength)
        for strength in (0.0, 1.0)
    ]
    assert found[0].selections != found[1].selections
    assert [f.origin.options["strength"] for f in found] == [0.0, 1.0]
