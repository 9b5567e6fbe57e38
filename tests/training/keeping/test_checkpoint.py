"""Checkpoints: whole or not at all, and only for the training that they are of."""

import hashlib
import json
import os
import resource
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from prunenas.arch.metrics import Seeds
from prunenas.build.initialise import build
from prunenas.errors import CheckpointError, InputError, RunError, SavingError, StoppedError
from prunenas.training.keeping import checkpoint
from prunenas.training.keeping.checkpoint import Checkpoints, weights_digest
from prunenas.training.loop import train
from prunenas.training.recipe import Recipe
from tests.training.networks import linear, made, small

RECIPE = Recipe(epochs=3, batch=8, lr=0.05, schedule="constant")


def state(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def call(folder, *, network=None, data=None, recipe=RECIPE, **options):
    """Train; the same each time unless told otherwise."""
    network = network or build(linear(), seed=1)
    return train(network, data or made(), recipe, checkpoints=Checkpoints(folder), **options)


@pytest.fixture
def kept(tmp_path):
    """A folder with the state after epoch 2, batch 1."""
    steps = iter(range(4))
    with pytest.raises(StoppedError):
        call(tmp_path, stop=lambda: next(steps, None) == 3)
    return tmp_path


def record(folder):
    return json.loads((folder / "checkpoint.json").read_text())


def tensors(folder):
    (path,) = folder.glob("state-*.safetensors")
    return path


def test_there_is_one_state_and_one_record_that_tells_of_it(kept):
    assert len([*kept.iterdir()]) == 2
    told = record(kept)
    content = tensors(kept).read_bytes()
    assert told["tensors"] == {
        "file": tensors(kept).name,
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    assert (told["progress"]["epoch"], told["progress"]["step"]) == (2, 1)
    assert {*told["facts"]} == {"graph", "recipe", "data", "seeds", "held_out", "start", "hooks"}


def test_the_record_is_replaced_after_the_tensors_are_on_the_disk(tmp_path, monkeypatch):
    events = []
    sync, put = os.fsync, Path.replace

    def synced(handle):
        events.append(os.readlink(f"/proc/self/fd/{handle}").rsplit("/", 1)[1])
        sync(handle)

    def replaced(path, target):
        events.append("replaced")
        return put(path, target)

    monkeypatch.setattr("os.fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    call(tmp_path, recipe=replace(RECIPE, epochs=1))
    first = events[: events.index("replaced") + 2]
    assert first[0].startswith("state-2-0-")
    assert first[1:] == [".checkpoint.json.part", tmp_path.name, "replaced", tmp_path.name]


def test_weights_are_told_apart_and_their_layout_is_not():
    network, other = build(small(), seed=1), build(small(), seed=2)
    before = weights_digest(network)
    assert before != weights_digest(other)
    assert weights_digest(network.to(memory_format=torch.channels_last)) == before
    network.node("bn0").running_mean[0] += 1e-6
    assert weights_digest(network) != before


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"network": build(small((1, 4, 4), 4, widths=(4,)), seed=1)}, "graph"),
        ({"network": build(linear(), seed=2)}, "start"),
        ({"recipe": replace(RECIPE, lr=0.1)}, "recipe.lr: the folder has 0.05, asked for 0.1"),
        ({"recipe": replace(RECIPE, precision="bf16")}, "recipe.precision: the folder has 'fp32'"),
        ({"data": made(crop_padding=1)}, "data"),
        ({"held_out": True}, "held_out: the folder has False, asked for True"),
        ({"seed": 3}, "seeds.augmentation"),
        ({"seed": Seeds(order=0, augmentation=0, layers=9)}, "seeds.layers"),
    ],
)
def test_a_foreign_checkpoint_is_refused_with_every_difference(kept, other, told):
    network = other.get("network") or build(linear(), seed=1)
    before, files = state(network), {p: p.read_bytes() for p in kept.iterdir()}
    with pytest.raises(CheckpointError, match="of another training; it differs in") as caught:
        call(kept, **{**other, "network": network})
    assert told in str(caught.value)
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
    assert {p: p.read_bytes() for p in kept.iterdir()} == files


def test_all_differences_are_told_at_once(kept):
    with pytest.raises(CheckpointError) as caught:
        call(kept, recipe=replace(RECIPE, lr=0.1, epochs=9), held_out=True)
    lines = str(caught.value).splitlines()[1:-1]
    assert [line.split(":")[0].strip() for line in lines] == [
        "held_out",
        "recipe.epochs",
        "recipe.lr",
    ]
    assert isinstance(caught.value, InputError)


def changed_record(folder, **changes):
    told = record(folder)
    for path, value in changes.items():
        *above, last = path.split("__")
        place = told
        for key in above:
            place = place[key]
        place[last] = value
    (folder / "checkpoint.json").write_text(json.dumps(told))


def changed_tensors(folder, change):
    """Write other tensors, with a record that fits them."""
    found = load_file(tensors(folder))
    change(found)
    path = tensors(folder)
    save_file(found, path)
    content = path.read_bytes()
    sha = hashlib.sha256(content).hexdigest()
    changed_record(folder, tensors__size=len(content), tensors__sha256=sha)


def flip_a_byte(folder):
    content = bytearray(tensors(folder).read_bytes())
    content[-5] ^= 1
    tensors(folder).write_bytes(content)


def cut(path, bytes_left):
    path.write_bytes(path.read_bytes()[:bytes_left])


DAMAGES = {
    "bad JSON": (lambda f: cut(f / "checkpoint.json", 40), "not JSON, or was cut short"),
    "empty record": (lambda f: cut(f / "checkpoint.json", 0), "not JSON"),
    "not an object": (lambda f: (f / "checkpoint.json").write_text("[]"), "JSON object"),
    "unknown key": (lambda f: changed_record(f, more=1), "more: unknown key"),
    "wrong type": (lambda f: changed_record(f, progress__step="1"), "progress.step"),
    "newer schema": (lambda f: changed_record(f, schema=2), "has schema 2.*upgrade prunenas"),
    "no tensors": (lambda f: tensors(f).unlink(), "No such file"),
    "short tensors": (lambda f: cut(tensors(f), 300), "has 300 bytes instead of"),
    "altered tensors": (flip_a_byte, "was altered, its sha256 is another"),
    "another name": (
        lambda f: changed_record(f, tensors__file="../../etc/passwd"),
        "no name of its tensors",
    ),
    "no safetensors": (
        lambda f: (
            tensors(f).write_bytes(b"x" * 20),
            changed_record(
                f,
                tensors__size=20,
                tensors__sha256=hashlib.sha256(b"x" * 20).hexdigest(),
            ),
        ),
        "state-2-1",
    ),
    "wrong shape": (
        lambda f: changed_tensors(f, lambda t: t.update({"network.fc.weight": torch.ones(3)})),
        r"network.fc.weight is torch.float32 \[3\] and should be torch.float32 \[4, 16\]",
    ),
    "wrong momentum": (
        lambda f: changed_tensors(f, lambda t: t.update({"momentum.fc.bias": torch.ones(9)})),
        r"momentum.fc.bias is torch.float32 \[9\]",
    ),
    "missing weight": (
        lambda f: changed_tensors(f, lambda t: t.pop("network.fc.bias")),
        "network.fc.bias is missing",
    ),
    "missing random state": (
        lambda f: changed_tensors(f, lambda t: t.pop("random.cpu")),
        "random.cpu is missing",
    ),
    "stray tensor": (
        lambda f: changed_tensors(f, lambda t: t.update({"held.nowhere": torch.ones(2)})),
        "held.nowhere belongs to nothing",
    ),
    "too many losses": (
        lambda f: changed_tensors(f, lambda t: t.update({"losses": torch.ones(2)})),
        r"losses is torch.float32 \[2\]",
    ),
    "an epoch beyond the last": (
        lambda f: changed_record(f, progress__epoch=9),
        "epoch 9, batch 1: there are 3 epochs of 3 batches",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_with_the_reason_and_nothing_is_taken(kept, damage):
    do, told = DAMAGES[damage]
    do(kept)
    network = build(linear(), seed=1)
    before, random = state(network), torch.get_rng_state()
    with pytest.raises(CheckpointError, match=f"(?s)checkpoint.*{told}"):
        call(kept, network=network)
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_what_a_kill_left_before_the_first_record_is_no_checkpoint(tmp_path):
    (tmp_path / "state-1-0-00000000.safetensors").write_bytes(b"half")
    (tmp_path / ".checkpoint.json.part").write_bytes(b"half")
    assert call(tmp_path).n == 1
    assert len([*tmp_path.iterdir()]) == 2


def test_nothing_else_in_the_folder_is_touched(tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"mine")
    (tmp_path / "notes.txt").write_text("mine")
    call(tmp_path)
    assert (tmp_path / "weights.safetensors").read_bytes() == b"mine"
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_times_below_zero_are_refused():
    with pytest.raises(CheckpointError, match="every_seconds=-1"):
        Checkpoints(Path("anywhere"), every_seconds=-1)


@pytest.fixture
def no_room():
    """Call it, and no file of this process may grow beyond 2,000 bytes: a record, but no tensors.

    The system's own limit; Python ignores the signal that comes with it.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_wait_for_the_disk_that_fails_at_last_leaves_what_the_record_tells_of(
    tmp_path, monkeypatch
):
    """The record has taken its place by then: to remove its tensors would leave nothing."""
    plain, calls = checkpoint._sync, []

    def failing(folder):
        calls.append(folder)
        if len(calls) == 4:  # the names of the second state are on the disk, its record's is not
            raise OSError(28, "No space left on device")
        plain(folder)

    monkeypatch.setattr(checkpoint, "_sync", failing)
    with pytest.raises(SavingError, match="No space left"):
        call(tmp_path)
    monkeypatch.setattr(checkpoint, "_sync", plain)
    unbroken = build(linear(), seed=1)
    train(unbroken, made(), RECIPE)
    network = build(linear(), seed=1)
    call(tmp_path, network=network)
    assert torch.equal(network.weight("fc"), unbroken.weight("fc"))
    assert len([*tmp_path.glob("state-*")]) == 1


def test_on_a_full_disk_the_run_ends_with_words_and_the_last_state_is_intact(tmp_path, no_room):
    with pytest.raises(SavingError) as caught:
        call(tmp_path, on_epoch=lambda report: no_room() if report.epoch == 2 else None)
    told = str(caught.value)
    assert "bytes, for the end of epoch 3, cannot be written to" in told
    assert str(tmp_path) in told
    assert "File too large; the last one, of the end of epoch 2, is intact" in told
    assert len([*tmp_path.iterdir()]) == 2


def test_with_room_again_it_goes_on(tmp_path, no_room):
    test_on_a_full_disk_the_run_ends_with_words_and_the_last_state_is_intact(tmp_path, no_room)
    resource.setrlimit(resource.RLIMIT_FSIZE, resource.getrlimit(resource.RLIMIT_FSIZE)[1:] * 2)
    reports = []
    found = call(tmp_path, on_epoch=reports.append)
    assert [report.epoch for report in reports] == [3]
    unbroken = train(build(linear(), seed=1), made(), RECIPE)
    assert replace(found.results[0], seconds=0.0) == replace(unbroken.results[0], seconds=0.0)


@pytest.mark.parametrize("number", [1, 2])
def test_a_record_that_cannot_be_written_leaves_the_one_before(kept, monkeypatch, number):
    """The tensors could be written, or the room was gone before."""
    sync, left = os.fsync, iter(range(number - 1))

    def full(handle):
        if next(left, None) is None:
            raise OSError(28, "No space left on device")
        sync(handle)

    before = {p: p.read_bytes() for p in kept.iterdir()}
    with monkeypatch.context() as patch, pytest.raises(SavingError) as caught:
        patch.setattr("os.fsync", full)
        call(kept)
    assert "No space left on device; the last one, of epoch 2, batch 1, is intact" in str(
        caught.value
    )
    assert isinstance(caught.value, RunError)
    assert {p: p.read_bytes() for p in kept.iterdir()} == before
    assert call(kept).n == 1


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SavingError, match="Not a directory; there is no earlier one"):
        call(tmp_path / "file" / "run")
