"""A graph while hypothesis draws it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from hypothesis import strategies as st

from prunenas.ir.graph import Graph, Init
from prunenas.ir.writer import GraphWriter

WIDEST = 12

T = TypeVar("T")
Draw = Callable[[st.SearchStrategy[Any]], Any]


class Sketch:
    """A graph while it is drawn: the writer, and what hypothesis chooses."""

    def __init__(self, draw: Draw, input_size: tuple[int, int, int]) -> None:
        self.draw = draw
        self.net = GraphWriter(input_size)
        self.shared: dict[str, str] = {}

    def flag(self) -> bool:
        return self.draw(st.booleans())

    def integer(self, least: int, most: int) -> int:
        return self.draw(st.integers(least, most))

    def one_of(self, options: Sequence[T]) -> T:
        return self.draw(st.sampled_from(options))

    def some_of(self, options: Sequence[T]) -> list[T]:
        """Some of the options, in their order."""
        return [option for option in options if self.flag()]

    def width(self, multiple_of: int = 1) -> int:
        return multiple_of * self.integer(1, WIDEST // multiple_of)

    def channels(self, x: str) -> int:
        return self.net.shape(x).channels

    def conv(self, name: str, x: str, width: int, *, stride: int = 1, bias: bool = False) -> str:
        """A convolution that keeps the size at stride 1, with a norm and a ReLU or without."""
        kernel = self.one_of([1, 3])
        x = self.net.conv(name, x, width, kernel=kernel, stride=stride, bias=bias)
        if self.flag():
            x = self.net.batch_norm(f"{name}_bn", x)
        return self.net.relu(f"{name}_relu", x) if self.flag() else x

    def graph(self, output: str) -> Graph:
        init = Init(
            conv=self.one_of(["fan_out", "fan_in", "torch"]),
            linear=self.one_of(["torch", "normal_0.01", "normal_0.02"]),
            scale=self.one_of([1.0, 0.5]),
        )
        graph = self.net.finish(output, init)
        owned = tuple(replace(n, weights=self.shared.get(n.name)) for n in graph.nodes)
        return replace(graph, nodes=owned)
