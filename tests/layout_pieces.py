"""Pieces of random graphs that cut, lay out and calculate by hand: each from image to image."""

import numpy as np

from prunenas.ir.ops import (
    Affine,
    Arithmetic,
    Clamp,
    Constant,
    Conv1d,
    Convolve,
    Filled,
    Fold,
    Join,
    LeakyRelu,
    Linear,
    Normalize,
    Opaque,
    Pad,
    Parameter,
    Permute,
    Power,
    Reduce,
    Reshape,
    Resize,
    Roll,
    Shuffle,
    Slice,
    Softmax,
    Split,
    Tile,
    Unfold,
)
from tests.sketch import Sketch


def constant(values: np.ndarray) -> Constant:
    """Return a constant of these numbers, as float32 or int64."""
    whole = values.dtype.kind == "i"
    raw = values.astype("<i8" if whole else "<f4").tobytes()
    return Constant(
        sizes=values.shape, dtype="int64" if whole else "float32", data=Constant.packed(raw)
    )


def squeezed(s: Sketch, x: str) -> str:
    """Squeeze-excite from means and linear layers."""
    c = s.channels(x)
    factors = s.net.add("mean", Reduce(dims=(2, 3)), x)
    factors = s.net.relu("relu", s.net.add("reduce", Linear(width=s.width()), factors))
    factors = s.net.activation("gate", s.net.add("expand", Linear(width=c), factors), "sigmoid")
    factors = s.net.add("image", Reshape(sizes=(c, 1, 1)), factors)
    return s.net.add("times", Arithmetic(function="multiply"), x, factors)


def neighbours(s: Sketch, x: str) -> str:
    """Channels weighed by a convolution over the means of their neighbours (ECA)."""
    c = s.channels(x)
    x = s.conv("before", x, c) if s.flag() else x
    factors = s.net.add("mean", Reduce(dims=(2, 3), keep=s.flag()), x)
    factors = s.net.add("row", Reshape(sizes=(1, c)), factors)
    factors = s.net.add("along", Conv1d(width=1, kernel=3, padding=1), factors)
    factors = s.net.activation("gate", factors, "sigmoid")
    factors = s.net.add("image", Reshape(sizes=(c, 1, 1)), factors)
    return s.net.add("times", Arithmetic(function="multiply"), x, factors)


def along_positions(s: Sketch, x: str) -> str:
    """A convolution along all positions in a row, its length kept or cut."""
    shape = s.net.shape(x)
    groups = s.one_of([1, 1, shape.channels])
    width = shape.channels if groups > 1 else s.width()
    x = s.net.add("row", Reshape(sizes=(shape.channels, shape.positions)), x)
    op = Conv1d(width=width, kernel=3, padding=1, groups=groups, bias=s.flag())
    x = s.net.add("conv", op, x)
    return s.net.add("back", Reshape(sizes=(width, *shape.spatial)), x)


def shuffled_by_hand(s: Sketch, x: str) -> str:
    """Channel shuffle as torchvision writes it: view, transpose, view."""
    groups, each = s.integer(2, 3), s.integer(1, 3)
    x = s.conv("before", x, groups * each)
    sides = s.net.shape(x).spatial
    x = s.net.add("apart", Reshape(sizes=(groups, each, *sides)), x)
    x = s.net.add("turned", Permute(order=(0, 2, 1, 3, 4)), x)
    x = s.net.add("together", Reshape(sizes=(groups * each, *sides)), x)
    return s.conv("after", x, s.width()) if s.flag() else x


def shuffle_units(s: Sketch, x: str) -> str:
    """Two units of a ShuffleNet: half of the shuffled channels go by, the others are worked on."""
    width = s.integer(1, 4)
    parts = [s.conv(f"conv{i}", x, width) for i in range(2)]
    for unit in range(2):
        x = s.net.concat(f"concat{unit}", *parts)
        x = s.net.add(f"shuffle{unit}", Shuffle(groups=2), x)
        parts = [s.net.add(f"part{unit}{i}", Split(parts=2, index=i), x) for i in range(2)]
        parts[1] = s.conv(f"worked{unit}", parts[1], s.channels(parts[1]))
    return s.net.concat("out", *parts)


def sliced(s: Sketch, x: str) -> str:
    """A layer's channels in unequal parts, one added to another layer; what is cut off may meet."""
    first, second = s.integer(1, 5), s.integer(1, 5)
    x = s.conv("conv", x, first + second)
    one = s.net.add("one", Slice(dim=1, start=0, stop=first), x)
    other = s.net.add("other", Slice(dim=1, start=first, stop=first + second), x)
    one = s.net.join("add", one, s.conv("beside", x, first))
    if s.flag():
        return s.net.join("whole", x, s.net.concat("concat", s.conv("worked", other, first), other))
    return s.net.add("joined", Join(dim=1), other, one)


def cut_twice(s: Sketch, x: str) -> str:
    """Two concatenations that are cut at different places, added."""
    total = s.integer(3, 8)
    sums = []
    for side in range(2):
        at = s.integer(1, total - 1)
        parts = [s.conv(f"conv{side}{i}", x, w) for i, w in enumerate((at, total - at))]
        sums.append(s.net.concat(f"concat{side}", *parts))
    return s.net.join("add", *sums)


def grouped_sums(s: Sketch, x: str) -> str:
    """Channels in groups of unlike size, summed group by group; a maxout."""
    outer, inner = s.integer(1, 4), s.integer(1, 3)
    x = s.conv("conv", x, outer * inner)
    sides = s.net.shape(x).spatial
    x = s.net.add("apart", Reshape(sizes=(outer, inner, *sides)), x)
    dim = s.integer(1, 2)
    return s.net.add("largest", Reduce(function=s.one_of(["max", "sum"]), dims=(dim,)), x)


def focused(s: Sketch, x: str) -> str:
    """Every second row and column to the channels."""
    x = s.net.add("even", Resize(size=(4, 6), function=s.one_of(["nearest", "bilinear"])), x)
    parts = []
    for i in range(2):
        rows = s.net.add(f"rows{i}", Slice(dim=2, start=i, stop=4, step=2), x)
        parts += [
            s.net.add(f"part{i}{j}", Slice(dim=3, start=j, stop=6, step=2), rows) for j in range(2)
        ]
    return s.net.concat("concat", *parts)


def unshuffled(s: Sketch, x: str) -> str:
    """Pixels to channels, and channels back to pixels (depth to space)."""
    width = s.integer(1, 3)
    x = s.net.add("even", Resize(size=(4, 4)), s.conv("conv", x, width))
    if s.flag():
        x = s.net.add("apart", Reshape(sizes=(width, 2, 2, 2, 2)), x)
        x = s.net.add("turned", Permute(order=(0, 1, 3, 5, 2, 4)), x)
        return s.net.add("together", Reshape(sizes=(4 * width, 2, 2)), x)
    x = s.net.conv("wide", x, 4 * width, kernel=1)
    x = s.net.add("apart", Reshape(sizes=(width, 2, 2, 4, 4)), x)
    x = s.net.add("turned", Permute(order=(0, 1, 4, 2, 5, 3)), x)
    return s.net.add("together", Reshape(sizes=(width, 8, 8)), x)


def windows_of_pixels(s: Sketch, x: str) -> str:
    """Sliding windows as columns, mixed by a linear layer, and added up to an image again."""
    size = s.net.shape(x).size()
    x = s.net.add("columns", Unfold(kernel=(2, 2), padding=(1, 1)), x)
    rows = s.net.shape(x).dims[0]
    if s.flag():
        x = s.net.add("turned", Permute(order=(0, 2, 1)), x)
        rows = 4 * s.integer(1, 3)
        x = s.net.add("mixed", Linear(width=rows), x)
        x = s.net.add("back", Permute(order=(0, 2, 1)), x)
    return s.net.add("folded", Fold(size=size, kernel=(2, 2), padding=(1, 1)), x)


def bent(s: Sketch, x: str) -> str:
    """Functions of single elements, one after another."""
    ops = (
        LeakyRelu(slope=0.3),
        Affine(scale=2.0, shift=-0.5),
        Clamp(low=-1.0, high=s.one_of([None, 2.0])),
        Power(exponent=2.0),
        Normalize(dim=s.integer(1, 3)),
        Softmax(dim=s.integer(1, 3)),
    )
    x = s.conv("conv", x, s.width())
    for i, op in enumerate(s.some_of(ops)):
        x = s.net.add(f"bent{i}", op, x)
    return x


def moved(s: Sketch, x: str) -> str:
    """Rows rolled on, padded, repeated, joined; sometimes the channels instead."""
    dim = s.integer(1, 3)
    x = s.conv("conv", x, s.integer(1, 4))
    x = s.net.add("rolled", Roll(dim=dim, shift=1), x) if s.flag() else x
    x = s.net.add("padded", Pad(dim=dim, before=1, after=s.integer(-1, 1)), x) if s.flag() else x
    x = s.net.add("tiled", Tile(dim=dim, times=2), x) if s.flag() else x
    return s.net.add("joined", Join(dim=s.integer(1, 3)), x, x)


def scaled(s: Sketch, x: str) -> str:
    """A trained scale for each channel or pixel, and stored numbers that are added."""
    x = s.conv("conv", x, s.width())
    c, *sides = s.net.shape(x).dims
    sizes = s.one_of([(c, 1, 1), (1, c, 1, 1), (*sides,), (c, *sides)])
    scale = s.net.add("scale", Parameter(sizes=sizes, start=s.one_of(["ones", "normal"])))
    x = s.net.add("times", Arithmetic(function="multiply"), x, scale)
    sizes = s.one_of([(), (c, 1, 1), (*sides,)])
    if s.flag():
        op = Filled(sizes=sizes, value=0.5)
    else:
        op = constant(np.linspace(-1, 1, num=int(np.prod(sizes))).reshape(sizes))
    return s.net.add("plus", Arithmetic(), x, s.net.add("numbers", op))


def standardised(s: Sketch, x: str) -> str:
    """Less the mean, by hand: what is reduced is spread out again."""
    dims = s.one_of([(1,), (2, 3), (1, 2, 3)])
    mean = s.net.add("mean", Reduce(dims=dims, keep=True), x)
    x = s.net.add("centred", Arithmetic(function="subtract"), x, mean)
    spread = s.net.add("spread", Reduce(function="variance", dims=dims, keep=True), x)
    spread = s.net.add("some", Affine(scale=1.0, shift=0.1), spread)
    return s.net.add("even", Arithmetic(function="divide"), x, spread)


def standard_kernels(s: Sketch, x: str) -> str:
    """A convolution whose trained kernel is brought to mean 0 and variance 1 first."""
    groups = s.integer(1, 2)
    x = s.conv("before", x, s.width(multiple_of=groups))
    depthwise = groups == 1 and s.flag()
    c = s.channels(x)
    sizes = (c, 1, 3, 3) if depthwise else (s.width(multiple_of=groups), c // groups, 3, 3)
    kernel = s.net.add("kernel", Parameter(sizes=sizes))
    if s.flag():
        mean = s.net.add("mean", Reduce(dims=(1, 2, 3), keep=True), kernel)
        kernel = s.net.add("centred", Arithmetic(function="subtract"), kernel, mean)
        spread = s.net.add("spread", Reduce(function="norm", dims=(1, 2, 3), keep=True), kernel)
        kernel = s.net.add("standard", Arithmetic(function="divide"), kernel, spread)
    op = Convolve(depthwise=depthwise, groups=groups, padding=(1, 1))
    return s.net.add("convolved", op, x, kernel)


def frozen(s: Sketch, x: str) -> str:
    """A call that no op describes."""
    shape = s.net.shape(x)
    arguments = Opaque.text([[{"tensor": 0}, s.integer(1, 3)], {}])
    op = Opaque(call="cumsum.default", arguments=arguments, sizes=shape.dims, lead=shape.lead)
    return s.net.add("call", op, x)


LAYOUT_PIECES = (
    squeezed,
    neighbours,
    along_positions,
    shuffled_by_hand,
    shuffle_units,
    sliced,
    cut_twice,
    grouped_sums,
    focused,
    unshuffled,
    windows_of_pixels,
    bent,
    moved,
    scaled,
    standardised,
    standard_kernels,
    frozen,
)
