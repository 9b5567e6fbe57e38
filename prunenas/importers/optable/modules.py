"""Modules that a front end does not look into: they call the functions of the table."""

from collections.abc import Callable
from typing import Any

from torch import nn

from prunenas.importers.builder import Builder
from prunenas.importers.optable.layout import permute
from prunenas.importers.optable.table import FUNCTIONS, layer, same
from prunenas.importers.values import UnsupportedError, Weight


def _call(name: str, g: Builder, *args: Any, **kwargs: Any) -> Any:
    return FUNCTIONS[name](g, *args, **kwargs)


def tensors_of(module: nn.Module, path: str) -> dict[str, Any]:
    """Return a module's own tensors by name: trainable ones as weights, others as they are."""
    own: dict[str, Any] = dict(module.named_buffers(recurse=False))
    for key, tensor in module.named_parameters(recurse=False):
        own[key] = Weight(".".join(filter(None, [path, key])), tensor)
    return own


def _zero_padded(module: Any) -> None:
    if module.padding_mode != "zeros":
        raise UnsupportedError(f"a convolution that pads with {module.padding_mode}")


@layer("Conv2d", "Conv1d")
def _conv_module(g: Builder, module: Any, path: str, x: Any) -> Any:
    _zero_padded(module)
    t = tensors_of(module, path)
    return _call(
        "conv2d" if isinstance(module, nn.Conv2d) else "conv1d",
        g,
        x,
        t["weight"],
        t.get("bias"),
        module.stride,
        module.padding,
        module.dilation,
        module.groups,
    )


@layer("Linear", "NonDynamicallyQuantizableLinear")
def _linear_module(g: Builder, module: nn.Module, path: str, x: Any) -> Any:
    t = tensors_of(module, path)
    return _call("linear", g, x, t["weight"], t.get("bias"))


@layer("BatchNorm2d", "BatchNorm1d", "SyncBatchNorm")
def _batch_norm_module(g: Builder, module: Any, path: str, x: Any) -> Any:
    t = tensors_of(module, path)
    momentum = 0.1 if module.momentum is None else module.momentum
    return _call(
        "batch_norm",
        g,
        x,
        t.get("running_mean"),
        t.get("running_var"),
        t.get("weight"),
        t.get("bias"),
        momentum=momentum,
        eps=module.eps,
    )


@layer("GroupNorm")
def _group_norm_module(g: Builder, module: Any, path: str, x: Any) -> Any:
    t = tensors_of(module, path)
    return _call("group_norm", g, x, module.num_groups, t.get("weight"), t.get("bias"), module.eps)


@layer("LayerNorm")
def _layer_norm_module(g: Builder, module: Any, path: str, x: Any) -> Any:
    t = tensors_of(module, path)
    return _call(
        "layer_norm", g, x, module.normalized_shape, t.get("weight"), t.get("bias"), module.eps
    )


@layer("RMSNorm")
def _rms_norm_module(g: Builder, module: Any, path: str, x: Any) -> Any:
    return _call(
        "rms_norm",
        g,
        x,
        module.normalized_shape,
        tensors_of(module, path).get("weight"),
        module.eps,
    )


@layer("MaxPool2d")
def _max_pool_module(g: Builder, m: Any, path: str, x: Any) -> Any:
    return _call(
        "max_pool2d",
        g,
        x,
        m.kernel_size,
        m.stride,
        m.padding,
        m.dilation,
        m.ceil_mode,
        m.return_indices,
    )


@layer("AvgPool2d")
def _avg_pool_module(g: Builder, m: Any, path: str, x: Any) -> Any:
    return _call(
        "avg_pool2d",
        g,
        x,
        m.kernel_size,
        m.stride,
        m.padding,
        m.ceil_mode,
        m.count_include_pad,
        m.divisor_override,
    )


@layer("AvgPool1d")
def _avg_pool1d_module(g: Builder, m: Any, path: str, x: Any) -> Any:
    return _call(
        "avg_pool1d", g, x, m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad
    )


@layer("AdaptiveAvgPool2d")
def _adaptive_average_module(g: Builder, module: Any, path: str, x: Any) -> Any:
    return _call("adaptive_avg_pool2d", g, x, module.output_size)


@layer("AdaptiveMaxPool2d")
def _adaptive_max_module(g: Builder, module: Any, path: str, x: Any) -> Any:
    return _call("adaptive_max_pool2d", g, x, module.output_size, module.return_indices)


@layer("Upsample")
def _upsample_module(g: Builder, m: Any, path: str, x: Any) -> Any:
    return _call("interpolate", g, x, m.size, m.scale_factor, m.mode, m.align_corners)


@layer("Unfold")
def _unfold_module(g: Builder, m: Any, path: str, x: Any) -> Any:
    return _call("unfold", g, x, m.kernel_size, m.dilation, m.padding, m.stride)


@layer("Fold")
def _fold_module(g: Builder, m: Any, path: str, x: Any) -> Any:
    return _call("fold", g, x, m.output_size, m.kernel_size, m.dilation, m.padding, m.stride)


@layer("Flatten")
def _flatten_module(g: Builder, module: Any, path: str, x: Any) -> Any:
    return _call("flatten", g, x, module.start_dim, module.end_dim)


@layer("Unflatten")
def _unflatten_module(g: Builder, module: Any, path: str, x: Any) -> Any:
    return _call("unflatten", g, x, module.dim, module.unflattened_size)


@layer("ZeroPad2d", "ConstantPad2d")
def _pad_module(g: Builder, module: Any, path: str, x: Any) -> Any:
    return _call("pad", g, x, module.padding, "constant", module.value)


@layer("PixelShuffle")
def _pixel_shuffle(g: Builder, module: Any, path: str, x: Any) -> Any:
    r = module.upscale_factor
    b, c, h, w = g.sizes(g.value(x))
    cells = g.reshape(x, (b, c // r**2, r, r, h, w))
    return g.reshape(permute(g, cells, 0, 1, 4, 2, 5, 3), (b, c // r**2, h * r, w * r))


def _module_of(function: str, *fields: str) -> Callable[..., Any]:
    def write(g: Builder, module: Any, path: str, x: Any) -> Any:
        return FUNCTIONS[function](g, x, *(getattr(module, field) for field in fields))

    return write


for _class, _function, *_fields in (
    ("ReLU", "relu"),
    ("ReLU6", "relu6"),
    ("SiLU", "silu"),
    ("Hardswish", "hardswish"),
    ("Hardsigmoid", "hardsigmoid"),
    ("Sigmoid", "sigmoid"),
    ("Tanh", "tanh"),
    ("SELU", "selu"),
    ("Mish", "mish"),
    ("GELU", "gelu", "approximate"),
    ("LeakyReLU", "leaky_relu", "negative_slope"),
    ("ELU", "elu", "alpha"),
    ("Softplus", "softplus", "beta", "threshold"),
    ("Hardtanh", "hardtanh", "min_val", "max_val"),
    ("Softmax", "softmax", "dim"),
    ("ChannelShuffle", "channel_shuffle", "groups"),
    ("Dropout", "dropout", "p"),
    ("DropPath", "dropout_path", "drop_prob"),
    ("StochasticDepth", "stochastic_depth", "p", "mode"),
):
    layer(_class)(_module_of(_function, *_fields))


@layer("Identity")
def _identity(g: Builder, module: Any, path: str, x: Any, *rest: Any) -> Any:
    return same(g, x)
