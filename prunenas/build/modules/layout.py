"""Modules that lay out the entries of a tensor anew."""

from torch import Tensor, nn


class Slicing(nn.Module):
    """Entries ``start`` up to ``stop`` of dimension ``dim``, every ``step``-th."""

    def __init__(self, dim: int, start: int, stop: int, step: int) -> None:
        super().__init__()
        self.key = (slice(None),) * dim + (slice(start, stop, step),)

    def forward(self, x: Tensor) -> Tensor:
        """Return the entries, without a copy."""
        return x[self.key]


class Taking(nn.Module):
    """The entries of dimension ``dim`` at given indices."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor, indices: Tensor) -> Tensor:
        """Return the entries at ``indices`` ``[k]``."""
        return x.index_select(self.dim, indices)


class Tiling(nn.Module):
    """The whole of dimension ``dim`` several times; a single entry is not copied."""

    def __init__(self, sizes: tuple[int, ...], dim: int, times: int) -> None:
        super().__init__()
        self.single = sizes[dim] == 1
        self.sizes = [-1 if self.single else 1] * len(sizes)
        self.sizes[dim] = times

    def forward(self, x: Tensor) -> Tensor:
        """Return the tiled tensor."""
        return x.expand(self.sizes) if self.single else x.repeat(self.sizes)


class Spreading(nn.Module):
    """What is the same for all images, once for each entry of a batch; it is not copied."""

    def forward(self, one: Tensor, like: Tensor) -> Tensor:
        """Return ``one`` ``[1 ...]`` with the batch of ``like``."""
        return one.expand(like.shape[0], *one.shape[1:])
