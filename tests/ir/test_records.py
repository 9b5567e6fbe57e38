"""Records survive the way to another process, which copying is too."""

import copy
from multiprocessing.reduction import ForkingPickler
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given

from prunenas.errors import GraphError
from prunenas.ir.canonical import digest
from prunenas.ir.coupling import couple
from prunenas.ir.graph import Graph
from prunenas.ir.masks import mask_of
from prunenas.ir.ops import ExactMask
from tests.arch.networks import everything
from tests.graphs import graphs


def sent(value):
    """What another process receives."""
    return ForkingPickler.loads(ForkingPickler.dumps(value))


WAYS = pytest.mark.parametrize("travel", [sent, copy.deepcopy, copy.copy])


@given(graphs())
def test_any_graph_arrives_as_the_same_network(graph):
    for travel in (sent, copy.deepcopy, copy.copy):
        other = travel(graph)
        assert other is not graph
        assert (other, digest(other), dict(other.shapes)) == (graph, digest(graph), graph.shapes)


@given(graphs())
def test_any_groups_arrive_equal(graph):
    assert sent(couple(graph)) == couple(graph)


@WAYS
def test_what_was_read_only_is_so_again(travel):
    graph = everything()
    groups = travel(couple(graph))
    for mapping in (travel(graph).shapes, travel(graph).readers, groups.dims, groups.axes):
        assert type(mapping) is MappingProxyType


def test_what_is_derived_stays_behind():
    graph = everything()
    before = bytes(ForkingPickler.dumps(graph))
    digest(graph), couple(graph), graph.readers, graph["stem"]
    assert bytes(ForkingPickler.dumps(graph)) == before


def test_what_arrives_is_checked_again():
    graph = everything()
    make, (kind, values, locked) = graph.__reduce__()
    with pytest.raises(GraphError, match="'nowhere' does not exist"):
        make(kind, {**values, "output": "nowhere"}, locked)
    assert kind is Graph


@WAYS
def test_an_exact_mask_keeps_its_bits(travel):
    kept = np.arange(24).reshape(2, 3, 2, 2) % 5 > 1
    mask = travel(ExactMask.of(kept))
    assert mask == ExactMask.of(kept)
    assert (mask_of(mask, kept.shape, "conv") == kept).all()


@WAYS
def test_a_mask_whose_bits_are_missing_still_tells_where_they_were_sought(travel):
    mask = ExactMask(shape=(2, 2), kept=1, digest="0" * 16).sought_in("masks.safetensors")
    assert travel(mask).sought == "masks.safetensors"
