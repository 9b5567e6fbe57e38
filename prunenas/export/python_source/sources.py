"""The table from ops to PyTorch source text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, final

from prunenas.export.python_source.text import Value, literal
from prunenas.ir import ops
from prunenas.ir.graph import Graph, Node
from prunenas.ir.shape import Pair, Shape


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Arg:
    """One argument of a layer's constructor.

    Args:
        value: What is handed in.
        keyword: The argument's name; None for one that is told by position.
        default: The value at which the argument is left out.
        width: Whether this counts channels, and of which side; None for anything else.
    """

    value: Value
    keyword: str | None = None
    default: Value | None = None
    width: Literal["in", "out"] | None = None

    @property
    def is_default(self) -> bool:
        """Whether the argument can be left out."""
        return self.default is not None and self.value == self.default


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A module: the constructor and all its arguments, in order, defaults included."""

    function: str
    args: tuple[Arg, ...] = ()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """How one node is written.

    Args:
        layer: The module that is declared; None where there is no such module.
        inline: The expression that needs no module, ``{0}`` and so on for the inputs.
        helper: Name of the helper that the file must define.
    """

    layer: Layer | None = None
    inline: str | None = None
    helper: str | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where an op stands: its node's name, the shapes that it reads and gives."""

    name: str
    inputs: tuple[Shape, ...]
    out: Shape


def source(graph: Graph, node: Node) -> Source:
    """Return how ``node`` is written."""
    site = Site(name=node.name, inputs=tuple(graph.input_shapes(node)), out=graph.shapes[node.name])
    return SOURCES[type(node.op)](cast(Any, node.op), site)


def _square(pair: Pair) -> Value:
    """Return one number for a pair of equal ones, as people write it."""
    return pair[0] if pair[0] == pair[1] else pair


def _both(layer: str, function: str, *args: Arg) -> Source:
    """Return a stateless op: a function of torch in a forward, a module in a chain."""
    told = [
        f"{arg.keyword}={literal(arg.value)}" if arg.keyword else str(literal(arg.value))
        for arg in args
        if not arg.is_default
    ]
    inline = f"{function}({', '.join(['{0}', *told])})"
    return Source(layer=Layer(function=layer, args=args), inline=inline)


def _kernel(op: ops.Conv2d | ops.Depthwise2d, site: Site, groups: Arg) -> tuple[Arg, ...]:
    return (
        Arg(value=site.inputs[0].channels, width="in"),
        Arg(value=site.out.channels, width="out"),
        Arg(keyword="kernel_size", value=_square(op.kernel)),
        Arg(keyword="stride", value=_square(op.stride), default=1),
        Arg(keyword="padding", value=_square(op.padding), default=0),
        Arg(keyword="dilation", value=_square(op.dilation), default=1),
        groups,
        Arg(keyword="bias", value=op.bias, default=True),
    )


def _conv(op: ops.Conv2d, site: Site) -> Source:
    args = _kernel(op, site, Arg(keyword="groups", value=op.groups, default=1))
    if op.sparsity is None:
        return Source(layer=Layer(function="nn.Conv2d", args=args))
    mask = Arg(value=f'MASKS["{site.name}"]', keyword="mask")
    return Source(layer=Layer(function="MaskedConv2d", args=(*args, mask)), helper="MaskedConv2d")


def _depthwise(op: ops.Depthwise2d, site: Site) -> Source:
    groups = Arg(keyword="groups", value=site.inputs[0].channels, default=1, width="in")
    return Source(layer=Layer(function="nn.Conv2d", args=_kernel(op, site, groups)))


def _linear(op: ops.Linear, site: Site) -> Source:
    args = (
        Arg(value=site.inputs[0].channels, width="in"),
        Arg(value=op.width, width="out"),
        Arg(keyword="bias", value=op.bias, default=True),
    )
    return Source(layer=Layer(function="nn.Linear", args=args))


def _batch_norm(op: ops.BatchNorm, site: Site) -> Source:
    args = (
        Arg(value=site.out.channels, width="in"),
        Arg(keyword="eps", value=op.eps, default=1e-5),
        Arg(keyword="momentum", value=op.momentum, default=0.1),
    )
    kind = "nn.BatchNorm2d" if site.out.spatial else "nn.BatchNorm1d"
    return Source(layer=Layer(function=kind, args=args))


def _group_norm(op: ops.GroupNorm, site: Site) -> Source:
    args = (
        Arg(keyword="num_groups", value=op.groups),
        Arg(keyword="num_channels", value=site.out.channels, width="in"),
        Arg(keyword="eps", value=op.eps, default=1e-5),
    )
    return Source(layer=Layer(function="nn.GroupNorm", args=args))


_ACTIVATIONS = {
    "relu": ("nn.ReLU", "F.relu"),
    "relu6": ("nn.ReLU6", "F.relu6"),
    "leaky_relu": ("nn.LeakyReLU", "F.leaky_relu"),
    "silu": ("nn.SiLU", "F.silu"),
    "hardswish": ("nn.Hardswish", "F.hardswish"),
    "hardsigmoid": ("nn.Hardsigmoid", "F.hardsigmoid"),
    "sigmoid": ("nn.Sigmoid", "torch.sigmoid"),
    "tanh": ("nn.Tanh", "torch.tanh"),
    "gelu": ("nn.GELU", "F.gelu"),
}


def _dropout(op: ops.Dropout, site: Site) -> Source:
    layer = Layer(function="nn.Dropout", args=(Arg(value=op.p, keyword="p", default=0.5),))
    return Source(layer=layer, inline=f"F.dropout({{0}}, {op.p!r}, training=self.training)")


def _drop_path(op: ops.DropPath, site: Site) -> Source:
    layer = Layer(function="DropPath", args=(Arg(value=op.p, keyword="p"),))
    return Source(layer=layer, helper="DropPath")


def _pool(op: ops.Pool2d, site: Site) -> Source:
    kernel = _square(op.kernel)
    args = (
        Arg(value=kernel),
        Arg(keyword="stride", value=_square(op.stride), default=kernel),
        Arg(keyword="padding", value=_square(op.padding), default=0),
        Arg(keyword="ceil_mode", value=op.ceil_mode, default=False),
    )
    if op.function == "max":
        return _both("nn.MaxPool2d", "F.max_pool2d", *args)
    counted = Arg(keyword="count_include_pad", value=op.count_padding, default=True)
    return _both("nn.AvgPool2d", "F.avg_pool2d", *args, counted)


def _global_pool(op: ops.GlobalPool, site: Site) -> Source:
    size = Arg(value=_square(op.size))
    if op.function == "max":
        return _both("nn.AdaptiveMaxPool2d", "F.adaptive_max_pool2d", size)
    return _both("nn.AdaptiveAvgPool2d", "F.adaptive_avg_pool2d", size)


def _select(op: ops.Select, site: Site) -> Source:
    if len(op.indices) == site.inputs[0].channels:
        return Source(inline="{0}")
    args = (Arg(value=f'"{_runs(op.indices)}"', keyword="indices"),)
    return Source(layer=Layer(function="ChannelSelection", args=args), helper="ChannelSelection")


def _runs(indices: Sequence[int]) -> str:
    """Return ascending ``indices`` as text, neighbours as a range: ``0-3 7 9-10``."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def _pad_channels(op: ops.PadChannels, site: Site) -> Source:
    args = (
        Arg(keyword="stride", value=op.stride, default=1),
        Arg(keyword="average", value=op.function == "average", default=False),
        Arg(keyword="detach", value=op.detach, default=False),
    )
    return Source(layer=Layer(function="PadShortcut", args=args), helper="PadShortcut")


def _joined(op: ops.Op, site: Site, sign: str) -> str:
    return sign.join(f"{{{i}}}" for i in range(len(site.inputs)))


Writer = Callable[[Any, Site], Source]

# Every expression on one input is a call, so that one may stand inside another.
SOURCES: dict[type[ops.Op], Writer] = {
    ops.Input: lambda op, site: Source(inline="x"),
    ops.Conv2d: _conv,
    ops.Depthwise2d: _depthwise,
    ops.Linear: _linear,
    ops.BatchNorm: _batch_norm,
    ops.GroupNorm: _group_norm,
    ops.Activation: lambda op, site: _both(*_ACTIVATIONS[op.function]),
    ops.Dropout: _dropout,
    ops.DropPath: _drop_path,
    ops.Pool2d: _pool,
    ops.GlobalPool: _global_pool,
    ops.Flatten: lambda op, site: Source(
        layer=Layer(function="nn.Flatten"), inline="torch.flatten({0}, 1)"
    ),
    ops.Add: lambda op, site: Source(inline=_joined(op, site, " + ")),
    ops.Gate: lambda op, site: Source(inline=_joined(op, site, " * ")),
    ops.Concat: lambda op, site: Source(inline=f"torch.cat([{_joined(op, site, ', ')}], dim=1)"),
    ops.Split: lambda op, site: Source(inline=f"torch.chunk({{0}}, {op.parts}, dim=1)[{op.index}]"),
    ops.Shuffle: lambda op, site: Source(
        inline=f"channel_shuffle({{0}}, {op.groups})", helper="channel_shuffle"
    ),
    ops.Select: _select,
    ops.PadChannels: _pad_channels,
}
