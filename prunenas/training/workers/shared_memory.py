"""Images of one process that others read too, without copies."""

import shutil
from pathlib import Path

from torch import Tensor

from prunenas.data.base import ImageData, ImageSet
from prunenas.errors import DataError

_ROOM = Path("/dev/shm")
"""Where Linux keeps shared memory."""


def shared(data: ImageSet, *, held_out: bool) -> ImageSet:
    """Return ``data`` on the CPU, in shared memory, with the parts that trainings look at.

    Args:
        data: Its tensors move there if they are on the CPU already. Images that are streamed stay
            on disk.
        held_out: Whether a validation part is held out; it is gathered once for all then.

    Raises:
        DataError: Shared memory has too little room: to write there all the same would kill this
            process without a word.
    """
    data = data.to("cpu")
    if not isinstance(data, ImageData):
        return data
    tensors = [data.train_images, data.train_labels, data.test_images, data.test_labels]
    tensors.append(data.validation)
    for part in (data.part("fit"), data.part("validation")) if held_out else ():
        tensors += [part.images, part.labels]
    private = {t.untyped_storage().data_ptr(): t for t in tensors if not _is_shared(t)}
    _check_room(data, sum(tensor.untyped_storage().nbytes() for tensor in private.values()))
    for tensor in private.values():
        tensor.share_memory_()  # type: ignore[no-untyped-call]
    return data


def _is_shared(tensor: Tensor) -> bool:
    return bool(tensor.is_shared())  # type: ignore[no-untyped-call]


def _check_room(data: ImageData, wanted: int) -> None:
    if not _ROOM.exists():
        return
    free = shutil.disk_usage(_ROOM).free
    if wanted > free:
        raise DataError(
            f"{data.name} takes {wanted / 2**20:.0f} MiB of shared memory, and {_ROOM} has room "
            f"for {free / 2**20:.0f}: give it more (docker run --shm-size), or use a subset"
        )
