"""Activations, dropout and what else leaves each element in its place."""

from collections.abc import Callable
from typing import Any

from prunenas.importers.builder import Builder
from prunenas.importers.optable.arithmetic import unary
from prunenas.importers.optable.table import spelled
from prunenas.importers.values import UnsupportedError, Value
from prunenas.ir.ops import (
    Activation,
    Dropout,
    DropPath,
    LeakyRelu,
    Normalize,
    Softmax,
)

_ACTIVATIONS: dict[str, Any] = {
    name: name
    for name in (
        *("relu", "relu6", "silu", "hardswish", "hardsigmoid", "sigmoid", "tanh", "selu", "mish"),
        *("exp", "log", "sqrt", "rsqrt", "square", "abs", "sin", "cos"),
    )
}


def _activation(function: Any) -> Callable[..., Value]:
    def write(g: Builder, x: Any, *rest: Any, **kwargs: Any) -> Value:
        return unary(g, Activation(function=function), x)

    return write


for _name in _ACTIVATIONS:
    spelled(_name, f"{_name}_")(_activation(_name))


@spelled("gelu")
def _gelu(g: Builder, x: Any, approximate: str = "none") -> Value:
    return unary(g, Activation(function="gelu_tanh" if approximate == "tanh" else "gelu"), x)


@spelled("leaky_relu", "leaky_relu_")
def _leaky_relu(g: Builder, x: Any, slope: float = 0.01, *rest: Any) -> Value:
    if slope == 0.01:
        return unary(g, Activation(function="leaky_relu"), x)
    return unary(g, LeakyRelu(slope=slope), x)


@spelled("elu", "elu_")
def _elu(g: Builder, x: Any, alpha: float = 1.0, *rest: Any) -> Value:
    if alpha != 1 or any(value not in (1, False) for value in rest):
        raise UnsupportedError(f"an ELU with alpha={alpha}")
    return unary(g, Activation(function="elu"), x)


@spelled("softplus")
def _softplus(g: Builder, x: Any, beta: float = 1.0, threshold: float = 20.0) -> Value:
    if beta != 1 or threshold != 20:
        raise UnsupportedError(f"a softplus with beta={beta}")
    return unary(g, Activation(function="softplus"), x)


@spelled("softmax", "_softmax")
def _softmax(g: Builder, x: Any, dim: int = -1, *rest: Any, **kwargs: Any) -> Value:
    value = g.value(x)
    place = value.order[dim % len(value.order)]
    return unary(g, Softmax(dim=place), value)


@spelled("log_softmax", "_log_softmax")
def _log_softmax(g: Builder, x: Any, dim: int = -1, *rest: Any, **kwargs: Any) -> Value:
    return unary(g, Activation(function="log"), _softmax(g, x, dim))


@spelled("normalize")
def _normalize(
    g: Builder, x: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None
) -> Value:
    if p != 2:
        raise UnsupportedError(f"vectors normalised by their {p}-norm")
    value = g.value(x)
    return unary(g, Normalize(dim=value.order[dim % len(value.order)], eps=eps), value)


@spelled("dropout", "dropout_", "feature_dropout")
def _dropout(
    g: Builder, x: Any, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Any:
    if training and p:
        raise UnsupportedError("it drops at random while the network is evaluated, too")
    return unary(g, Dropout(p=p), x) if p else x


@spelled("stochastic_depth")
def _stochastic_depth(g: Builder, x: Any, p: float, mode: str, *rest: Any, **kwargs: Any) -> Value:
    if mode != "row":
        raise UnsupportedError(f"stochastic depth by {mode}")
    return unary(g, DropPath(p=p), x)


@spelled("dropout_path")
def _drop_path(g: Builder, x: Any, p: float | None) -> Any:
    return unary(g, DropPath(p=p), x) if p else x
