"""``folder:PATH?stream=true``: images that stay on disk."""

import os
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets.folder import default_loader
from torchvision.transforms import RandomResizedCrop, functional, v2

from prunenas.data.base import StreamedData, augmented, dataset, plain, split_validation
from prunenas.data.base.image_file import short_side
from prunenas.errors import DataError

MODES = ("RGB", "L", "LA", "RGBA", "P", "1", "CMYK")


def picture(mode: str = "RGB", *, width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    """A smooth picture, so that JPEG keeps it well."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return image.convert(mode)


def fill(folder: Path, classes: str = "ab", count: int = 10) -> Path:
    """Pictures of many sizes, each with its own colours."""
    for label, kind in enumerate(classes):
        (folder / kind).mkdir(parents=True)
        for index in range(count):
            ending = "png" if index % 2 else "JPEG"
            size = {"width": 20 + 2 * index, "height": 60 - 2 * index}
            picture(**size, seed=100 * label + index).save(folder / kind / f"{index}.{ending}")
    return folder


@pytest.fixture
def parted(tmp_path) -> Path:
    fill(tmp_path / "train")
    fill(tmp_path / "test", count=3)
    return tmp_path


def streamed(folder: Path, options: str = "") -> StreamedData:
    data = dataset(f"folder:{folder}?stream=true&size=16{options}")
    assert isinstance(data, StreamedData)
    return data


def test_train_and_test_folders_are_listed_with_classes_sorted(parted):
    data = streamed(parted)
    assert (data.input_size, data.classes) == ((3, 16, 16), 2)
    assert data.train.labels.tolist() == [0] * 10 + [1] * 10
    assert data.test.labels.tolist() == [0] * 3 + [1] * 3
    assert data.train.files[:2] == ("train/a/0.JPEG", "train/a/1.png")
    assert (data.name, data.notes, str(data.device)) == (f"folder:{parted.name}", (), "cpu")


def test_without_options_it_is_imagenet_s_normalisation_and_images_may_be_mirrored(parted):
    data = streamed(parted)
    assert (data.mean, data.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (data.flip, data.workers) == (True, None)


def test_options_are_followed(parted):
    data = streamed(parted, "&flip=false&mean=0.1,0.2,0.3&std=1,0.5,0.25&workers=3")
    assert (data.mean, data.std) == ((0.1, 0.2, 0.3), (1.0, 0.5, 0.25))
    assert (data.flip, data.workers) == (False, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("?stream=true", "stream=true needs the size that a network is given, such as size=224"),
        ("?stream=true&size=16&crop_padding=2", "crop_padding is not for stream=true"),
        ("?size=16&workers=2&mean=0,0,0", "mean is for stream=true only; workers is for stream"),
        ("?stream=true&size=16&workers=-1", "option workers=-1: must be a whole number"),
        ("?stream=true&size=16&mean=a", "option mean=a: must be numbers with commas"),
        ("?stream=true&size=16&mean=0.5", r"mean must be 3 numbers in 0..1, .* got \(0.5,\)"),
        ("?stream=true&size=16&std=0,1,1", "std must be 3 numbers in 0..1, above 0"),
        ("?stream=true&size=16&mean=nan,0,0", "mean must be 3 numbers"),
        ("?stream=true&size=7", "size must be at least 8 pixels, got 7"),
    ],
)
def test_an_option_that_will_not_do_is_explained(parted, options, message):
    with pytest.raises(DataError, match=message):
        dataset(f"folder:{parted}{options}")


def test_the_parts_are_those_of_the_same_folder_when_it_is_resident(tmp_path):
    resident = dataset(f"folder:{fill(tmp_path, count=20)}?size=16")
    data = streamed(tmp_path)
    assert data.notes == resident.notes and "8 images held out" in data.notes[0]
    assert torch.equal(data.validation, resident.validation)
    for name in ("fit", "validation", "train", "test"):
        part, other = data.part(name), resident.part(name)
        assert torch.equal(part.labels, other.labels)
        # Two central squares of one picture, cut a little differently, are far from alike to the
        # pixel, but more so than any two pictures.
        found = part.read(torch.arange(len(part))).float().flatten(1)
        distances = torch.cdist(found, other.images.float().flatten(1))
        assert distances.argmin(dim=1).tolist() == [*range(len(part))]


def test_validation_is_left_out_of_fit_and_both_make_the_training_set(parted):
    data = streamed(parted)
    assert data.validation.tolist() == split_validation(data.train.labels).tolist()
    fit, held = data.part("fit"), data.part("validation")
    assert set(held.files) == {data.train.files[place] for place in data.validation.tolist()}
    assert sorted(fit.files + held.files) == sorted(data.train.files)
    assert data.part("fit") is fit


def test_an_unknown_part_is_refused(parted):
    with pytest.raises(DataError, match="no part 'all'; parts: fit, validation, train, test"):
        streamed(parted).part("all")


@pytest.mark.parametrize("mode", MODES)
def test_plain_images_are_those_of_torchvision_s_own_pipeline(tmp_path, mode):
    file = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    for width, height in ((61, 40), (40, 61), (300, 31), (16, 18), (9, 12)):
        picture(mode, width=width, height=height).save(file)
        whole = v2.Compose([v2.Resize(short_side(28)), v2.CenterCrop(28)])
        assert np.array_equal(plain(file, 28), np.asarray(whole(default_loader(file))))


def test_of_224_pixels_the_short_side_is_256():
    assert (short_side(224), short_side(28), short_side(16)) == (256, 32, 18)


def test_an_image_of_the_right_short_side_is_only_cut(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for kind in "ab":
        (tmp_path / kind).mkdir()
        for index in range(5):
            Image.fromarray(pixels).save(tmp_path / kind / f"{index}.png")
    resident = dataset(f"folder:{tmp_path}")
    data = dataset(f"folder:{tmp_path}?stream=true&size=28")
    found = data.part("train").read(torch.arange(8))
    assert torch.equal(found, resident.part("train").images[:, :, 2:30, 2:30])


def test_a_transparent_palette_gives_its_colours_without_a_warning(tmp_path):
    image = picture("P")
    image.info["transparency"] = bytes(range(200))
    image.save(tmp_path / "x.png")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = default_loader(tmp_path / "x.png")
    found = plain(tmp_path / "x.png", 28)
    assert np.array_equal(
        found, np.asarray(v2.CenterCrop(28)(v2.functional.resize(expected, [32])))
    )


def test_the_orientation_that_a_camera_noted_is_not_looked_at(tmp_path):
    picture().save(tmp_path / "as_it_is.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save(tmp_path / "noted.png", exif=exif)
    assert np.array_equal(plain(tmp_path / "as_it_is.png", 16), plain(tmp_path / "noted.png", 16))


@pytest.mark.parametrize("flip", [True, False])
def test_an_augmented_image_is_what_torchvision_draws_by_the_same_seed(tmp_path, flip):
    picture(width=90, height=70).save(tmp_path / "x.png")
    image, mirrored = default_loader(tmp_path / "x.png"), 0
    for seed in range(8):
        found = augmented(tmp_path / "x.png", 32, seed=seed, flip=flip)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            place = RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3])
            expected = functional.resized_crop(image, *place, [32, 32])
            if flip and torch.rand(1) < 0.5:
                expected, mirrored = functional.hflip(expected), mirrored + 1
        assert np.array_equal(found, np.asarray(expected))
    assert 0 < mirrored < 8 if flip else not mirrored


def test_to_augment_leaves_the_global_random_state(tmp_path):
    picture().save(tmp_path / "x.png")
    before = torch.get_rng_state()
    one, other = (augmented(tmp_path / "x.png", 16, seed=seed, flip=True) for seed in (0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("content", ["half", "none of it", b"no image at all"])
def test_a_damaged_file_is_named_when_it_is_read(parted, content):
    victim = parted / "train" / "a" / "3.png"
    whole = victim.read_bytes()
    damage = {"half": whole[: len(whole) // 2], "none of it": whole[:40]}
    victim.write_bytes(damage.get(content, content))
    part = streamed(parted).part("train")
    assert len(part.read(torch.tensor([0, 1, 2]))) == 3
    with pytest.raises(DataError, match=r"train/a/3\.png is damaged"):
        part.read(torch.tensor([2, 3]))


def test_a_file_that_has_gone_is_named_when_it_is_read(parted):
    part = streamed(parted).part("test")
    (parted / "test" / "b" / "0.JPEG").unlink()
    with pytest.raises(DataError, match=r"test/b/0\.JPEG.* No such file"):
        part.read(torch.tensor([3]))


def test_an_empty_file_is_refused_at_once(parted):
    (parted / "train" / "a" / "3.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 files are empty, the first is .*train/a/3\.png"):
        streamed(parted)


def test_more_than_8_bits_are_refused_when_read(parted):
    wide = Image.fromarray(np.full((30, 30), 40_000, dtype=np.uint16))
    wide.save(parted / "train" / "a" / "3.png")
    with pytest.raises(DataError, match=r"3\.png has more than 8 bits a channel"):
        streamed(parted).part("train").read(torch.tensor([3]))


def test_the_digest_stays_where_the_content_does(parted, tmp_path_factory):
    data = streamed(parted)
    moved = tmp_path_factory.mktemp("elsewhere") / "other_name"
    shutil.copytree(parted, moved)
    os.utime(moved / "train" / "a" / "3.png", (0, 0))
    assert streamed(moved, "&workers=1").digest == data.digest
    assert replace(data, name="x", notes=("y",), workers=0).digest == data.digest
    assert len(data.digest) == 16


@pytest.mark.parametrize("name", [".", "pictures", "./pictures/", "pictures/.", "../here/pictures"])
def test_however_the_folder_is_named_it_is_the_same(tmp_path, monkeypatch, name):
    inside = fill(tmp_path / "here" / "pictures")
    monkeypatch.chdir(inside if name == "." else tmp_path / "here")
    whole = streamed(inside)
    data = dataset(f"folder:{name}?stream=true&size=16")
    monkeypatch.chdir(tmp_path)
    assert data.digest == whole.digest and data.name == "folder:pictures"
    assert torch.equal(data.test.read(torch.tensor([0])), whole.test.read(torch.tensor([0])))


def test_the_digest_tells_whatever_changes_the_training(parted):
    digests = [streamed(parted, o).digest for o in ("", "&flip=false", "&mean=0,0,0", "&std=1,1,1")]
    digests.append(dataset(f"folder:{parted}?stream=true&size=32").digest)
    digests.append(dataset(f"folder:{parted}?size=16").digest)
    data = streamed(parted)
    digests.append(replace(data, validation=data.validation[:1]).digest)
    swapped = replace(data.train, labels=1 - data.train.labels)
    digests.append(replace(data, train=swapped).digest)
    victim = parted / "train" / "a" / "3.png"
    victim.write_bytes(victim.read_bytes() + b"x")
    digests.append(streamed(parted).digest)
    victim.rename(victim.with_name("33.png"))
    digests.append(streamed(parted).digest)
    assert len({*digests}) == len(digests)


def test_what_does_not_fit_is_listed_all_at_once(parted):
    data = streamed(parted)
    with pytest.raises(DataError) as caught:
        replace(
            data,
            train=replace(data.train, labels=data.train.labels[:-1] + 5),
            test=replace(data.test, side=32, lengths=()),
            validation=torch.tensor([3, 3]),
            workers=-1,
        )
    for words in (
        "20 train files, but 20 lengths and 19 labels",
        "train labels must lie in 0 to 1",
        "6 test files, but 0 lengths",
        "one side of at least 8 pixels, got 16 and 32",
        "workers must be 0 or more, got -1",
        "validation must be ascending indices",
    ):
        assert words in str(caught.value)


def test_it_says_what_it_is(parted):
    assert repr(streamed(parted)) == (
        f"StreamedData('folder:{parted.name}', 3x16x16, 2 classes, 20 train (2 of them "
        "validation), 6 test, to cpu)"
    )


@pytest.mark.gpu
def test_on_a_gpu_images_are_read_to_it(parted):
    data = streamed(parted)
    there = data.to("cuda")
    assert there.device.type == "cuda" and there.digest == data.digest
    places = torch.tensor([1, 0])
    for part, other in ((data.part("fit"), there.part("fit")), (data.test, there.test)):
        found = other.read(places.cuda())
        assert found.is_cuda and torch.equal(found.cpu(), part.read(places))
        assert torch.equal(other.chosen(places.cuda()).labels.cpu(), part.chosen(places).labels)
