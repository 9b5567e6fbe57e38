"""Convolutions, linear layers, norms."""

from collections.abc import Sequence
from typing import Any

from prunenas.importers.builder import Builder
from prunenas.importers.optable.table import FUNCTIONS, spelled
from prunenas.importers.values import UnsupportedError, Value, Weight
from prunenas.ir.ops import (
    AnyOp,
    BatchNorm,
    Conv1d,
    Conv2d,
    Convolve,
    Depthwise2d,
    GroupNorm,
    LayerNorm,
    Linear,
    RmsNorm,
    Spread,
)
from prunenas.ir.shape import Pair


def pair(value: int | Sequence[int]) -> Pair:
    """Return a number for both directions as two, as torch reads it."""
    if isinstance(value, int):
        return value, value
    values = [*value]
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])


def _padding(padding: Any, kernel: Pair, dilation: Pair) -> Pair:
    if padding == "same":
        spans = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        if any(span % 2 for span in spans):
            raise UnsupportedError("its padding 'same' is not the same on both sides")
        return spans[0] // 2, spans[1] // 2
    return (0, 0) if padding == "valid" else pair(padding)


@spelled("conv2d", "convolution")
def _conv2d(
    g: Builder,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    width, into, *kernel_size = g.sizes(weight)
    kernel = pair(kernel_size)
    kwargs: dict[str, Any] = {
        "kernel": kernel,
        "stride": pair(stride),
        "padding": _padding(padding, kernel, pair(dilation)),
        "dilation": pair(dilation),
        "bias": bias is not None,
    }
    if not isinstance(weight, Weight):
        return _convolved(g, x, weight, bias, groups, kwargs)
    op: AnyOp
    if into == 1 and groups > 1 and width % groups == 0:
        op = Depthwise2d(multiplier=width // groups, **kwargs)
    else:
        op = Conv2d(width=width, groups=groups, **kwargs)
    return g.layer(op, _images(g, x), {"weight": weight, "bias": bias})


def _convolved(
    g: Builder, x: Any, kernel: Any, shift: Any, groups: int, window: dict[str, Any]
) -> Value:
    """Add a convolution by a kernel that is computed, and a shift of its own."""
    image = _images(g, x)
    depthwise = groups > 1 and groups == g.shape(image).channels
    op = Convolve(
        depthwise=depthwise,
        groups=1 if depthwise else groups,
        stride=window["stride"],
        padding=window["padding"],
        dilation=window["dilation"],
    )
    value = g.add(op, image, g.plain(kernel))
    if shift is None:
        return value
    return g.arithmetic("add", value, g.reshape(shift, (-1, 1, 1)))


def _images(g: Builder, x: Any) -> str:
    """Return images, one for each of the batch where there is one for all."""
    value = g.value(x)
    if g.batched(value):
        return g.plain(value)
    if len(value.order) != 4 or g.sizes(value)[0] != 1:
        raise UnsupportedError("it is no batch of images")
    return g.add(Spread(), g.plain(value), g.input.node).node


@spelled("conv1d")
def _conv1d(
    g: Builder,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    width, _, kernel = g.sizes(weight)
    if pair(dilation)[0] != 1 or isinstance(padding, str):
        raise UnsupportedError("a dilated or automatically padded convolution of rows")
    op = Conv1d(
        width=width,
        kernel=kernel,
        stride=pair(stride)[0],
        padding=pair(padding)[0],
        groups=groups,
        bias=bias is not None,
    )
    return g.layer(op, g.plain(x), {"weight": weight, "bias": bias})


def turned(g: Builder, weight: Any) -> Value:
    """Return a matrix with its dimensions exchanged."""
    value = g.value(weight)
    return Value(value.node, value.order[::-1])


@spelled("linear")
def linear(g: Builder, x: Any, weight: Any, bias: Any = None) -> Value:
    """Add a linear layer on the last dimension."""
    if not isinstance(weight, Weight):
        product: Value = FUNCTIONS["matmul"](g, x, turned(g, weight))
        return product if bias is None else g.arithmetic("add", product, bias)
    if bias is not None and not isinstance(bias, Weight):
        # The shift is put together from several tensors: it is added for itself.
        return g.arithmetic("add", linear(g, x, weight), bias)
    op = Linear(width=g.sizes(weight)[0], bias=bias is not None)
    return g.layer(op, g.plain(x), {"weight": weight, "bias": bias})


@spelled("batch_norm")
def _batch_norm(
    g: Builder,
    x: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Value:
    if training and running_mean is None and running_var is None:
        return _standardised(g, x, weight, bias, eps)
    mean, variance = (g.buffers.get(id(running)) for running in (running_mean, running_var))
    if training or weight is None or bias is None or mean is None or variance is None:
        raise UnsupportedError("a batch norm without scale, shift and running statistics")
    counter = ".".join(filter(None, [mean.rpartition(".")[0], "num_batches_tracked"]))
    extra = {"running_mean": mean, "running_var": variance, "num_batches_tracked": counter}
    op = BatchNorm(eps=eps, momentum=momentum)
    return g.layer(op, g.plain(x), {"weight": weight, "bias": bias}, extra=extra)


def _standardised(g: Builder, x: Any, weight: Any, bias: Any, eps: float) -> Value:
    """Add the norm of each row of a stored tensor ``[1 c n]``, as standardised weights have it."""
    value = g.value(x)
    if g.batched(value) or len(value.order) != 3 or g.sizes(value)[0] != 1:
        raise UnsupportedError("a batch norm by the statistics of the batch")
    normed = g.add(LayerNorm(eps=eps, scale=False, shift=False), g.plain(value))
    if weight is not None:
        normed = g.arithmetic("multiply", normed, g.reshape(weight, (1, -1, 1)))
    return normed if bias is None else g.arithmetic("add", normed, g.reshape(bias, (1, -1, 1)))


@spelled("aten.batch_norm")
def _aten_batch_norm(
    g: Builder,
    x: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    training: bool,
    momentum: float,
    eps: float,
    *rest: Any,
) -> Value:
    return _batch_norm(g, x, running_mean, running_var, weight, bias, training, momentum, eps)


@spelled("group_norm")
def _group_norm(
    g: Builder,
    x: Any,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *rest: Any,
) -> Value:
    if weight is None or bias is None:
        return _one_group(g, x, num_groups, weight, bias, eps)
    op = GroupNorm(groups=num_groups, eps=eps)
    return g.layer(op, g.plain(x), {"weight": weight, "bias": bias})


def _one_group(g: Builder, x: Any, num_groups: int, weight: Any, bias: Any, eps: float) -> Value:
    """Add a group norm with but one of scale and shift: over one group it is a layer norm's."""
    node = g.plain(x)
    if num_groups != 1:
        raise UnsupportedError("a group norm without scale and shift")
    ones = [1] * (len(g.shape(node).dims) - 1)
    value = g.add(LayerNorm(dims=1 + len(ones), eps=eps, scale=False, shift=False), node)
    if weight is not None:
        g.start(weight, "ones")
        value = g.arithmetic("multiply", value, g.reshape(weight, (-1, *ones)))
    if bias is not None:
        value = g.arithmetic("add", value, g.reshape(bias, (-1, *ones)))
    return value


@spelled("layer_norm")
def _layer_norm(
    g: Builder,
    x: Any,
    normalized_shape: Sequence[int],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *rest: Any,
) -> Value:
    op = LayerNorm(
        dims=len(normalized_shape), eps=eps, scale=weight is not None, shift=bias is not None
    )
    return g.layer(op, g.plain(x), {"weight": weight, "bias": bias})


@spelled("rms_norm")
def _rms_norm(
    g: Builder,
    x: Any,
    normalized_shape: Sequence[int],
    weight: Any = None,
    eps: float | None = None,
) -> Value:
    if len(normalized_shape) != 1:
        raise UnsupportedError("a root-mean-square norm over several dimensions")
    return g.layer(RmsNorm(eps=eps, scale=weight is not None), g.plain(x), {"weight": weight})
