"""Images that processes read from disk while a network trains."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

import prunenas as pn
from prunenas.arch.metrics import Seeds
from prunenas.build.initialise import build
from prunenas.data.base import StreamedData, augmented, dataset
from prunenas.errors import DataError, ReadingError, StoppedError
from prunenas.training.batches.augment import normalise
from prunenas.training.batches.base import Cuts, split
from prunenas.training.batches.reading import workers_of
from prunenas.training.batches.supply import batches_of, plain_of
from prunenas.training.execution.engine import SLOW, Engine
from prunenas.training.execution.evaluate import evaluate
from prunenas.training.keeping.checkpoint import Checkpoints
from prunenas.training.loop import train
from prunenas.training.recipe import Recipe
from tests.training.networks import made, small

SEEDS = Seeds(order=3, augmentation=4, layers=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of many sizes in two classes: 20 to train on, 6 to test."""
    path = tmp_path_factory.mktemp("pictures")
    draws = np.random.default_rng(0)
    for place in range(26):
        kind = path / ("test" if place >= 20 else "train") / "ab"[place % 2]
        kind.mkdir(parents=True, exist_ok=True)
        coarse = draws.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        coarse[..., place % 2] = 255
        image = Image.fromarray(coarse).resize((20 + place, 46 - place), Image.Resampling.BICUBIC)
        image.save(kind / f"{place:02}.{'png' if place % 3 else 'jpg'}")
    return path


def streamed(folder: Path, workers: int = 0, options: str = "") -> StreamedData:
    data = dataset(f"folder:{folder}?stream=true&size=16&workers={workers}{options}")
    assert isinstance(data, StreamedData)
    return data


def drawn(data: StreamedData, epoch: int = 1, *, first: int = 0, batch: int = 6, **options):
    recipe = Recipe(batch=batch, **options)
    batches = batches_of(data, data.part("train"), recipe, SEEDS)
    found = [*batches.draws(epoch, first=first)]
    batches.close()
    return found


def same(one, other) -> bool:
    pairs = [(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)]
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("workers", [1, 2])
def test_how_many_processes_read_changes_nothing(folder, workers):
    alone = streamed(folder)
    data = streamed(folder, workers)
    batches = batches_of(data, data.part("train"), Recipe(batch=6), SEEDS)
    epochs = [[*batches.draws(epoch)] for epoch in (1, 2)]
    assert same(epochs[0], drawn(alone)) and same(epochs[1], drawn(alone, 2))
    assert not same(*epochs)
    # Left in the middle, as a training is that stops, and begun again.
    assert same([next(batches.draws(1))], epochs[0][:1])
    assert same([*batches.draws(2, first=1)], epochs[1][1:])
    batches.close()
    judged = [[*plain_of(one, one.part("test"), batch=4).draws(1)] for one in (alone, data)]
    assert same(*judged)


def test_an_image_s_augmentation_follows_from_seed_epoch_and_place_alone(folder):
    data = streamed(folder)
    images = torch.cat([images for images, _ in drawn(data, 2)])
    assert torch.equal(images, torch.cat([images for images, _ in drawn(data, 2, batch=7)]))
    others = torch.cat([images for images, _ in drawn(data, 1)])
    order = torch.cat([labels for _, labels in drawn(data, 1)])
    assert not torch.equal(order, torch.cat([labels for _, labels in drawn(data, 2)]))
    assert not torch.equal(images, others)


def test_images_come_in_the_order_of_a_resident_set_and_each_with_its_own_draws(folder):
    data, count = streamed(folder), 20
    resident = made(count, size=(3, 4, 4))
    batches = batches_of(resident, resident.part("train"), Recipe(batch=6), SEEDS)
    places = torch.cat([draw[0] for draw in batches.draws(3)]).tolist()
    part = data.part("train")
    images, labels = (torch.cat(column) for column in zip(*drawn(data, 3), strict=True))
    assert labels.tolist() == [int(part.labels[place]) for place in places]
    seen = set()
    for image, place in zip(images, places, strict=True):
        # Some seed gives it, of those that belong to the epoch's twenty places.
        file = part.folder / part.files[place]
        seeds = [s for s in _seeds(3, count) if _matches(image, file, s)]
        assert len(seeds) == 1
        seen |= {*seeds}
    assert len(seen) == count


def _seeds(epoch: int, count: int) -> list[int]:
    from prunenas.ir.draw import stream_seed

    return [stream_seed(SEEDS.augmentation, f"augmentation {epoch} {at}") for at in range(count)]


def _matches(image: torch.Tensor, file: Path, seed: int) -> bool:
    pixels = torch.from_numpy(augmented(file, 16, seed=seed, flip=True).copy())
    return torch.equal(image, pixels.permute(2, 0, 1))


def test_without_augmentation_training_images_are_plain(folder):
    data = streamed(folder)
    part = data.part("train")
    found = torch.cat([images for images, _ in drawn(data, augment=False)])
    plain = part.read(torch.arange(20))
    assert sorted(map(_sum, found)) == sorted(map(_sum, plain))
    crop = v2.Compose([v2.Resize(18), v2.CenterCrop(16)])
    image = Image.open(part.folder / part.files[1])
    expected = torch.from_numpy(np.asarray(crop(image)).copy()).permute(2, 0, 1)
    image.close()
    assert any(torch.equal(one, expected) for one in found)


def _sum(image: torch.Tensor) -> int:
    return int((image.long() * torch.arange(image.numel()).view(image.shape)).sum())


def test_what_may_not_be_mirrored_is_not(folder):
    mirrored = drawn(streamed(folder))
    upright = drawn(streamed(folder, options="&flip=false"))
    pairs = [
        (torch.equal(a, b), torch.equal(a, b.flip(2)))
        for (one, _), (other, _) in zip(mirrored, upright, strict=True)
        for a, b in zip(one, other, strict=True)
    ]
    assert {*pairs} == {(True, False), (False, True)}


@pytest.mark.parametrize("workers", [0, 1])
def test_reading_leaves_the_global_random_state(folder, workers):
    before = torch.get_rng_state()
    drawn(streamed(folder, workers), first=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_images_are_normalised_and_may_have_a_hole(folder):
    data = streamed(folder)
    recipe = Recipe(batch=6, cutout=5)
    batches = batches_of(data, data.part("train"), recipe, SEEDS)
    for draw in batches.draws(1):
        images, labels, spots = draw
        floats, found = batches.load(draw)
        assert torch.equal(found, labels)
        expected = normalise(images, data)
        for image, plain, (row, column) in zip(floats, expected, spots.tolist(), strict=True):
            rows, columns = (slice(max(0, at - 2), at + 3) for at in (row, column))
            plain[:, rows, columns] = 0
            assert torch.equal(image, plain)
    assert torch.equal(
        normalise(images, data)[0, 1],
        (images[0, 1].float() - 0.456 * 255) * (1 / torch.tensor(0.224 * 255)),
    ) or torch.allclose(normalise(images, data)[0, 1], (images[0, 1] / 255 - 0.456) / 0.224)


@given(
    count=st.integers(2, 300),
    batch=st.integers(2, 64),
    world=st.integers(1, 5),
    parts=st.integers(1, 4),
)
def test_shares_are_the_parts_of_a_batch_that_one_process_would_cut(count, batch, world, parts):
    cuts = [
        Cuts(count=count, batch=batch, least=1, share=(rank, world), parts=parts)
        for rank in range(world)
    ]
    alone = Cuts(count=count, batch=batch, least=1)
    order = torch.arange(count)
    assert sum(alone.images(step) for step in range(len(alone))) == count
    for step in range(len(alone)):
        whole = (order[alone.own(step)],)
        assert len(whole[0]) == alone.images(step) == cuts[0].images(step)
        expected = [part[0].tolist() for part in split(whole, world * parts)]
        found = [part[0].tolist() for one in cuts for part in split((order[one.own(step)],), parts)]
        assert found == expected


@pytest.mark.parametrize("parts", [1, 2])
def test_processes_together_read_what_one_reads_alone(folder, parts):
    data = streamed(folder)
    part, recipe = data.part("train"), Recipe(batch=7, cutout=3)
    whole = [*batches_of(data, part, recipe, SEEDS).draws(2)]
    shares = [
        [*batches_of(data, part, recipe, SEEDS, share=(rank, 3), parts=parts).draws(2)]
        for rank in range(3)
    ]
    together = [
        tuple(torch.cat(columns) for columns in zip(*draws, strict=True))
        for draws in zip(*shares, strict=True)
    ]
    assert same(whole, together)
    judged = [[*plain_of(data, part, batch=7, share=(rank, 2)).draws(1)] for rank in range(2)]
    together = [
        tuple(map(torch.cat, zip(*draws, strict=True))) for draws in zip(*judged, strict=True)
    ]
    assert same(together, [*plain_of(data, part, batch=7).draws(1)])


def test_too_few_images_are_refused(folder):
    data = streamed(folder)
    part = data.part("train").chosen(torch.tensor([4]))
    with pytest.raises(DataError, match="1 training images make no batch"):
        batches_of(data, part, Recipe(batch=6), SEEDS)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_is_damaged_meanwhile_is_named_and_nothing_else_is_said(tmp_path, workers):
    for kind in "ab":
        (tmp_path / kind).mkdir()
        for place in range(10):
            Image.new("RGB", (30, 30), (place, 0, 0)).save(tmp_path / kind / f"{place}.png")
    data = streamed(tmp_path, workers)
    victim = tmp_path / data.part("train").files[-1]
    victim.write_bytes(victim.read_bytes()[:50])
    with pytest.raises(DataError) as caught:
        train(build(small(classes=2)), data, Recipe(epochs=1, batch=4))
    assert str(caught.value).startswith(f"{victim} is damaged")
    assert "\n" not in str(caught.value)


def test_a_network_is_judged_by_every_image_once(folder):
    data = streamed(folder)
    network, part = build(small(classes=2)), data.part("test")
    with torch.no_grad():
        network.node("fc").weight.normal_(generator=torch.Generator().manual_seed(3))
    network.eval()
    scores = network(normalise(part.read(torch.arange(6)), data))
    loss = torch.nn.functional.cross_entropy(scores, part.labels).item()
    right = (scores.argmax(1) == part.labels).float().mean().item()
    for batch in (4, None):
        found = evaluate(network, data, part, batch=batch)
        assert found.accuracy == pytest.approx(right)
        assert found.loss == pytest.approx(loss, rel=1e-5)


RECIPE = Recipe(epochs=3, batch=6, lr=0.05)


def test_a_training_is_the_same_whoever_reads_and_goes_on_where_it_was_stopped(folder, tmp_path):
    def trained(workers: int, **options):
        network = build(small(classes=2, dropout=0.3))
        data = streamed(folder, workers)
        metrics = train(network, data, RECIPE, held_out=True, engine=SLOW, **options)
        return metrics.results[0], network.state_dict()

    alone, weights = trained(0)
    steps = iter(range(100))
    with pytest.raises(StoppedError):
        trained(1, checkpoints=Checkpoints(tmp_path), stop=lambda: next(steps) == 4)
    other, others = trained(0, checkpoints=Checkpoints(tmp_path))
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert (alone.accuracy, alone.loss) == (other.accuracy, other.loss)


def test_what_is_learned_shows_on_the_test_images(folder):
    metrics = train(
        build(small(classes=2)), streamed(folder), replace(RECIPE, epochs=12), engine=Engine()
    )
    # Two colours tell the classes apart.
    assert metrics.results[0].accuracy == 1.0
    assert metrics.part == "test" and metrics.data.startswith("folder:pictures")


@pytest.mark.parametrize("method", ["apoz", "sensitivity", "snip", "network_slimming", "magnitude"])
def test_methods_look_at_images_on_disk(folder, method):
    options = {"apoz": {"images": 8}, "snip": {"images": 8}, "magnitude": {"epochs": 1}}
    pruned = pn.prune(
        method,
        small(classes=2),
        streamed(folder),
        keep=0.5,
        recipe=Recipe(epochs=1, batch=6),
        **options.get(method, {}),
    )
    assert pruned.descriptor.reference


def test_as_many_read_as_are_asked_for_or_as_there_are_cores(folder, monkeypatch):
    data = streamed(folder)
    assert workers_of(data) == 0 and workers_of(replace(data, workers=3)) == 3
    for cores, here, expected in ((64, "1", 16), (64, "8", 8), (2, "8", 1), (6, "1", 6)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: range(cores))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", here)
        assert workers_of(replace(data, workers=None)) == expected


def _children(pid: int) -> set[int]:
    """Return the processes that were forked for this one by a server of its own."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            parents[int(entry.name)] = int(fields[1])
    return {child for child, parent in parents.items() if parents.get(parent) == pid}


def _alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if Path(f"/proc/{pid}").exists()}


def test_a_ctrl_c_is_left_to_the_process_that_trains(folder):
    data = streamed(folder, 1)
    before = _children(os.getpid())
    batches = batches_of(data, data.part("train"), Recipe(batch=2), SEEDS)
    draws = batches.draws(1)
    found = [next(draws)]
    (reader,) = _children(os.getpid()) - before
    os.kill(reader, signal.SIGINT)
    assert same([*found, *draws], drawn(streamed(folder), batch=2))
    batches.close()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), "exited unexpectedly"),
        (RuntimeError("Caught X in DataLoader worker 0.\nTraceback\nX: no room"), "X: no room"),
        (ConnectionResetError("reset by peer"), "ConnectionResetError: reset by peer"),
        (EOFError(), "EOFError"),
        (MemoryError("large"), "MemoryError: large"),
    ],
)
def test_failures_of_other_processes_are_told_in_one_line(folder, monkeypatch, error, said):
    def lost(loader):
        raise error

    monkeypatch.setattr(DataLoader, "__iter__", lost)
    with pytest.raises(ReadingError, match=rf"has failed \(.*{said}\): if memory") as caught:
        drawn(streamed(folder, 1))
    assert "\n" not in str(caught.value)
    with pytest.raises(type(error)):
        drawn(streamed(folder, 0))


def test_an_error_of_ours_is_not_taken_for_another_process_s(folder, monkeypatch):
    def wrong(loader):
        raise RuntimeError("the sizes of tensors must match")

    monkeypatch.setattr(DataLoader, "__iter__", wrong)
    with pytest.raises(RuntimeError, match="sizes of tensors"):
        drawn(streamed(folder, 1))


@pytest.mark.slow  # Torch looks every five seconds whether its processes live.
def test_a_process_that_dies_ends_the_training_with_advice(folder):
    data = streamed(folder, 1)
    before = _children(os.getpid())
    batches = batches_of(data, data.part("train"), Recipe(batch=2), SEEDS)
    draws = batches.draws(1)
    next(draws)
    (reader,) = _children(os.getpid()) - before
    os.kill(reader, signal.SIGKILL)
    with pytest.raises(ReadingError, match=r"that reads images has failed .* use fewer of them"):
        list(draws)


_READING = """
import sys, time
from prunenas.data.base import dataset
from prunenas.training.batches.supply import plain_of

if __name__ == "__main__":
    data = dataset(sys.argv[1])
    draws = plain_of(data, data.part("train"), batch=2).draws(1)
    next(draws)
    print("reading", flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_of_a_training_that_is_killed_no_process_stays(folder, tmp_path):
    script = tmp_path / "reading.py"
    script.write_text(_READING)
    name = f"folder:{folder}?stream=true&size=16&workers=2"
    with subprocess.Popen([sys.executable, script, name], stdout=subprocess.PIPE) as training:
        assert training.stdout is not None and training.stdout.readline() == b"reading\n"
        readers = _children(training.pid)
        training.kill()
    assert len(readers) == 2
    ends = time.monotonic() + 20
    while (left := _alive(readers)) and time.monotonic() < ends:
        time.sleep(0.1)
    for reader in left:
        os.kill(reader, signal.SIGKILL)
    assert not left


@pytest.mark.gpu
@pytest.mark.parametrize("workers", [0, 2])
def test_a_gpu_is_given_the_same_images(folder, workers):
    data = streamed(folder, workers).to("cuda")
    batches = batches_of(data, data.part("train"), Recipe(batch=6, cutout=3), SEEDS)
    found = [tuple(column.cpu() for column in draw) for draw in batches.draws(1)]
    assert same(found, drawn(streamed(folder), cutout=3))
    for draw in batches.draws(2):
        images, labels = batches.load(draw)
        assert images.is_cuda and labels.is_cuda and images.dtype == torch.float32
    batches.close()


@pytest.mark.gpu
def test_on_a_gpu_recorded_steps_train_as_plain_ones_do(folder):
    losses = []
    for engine in (SLOW, Engine(layout="contiguous")):
        network = build(small(classes=2), device="cuda")
        metrics = train(network, streamed(folder, 1), RECIPE, held_out=True, engine=engine)
        losses.append(metrics.results[0].loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)
