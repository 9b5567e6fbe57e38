"""How a suite of promises looks through a method: once for each graph and keep."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest

from prunenas.arch.descriptor import Descriptor
from prunenas.build.network import Network
from prunenas.data.base import ImageSet
from prunenas.errors import MethodError
from prunenas.generators.base import Generator, Pruned, make_generator, prune
from prunenas.generators.base.method import Counts
from prunenas.ir.blocks import blocks
from prunenas.ir.coupling import in_parts
from prunenas.ir.graph import Graph
from prunenas.testing.networks import GRAPHS, random_images, trained
from prunenas.training.recipe import Recipe

_SHORT = ("vgg11_l1", "resnet20", "densenet", "grouped", "gated", "inverted")
"""The graphs for methods that look at images."""

_SHORTEST = ("vgg11_l1", "resnet20", "densenet", "grouped")
"""The graphs for methods that train by themselves, which takes longer."""


class Looking:
    """What a subclass sets of a method, and what the method found, each computed once."""

    method: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}
    graphs: ClassVar[Mapping[str, Callable[[], Graph]]] = GRAPHS
    keeps: ClassVar[tuple[float, ...]] = (0.3, 0.5, 0.8)
    recipe: ClassVar[Recipe] = Recipe(epochs=1, batch=8, lr=0.01)

    _subjects: ClassVar[dict[str, tuple[Graph, Network]]]
    _results: ClassVar[dict[tuple[str, float | None], Pruned]]

    def __init_subclass__(cls) -> None:
        cls._subjects, cls._results = {}, {}

    @classmethod
    def generator(cls) -> Generator:
        """Return the method with its options."""
        return make_generator(cls.method, **cls.options)

    @classmethod
    def graph_names(cls) -> list[str]:
        """Return the names of the graphs that are looked at."""
        if not cls.needs_images():
            return [*cls.graphs]
        quick = _SHORTEST if cls.generator().looks_at == "own" else _SHORT
        return [name for name in quick if name in cls.graphs] or [*cls.graphs]

    @classmethod
    def first(cls) -> Graph:
        """Return a graph where one is enough; one with blocks, or parts, where these count."""
        graphs = [cls.graphs[name]() for name in cls.graph_names()]
        counted = [graph for graph in graphs if _has(cls.generator().counts, graph)]
        return (counted or graphs)[0]

    @classmethod
    def asked(cls) -> tuple[float | None, ...]:
        """Return the keeps that are asked for."""
        return (None,) if cls.generator().says_how_much else cls.keeps

    @classmethod
    def middle(cls) -> float | None:
        """Return the keep that is asked for where one is enough."""
        return cls.asked()[len(cls.asked()) // 2]

    @classmethod
    def needs_images(cls) -> bool:
        """Return whether the method looks at images even where a network is given."""
        return cls.generator().reads or cls.generator().looks_at == "own"

    @classmethod
    def look(
        cls,
        graph: Graph,
        network: Network | None = None,
        *,
        keep: float | None,
        choices: Mapping[str, Any] | None = None,
        data: ImageSet | None = None,
        seed: int = 0,
    ) -> Pruned:
        """Return what the method finds, given no more than it says that it looks at.

        Args:
            graph: The reference.
            network: A network of it, if any.
            keep: What is asked for.
            choices: Options beside those of the class.
            data: Images, where not random ones.
            seed: Of whatever is drawn.
        """
        options = dict(cls.options) | dict(choices or {})
        kind = make_generator(cls.method, **options)
        if data is None and (kind.reads or kind.looks_at == "own"):
            data = random_images(graph)
        asked = {"keep": keep, "recipe": cls.recipe, "seed": seed, "network": network} | options
        try:
            return prune(cls.method, graph, data, **asked)
        except MethodError as refusal:
            if not choices and not _has(kind.counts, graph):
                pytest.skip(str(refusal))
            raise

    @classmethod
    def subject(cls, name: str) -> tuple[Graph, Network]:
        """Return a graph and a network of it, which are not to be changed."""
        if name not in cls._subjects:
            graph = cls.graphs[name]()
            cls._subjects[name] = graph, trained(graph)
        return cls._subjects[name]

    @classmethod
    def pruned(cls, name: str, keep: float | None) -> Pruned:
        """Return what the method finds in a graph."""
        if (name, keep) not in cls._results:
            graph, network = cls.subject(name)
            cls._results[name, keep] = cls.look(graph, network, keep=keep)
        return cls._results[name, keep]

    @classmethod
    def found(cls, name: str, keep: float | None) -> Descriptor:
        """Return the descriptor that the method finds in a graph."""
        return cls.pruned(name, keep).descriptor


def _has(counts: Counts, graph: Graph) -> bool:
    """Return whether ``graph`` has any of what is counted; of channels and weights all have."""
    if counts == "parts":
        return any(in_parts(node) for node in graph.nodes)
    return counts != "blocks" or bool(blocks(graph))
