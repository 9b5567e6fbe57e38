"""Sources of the ops that are modules: layers, norms, pools, trained tensors."""

from collections.abc import Sequence

from prunenas.export.python_source.pieces import Arg, Layer, Site, Source, both, square
from prunenas.ir import ops


def _kernel(op: ops.Conv2d | ops.Depthwise2d, site: Site, groups: Arg) -> tuple[Arg, ...]:
    return (
        Arg(value=site.inputs[0].channels, width="in"),
        Arg(value=site.out.channels, width="out"),
        Arg(keyword="kernel_size", value=square(op.kernel)),
        Arg(keyword="stride", value=square(op.stride), default=1),
        Arg(keyword="padding", value=square(op.padding), default=0),
        Arg(keyword="dilation", value=square(op.dilation), default=1),
        groups,
        Arg(keyword="bias", value=op.bias, default=True),
    )


def _with_kernel(kind: str, op: ops.KernelOp, site: Site, args: tuple[Arg, ...]) -> Source:
    """Return a layer of torch's ``kind``, or its twin under a mask."""
    if op.sparsity is None:
        return Source(layer=Layer(function=f"nn.{kind}", args=args))
    mask = Arg(value=f'MASKS["{site.name}"]', keyword="mask")
    return Source(layer=Layer(function=f"Masked{kind}", args=(*args, mask)))


def conv2d(op: ops.Conv2d, site: Site) -> Source:
    """Return a convolution."""
    groups = Arg(keyword="groups", value=op.groups, default=1)
    return _with_kernel("Conv2d", op, site, _kernel(op, site, groups))


def depthwise2d(op: ops.Depthwise2d, site: Site) -> Source:
    """Return a convolution in as many groups as there are channels."""
    groups = Arg(keyword="groups", value=site.inputs[0].channels, default=1, width="in")
    return _with_kernel("Conv2d", op, site, _kernel(op, site, groups))


def conv1d(op: ops.Conv1d, site: Site) -> Source:
    """Return a convolution along one dimension."""
    width = site.inputs[0].channels
    depthwise = op.groups == width > 1
    args = (
        Arg(value=width, width="in"),
        Arg(value=op.width, width="out"),
        Arg(keyword="kernel_size", value=op.kernel),
        Arg(keyword="stride", value=op.stride, default=1),
        Arg(keyword="padding", value=op.padding, default=0),
        Arg(keyword="groups", value=op.groups, default=1, width="in" if depthwise else None),
        Arg(keyword="bias", value=op.bias, default=True),
    )
    return _with_kernel("Conv1d", op, site, args)


def linear(op: ops.Linear, site: Site) -> Source:
    """Return a linear layer."""
    args = (
        Arg(value=site.inputs[0].dims[-1], width="in"),
        Arg(value=op.width, width="out"),
        Arg(keyword="bias", value=op.bias, default=True),
    )
    return _with_kernel("Linear", op, site, args)


def batch_norm(op: ops.BatchNorm, site: Site) -> Source:
    """Return a batch norm of images, or of vectors and rows."""
    args = (
        Arg(value=site.out.channels, width="in"),
        Arg(keyword="eps", value=op.eps, default=1e-5),
        Arg(keyword="momentum", value=op.momentum, default=0.1),
    )
    kind = "nn.BatchNorm2d" if len(site.out.dims) == 3 else "nn.BatchNorm1d"
    return Source(layer=Layer(function=kind, args=args))


def group_norm(op: ops.GroupNorm, site: Site) -> Source:
    """Return a group norm."""
    args = (
        Arg(keyword="num_groups", value=op.groups),
        Arg(keyword="num_channels", value=site.out.channels, width="in"),
        Arg(keyword="eps", value=op.eps, default=1e-5),
    )
    return Source(layer=Layer(function="nn.GroupNorm", args=args))


def layer_norm(op: ops.LayerNorm, site: Site) -> Source:
    """Return a layer norm; torch's own has no shift without a scale."""
    sizes = site.out.dims[-op.dims :]
    size = Arg(value=sizes[0], width="in") if op.dims == 1 else Arg(value=sizes)
    eps = Arg(keyword="eps", value=op.eps, default=1e-5)
    if op.shift and not op.scale:
        return Source(layer=Layer(function="ShiftNorm", args=(size, eps)))
    flags = (
        Arg(keyword="elementwise_affine", value=op.scale, default=True),
        Arg(keyword="bias", value=op.shift or not op.scale, default=True),
    )
    return Source(layer=Layer(function="nn.LayerNorm", args=(size, eps, *flags)))


def rms_norm(op: ops.RmsNorm, site: Site) -> Source:
    """Return a norm by the root mean square."""
    args = (
        Arg(value=site.out.dims[-1], width="in"),
        *([] if op.eps is None else [Arg(keyword="eps", value=op.eps)]),
        Arg(keyword="elementwise_affine", value=op.scale, default=True),
    )
    return Source(layer=Layer(function="nn.RMSNorm", args=args))


def drop_path(op: ops.DropPath, site: Site) -> Source:
    """Return stochastic depth."""
    layer = Layer(function="DropPath", args=(Arg(value=op.p, keyword="p"),))
    return Source(layer=layer)


def pool2d(op: ops.Pool2d, site: Site) -> Source:
    """Return a pool over windows."""
    kernel = square(op.kernel)
    args = (
        Arg(value=kernel),
        Arg(keyword="stride", value=square(op.stride), default=kernel),
        Arg(keyword="padding", value=square(op.padding), default=0),
        Arg(keyword="ceil_mode", value=op.ceil_mode, default=False),
    )
    if op.function == "max":
        return both("nn.MaxPool2d", "F.max_pool2d", *args)
    counted = Arg(keyword="count_include_pad", value=op.count_padding, default=True)
    return both("nn.AvgPool2d", "F.avg_pool2d", *args, counted)


def global_pool(op: ops.GlobalPool, site: Site) -> Source:
    """Return a pool over the whole image, or over cells of it."""
    size = Arg(value=square(op.size))
    if op.function == "max":
        return both("nn.AdaptiveMaxPool2d", "F.adaptive_max_pool2d", size)
    return both("nn.AdaptiveAvgPool2d", "F.adaptive_avg_pool2d", size)


def select(op: ops.Select, site: Site) -> Source:
    """Return a selection of channels, told in runs; that of all channels is nothing."""
    if len(op.indices) == site.inputs[0].channels:
        return Source(inline="{0}")
    args = (Arg(value=f'"{_runs(op.indices)}"', keyword="indices"),)
    return Source(layer=Layer(function="ChannelSelection", args=args))


def _runs(indices: Sequence[int]) -> str:
    """Return ascending ``indices`` as text, neighbours as a range: ``0-3 7 9-10``."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def pad_channels(op: ops.PadChannels, site: Site) -> Source:
    """Return a shortcut without parameters."""
    args = (
        Arg(keyword="stride", value=op.stride, default=1),
        Arg(keyword="average", value=op.function == "average", default=False),
        Arg(keyword="detach", value=op.detach, default=False),
    )
    return Source(layer=Layer(function="PadShortcut", args=args))


def parameter(op: ops.Parameter, site: Site) -> Source:
    """Return a tensor that is trained; one that is a vector has a width."""
    vector = sum(size > 1 for size in op.sizes) == 1
    args = tuple(Arg(value=n, width="in" if vector and n > 1 else None) for n in op.sizes)
    fill = {"normal": (), "ones": (1.0,), "zeros": (0.0,)}[op.start]
    filled = (Arg(keyword="fill", value=value) for value in fill)
    layer = Layer(function="TrainableTensor", args=(*args, *filled))
    return Source(layer=layer)
