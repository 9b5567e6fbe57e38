"""The transformer layers of torch itself, which a front end does not look into."""

from dataclasses import replace
from typing import Any

from torch import nn

from prunenas.importers.builder import Builder
from prunenas.importers.optable.table import FUNCTIONS, MODULES, layer
from prunenas.importers.values import UnsupportedError, Value


@layer("TransformerEncoderLayer")
def _encoder_layer(
    g: Builder, module: nn.TransformerEncoderLayer, path: str, x: Any, *masks: Any, **kwargs: Any
) -> Value:
    if any(mask not in (None, False) for mask in (*masks, *kwargs.values())):
        raise UnsupportedError("a transformer layer with masks")
    g.site = replace(g.site, path=path)

    def called(name: str, value: Any) -> Any:
        part: Any = getattr(module, name)
        handler = MODULES[type(part).__name__]
        if name == "self_attn":
            return handler(g, part, f"{path}.{name}", value, value, value)[0]
        return handler(g, part, f"{path}.{name}", value)

    def activated(value: Any) -> Any:
        function: Any = module.activation
        if isinstance(function, nn.Module):
            return called("activation", value)
        known = FUNCTIONS.get(getattr(function, "__name__", ""))
        if known is None:
            raise UnsupportedError(f"a transformer layer with the activation {function}")
        return known(g, value)

    def attended(value: Any) -> Any:
        return called("dropout1", called("self_attn", value))

    def mixed(value: Any) -> Any:
        hidden = called("dropout", activated(called("linear1", value)))
        return called("dropout2", called("linear2", hidden))

    add = FUNCTIONS["add"]
    if module.norm_first:
        x = add(g, x, attended(called("norm1", x)))
        result: Value = add(g, x, mixed(called("norm2", x)))
    else:
        x = called("norm1", add(g, x, attended(x)))
        result = called("norm2", add(g, x, mixed(x)))
    return result


@layer("TransformerEncoder")
def _encoder(
    g: Builder, module: nn.TransformerEncoder, path: str, x: Any, *masks: Any, **kwargs: Any
) -> Any:
    for place, part in enumerate(module.layers):
        handler = MODULES.get(type(part).__name__)
        if handler is None:
            raise UnsupportedError(f"a transformer of {type(part).__name__}")
        x = handler(g, part, f"{path}.layers.{place}", x, *masks, **kwargs)
    if module.norm is not None:
        x = MODULES[type(module.norm).__name__](g, module.norm, f"{path}.norm", x)
    return x
