"""Accuracy, top-5 accuracy and loss, against an oracle that goes image by image."""

import math

import pytest
import torch

from prunenas.build.initialise import build
from prunenas.data.base import Part
from prunenas.training.batches.augment import normalise
from prunenas.training.execution.evaluate import evaluate
from tests.training.networks import linear, made, small


@pytest.mark.parametrize("classes", [4, 99, 100, 120])
@pytest.mark.parametrize("batch", [7, 500])
def test_every_image_counts_once(classes, batch):
    data = made(2 * classes, 230, classes=classes)
    network = build(linear(classes=classes))
    with torch.no_grad():
        network.node("fc").weight.normal_(generator=torch.Generator().manual_seed(3))
    part = data.part("test")
    found = evaluate(network, data, part, batch=batch)
    right = right5 = loss = 0.0
    for image, label in zip(part.images, part.labels.tolist(), strict=True):
        scores = network(normalise(image[None], data))[0].tolist()
        order = sorted(range(classes), key=scores.__getitem__, reverse=True)
        right += order[0] == label
        right5 += label in order[:5]
        loss += math.log(sum(map(math.exp, scores))) - scores[label]
    assert found.accuracy == pytest.approx(right / 230)
    assert found.loss == pytest.approx(loss / 230, rel=1e-4)
    if classes >= 100:
        assert found.top5 == pytest.approx(right5 / 230)
        assert found.top5 > found.accuracy
    else:
        assert found.top5 is None


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_judged_in_evaluation_mode_and_given_back_as_it_was(training):
    data = made(24, 8, size=(3, 16, 16), classes=10)
    network = build(small(dropout=0.9)).train(training)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    first, second = (evaluate(network, data, data.part("test")) for _ in range(2))
    assert first == second
    assert network.training is training
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())


def test_images_are_judged_plain():
    data = made(24, 8, flip=True, crop_padding=2)
    network = build(linear())
    part = data.part("test")
    shuffled = torch.tensor([3, 1, 0, 2, 7, 6, 5, 4])
    again = Part(part.images[shuffled], part.labels[shuffled])
    one, other = evaluate(network, data, part), evaluate(network, data, again)
    assert one.accuracy == other.accuracy
    assert one.loss == pytest.approx(other.loss)
