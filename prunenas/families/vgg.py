"""VGG: stacked 3x3 convolutions, for small images (four pools) and large ones (five).

Source: Simonyan and Zisserman 2015, arXiv:1409.1556; the small-image variants as in the released
code of Liu et al. 2019, arXiv:1810.05270.
"""

from collections.abc import Sequence

from prunenas.errors import InputError
from prunenas.families.base import CIFAR_SIZE, IMAGENET_SIZE, family, scaled
from prunenas.ir.graph import Graph, Init
from prunenas.ir.ops import Flatten
from prunenas.ir.writer import GraphWriter

_REPEATS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_WIDTHS = (64, 128, 256, 512, 512)
_HIDDEN = 4096

Body = Sequence[int | str]
"""Widths of the convolutions in order, ``"M"`` for a 2x2 max-pooling."""


@family("vgg", input_size=CIFAR_SIZE, classes=10)
@family("vgg11", input_size=CIFAR_SIZE, classes=10, depth=11, body=None, hidden=0, bias=False)
@family("vgg13", input_size=CIFAR_SIZE, classes=10, depth=13, body=None, hidden=0, bias=False)
@family("vgg16", input_size=CIFAR_SIZE, classes=10, depth=16, body=None, hidden=0, bias=False)
@family("vgg19", input_size=CIFAR_SIZE, classes=10, depth=19, body=None, hidden=0, bias=False)
@family("vgg11_l1", input_size=CIFAR_SIZE, classes=10, depth=11, body=None, hidden=512, bias=False)
@family("vgg13_l1", input_size=CIFAR_SIZE, classes=10, depth=13, body=None, hidden=512, bias=False)
@family("vgg16_l1", input_size=CIFAR_SIZE, classes=10, depth=16, body=None, hidden=512, bias=False)
@family("vgg19_l1", input_size=CIFAR_SIZE, classes=10, depth=19, body=None, hidden=512, bias=False)
@family("vgg11_biased", input_size=CIFAR_SIZE, classes=10, depth=11, body=None, hidden=0, bias=True)
@family("vgg13_biased", input_size=CIFAR_SIZE, classes=10, depth=13, body=None, hidden=0, bias=True)
@family("vgg16_biased", input_size=CIFAR_SIZE, classes=10, depth=16, body=None, hidden=0, bias=True)
@family("vgg19_biased", input_size=CIFAR_SIZE, classes=10, depth=19, body=None, hidden=0, bias=True)
def vgg(
    net: GraphWriter,
    classes: int,
    width: float,
    *,
    depth: int | None = None,
    body: Body | None = None,
    hidden: int = 0,
    bias: bool = False,
) -> Graph:
    """Return a VGG for small images, batch-normalised, with global average pooling.

    The three released variants differ: plain (Network Slimming), ``hidden=512`` (L1-norm pruning;
    its scales start at 0.5 too, that of the vector at 1), ``bias=True`` (weight-level pruning;
    scales start at 1, convolutions by fan-in).

    Args:
        net: Where to write.
        classes: Number of classes.
        width: Factor for all widths.
        depth: 11, 13, 16 or 19; 16 where nothing is said.
        body: Own widths instead of a depth, such as ``[32, 64, "M", 128]``.
        hidden: Width of a hidden linear layer with batch norm; 0 for none.
        bias: Give the convolutions a bias.

    Raises:
        InputError: Both ``depth`` and ``body``, or an illegal value.
    """
    if depth is not None and body is not None:
        raise InputError(f"depth and body exclude each other, got {depth=} and {body=}")
    if hidden < 0:
        raise InputError(f"hidden is a width, or 0 for no hidden layer, got hidden={hidden}")
    layers = _body(16 if depth is None else depth, pools=4) if body is None else _checked(body)
    x = net.global_pool("avgpool", _features(net, layers, width, bias=bias, norm=True))
    if hidden:
        x = net.linear("classifier.0", x, scaled(hidden, width))
        x = net.relu("classifier.2", net.batch_norm("classifier.1", x))
    x = net.linear("classifier.3" if hidden else "classifier", x, classes)
    if bias:
        return net.finish(x, Init(conv="fan_in", linear="normal_0.01"))
    return net.finish(x, Init(linear="normal_0.01", scale=0.5))


@family("vgg11_plain_imagenet", input_size=IMAGENET_SIZE, classes=1000, depth=11, norm=False)
@family("vgg16_imagenet", input_size=IMAGENET_SIZE, classes=1000, depth=16, norm=False)
@family("vgg16_bn_imagenet", input_size=IMAGENET_SIZE, classes=1000, depth=16, norm=True)
def vgg_imagenet(net: GraphWriter, classes: int, width: float, *, depth: int, norm: bool) -> Graph:
    """Return torchvision's VGG, without its adaptive pooling: at 224x224 that changes nothing.

    At other sizes the first linear layer reads what the last pooling leaves.
    """
    x = _features(net, _body(depth, pools=5), width, bias=True, norm=norm)
    x = net.linear("classifier.0", net.add("flatten", Flatten(), x), scaled(_HIDDEN, width))
    x = net.dropout("classifier.2", net.relu("classifier.1", x))
    x = net.relu("classifier.4", net.linear("classifier.3", x, scaled(_HIDDEN, width)))
    x = net.linear("classifier.6", net.dropout("classifier.5", x), classes)
    return net.finish(x, Init(linear="normal_0.01"))


@family("vgg11_imagenet", input_size=IMAGENET_SIZE, classes=1000)
def vgg11_slimming(net: GraphWriter, classes: int, width: float) -> Graph:
    """Return the VGG-11 of Network Slimming: batch norm in the head too, no dropout."""
    x = _features(net, _body(11, pools=5), width, bias=True, norm=True)
    x = net.linear("classifier.0", net.add("flatten", Flatten(), x), scaled(_HIDDEN, width))
    x = net.relu("classifier.2", net.batch_norm("classifier.1", x))
    x = net.linear("classifier.3", x, scaled(_HIDDEN, width))
    x = net.relu("classifier.5", net.batch_norm("classifier.4", x))
    x = net.linear("classifier.6", x, classes)
    return net.finish(x, Init(linear="normal_0.01", scale=0.5, vector_scale=0.5))


@family("vgg16_gap", input_size=IMAGENET_SIZE, classes=1000)
def vgg16_gap(net: GraphWriter, classes: int, width: float) -> Graph:
    """Return VGG-16 with four pools, no batch norm and one linear layer on the average.

    Source: Luo et al. 2017, arXiv:1707.06342, section 3.3 (VGG-GAP, before pruning).
    """
    x = _features(net, _body(16, pools=4), width, bias=True, norm=False)
    x = net.linear("classifier", net.global_pool("avgpool", x), classes)
    return net.finish(x, Init(linear="normal_0.01"))


def _body(depth: int, *, pools: int) -> Body:
    if depth not in _REPEATS:
        raise InputError(f"depth must be one of {', '.join(map(str, _REPEATS))}, got {depth=}")
    layers: list[int | str] = []
    for stage, (width, repeats) in enumerate(zip(_WIDTHS, _REPEATS[depth], strict=True), start=1):
        layers += [width] * repeats + (["M"] if stage <= pools else [])
    return layers


def _checked(body: Body) -> Body:
    def is_width(item: int | str) -> bool:
        return isinstance(item, int) and not isinstance(item, bool) and item > 0

    bad = [item for item in body if item != "M" and not is_width(item)]
    if bad or not any(is_width(item) for item in body):
        raise InputError(
            f"body is a list of widths from 1 on and 'M', with one width at least, got {body!r}"
        )
    return body


def _features(net: GraphWriter, body: Body, width: float, *, bias: bool, norm: bool) -> str:
    """Write the convolutions; the numbers in the names are torchvision's."""
    x, position = net.input, 0
    for item in body:
        if isinstance(item, str):
            x = net.max_pool(f"features.{position}", x, kernel=2)
            position += 1
            continue
        x = net.conv(f"features.{position}", x, scaled(item, width), kernel=3, bias=bias)
        if norm:
            position += 1
            x = net.batch_norm(f"features.{position}", x)
        x = net.relu(f"features.{position + 1}", x)
        position += 2
    return x
