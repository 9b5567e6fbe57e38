"""Batches: every augmentation against an oracle that goes image by image."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from prunenas.arch.metrics import Seeds
from prunenas.data.base import ImageData, Part, dataset
from prunenas.errors import DataError
from prunenas.training.batches.augment import mirror, normalise, punch
from prunenas.training.batches.base import ResidentBatches, split
from prunenas.training.recipe import Recipe


def noise(count, channels=2, height=6, width=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, channels, height, width)
    return torch.randint(1, 256, shape, dtype=torch.uint8, generator=generator)


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


def cropped(images, padding):
    """Return the images of an epoch in their old order, cropped and not normalised."""
    data = made(
        len(images),
        train_images=images,
        train_labels=torch.arange(len(images)),
        classes=len(images),
        mean=(0.0,) * images.shape[1],
        std=(1.0,) * images.shape[1],
        test_images=images[:8],
        test_labels=torch.arange(8),
        crop_padding=padding,
    )
    found, labels = epoch_of(batches(data))
    return (found[labels.argsort()] * 255).round().to(torch.uint8)


def test_a_crop_is_a_shift_and_every_shift_is_as_likely():
    images = noise(1500)
    found = Counter()
    for before, after in zip(images, cropped(images, 1), strict=True):
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
    moved = cropped(images, 3)
    empty_rows = (moved == 0).all(dim=3).sum(dim=2).flatten()
    empty_columns = (moved == 0).all(dim=2).sum(dim=2).flatten()
    assert (empty_rows.max(), empty_columns.max()) == (3, 3)
    assert (empty_rows != empty_columns).any()


def test_a_mirrored_image_is_turned_left_to_right_and_no_other():
    images = noise(20)
    chosen = torch.arange(20) % 3 == 0
    for before, after, turned in zip(images, mirror(images, chosen), chosen, strict=True):
        other = torch.stack([before[:, :, before.shape[2] - 1 - i] for i in range(before.shape[2])])
        assert torch.equal(after, other.permute(1, 2, 0) if turned else before)


def test_a_hole_is_a_square_around_its_centre_cut_off_at_the_border():
    images = torch.ones(3, 2, 6, 5)
    found = punch(images, torch.tensor([[0, 0], [3, 2], [5, 4]]), 4)
    for image, (row, column) in zip(found, ((0, 0), (3, 2), (5, 4)), strict=True):
        for y in range(6):
            for x in range(5):
                inside = row - 2 <= y < row + 2 and column - 2 <= x < column + 2
                assert (image[:, y, x] == (0.0 if inside else 1.0)).all()
    assert (images == 1).all()


def test_a_draw_is_split_in_order_into_parts_of_nearly_one_size():
    draw = (torch.arange(11), torch.arange(22).view(11, 2))
    parts = [*split(draw, 4)]
    assert [len(part[0]) for part in parts] == [3, 3, 3, 2]
    for place, tensor in enumerate(draw):
        assert torch.equal(torch.cat([part[place] for part in parts]), tensor)
    assert [*split(draw, 1)] == [draw]


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


def batches(data, *, batch=16, augment=True, seed=0, part="train", least=2, cutout=0):
    recipe = Recipe(batch=batch, augment=augment, cutout=cutout)
    seeds = Seeds(order=seed, augmentation=seed, layers=seed)
    return ResidentBatches(data, data.part(part), recipe, seeds, least=least)


def as_set(data, images, labels):
    return {
        (label, tuple(normalise(image[None], data).flatten().tolist()))
        for image, label in zip(images, labels.tolist(), strict=True)
    }


def epoch_of(stream, epoch=1, first=0):
    images, labels = zip(*map(stream.load, stream.draws(epoch, first=first)), strict=True)
    return torch.cat(images), torch.cat(labels)


def test_an_epoch_holds_every_image_once_with_its_label():
    data = made()
    images, labels = epoch_of(batches(data))
    assert len(labels) == 40
    found = {(y, tuple(x.flatten().tolist())) for x, y in zip(images, labels.tolist(), strict=True)}
    assert found == as_set(data, data.train_images, data.train_labels)


def test_every_epoch_has_another_order_and_a_seed_has_its_own():
    stream = batches(made(), augment=False)
    first, second = (epoch_of(stream, epoch)[0] for epoch in (1, 2))
    assert not torch.equal(first, second)
    again = batches(made(), augment=False)
    assert torch.equal(epoch_of(again, 2)[0], second)
    assert torch.equal(epoch_of(again, 1)[0], first)
    assert not torch.equal(epoch_of(batches(made(), augment=False, seed=1))[0], first)


def test_an_epoch_goes_on_in_the_middle_as_it_would_have():
    data = made(60, crop_padding=2, flip=True)
    stream = batches(data, cutout=2)
    images, labels = epoch_of(stream, 3)
    rest, rest_labels = epoch_of(batches(data, cutout=2), 3, first=2)
    assert torch.equal(rest, images[32:])
    assert torch.equal(rest_labels, labels[32:])


def test_order_and_augmentation_have_a_seed_each():
    data = made(60, crop_padding=2)
    found = []
    for order, augmentation in ((0, 0), (0, 1), (1, 0)):
        seeds = Seeds(order=order, augmentation=augmentation, layers=0)
        found.append(epoch_of(ResidentBatches(data, data.part("train"), Recipe(batch=16), seeds)))
    assert torch.equal(found[0][1], found[1][1])
    assert not torch.equal(found[0][0], found[1][0])
    assert not torch.equal(found[0][1], found[2][1])


def test_holes_are_punched_into_training_images_alone():
    white = torch.full((200, 2, 6, 5), 255, dtype=torch.uint8)
    images, _ = epoch_of(batches(made(200, train_images=white), cutout=2))
    zeros = (images[:, 0] == 0).sum(dim=(1, 2))
    assert set(zeros.tolist()) == {1, 2, 4}
    assert (epoch_of(batches(made(200, train_images=white), cutout=2, augment=False))[0] != 0).all()


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(32, [16, 16]), (33, [16, 16]), (34, [16, 16, 2]), (15, [15]), (16, [16]), (17, [16])],
)
def test_a_last_batch_of_one_image_is_left_out(count, sizes):
    stream = batches(made(count))
    assert [len(draw[0]) for draw in stream.draws(1)] == sizes
    assert len(stream) == len(sizes)


def test_a_batch_that_its_parts_would_leave_single_images_of_is_left_out():
    sizes = [len(draw[0]) for draw in batches(made(37), least=4).draws(1)]
    assert sizes == [16, 16, 5]
    assert [len(draw[0]) for draw in batches(made(37), least=6).draws(1)] == [16, 16]


def test_a_single_image_makes_no_batch():
    data = made()
    part = Part(data.train_images[:1], data.train_labels[:1])
    seeds = Seeds(order=0, augmentation=0, layers=0)
    with pytest.raises(DataError, match="1 training images make no batch"):
        ResidentBatches(data, part, Recipe(batch=16), seeds)


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
