"""Which networks are imported, and what can be done with them then."""

import pytest
import timm
import torchvision

from prunenas.errors import TraceError
from prunenas.importers.sources import find
from prunenas.importers.trace import import_network
from prunenas.ir.cost import macs, params
from tests.importers.checks import check_shrinking, check_truth
from tests.importers.models import FAMILIES, TORCHVISION
from tests.importers.small import SMALL

LEAST_CUT = 0.6
"""Of the MACs of each of torchvision's networks, at keep = 0.5."""

TIME_LIMIT = 600

DROPPED = {"googlenet": 6_379_984, "inception_v3": 3_326_696}
"""Trainable elements of auxiliary heads, which evaluation does not use."""

PUBLISHED_WITH_HEADS = {"inception_v3"}
"""Networks whose published parameters count the auxiliary heads; googlenet's do not."""


def test_the_lists_are_whole():
    assert len(TORCHVISION) >= 80
    assert {*FAMILIES} <= {*timm.list_modules()}
    assert all(row.model in timm.list_models(module=name) for name, row in FAMILIES.items())
    assert sum(row.traced for row in FAMILIES.values()) >= 80
    assert all(row.traced or row.told for row in FAMILIES.values())


@pytest.mark.parametrize("name", SMALL)
def test_a_small_network_of_each_kind_is_imported_and_shrunk(name):
    module, size = SMALL[name]()
    imported = import_network(module, size)
    check_truth(imported, module)
    assert check_shrinking(imported.graph) > 0.5


def check_published(name, imported):
    """Parameters and MACs are those that torchvision publishes: there is no exception.

    Its figures count both products of attention, as ours do.
    """
    meta = torchvision.models.get_model_weights(name).DEFAULT.meta
    assert sum(imported.dropped.values()) == DROPPED.get(name, 0)
    heads = DROPPED[name] if name in PUBLISHED_WITH_HEADS else 0
    assert params(imported.graph) + heads == meta["num_params"]
    assert round(macs(imported.graph) / 1e9, 3) == meta["_ops"]


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "shufflenet_v2_x0_5"])
def test_small_networks_of_torchvision_cost_what_is_published(name):
    check_published(name, import_network(f"torchvision:{name}"))


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_network_is_imported_and_shrunk(name):
    source = find(f"torchvision:{name}")
    imported = import_network(source.module, source.input_size, time_limit=TIME_LIMIT)
    check_truth(imported, source.module)
    check_published(name, imported)
    del source
    assert check_shrinking(imported.graph) >= LEAST_CUT


@pytest.mark.slow
@pytest.mark.parametrize("family", [name for name, row in FAMILIES.items() if row.traced])
def test_timms_network_is_imported_and_shrunk(family):
    module, size = FAMILIES[family].make()
    imported = import_network(module, size, time_limit=TIME_LIMIT)
    check_truth(imported, module)
    del module
    check_shrinking(imported.graph)


@pytest.mark.slow
@pytest.mark.parametrize("family", [name for name, row in FAMILIES.items() if not row.traced])
def test_timms_network_is_refused_for_the_stated_reason(family):
    module, size = FAMILIES[family].make()
    with pytest.raises(TraceError, match=FAMILIES[family].told):
        import_network(module, size, time_limit=TIME_LIMIT)
