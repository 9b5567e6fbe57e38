"""Every op on small inputs, with an independent expression of what it computes."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy
import torch
from torch import Tensor
from torch.nn import functional

from prunenas.build.modules import make_module
from prunenas.ir import ops
from prunenas.ir.ops.plain import ActivationName
from prunenas.ir.shape import Shape

IMAGE = Shape.of(4, (6, 8))
WINDOWS = Shape.of(4, (6, 8), lead=2)
VECTOR = Shape.of(6)
TOKENS = Shape((4, 6))
MANY_TOKENS = Shape((4, 6), 2)
HEADS = Shape((2, 4, 6))
FOR_ALL = Shape((4, 6), None)
ROW_FOR_ALL = Shape((6,), None)
ANY = (IMAGE, WINDOWS, VECTOR, TOKENS, MANY_TOKENS, FOR_ALL)


@dataclass(frozen=True)
class Example:
    """An op, its inputs, and what comes out; None: a module of torch that is taken at its word."""

    op: Any
    inputs: tuple[Shape, ...]
    expected: Callable[..., Tensor] | None = None
    draw: Callable[[Tensor], Tensor] = field(default=lambda x: x)

    @property
    def out(self):
        return self.op.shape(self.inputs)

    @property
    def batched(self):
        return self.out.lead is not None

    def module(self):
        """Return the module in evaluation, no two of its weights alike."""
        module = make_module(self.op, self.inputs, self.out).eval()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for tensor in [*module.parameters(), *module.buffers()]:
                # The means and variances of a norm, not the numbers of a constant.
                if tensor.is_floating_point() and not isinstance(
                    self.op, ops.Constant | ops.Filled
                ):
                    tensor.uniform_(0.5, 1.5, generator=generator)
        return module

    def values(self, batch):
        """Return random inputs for a batch of images."""
        generator = torch.Generator().manual_seed(2)
        drawn = [
            self.draw(torch.randn(sizes(shape, batch), generator=generator))
            for shape in self.inputs
        ]
        if isinstance(self.op, ops.Take):
            most = drawn[0].shape[self.op.dim]
            drawn[1] = torch.randint(most, self.inputs[1].dims, generator=generator)
        return drawn

    def __str__(self):
        options = ",".join(
            f"{name}={getattr(self.op, name)}"
            for name in self.op.__dataclass_fields__
            if name not in ("kind", "data", "sparsity")
        )
        return f"{self.op.kind}({options})-{'-'.join(map(str, self.inputs))}".replace(" ", "")


def sizes(shape, batch):
    """Return the sizes of the tensor that holds a batch of images."""
    return shape.dims if shape.lead is None else (batch * shape.lead, *shape.dims)


def positive(x):
    return x.abs() + 0.1


def each(op, shapes, expected=None, draw=lambda x: x):
    """Return an example on each of the shapes."""
    return [Example(op, (shape,), expected, draw) for shape in shapes]


def along(make, expected, first=FOR_ALL):
    """Return examples along every dimension that an op may touch; ``expected`` takes it last."""
    return [
        Example(make(dim), (shape,), lambda m, x, dim=dim: expected(x, dim))
        for shape in (TOKENS, MANY_TOKENS, first, HEADS)
        for dim in range(0 if shape.lead is None else 1, len(shape.sizes))
    ]


def constant(array):
    """Return the op that stores an array."""
    dtype = {"f": "float32", "i": "int64", "b": "bool"}[array.dtype.kind]
    data = ops.Constant.packed(array.astype(dtype).tobytes())
    return ops.Constant(sizes=array.shape, dtype=dtype, data=data)


def split_conv1d(m, x, groups=1, stride=1, padding=0):
    """A sum over windows, group by group."""
    windows = functional.pad(x, (padding, padding)).unfold(2, m.weight.shape[2], stride)
    parts = zip(windows.chunk(groups, 1), m.weight.chunk(groups, 0), strict=True)
    return torch.cat([torch.einsum("nclk,ock->nol", w, k) for w, k in parts], 1)


def attended(q, k, v, bias=0.0, scale=None):
    scores = q @ k.transpose(-1, -2) * (scale or 1 / math.sqrt(q.shape[-1])) + bias
    weights = scores.exp()
    return weights / weights.sum(-1, keepdim=True) @ v


def layer_norm(x, last, eps):
    """``x`` less its mean over the ``last`` dimensions, divided by its deviation."""
    flat = x.flatten(-last)
    mean = flat.mean(-1, keepdim=True)
    variance = (flat - mean).square().mean(-1, keepdim=True)
    return ((flat - mean) / (variance + eps).sqrt()).view_as(x)


def padded(x, dim, before, after, value):
    put = [x.new_full([*x.shape[:dim], n, *x.shape[dim + 1 :]], value) for n in (before, after)]
    return torch.cat([put[0], x, put[1]], dim)


def columns(x):
    """The windows of 2 x 3 at a stride of 2 x 1, after a padding of 1 x 0."""
    windows = functional.pad(x, (0, 0, 1, 1)).unfold(2, 2, 2).unfold(3, 3, 1)
    return windows.permute(0, 1, 4, 5, 2, 3).flatten(4).flatten(1, 3)


def adjoint(function, like, x):
    """The transpose of a linear function, which takes values of the shape of ``like``."""
    with torch.enable_grad():
        like = torch.zeros(like, requires_grad=True)
        return torch.autograd.grad(function(like), like, x)[0]


SOFT = {
    "relu": lambda x: x.clamp(min=0),
    "relu6": lambda x: x.clamp(0, 6),
    "leaky_relu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "silu": lambda x: x / (1 + (-x).exp()),
    "hardswish": lambda x: x * ((x + 3) / 6).clamp(0, 1),
    "hardsigmoid": lambda x: ((x + 3) / 6).clamp(0, 1),
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "tanh": lambda x: (x.exp() - (-x).exp()) / (x.exp() + (-x).exp()),
    "gelu": lambda x: x * (1 + (x / math.sqrt(2)).erf()) / 2,
    "gelu_tanh": lambda x: x / 2 * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh()),
    "elu": lambda x: torch.where(x > 0, x, x.exp() - 1),
    "selu": lambda x: 1.0507009873554805 * torch.where(x > 0, x, 1.6732632423543772 * x.expm1()),
    "mish": lambda x: x * (1 + x.exp()).log().tanh(),
    "softplus": lambda x: (1 + x.exp()).log(),
    "exp": lambda x: math.e**x,
    "abs": lambda x: torch.where(x > 0, x, -x),
    "square": lambda x: x * x,
    "sin": lambda x: torch.polar(torch.ones_like(x), x).imag,
    "cos": lambda x: torch.polar(torch.ones_like(x), x).real,
}
ROOTS = {
    "log": lambda x: x.log2() * math.log(2),
    "sqrt": lambda x: x**0.5,
    "rsqrt": lambda x: 1 / x**0.5,
}
assert {*SOFT, *ROOTS} == {*get_args(ActivationName)}

ACTIVATING = [
    *(
        e
        for f, g in SOFT.items()
        for e in each(ops.Activation(function=f), ANY, lambda m, x, g=g: g(x))
    ),
    *(
        Example(ops.Activation(function=f), (shape,), lambda m, x, g=g: g(x), positive)
        for f, g in ROOTS.items()
        for shape in ANY
    ),
]

POINTWISE = [
    *each(ops.LeakyRelu(slope=0.3), ANY, lambda m, x: torch.where(x > 0, x, 0.3 * x)),
    *each(ops.Clamp(low=-0.5, high=0.25), ANY, lambda m, x: x.clamp(-0.5, 0.25)),
    *each(ops.Clamp(low=-0.5), (TOKENS,), lambda m, x: torch.where(x < -0.5, -0.5, x)),
    *each(ops.Clamp(high=0.5), (TOKENS,), lambda m, x: torch.where(x > 0.5, 0.5, x)),
    *each(ops.Affine(scale=2.0, shift=-1.0), ANY, lambda m, x: 2 * x - 1),
    *each(ops.Affine(scale=-2.0), (TOKENS, FOR_ALL), lambda m, x: -2 * x),
    *each(ops.Affine(shift=0.5), (TOKENS, FOR_ALL), lambda m, x: x + 0.5),
    *each(ops.Affine(), (TOKENS, FOR_ALL), lambda m, x: x),
    *each(ops.Power(exponent=2.0), ANY, lambda m, x: x * x),
    *each(ops.Power(exponent=-0.5), (TOKENS,), lambda m, x: 1 / x.sqrt(), positive),
    *each(ops.Dropout(p=0.5), ANY, lambda m, x: x),
    *each(ops.DropPath(p=0.5), (IMAGE, WINDOWS), lambda m, x: x),
]

ALONG = [
    *along(lambda d: ops.Softmax(dim=d), lambda x, d: x.exp() / x.exp().sum(d, keepdim=True)),
    *along(lambda d: ops.Normalize(dim=d), lambda x, d: x / x.square().sum(d, keepdim=True).sqrt()),
    *along(
        lambda d: ops.Normalize(dim=d, eps=100.0),
        lambda x, d: x / 100,
    ),
    *along(lambda d: ops.Index(dim=d, index=1), lambda x, d: x.unbind(d)[1]),
    *along(lambda d: ops.Slice(dim=d, start=1, stop=2), lambda x, d: x.unbind(d)[1].unsqueeze(d)),
    *along(
        lambda d: ops.Slice(dim=d, start=0, stop=2, step=2),
        lambda x, d: x.unbind(d)[0].unsqueeze(d),
    ),
    *along(lambda d: ops.Tile(dim=d, times=3), lambda x, d: torch.cat([x, x, x], d)),
    *along(
        lambda d: ops.Roll(dim=d, shift=-1),
        lambda x, d: torch.stack([*x.unbind(d)[1:], x.unbind(d)[0]], d),
    ),
    *along(
        lambda d: ops.Roll(dim=d, shift=1),
        lambda x, d: torch.stack([x.unbind(d)[-1], *x.unbind(d)[:-1]], d),
    ),
    *along(
        lambda d: ops.Pad(dim=d, before=1, after=2, value=0.5),
        lambda x, d: padded(x, d, 1, 2, 0.5),
    ),
    *along(
        lambda d: ops.Pad(dim=d, before=-1, after=2),
        lambda x, d: padded(torch.stack(x.unbind(d)[1:], d), d, 0, 2, 0.0),
    ),
]

LAYOUT = [
    Example(ops.Reshape(sizes=(3, 8)), (TOKENS,), lambda m, x: x.flatten(1).unflatten(1, (3, 8))),
    # The batch takes in dimensions, and gives them back.
    Example(ops.Reshape(sizes=(6,)), (TOKENS,), lambda m, x: torch.cat([*x])),
    Example(
        ops.Reshape(sizes=(8, 6)),
        (MANY_TOKENS,),
        lambda m, x: x.unflatten(0, (-1, 2)).flatten(1, 2),
    ),
    Example(ops.Reshape(sizes=(2, 12)), (FOR_ALL,), lambda m, x: x.flatten().unflatten(0, (2, 12))),
    Example(ops.Permute(order=(0, 2, 1)), (TOKENS,), lambda m, x: torch.einsum("nab->nba", x)),
    Example(
        ops.Permute(order=(0, 3, 1, 2)), (WINDOWS,), lambda m, x: torch.einsum("nabc->ncab", x)
    ),
    Example(ops.Permute(order=(1, 0)), (FOR_ALL,), lambda m, x: torch.einsum("ab->ba", x)),
    Example(ops.Tile(dim=1, times=3), (Shape((1, 6)),), lambda m, x: torch.cat([x, x, x], 1)),
    Example(ops.Tile(dim=0, times=3), (Shape((1, 6), None),), lambda m, x: torch.cat([x, x, x], 0)),
    *(
        Example(
            ops.Join(dim=1),
            (shape, shape, shape),
            lambda m, *xs: torch.stack(xs, 1).flatten(1, 2),
        )
        for shape in (TOKENS, MANY_TOKENS, IMAGE)
    ),
    Example(
        ops.Join(dim=0), (FOR_ALL, Shape((1, 6), None)), lambda m, x, y: torch.stack([*x, *y], 0)
    ),
    *(
        Example(
            ops.Take(dim=dim),
            (shape, Shape((5,), None)),
            lambda m, x, i, dim=dim: torch.stack([x.unbind(dim)[n] for n in i.tolist()], dim),
        )
        for shape, dim in ((TOKENS, 1), (TOKENS, 2), (MANY_TOKENS, 1), (FOR_ALL, 0), (FOR_ALL, 1))
    ),
    *(
        Example(
            ops.Spread(),
            (Shape((1, 6), None), like),
            lambda m, one, like: torch.stack([one[0]] * len(like)),
        )
        for like in (TOKENS, MANY_TOKENS)
    ),
]

KERNEL = Shape((8, 2, 3, 3), None)
EACH = Shape((IMAGE.channels, 1, 3, 3), None)

WINDOWED = [
    *each(
        ops.Pad(dim=3, before=2, after=1, function="reflect"),
        (IMAGE,),
        lambda m, x: torch.cat([x[..., 1:3].flip(-1), x, x[..., -2:-1]], -1),
    ),
    Example(
        ops.Convolve(depthwise=True, stride=(2, 1), padding=(1, 0)),
        (IMAGE, EACH),
        lambda m, x, k: torch.cat(
            [
                functional.conv2d(x[:, i : i + 1], k[i : i + 1], stride=(2, 1), padding=(1, 0))
                for i in range(len(k))
            ],
            1,
        ),
    ),
    Example(
        ops.Convolve(groups=2, dilation=(1, 2)),
        (Shape.of(4, (6, 8)), KERNEL),
        lambda m, x, k: torch.cat(
            [
                functional.conv2d(part, half, dilation=(1, 2))
                for part, half in zip(x.chunk(2, 1), k.chunk(2, 0), strict=True)
            ],
            1,
        ),
    ),
    *each(
        ops.Resize(size=(12, 24)),
        (IMAGE, WINDOWS),
        lambda m, x: x.repeat_interleave(2, 2).repeat_interleave(3, 3),
    ),
    # Half way between two pixels lies their mean.
    *each(
        ops.Resize(size=(3, 4), function="bilinear"),
        (IMAGE, WINDOWS),
        lambda m, x: functional.avg_pool2d(x, 2),
    ),
    *each(
        ops.Resize(size=(11, 15), function="bilinear", align_corners=True),
        (IMAGE,),
        lambda m, x: functional.conv_transpose2d(
            x.flatten(0, 1).unsqueeze(1),
            torch.tensor([[0.25, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.25]]).view(1, 1, 3, 3),
            stride=2,
            padding=1,
        ).view(*x.shape[:2], 11, 15),
    ),
    *each(
        ops.Resize(size=(4, 5), function="bicubic"),
        (IMAGE,),
        lambda m, x: functional.interpolate(x, (4, 5), mode="bicubic", align_corners=False),
    ),
    *each(
        ops.Unfold(kernel=(2, 3), stride=(2, 1), padding=(1, 0)),
        (IMAGE, WINDOWS),
        lambda m, x: columns(x),
    ),
    *each(
        ops.Unfold(kernel=(2, 1), dilation=(3, 1)),
        (IMAGE,),
        lambda m, x: torch.stack([x[:, :, :3], x[:, :, 3:]], 2).flatten(3).flatten(1, 2),
    ),
    *each(
        ops.Fold(size=(6, 8), kernel=(2, 3), stride=(2, 1), padding=(1, 0)),
        (Shape((24, 24)), Shape((24, 24), 2)),
        lambda m, x: adjoint(columns, (len(x), 4, 6, 8), x),
    ),
]

PAIRS = [
    (TOKENS, TOKENS),
    (MANY_TOKENS, MANY_TOKENS),
    (FOR_ALL, FOR_ALL),
    (TOKENS, FOR_ALL),
    (ROW_FOR_ALL, MANY_TOKENS),
    (IMAGE, Shape((4, 1, 1))),
    (TOKENS, Shape((), None)),
    (Shape((1, 6)), Shape((1, 4, 1), None)),
]

ARITHMETIC = [
    Example(ops.Arithmetic(function=name), pair, lambda m, x, y, f=function: f(x, y), positive)
    for name, function in {
        "add": lambda x, y: x + y,
        "subtract": lambda x, y: x - y,
        "multiply": lambda x, y: x * y,
        "divide": lambda x, y: x / y,
        "maximum": lambda x, y: torch.where(x > y, x, y),
        "minimum": lambda x, y: torch.where(x < y, x, y),
        "power": lambda x, y: (x.log() * y).exp(),
    }.items()
    for pair in PAIRS
]

REDUCING = [
    Example(
        ops.Reduce(function=name, dims=dims, keep=keep),
        (shape,),
        lambda m, x, f=function, dims=dims, keep=keep: (
            f(x, dims) if keep else f(x, dims).squeeze(dims)
        ),
    )
    for name, function in {
        "mean": lambda x, dims: x.sum(dims, keepdim=True) / math.prod(x.shape[d] for d in dims),
        "sum": lambda x, dims: x.sum(dims, keepdim=True),
        "max": lambda x, dims: x.amax(dims, keepdim=True),
        "norm": lambda x, dims: x.square().sum(dims, keepdim=True).sqrt(),
        "variance": lambda x, dims: (x - x.mean(dims, keepdim=True)).square().mean(dims, True),
    }.items()
    for shape, dims in (
        (IMAGE, (2, 3)),
        (WINDOWS, (1,)),
        (TOKENS, (1,)),
        (MANY_TOKENS, (2,)),
        (FOR_ALL, (0,)),
        (FOR_ALL, (0, 1)),
    )
    for keep in (True, False)
]

NORMS = [
    *(
        Example(
            ops.LayerNorm(dims=last, eps=0.1, scale=scale, shift=shift),
            (shape,),
            lambda m, x, last=last: (
                layer_norm(x, last, 0.1) * (1 if m.weight is None else m.weight)
                + (0 if m.bias is None else m.bias)
            ),
        )
        for shape, last in ((TOKENS, 1), (TOKENS, 2), (WINDOWS, 3), (VECTOR, 1), (FOR_ALL, 1))
        for scale in (True, False)
        for shift in (True, False)
    ),
    *(
        Example(
            ops.RmsNorm(eps=eps, scale=scale),
            (shape,),
            lambda m, x, eps=eps: (
                x
                / (x.square().mean(-1, keepdim=True) + (eps or 2**-23)).sqrt()
                * (1 if m.weight is None else m.weight)
            ),
        )
        for shape in (TOKENS, MANY_TOKENS, IMAGE, FOR_ALL)
        for eps in (None, 0.1)
        for scale in (True, False)
    ),
    *each(
        ops.BatchNorm(eps=0.1),
        (IMAGE, WINDOWS, VECTOR, TOKENS, MANY_TOKENS),
        lambda m, x: (
            (x.movedim(1, -1) - m.running_mean) / (m.running_var + 0.1).sqrt() * m.weight + m.bias
        ).movedim(-1, 1),
    ),
    *each(
        ops.GroupNorm(groups=2, eps=0.1),
        (IMAGE, WINDOWS),
        lambda m, x: (
            layer_norm(x.unflatten(1, (2, 2)), 3, 0.1).view_as(x) * m.weight.view(-1, 1, 1)
            + m.bias.view(-1, 1, 1)
        ),
    ),
]

LAYERS = [
    *each(
        ops.Linear(width=5), ANY, lambda m, x: torch.einsum("...i,oi->...o", x, m.weight) + m.bias
    ),
    *each(ops.Linear(width=5, bias=False), ANY, lambda m, x: x @ m.weight.T),
    *each(ops.Conv1d(width=3, kernel=3), (TOKENS, MANY_TOKENS), split_conv1d),
    Example(
        ops.Conv1d(width=6, kernel=3, stride=2, padding=2, groups=2, bias=True),
        (TOKENS,),
        lambda m, x: split_conv1d(m, x, 2, 2, 2) + m.bias.view(-1, 1),
    ),
    Example(
        ops.Conv1d(width=4, kernel=5, padding=2, groups=4),
        (MANY_TOKENS,),
        lambda m, x: split_conv1d(m, x, 4, 1, 2),
    ),
    *each(ops.Conv2d(width=6, kernel=(3, 1), stride=(2, 1), groups=2, bias=True), (IMAGE, WINDOWS)),
    *each(ops.Depthwise2d(multiplier=2, kernel=(3, 3), padding=(1, 1)), (IMAGE, WINDOWS)),
    Example(
        ops.Conv2d(
            width=6, kernel=(2, 1), sparsity=ops.KernelSparsity(density=(0.5, 0.5)), bias=True
        ),
        (IMAGE,),
    ),
    *each(ops.Pool2d(kernel=(3, 3), stride=(2, 2), padding=(1, 1)), (IMAGE, WINDOWS)),
    *each(ops.Pool2d(function="average", kernel=(2, 2), stride=(2, 2)), (IMAGE, WINDOWS)),
    *each(ops.GlobalPool(), (IMAGE, WINDOWS), lambda m, x: x.mean((2, 3), keepdim=True)),
    *each(ops.GlobalPool(function="max", size=(3, 2)), (IMAGE, WINDOWS)),
]

CHANNELS = [
    *each(ops.Flatten(), (IMAGE, WINDOWS), lambda m, x: torch.stack([y.ravel() for y in x])),
    *(
        Example(op, (shape, shape), function)
        for shape in (IMAGE, WINDOWS, VECTOR, TOKENS)
        for op, function in (
            (ops.Add(), lambda m, x, y: x + y),
            (ops.Concat(), lambda m, x, y: torch.stack([x, y], 1).flatten(1, 2)),
        )
    ),
    Example(ops.Add(), (FOR_ALL,) * 3, lambda m, x, y, z: x + y + z),
    Example(
        ops.Gate(),
        (WINDOWS, Shape.of(4, (1, 1), lead=2)),
        lambda m, x, f: torch.einsum("nchw,nc->nchw", x, f[:, :, 0, 0]),
    ),
    *(
        example
        for shape in (IMAGE, WINDOWS, TOKENS, Shape.of(4))
        for example in (
            *each(ops.Split(parts=2, index=1), (shape,), lambda m, x: x[:, 2:]),
            *each(ops.Shuffle(groups=2), (shape,), lambda m, x: x[:, [0, 2, 1, 3]]),
            *each(ops.Select(indices=(1, 3)), (shape,), lambda m, x: x[:, [1, 3]]),
        )
    ),
    Example(
        ops.PadChannels(stride=2),
        (WINDOWS, Shape.of(7, (3, 4), lead=2)),
        lambda m, x, like: torch.cat([x[:, :, ::2, ::2], torch.zeros_like(like)[:, :3]], 1),
    ),
]

PRODUCTS = [
    *(
        Example(
            ops.MatMul(), (left, right), lambda m, x, y: (x.unsqueeze(-1) * y.unsqueeze(-3)).sum(-2)
        )
        for left, right in (
            (TOKENS, Shape((6, 3))),
            (MANY_TOKENS, Shape((6, 3), 2)),
            (HEADS, Shape((2, 6, 5))),
            (HEADS, Shape((1, 6, 5))),
            (TOKENS, Shape((6, 3), None)),
            (HEADS, Shape((6, 3), None)),
            (FOR_ALL, Shape((6, 3), None)),
            (Shape((5, 4), None), TOKENS),
        )
    ),
    *(
        Example(
            ops.Attention(scale=scale, dropout=0.5),
            shapes,
            lambda m, *inputs, scale=scale: attended(*inputs, scale=scale),
        )
        for scale in (None, 0.2)
        for shapes in (
            (TOKENS, TOKENS, TOKENS),
            (HEADS, HEADS, HEADS),
            (HEADS, Shape((2, 3, 6)), Shape((2, 3, 5))),
            (HEADS, HEADS, HEADS, Shape((4, 4), None)),
            (HEADS, HEADS, HEADS, Shape((1, 2, 4, 4), None)),
            (HEADS, HEADS, HEADS, Shape((2, 4, 4), None)),
            (HEADS, HEADS, HEADS, Shape((1, 1, 4))),
            (*[Shape((2, 4, 6), 2)] * 3, Shape((2, 4, 4), 2)),
            (FOR_ALL, FOR_ALL, FOR_ALL),
        )
    ),
]

NUMBERS = numpy.random.default_rng(0).normal(size=(2, 3)).astype("f4")
STORED = [
    Example(ops.Parameter(sizes=(1, 4, 6)), (), lambda m: m.value),
    Example(ops.Filled(sizes=(2, 3), value=0.5), (), lambda m: torch.tensor([[0.5] * 3] * 2)),
    *(
        Example(constant(array), (), lambda m, array=array: torch.tensor(array.tolist()))
        for array in (NUMBERS, NUMBERS[0, 0], numpy.arange(-2, 4), NUMBERS > 0)
    ),
]

X, Y = {"tensor": 0}, {"tensor": 1}


def opaque(call, out, *positional, item=None, **named):
    return ops.Opaque(
        call=call,
        arguments=ops.Opaque.text([[*positional], named]),
        item=item,
        sizes=out.dims,
        lead=out.lead,
    )


FROZEN = [
    *(
        Example(
            opaque("cumsum.default", shape, X, 1),
            (shape,),
            lambda m, x: torch.stack([x[:, : i + 1].sum(1) for i in range(x.shape[1])], 1),
        )
        for shape in (TOKENS, MANY_TOKENS, FOR_ALL)
    ),
    Example(
        opaque("topk.default", Shape((4, 1)), X, 1, item=0, largest=False),
        (TOKENS,),
        lambda m, x: x.amin(-1, keepdim=True),
    ),
    Example(
        opaque("stack.default", Shape((2, 4, 6), 2), [Y, X], dim=1),
        (MANY_TOKENS, MANY_TOKENS),
        lambda m, x, y: torch.cat([y, x], 1).unflatten(1, (2, 4)),
    ),
]

EXAMPLES = [
    Example(ops.Input(width=4, spatial=(6, 8)), ()),
    *ACTIVATING,
    *POINTWISE,
    *ALONG,
    *LAYOUT,
    *WINDOWED,
    *ARITHMETIC,
    *REDUCING,
    *NORMS,
    *LAYERS,
    *CHANNELS,
    *PRODUCTS,
    *STORED,
    *FROZEN,
]
