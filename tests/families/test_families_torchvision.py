"""torchvision as the oracle: its names, shapes, parameters and published costs."""

import json
from pathlib import Path

import pytest
import torch
import torchvision

from prunenas.families.base import reference
from prunenas.ir.cost import macs, params

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "torchvision.json").read_text())
OURS = {
    "alexnet": "alexnet",
    "vgg11": "vgg11_plain_imagenet",
    "vgg16": "vgg16_imagenet",
    "vgg16_bn": "vgg16_bn_imagenet",
    "resnet18": "resnet18",
    "resnet34": "resnet34",
    "resnet50": "resnet50",
    "mobilenet_v2": "mobilenet_v2",
}


def shapes_of(name, **options):
    with torch.device("meta"):
        module = torchvision.models.get_model(name, weights=None, **options)
    return {key: tuple(tensor.shape) for key, tensor in module.named_parameters()}


def test_every_golden_network_is_compared():
    assert GOLDEN["networks"].keys() == OURS.keys()


@pytest.mark.parametrize("name", OURS)
def test_parameters_have_the_names_and_shapes_of_torchvision(name):
    assert reference(OURS[name]).parameters() == shapes_of(name)


@pytest.mark.parametrize("width", [0.35, 0.5, 0.75, 1.4])
def test_scaled_mobilenets_have_the_widths_of_torchvision(width):
    theirs = shapes_of("mobilenet_v2", width_mult=width)
    assert reference("mobilenet_v2", width=width).parameters() == theirs


@pytest.mark.parametrize("name", OURS)
def test_costs_are_the_published_ones(name):
    meta = torchvision.models.get_model_weights(name).DEFAULT.meta
    golden = GOLDEN["networks"][name]
    assert (meta["num_params"], meta["_ops"]) == (golden["params"], golden["gmacs"])
    graph = reference(OURS[name])
    assert params(graph) == golden["params"]
    assert round(macs(graph) / 1e9, 3) == golden["gmacs"]
