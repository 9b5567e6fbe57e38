"""Sources of the ops that are expressions: layout, windows, arithmetic, attention, calls."""

import keyword
import math
from string import ascii_letters, ascii_lowercase, digits
from typing import Any

from prunenas.errors import GraphError
from prunenas.export.python_source.pieces import Arg, Layer, Site, Source, both, square
from prunenas.export.python_source.text import literal
from prunenas.ir import ops

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
    "elu": ("nn.ELU", "F.elu"),
    "selu": ("nn.SELU", "F.selu"),
    "mish": ("nn.Mish", "F.mish"),
    "softplus": ("nn.Softplus", "F.softplus"),
}

_SIGNS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "power": "**"}

_REDUCTIONS = {
    "mean": "{0}.mean(%s)",
    "sum": "{0}.sum(%s)",
    "max": "{0}.amax(%s)",
    "norm": "torch.linalg.vector_norm({0}, %s)",
    "variance": "{0}.var(%s, correction=0)",
}


_HARMLESS = frozenset(ascii_letters + digits + "_.,:;+-*/<>=")


def joined(site: Site, sign: str) -> str:
    """Return all inputs with ``sign`` between them."""
    return sign.join(f"{{{i}}}" for i in range(len(site.inputs)))


def activation(op: ops.Activation, site: Site) -> Source:
    """Return a non-linearity."""
    if op.function == "gelu_tanh":
        return both("nn.GELU", "F.gelu", Arg(keyword="approximate", value='"tanh"'))
    if op.function in _ACTIVATIONS:
        return both(*_ACTIVATIONS[op.function])
    return Source(inline=f"torch.{op.function}({{0}})")


def dropout(op: ops.Dropout, site: Site) -> Source:
    """Return dropout of elements."""
    layer = Layer(function="nn.Dropout", args=(Arg(value=op.p, keyword="p", default=0.5),))
    return Source(layer=layer, inline=f"F.dropout({{0}}, {op.p!r}, training=self.training)")


def affine(op: ops.Affine, site: Site) -> Source:
    """Return a product and a sum, without those that do nothing."""
    scaled = "{0}" if op.scale == 1 else "{0} * {a}"
    numbers = [] if op.scale == 1 else [Arg(keyword="scale", value=op.scale)]
    if op.shift == 0:
        return Source(inline=scaled, numbers=tuple(numbers))
    sign, field = "-" if op.shift < 0 else "+", _fields(2)[len(numbers)]
    shift = Arg(keyword="shift", value=abs(op.shift))
    return Source(inline=f"{scaled} {sign} {field}", numbers=(*numbers, shift))


def clamp(op: ops.Clamp, site: Site) -> Source:
    """Return limits, those that there are."""
    limits = {"min": op.low, "max": op.high}
    told = [f"{key}={literal(value)}" for key, value in limits.items() if value is not None]
    return Source(inline=f"{{0}}.clamp({', '.join(told)})" if told else "{0}")


def softmax(op: ops.Softmax, site: Site) -> Source:
    """Return a softmax."""
    return both("nn.Softmax", "F.softmax", Arg(keyword="dim", value=_dim(op.dim, site)))


def normalize(op: ops.Normalize, site: Site) -> Source:
    """Return vectors of length 1."""
    told = "" if op.eps == 1e-12 else f", eps={op.eps!r}"
    return Source(inline=f"F.normalize({{0}}, dim={_dim(op.dim, site)}{told})")


def arithmetic(op: ops.Arithmetic, site: Site) -> Source:
    """Return two tensors with a sign between them, or a function of them."""
    if op.function in _SIGNS:
        return Source(inline=f"{{0}} {_SIGNS[op.function]} {{1}}")
    return Source(inline=f"torch.{op.function}({{0}}, {{1}})")


def reduction(op: ops.Reduce, site: Site) -> Source:
    """Return a mean, a sum and the like."""
    dims = op.dims[0] if len(op.dims) == 1 else op.dims
    told = f"dim={literal(dims)}" + ", keepdim=True" * op.keep
    return Source(inline=_REDUCTIONS[op.function] % told)


def resize(op: ops.Resize, site: Site) -> Source:
    """Return an interpolation."""
    args = [
        Arg(value=square(op.size)),
        Arg(keyword="mode", value=f'"{op.function}"', default='"nearest"'),
    ]
    if op.function != "nearest":
        args.append(Arg(keyword="align_corners", value=op.align_corners, default=False))
    return both("nn.Upsample", "F.interpolate", *args)


def _window(op: ops.Unfold | ops.Fold) -> tuple[Arg, ...]:
    return (
        Arg(value=square(op.kernel)),
        Arg(keyword="dilation", value=square(op.dilation), default=1),
        Arg(keyword="padding", value=square(op.padding), default=0),
        Arg(keyword="stride", value=square(op.stride), default=1),
    )


def unfold(op: ops.Unfold, site: Site) -> Source:
    """Return the windows of an image."""
    return both("nn.Unfold", "F.unfold", *_window(op))


def fold(op: ops.Fold, site: Site) -> Source:
    """Return the image of windows."""
    return both("nn.Fold", "F.fold", Arg(value=op.size), *_window(op))


def reshape(op: ops.Reshape, site: Site) -> Source:
    """Return the way of laying out that tells least: sizes that stay are not repeated."""
    source, out = site.inputs[0].sizes, site.out.sizes
    first = 0 if site.out.lead is None else 1
    if source == out:
        return Source(inline="{0}")
    keys = _with_ones(source, out)
    if keys and (first == 0 or keys[0] == ":"):
        return Source(inline=f"{{0}}[{', '.join(keys)}]")
    if (run := _merged(source, out, first)) is not None:
        last = "" if run[1] == len(source) - 1 else f", {run[1]}"
        dims = (Arg(value=run[0]), Arg(value=run[1] if last else -1, default=-1))
        layer = Layer(function="nn.Flatten", args=dims)
        return Source(layer=layer, inline=f"{{0}}.flatten({run[0]}{last})")
    if (run := _merged(out, source, first)) is not None:
        sizes, before, after = out[run[0] : run[1] + 1], f"unflatten({run[0]}, (", "))"
    else:
        sizes, before, after = op.sizes, "reshape(" + "-1, " * first, ")"
    told = ", ".join(_fields(len(sizes)))
    return Source(
        inline=f"{{0}}.{before}{told}{after}", numbers=tuple(Arg(value=size) for size in sizes)
    )


def _with_ones(source: tuple[int, ...], out: tuple[int, ...]) -> list[str]:
    """Return the index that makes ``out`` of ``source`` by new sizes of 1; nothing if none does."""
    if len(source) >= len(out):
        return []
    rest = [*source]
    keys = []
    for size in out:
        if rest and size == rest[0]:
            keys.append(":")
            del rest[0]
        elif size == 1:
            keys.append("None")
        else:
            return []
    return [] if rest else keys


def _merged(many: tuple[int, ...], few: tuple[int, ...], least: int) -> tuple[int, int] | None:
    """Return the first and last place in ``many`` of what is one size in ``few``, if that is all.

    Places before ``least`` are left alone.
    """
    gone = len(many) - len(few)
    if gone > 0:
        for first in reversed(range(least, len(few))):
            last = first + gone
            if few == (*many[:first], math.prod(many[first : last + 1]), *many[last + 1 :]):
                return first, last
    return None


def permute(op: ops.Permute, site: Site) -> Source:
    """Return dimensions in another order."""
    layer = Layer(function="Permute", args=tuple(Arg(value=dim) for dim in op.order))
    moved = [place for place, dim in enumerate(op.order) if place != dim]
    if not moved:
        return Source(inline="{0}")
    if len(moved) == 2:
        return Source(layer=layer, inline=f"{{0}}.transpose({moved[0]}, {moved[1]})")
    return Source(layer=layer, inline=f"{{0}}.permute({', '.join(map(str, op.order))})")


def index(op: ops.Index, site: Site) -> Source:
    """Return one entry of a dimension."""
    return Source(inline=f"{{0}}[{':, ' * op.dim}{op.index}]")


def cut(op: ops.Slice, site: Site) -> Source:
    """Return a range of a dimension."""
    start = "" if op.start == 0 else "{a}"
    whole = op.stop == site.inputs[0].sizes[op.dim]
    stop = "" if whole else "{b}" if start else "{a}"
    step = "" if op.step == 1 else f":{op.step}"
    bounds = [*([op.start] if start else []), *([op.stop] if stop else [])]
    return Source(
        inline=f"{{0}}[{':, ' * op.dim}{start}:{stop}{step}]",
        numbers=tuple(Arg(value=bound) for bound in bounds),
    )


def tile(op: ops.Tile, site: Site) -> Source:
    """Return a dimension several times over; a single entry is not copied."""
    sizes = site.inputs[0].sizes
    single = sizes[op.dim] == 1
    times = ["-1" if single else "1"] * len(sizes)
    times[op.dim] = "{a}"
    call = "expand" if single else "repeat"
    return Source(inline=f"{{0}}.{call}({', '.join(times)})", numbers=(Arg(value=op.times),))


def roll(op: ops.Roll, site: Site) -> Source:
    """Return a dimension moved round."""
    shift = Arg(keyword="shift", value=op.shift)
    return Source(inline=f"torch.roll({{0}}, {{a}}, dims={op.dim})", numbers=(shift,))


def pad(op: ops.Pad, site: Site) -> Source:
    """Return a dimension with entries before and after."""
    behind = (0, 0) * (len(site.out.sizes) - 1 - op.dim)
    if op.function == "reflect":
        both = (*behind, op.before, op.after, 0, 0)[:4]
        return Source(inline=f'F.pad({{0}}, {literal(both)}, mode="reflect")')
    told = "" if op.value == 0 else f", value={literal(op.value)}"
    return Source(inline=f"F.pad({{0}}, {literal((*behind, op.before, op.after))}{told})")


def convolve(op: ops.Convolve, site: Site) -> Source:
    """Return a convolution by a kernel that is computed."""
    groups = "{0}.shape[1]" if op.depthwise else str(op.groups)
    told = [
        f", {keyword}={literal(value)}"
        for keyword, value, default in (
            ("stride", op.stride, (1, 1)),
            ("padding", op.padding, (0, 0)),
            ("dilation", op.dilation, (1, 1)),
        )
        if value != default
    ]
    several = f", groups={groups}" if groups != "1" else ""
    return Source(inline=f"F.conv2d({{0}}, {{1}}{''.join(told)}{several})")


def spread(op: ops.Spread, site: Site) -> Source:
    """Return a tensor once for each entry of another's batch."""
    kept = ", -1" * len(site.out.dims)
    return Source(inline=f"{{0}}.expand({{1}}.shape[0]{kept})")


def attention(op: ops.Attention, site: Site) -> Source:
    """Return attention by torch's own function."""
    numbers = []
    text = "F.scaled_dot_product_attention({0}, {1}, {2}"
    if len(site.inputs) == 4:
        text += ", attn_mask={3}"
    if op.dropout:
        text += f", dropout_p={_fields(1)[0]} if self.training else 0.0"
        numbers.append(Arg(keyword="dropout", value=op.dropout))
    if op.scale is not None:
        text += f", scale={_fields(2)[len(numbers)]}"
        numbers.append(Arg(keyword="scale", value=op.scale))
    return Source(inline=f"{text})", numbers=tuple(numbers))


def opaque(op: ops.Opaque, site: Site) -> Source:
    """Return the call of an aten op."""
    positional, named = op.called_with()
    words = [*op.call.split("."), *named]
    if not all(word.isidentifier() and not keyword.iskeyword(word) for word in words):
        raise GraphError(f"the call of {op.call} at {site.name} cannot be written as Python")
    told = [*map(_told, positional), *(f"{key}={_told(value)}" for key, value in named.items())]
    item = "" if op.item is None else f"[{op.item}]"
    return Source(inline=f"torch.ops.aten.{op.call}({', '.join(told)}){item}")


def _told(value: Any) -> str:
    """Return the source of an argument that came as JSON."""
    if isinstance(value, dict):
        return f"{{{int(value['tensor'])}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_told, value))}]"
    if isinstance(value, str):
        # Nothing in it can end the string, or be taken for a bracket of the expression.
        return f'"{"".join(c if c in _HARMLESS else _escape(c) for c in value)}"'
    return "None" if value is None else str(literal(value))


def _escape(character: str) -> str:
    return f"\\U{ord(character):08x}"


def _dim(dim: int, site: Site) -> int:
    """Return ``dim`` as people write it: the last one is -1."""
    return -1 if dim == len(site.out.sizes) - 1 else dim


def _fields(count: int) -> list[str]:
    return [f"{{{letter}}}" for letter in ascii_lowercase[:count]]
