"""GraphWriter: write a graph by hand, one line a layer."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, final

from prunenas.errors import GraphError
from prunenas.ir.graph import Graph, Init, Node, live
from prunenas.ir.ops import (
    Activation,
    Add,
    AnyOp,
    BatchNorm,
    Concat,
    Conv2d,
    Depthwise2d,
    Dropout,
    Flatten,
    GlobalPool,
    Input,
    Linear,
    PadChannels,
    Pool2d,
    Select,
)
from prunenas.ir.ops.plain import ActivationName
from prunenas.ir.shape import Shape


@final
class GraphWriter:
    """Collects nodes; every method adds one and returns its name.

    Names are given below the current ``scope``: inside ``with net.scope("layer1"):``
    the call ``net.conv("conv1", ...)`` adds ``layer1.conv1``. Padding defaults to what keeps the
    size at stride 1.

    Example:
        >>> net = GraphWriter((3, 8, 8))
        >>> x = net.relu("relu", net.batch_norm("bn", net.conv("conv", net.input, 4, kernel=3)))
        >>> net.linear("fc", net.global_pool("pool", x), 10)
        'fc'
        >>> net.finish("fc").classes
        10
    """

    def __init__(self, input_size: tuple[int, int, int]) -> None:
        self._nodes: list[Node] = []
        self._shapes: dict[str, Shape] = {}
        self._scope: list[str] = []
        self.input = self.add("input", Input(width=input_size[0], spatial=input_size[1:]))

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Put all names given inside below ``name``."""
        self._scope.append(name)
        try:
            yield
        finally:
            self._scope.pop()

    def add(self, name: str, op: AnyOp, *inputs: str) -> str:
        """Add any op."""
        path = ".".join([*self._scope, name])
        self._shapes[path] = op.checked_shape([self.shape(source) for source in inputs])
        self._nodes.append(Node(name=path, op=op, inputs=inputs))
        return path

    def shape(self, name: str) -> Shape:
        """Return the shape of a value written so far.

        Raises:
            GraphError: There is none of this name.
        """
        if name not in self._shapes:
            raise GraphError(f"no value {name!r} has been written yet")
        return self._shapes[name]

    def conv(
        self,
        name: str,
        x: str,
        width: int,
        *,
        kernel: int,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        bias: bool = False,
    ) -> str:
        """Add a square convolution."""
        pad = kernel // 2 if padding is None else padding
        op = Conv2d(
            width=width,
            kernel=(kernel, kernel),
            stride=(stride, stride),
            padding=(pad, pad),
            groups=groups,
            bias=bias,
        )
        return self.add(name, op, x)

    def depthwise(self, name: str, x: str, *, kernel: int, stride: int = 1) -> str:
        """Add a square depthwise convolution without bias."""
        pad = kernel // 2
        op = Depthwise2d(kernel=(kernel, kernel), stride=(stride, stride), padding=(pad, pad))
        return self.add(name, op, x)

    def linear(self, name: str, x: str, width: int, *, bias: bool = True) -> str:
        """Add a linear layer; an image is flattened first, under the name ``<name>_flatten``."""
        if self.shape(x).spatial:
            x = self.add(f"{name}_flatten", Flatten(), x)
        return self.add(name, Linear(width=width, bias=bias), x)

    def batch_norm(self, name: str, x: str) -> str:
        """Add a batch norm with the framework's constants."""
        return self.add(name, BatchNorm(), x)

    def activation(self, name: str, x: str, function: ActivationName) -> str:
        """Add a non-linearity."""
        return self.add(name, Activation(function=function), x)

    def relu(self, name: str, x: str) -> str:
        """Add a ReLU."""
        return self.activation(name, x, "relu")

    def dropout(self, name: str, x: str, p: float = 0.5) -> str:
        """Add a dropout."""
        return self.add(name, Dropout(p=p), x)

    def max_pool(
        self, name: str, x: str, *, kernel: int, stride: int | None = None, padding: int = 0
    ) -> str:
        """Add a square max-pooling; the stride defaults to the kernel."""
        step = stride or kernel
        op = Pool2d(kernel=(kernel, kernel), stride=(step, step), padding=(padding, padding))
        return self.add(name, op, x)

    def average_pool(self, name: str, x: str, *, kernel: int, stride: int | None = None) -> str:
        """Add a square average-pooling; the stride defaults to the kernel."""
        step = stride or kernel
        op = Pool2d(function="average", kernel=(kernel, kernel), stride=(step, step))
        return self.add(name, op, x)

    def global_pool(self, name: str, x: str, *, size: int = 1) -> str:
        """Add an average over all positions, or over ``size`` x ``size`` cells."""
        return self.add(name, GlobalPool(size=(size, size)), x)

    def join(self, name: str, *inputs: str) -> str:
        """Add the sum of ``inputs``."""
        return self.add(name, Add(), *inputs)

    def concat(self, name: str, *inputs: str) -> str:
        """Add the concatenation of ``inputs``."""
        return self.add(name, Concat(), *inputs)

    def select_all(self, name: str, x: str) -> str:
        """Add a channel selection that selects everything: the reference state."""
        return self.add(name, Select(indices=tuple(range(self.shape(x).channels))), x)

    def pad_channels(
        self,
        name: str,
        x: str,
        like: str,
        *,
        stride: int,
        function: Literal["subsample", "average"] = "subsample",
        detach: bool = False,
    ) -> str:
        """Add a parameter-free shortcut from ``x`` to the shape of ``like``."""
        return self.add(name, PadChannels(stride=stride, function=function, detach=detach), x, like)

    def finish(self, output: str, init: Init | None = None) -> Graph:
        """Return the graph that computes ``output``; nodes it does not need are left out."""
        nodes = live(tuple(self._nodes), output)
        return Graph(nodes=nodes, output=output, init=init or Init())
