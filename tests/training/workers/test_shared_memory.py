"""Images in shared memory: the same images, once."""

from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from prunenas.errors import DataError
from prunenas.training.workers import shared_memory
from prunenas.training.workers.shared_memory import shared
from tests.training.networks import made


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def tensors(data):
    names = ("train_images", "train_labels", "test_images", "test_labels", "validation")
    return [getattr(data, name) for name in names]


def test_what_is_shared_is_the_same_set():
    data = shared(made(), held_out=True)
    assert data.digest == made().digest
    parts = [data.part("fit"), data.part("validation")]
    assert all(t.is_shared() for t in [*tensors(data), *(p.images for p in parts)])


def test_another_process_reads_the_same_memory():
    data = shared(made(), held_out=True)
    other = ForkingPickler.loads(ForkingPickler.dumps(data))
    data.train_images[0] = 77
    data.part("fit").images[1] = 78
    assert (other.train_images[0] == 77).all()
    assert (other.part("fit").images[1] == 78).all()


def test_images_that_belong_to_numpy_are_shared_too():
    images = np.arange(24 * 16, dtype=np.uint8).reshape(24, 1, 4, 4)
    data = shared(made(train_images=torch.from_numpy(images.copy())), held_out=False)
    assert data.train_images.is_shared()
    assert (data.train_images.numpy() == images).all()


def test_too_little_room_is_told_before_it_kills(monkeypatch):
    monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda path: Usage(9, 9, 100))
    monkeypatch.setattr(shared_memory, "_ROOM", Path("/"))
    with pytest.raises(DataError, match="MiB of shared memory, and / has room for 0"):
        shared(made(), held_out=False)


def test_what_is_shared_already_needs_no_room(monkeypatch):
    data = shared(made(), held_out=True)
    monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda path: Usage(9, 9, 0))
    assert shared(data, held_out=True) is data
