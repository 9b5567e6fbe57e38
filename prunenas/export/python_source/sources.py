"""The table from ops to PyTorch source text."""

from collections.abc import Callable
from typing import Any, cast

from prunenas.export.python_source import constants, functions, layers
from prunenas.export.python_source.pieces import Arg, Layer, Site, Source, both
from prunenas.export.python_source.text import literal
from prunenas.ir import ops
from prunenas.ir.graph import Graph, Node


def source(graph: Graph, node: Node) -> Source:
    """Return how ``node`` is written."""
    name = constants.stored_as(graph, node.op) if isinstance(node.op, ops.Constant) else node.name
    site = Site(name=name, inputs=tuple(graph.input_shapes(node)), out=graph.shapes[node.name])
    return SOURCES[type(node.op)](cast(Any, node.op), site)


Writer = Callable[[Any, Site], Source]

SOURCES: dict[type[ops.Op], Writer] = {
    ops.Input: lambda op, site: Source(inline="x"),
    ops.Conv2d: layers.conv2d,
    ops.Depthwise2d: layers.depthwise2d,
    ops.Conv1d: layers.conv1d,
    ops.Linear: layers.linear,
    ops.BatchNorm: layers.batch_norm,
    ops.GroupNorm: layers.group_norm,
    ops.LayerNorm: layers.layer_norm,
    ops.RmsNorm: layers.rms_norm,
    ops.Activation: functions.activation,
    ops.LeakyRelu: lambda op, site: both(
        "nn.LeakyReLU",
        "F.leaky_relu",
        Arg(keyword="negative_slope", value=op.slope, default=0.01),
    ),
    ops.Clamp: functions.clamp,
    ops.Affine: functions.affine,
    ops.Power: lambda op, site: Source(inline=f"{{0}} ** {literal(op.exponent)}"),
    ops.Softmax: functions.softmax,
    ops.Normalize: functions.normalize,
    ops.Dropout: functions.dropout,
    ops.DropPath: layers.drop_path,
    ops.Pool2d: layers.pool2d,
    ops.GlobalPool: layers.global_pool,
    ops.Reduce: functions.reduction,
    ops.Resize: functions.resize,
    ops.Flatten: lambda op, site: Source(
        layer=Layer(function="nn.Flatten"), inline="torch.flatten({0}, 1)"
    ),
    ops.Add: lambda op, site: Source(inline=functions.joined(site, " + ")),
    ops.Gate: lambda op, site: Source(inline=functions.joined(site, " * ")),
    ops.Arithmetic: functions.arithmetic,
    ops.Concat: lambda op, site: Source(
        inline=f"torch.cat([{functions.joined(site, ', ')}], dim=1)"
    ),
    ops.Join: lambda op, site: Source(
        inline=f"torch.cat([{functions.joined(site, ', ')}], dim={op.dim})"
    ),
    ops.Split: lambda op, site: Source(inline=f"torch.chunk({{0}}, {op.parts}, dim=1)[{op.index}]"),
    ops.Slice: functions.cut,
    ops.Index: functions.index,
    ops.Take: lambda op, site: Source(inline=f"{{0}}.index_select({op.dim}, {{1}})"),
    ops.Shuffle: lambda op, site: Source(inline=f"channel_shuffle({{0}}, {op.groups})"),
    ops.Select: layers.select,
    ops.PadChannels: layers.pad_channels,
    ops.Reshape: functions.reshape,
    ops.Permute: functions.permute,
    ops.Tile: functions.tile,
    ops.Roll: functions.roll,
    ops.Pad: functions.pad,
    ops.Convolve: functions.convolve,
    ops.Spread: functions.spread,
    ops.Unfold: functions.unfold,
    ops.Fold: functions.fold,
    ops.MatMul: lambda op, site: Source(inline="{0} @ {1}"),
    ops.Attention: functions.attention,
    ops.Parameter: layers.parameter,
    ops.Filled: constants.filled,
    ops.Constant: constants.constant,
    ops.Opaque: functions.opaque,
}
