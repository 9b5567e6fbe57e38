"""Pooling, interpolation, windows as columns."""

import math
from typing import Any

from prunenas.importers.builder import Builder
from prunenas.importers.optable.layers import pair
from prunenas.importers.optable.table import spelled
from prunenas.importers.values import UnsupportedError, Value
from prunenas.ir.ops import (
    Fold,
    GlobalPool,
    Pool2d,
    Resize,
    Shuffle,
    Unfold,
)


@spelled("max_pool2d")
def _max_pool(
    g: Builder,
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Value:
    if pair(dilation) != (1, 1) or return_indices:
        raise UnsupportedError("a max pooling that is dilated or returns places")
    op = Pool2d(
        kernel=pair(kernel_size),
        stride=pair(stride or kernel_size),
        padding=pair(padding),
        ceil_mode=ceil_mode,
    )
    return g.add(op, g.plain(x))


@spelled("avg_pool2d")
def _avg_pool(
    g: Builder,
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    if divisor_override is not None:
        raise UnsupportedError("an average pooling with a divisor of its own")
    op = Pool2d(
        function="average",
        kernel=pair(kernel_size),
        stride=pair(stride or kernel_size),
        padding=pair(padding),
        ceil_mode=ceil_mode,
        count_padding=count_include_pad,
    )
    return g.add(op, g.plain(x))


@spelled("avg_pool1d")
def _avg_pool1d(
    g: Builder,
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Value:
    size, step, edge = (pair(v)[0] for v in (kernel_size, stride or kernel_size, padding))
    row = g.reshape(x, (*g.sizes(g.value(x))[:-1], 1, g.sizes(g.value(x))[-1]))
    op = Pool2d(
        function="average",
        kernel=(1, size),
        stride=(1, step),
        padding=(0, edge),
        ceil_mode=ceil_mode,
        count_padding=count_include_pad,
    )
    pooled = g.add(op, g.plain(row))
    sizes = g.sizes(pooled)
    return g.reshape(pooled, (*sizes[:-2], sizes[-1]))


def _adaptive(g: Builder, x: Any, output_size: Any, function: Any) -> Value:
    node = g.plain(x)
    wanted = (
        [output_size] * 2 if output_size is None or isinstance(output_size, int) else [*output_size]
    )
    now = g.shape(node).size()
    rows, columns = (own if w is None else w for w, own in zip(wanted, now, strict=True))
    return g.add(GlobalPool(function=function, size=(rows, columns)), node)


@spelled("adaptive_avg_pool2d")
def _adaptive_average(g: Builder, x: Any, output_size: Any) -> Value:
    return _adaptive(g, x, output_size, "average")


@spelled("adaptive_max_pool2d")
def _adaptive_max(g: Builder, x: Any, output_size: Any, return_indices: bool = False) -> Value:
    if return_indices:
        raise UnsupportedError("a max pooling that returns places")
    return _adaptive(g, x, output_size, "max")


@spelled("interpolate")
def _interpolate(
    g: Builder,
    x: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: Any = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Value:
    node = g.plain(x)
    now = g.shape(node).sizes[-2:]
    if size is None:
        factors = [scale_factor] * 2 if isinstance(scale_factor, int | float) else [*scale_factor]
        size = [math.floor(own * f) for own, f in zip(now, factors, strict=True)]
        if any(own * f != s for own, f, s in zip(now, factors, size, strict=True)):
            raise UnsupportedError("an interpolation by a factor that does not give whole sizes")
    if mode not in ("nearest", "bilinear", "bicubic") or antialias:
        raise UnsupportedError(f"an interpolation of the kind {mode}, antialias={antialias}")
    return g.add(Resize(size=pair(size), function=mode, align_corners=bool(align_corners)), node)


@spelled("upsample_nearest2d")
def _nearest(g: Builder, x: Any, size: Any, scales: Any = None, *rest: Any) -> Value:
    return _interpolate(g, x, size, None if size else scales)


@spelled("upsample_bilinear2d")
def _bilinear(g: Builder, x: Any, size: Any, align: bool, scales: Any = None, *rest: Any) -> Value:
    return _interpolate(g, x, size, None if size else scales, "bilinear", align)


@spelled("upsample_bicubic2d")
def _bicubic(g: Builder, x: Any, size: Any, align: bool, scales: Any = None, *rest: Any) -> Value:
    return _interpolate(g, x, size, None if size else scales, "bicubic", align)


@spelled("channel_shuffle", "native_channel_shuffle")
def _channel_shuffle(g: Builder, x: Any, groups: int) -> Value:
    return g.add(Shuffle(groups=groups), g.plain(x))


@spelled("unfold", "im2col")
def _unfold(
    g: Builder, x: Any, kernel: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Value:
    op = Unfold(
        kernel=pair(kernel), stride=pair(stride), padding=pair(padding), dilation=pair(dilation)
    )
    return g.add(op, g.plain(x))


@spelled("fold", "col2im")
def _fold(
    g: Builder,
    x: Any,
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> Value:
    op = Fold(
        size=pair(output_size),
        kernel=pair(kernel_size),
        stride=pair(stride),
        padding=pair(padding),
        dilation=pair(dilation),
    )
    return g.add(op, g.plain(x))
