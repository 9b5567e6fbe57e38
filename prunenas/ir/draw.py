"""Random draws that are the same on every machine and in every numpy version.

Only the raw output of numpy's Philox bit generator is used: its stream is specified (Salmon et
al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), while numpy's distributions may change.
"""

import zlib

import numpy as np
from numpy.typing import NDArray


def stream_seed(seed: int, stream: str) -> int:
    """Return the seed, below 2**32, of one of the streams that belong to ``seed``."""
    return int(_raw(1, seed, stream)[0] >> np.uint64(32))


def uniform(count: int, *, seed: int, stream: str) -> NDArray[np.float64]:
    """Return ``count`` numbers in [0, 1), drawn for ``stream`` (such as a node's name)."""
    return np.asarray(_raw(count, seed, stream) >> np.uint64(11), dtype=np.float64) * 2.0**-53


def subset(total: int, count: int, *, seed: int, stream: str) -> tuple[int, ...]:
    """Return ``count`` of the indices below ``total``, ascending."""
    order = np.argsort(uniform(total, seed=seed, stream=stream), kind="stable")
    return tuple(sorted(int(i) for i in order[:count]))


def _raw(count: int, seed: int, stream: str) -> NDArray[np.uint64]:
    # Without the type, numpy passes keys from 2**63 on through floats and loses digits.
    key = np.array([seed % 2**64, zlib.crc32(stream.encode())], dtype=np.uint64)
    return np.asarray(np.random.Philox(key=key).random_raw(count), dtype=np.uint64)
