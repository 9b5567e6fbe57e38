"""Pieces of random graphs on the channels of images: each reads an image and returns one."""

from hypothesis import strategies as st

from prunenas.ir.ops import (
    Conv2d,
    Depthwise2d,
    DropPath,
    Gate,
    GlobalPool,
    GroupNorm,
    KernelSparsity,
    PadChannels,
    Pool2d,
    Select,
    Shuffle,
    Split,
)
from tests.sketch import Sketch


def plain(s: Sketch, x: str) -> str:
    x = s.conv("conv", x, s.width(), stride=s.one_of([1, 2]), bias=s.flag())
    if s.flag():
        x = s.net.activation("act", x, s.one_of(["relu6", "silu", "hardswish", "leaky_relu"]))
    return x


def odd_conv(s: Sketch, x: str) -> str:
    """A kernel that is not square, dilated, sparse."""
    kernel, dilation = (s.integer(1, 3), s.integer(1, 3)), (s.integer(1, 2), s.integer(1, 2))
    density = tuple(s.one_of([0.25, 0.5, 1.0]) for _ in range(kernel[0] * kernel[1]))
    op = Conv2d(
        width=s.width(),
        kernel=kernel,
        stride=(s.integer(1, 2), s.integer(1, 2)),
        padding=tuple((d * (k - 1) + 1) // 2 for k, d in zip(kernel, dilation, strict=True)),
        dilation=dilation,
        bias=s.flag(),
        sparsity=KernelSparsity(density=density, seed=s.integer(0, 3)) if s.flag() else None,
    )
    return s.net.add("odd", op, x)


def residual(s: Sketch, x: str) -> str:
    """The shortcut is the identity; the branch may be dropped by chance."""
    branch = s.conv("conv1", x, s.width())
    branch = s.conv("conv2", branch, s.channels(x))
    if s.flag():
        branch = s.net.add("drop_path", DropPath(p=0.2), branch)
    return s.net.relu("out", s.net.join("add", branch, x))


def projected(s: Sketch, x: str) -> str:
    width, stride = s.width(), s.one_of([1, 2])
    branch = s.conv("conv1", x, s.width(), stride=stride)
    branch = s.conv("conv2", branch, width)
    shortcut = s.net.conv("shortcut", x, width, kernel=1, stride=stride)
    return s.net.join("add", branch, shortcut)


def padded(s: Sketch, x: str) -> str:
    """A shortcut without parameters: subsampled, or averaged where that gives the size."""
    stride = s.one_of([1, 2])
    size = s.net.shape(x).size()
    width = s.channels(x) + s.integer(0, 3)
    branch = s.conv("conv1", x, width, stride=stride)
    even = all(n % stride == 0 for n in size)
    op = PadChannels(
        stride=stride,
        function=s.one_of(["subsample", "average"]) if even else "subsample",
        detach=s.flag(),
    )
    return s.net.join("add", branch, s.net.add("pad", op, x, branch))


def dense(s: Sketch, x: str) -> str:
    """Nested concatenation: each layer reads all that was computed before it."""
    for i in range(2):
        source = select(s, x, f"select{i}") if s.flag() else x
        x = s.net.concat(f"concat{i}", x, s.conv(f"conv{i}", source, s.width()))
    return x


def select(s: Sketch, x: str, name: str = "select") -> str:
    channels = s.channels(x)
    indices = s.draw(st.sets(st.integers(0, channels - 1), min_size=1))
    return s.net.add(name, Select(indices=tuple(sorted(indices))), x)


def preactivated(s: Sketch, x: str) -> str:
    """A selection stands before the branch of a residual, as in a pruned PreResNet."""
    branch = s.net.relu("relu", s.net.batch_norm("bn", select(s, x)))
    return s.net.join("add", s.conv("conv", branch, s.channels(x)), x)


def depthwise(s: Sketch, x: str) -> str:
    stride = s.one_of([1, 2])
    op = Depthwise2d(
        multiplier=s.integer(1, 2),
        kernel=(3, 3),
        stride=(stride, stride),
        padding=(1, 1),
        bias=s.flag(),
    )
    return s.conv("point", s.net.batch_norm("bn", s.net.add("depth", op, x)), s.width())


def grouped(s: Sketch, x: str) -> str:
    groups = s.integer(2, 3)
    x = s.conv("before", x, s.width(multiple_of=groups))
    return s.net.conv("grouped", x, s.width(multiple_of=groups), kernel=3, groups=groups)


def group_normed(s: Sketch, x: str) -> str:
    """Sometimes on a concatenation, of which perhaps only the whole divides."""
    groups = s.integer(2, 3)
    total = groups * s.integer(1, 4)
    first = s.integer(1, total - 1)
    if s.flag():
        parts = (s.conv("conv1", x, first), s.conv("conv2", x, total - first))
        x = s.net.concat("concat", *parts)
    else:
        x = s.conv("conv", x, total)
    return s.net.add("norm", GroupNorm(groups=groups), x)


def squeeze_excite(s: Sketch, x: str) -> str:
    factors = s.net.global_pool("squeeze", x)
    factors = s.net.conv("reduce", factors, s.width(), kernel=1, bias=True)
    factors = s.net.conv("expand", s.net.relu("relu", factors), s.channels(x), kernel=1, bias=True)
    return s.net.add("gate", Gate(), x, s.net.activation("sigmoid", factors, "sigmoid"))


def shuffled(s: Sketch, x: str) -> str:
    """Channel shuffle over equal parts, over one convolution, or across the borders of two."""
    groups = s.integer(2, 3)
    way = s.integer(0, 2)
    if way == 0:
        width = s.width(multiple_of=groups)
        x = s.net.concat("concat", *(s.conv(f"conv{i}", x, width) for i in range(groups)))
    elif way == 1:
        x = s.conv("conv", x, s.width(multiple_of=groups))
    else:
        first = s.integer(1, groups)
        parts = s.conv("conv1", x, first), s.conv("conv2", x, 3 * groups - first)
        x = s.net.concat("concat", *parts)
    x = s.net.add("shuffle", Shuffle(groups=groups), x)
    return s.conv("after", x, s.width())


def split(s: Sketch, x: str) -> str:
    """Equal parts, one of which is worked on; or a cut that falls inside a convolution's width."""
    width = s.integer(1, 4)
    widths = s.one_of([(width, width), (width, 3 * width), (width, 2, width, 2)])
    parts = [s.conv(f"conv{i}", x, w) for i, w in enumerate(widths)]
    whole = s.net.concat("concat", *parts)
    first, second = (s.net.add(f"part{i}", Split(parts=2, index=i), whole) for i in range(2))
    worked = s.conv("worked", second, s.channels(first))
    return s.net.join("add", first, worked) if s.flag() else s.net.concat("out", first, worked)


def cut_differently(s: Sketch, x: str) -> str:
    """Two layers' channels added to one's, or to a selection, which cannot be taken apart."""
    widths = s.width(), s.width()
    both = s.net.concat("concat", *(s.conv(f"conv{i}", x, w) for i, w in enumerate(widths)))
    whole = s.conv("whole", x, sum(widths))
    if s.flag():
        whole = s.net.select_all("select", whole)
    return s.net.join("add", both, whole)


def pool(s: Sketch, x: str) -> str:
    kernel = s.integer(2, 3)
    small = min(s.net.shape(x).size()) < kernel
    padding = kernel // 2 if small or s.flag() else 0
    op = Pool2d(
        function=s.one_of(["max", "average"]),
        kernel=(kernel, kernel),
        stride=(s.integer(1, 2), s.integer(1, 2)),
        padding=(padding, padding),
        ceil_mode=s.flag(),
        count_padding=s.flag(),
    )
    return s.net.add("pool", op, x)


def adaptive_pool(s: Sketch, x: str) -> str:
    op = GlobalPool(function=s.one_of(["max", "average"]), size=(s.integer(1, 3), s.integer(1, 3)))
    return s.net.add("adaptive", op, x)


def shared(s: Sketch, x: str) -> str:
    """One convolution, called twice."""
    width, kernel = s.channels(x), s.one_of([1, 3])
    first = s.net.conv("first", x, width, kernel=kernel)
    second = s.net.conv("second", s.net.relu("between", first), width, kernel=kernel)
    s.shared[second] = first
    return second


IMAGE_PIECES = (
    plain,
    odd_conv,
    residual,
    projected,
    padded,
    dense,
    preactivated,
    depthwise,
    grouped,
    group_normed,
    squeeze_excite,
    shuffled,
    split,
    cut_differently,
    pool,
    adaptive_pool,
    shared,
)
