"""Batches: every augmentation against an oracle that goes image by image."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from prunenas.data.base import ImageData, Part, dataset
from prunenas.training.augment import Batches, normalise, random_crop, random_flip


def noise(count, channels=2, height=6, width=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, channels, height, width)
    return torch.randint(1, 256, shape, dtype=torch.uint8, generator=generator)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def made(count=40, **changes):
    labels = torch.arange(count) % 4
    fields = {
        "name": "made",
        "train_images": noise(count),
        "train_labels": labels,
        "test_images": noise(8, seed=1),
        "test_labels": torch.arange(8) % 4,
        "classes": 4,
        "mean": (0.5, 0.25),
        "std": (0.2, 0.4),
        "flip": False,
        "crop_padding": 0,
        "validation": torch.arange(4),
    }
    return ImageData(**{**fields, **changes})


def shifted(image, down, right):
    """Return one image ``[c h w]`` moved pixel by pixel, zeros moving in."""
    out = torch.zeros_like(image)
    _, h, w = image.shape
    for row in range(h):
        for column in range(w):
            if 0 <= row + down < h and 0 <= column + right < w:
                out[:, row, column] = image[:, row + down, column + right]
    return out


def test_a_crop_is_a_shift_and_every_shift_is_as_likely():
    images = noise(1500)
    cropped = random_crop(images, 1, seeded())
    assert cropped.shape == images.shape
    assert cropped.dtype == torch.uint8
    found = Counter()
    for before, after in zip(images, cropped, strict=True):
        places = [
            (down, right)
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
            if torch.equal(shifted(before, down, right), after)
        ]
        assert len(places) == 1
        found[places[0]] += 1
    assert len(found) == 9
    # 1500 / 9 with a deviation of 12.
    assert all(110 < count < 225 for count in found.values())


def test_the_largest_shift_is_the_padding():
    images = torch.full((400, 1, 8, 8), 9, dtype=torch.uint8)
    cropped = random_crop(images, 3, seeded())
    empty_rows = (cropped == 0).all(dim=3).sum(dim=2).flatten()
    empty_columns = (cropped == 0).all(dim=2).sum(dim=2).flatten()
    assert (empty_rows.max(), empty_columns.max()) == (3, 3)
    assert (empty_rows != empty_columns).any()


def test_a_flip_mirrors_half_of_the_images_left_to_right():
    images = noise(1000)
    flipped = random_flip(images, seeded())
    mirrored = 0
    for before, after in zip(images, flipped, strict=True):
        other = torch.stack([before[:, :, before.shape[2] - 1 - i] for i in range(before.shape[2])])
        is_mirrored = torch.equal(after, other.permute(1, 2, 0))
        assert is_mirrored or torch.equal(after, before)
        mirrored += is_mirrored
    assert 440 < mirrored < 560


def test_pixels_are_scaled_by_channel():
    data = made()
    images = noise(3)
    found = normalise(images, data)
    for n in range(3):
        for channel, (mean, std) in enumerate(zip(data.mean, data.std, strict=True)):
            for pixel, value in zip(
                images[n, channel].flatten().tolist(),
                found[n, channel].flatten().tolist(),
                strict=True,
            ):
                assert value == pytest.approx((pixel / 255 - mean) / std, abs=1e-5)
    assert images.dtype == torch.uint8


def batches(data, *, batch=16, augment=True, seed=0, part="train"):
    return Batches(
        data=data, part=data.part(part), batch=batch, augment=augment, generator=seeded(seed)
    )


def as_set(data, images, labels):
    return {
        (label, tuple(normalise(image[None], data).flatten().tolist()))
        for image, label in zip(images, labels.tolist(), strict=True)
    }


def epoch_of(stream):
    images, labels = zip(*stream.epoch(), strict=True)
    return torch.cat(images), torch.cat(labels)


def test_an_epoch_holds_every_image_once_with_its_label():
    data = made()
    images, labels = epoch_of(batches(data))
    assert len(labels) == 40
    found = {(y, tuple(x.flatten().tolist())) for x, y in zip(images, labels.tolist(), strict=True)}
    assert found == as_set(data, data.train_images, data.train_labels)


def test_every_epoch_has_another_order_and_a_seed_has_its_own():
    stream = batches(made(), augment=False)
    first, second = (epoch_of(stream)[0] for _ in range(2))
    assert not torch.equal(first, second)
    again = batches(made(), augment=False)
    assert torch.equal(epoch_of(again)[0], first)
    assert torch.equal(epoch_of(again)[0], second)
    assert not torch.equal(epoch_of(batches(made(), augment=False, seed=1))[0], first)


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(32, [16, 16]), (33, [16, 16]), (34, [16, 16, 2]), (15, [15]), (16, [16]), (17, [16])],
)
def test_a_last_batch_of_one_image_is_left_out(count, sizes):
    stream = batches(made(count))
    assert [len(labels) for _, labels in stream.epoch()] == sizes
    assert len(stream) == len(sizes)


def test_a_single_image_makes_no_batch():
    data = made()
    part = Part(data.train_images[:1], data.train_labels[:1])
    stream = Batches(data=data, part=part, batch=16, augment=True, generator=seeded())
    assert (len(stream), [*stream.epoch()]) == (0, [])


def mirror_share(data, *, augment=True):
    """Return which share of the images comes out mirrored; the others must come out plain."""
    plain = as_set(data, data.train_images, data.train_labels)
    mirrored = as_set(data, data.train_images.flip(3), data.train_labels)
    images, labels = epoch_of(batches(data, augment=augment))
    found = {(y, tuple(x.flatten().tolist())) for x, y in zip(images, labels.tolist(), strict=True)}
    assert found <= plain | mirrored
    return len(found & mirrored) / len(found)


def test_images_are_mirrored_only_where_the_data_set_allows_it():
    assert mirror_share(made(400)) == 0
    assert 0.4 < mirror_share(made(400, flip=True)) < 0.6
    assert mirror_share(made(400, flip=True), augment=False) == 0


def test_digits_are_never_mirrored():
    digits = replace(dataset("digits"), crop_padding=0)
    images, labels = epoch_of(batches(digits))
    found = {(y, tuple(x.flatten().tolist())) for x, y in zip(images, labels.tolist(), strict=True)}
    assert found == as_set(digits, digits.train_images, digits.train_labels)


def test_images_are_cropped_as_far_as_the_data_set_says():
    white = torch.full((200, 2, 6, 5), 255, dtype=torch.uint8)
    data = made(200, train_images=white, crop_padding=2)
    black = normalise(torch.zeros(1, 2, 6, 5, dtype=torch.uint8), data)[0, 0, 0, 0]

    def rows_lost(augment):
        images, _ = epoch_of(batches(data, augment=augment))
        return (images[:, 0] == black).all(dim=2).sum(dim=1).max()

    assert rows_lost(True) == 2
    assert rows_lost(False) == 0


def test_the_data_set_itself_is_never_changed():
    data = made(flip=True, crop_padding=2)
    before = data.train_images.clone()
    epoch_of(batches(data))
    assert torch.equal(data.train_images, before)


def test_labels_go_with_their_images_through_crop_and_flip():
    """Each image is of one grey level, that of its label, so it can be told after any move."""
    labels = torch.arange(120) % 4
    grey = (60 * (labels + 1)).to(torch.uint8).view(-1, 1, 1, 1).expand(120, 2, 6, 5).contiguous()
    data = made(120, train_images=grey, flip=True, crop_padding=2)
    images, found = epoch_of(batches(data))
    level = (images[:, 0, 3, 2] * 0.2 + 0.5) * 255
    assert_close(level, 60.0 * (found + 1), rtol=0, atol=1e-3)
