"""Channels have no place of their own: another order of them is the same function."""

import pytest
import torch

from prunenas.importers.trace import import_network
from prunenas.ir.cost import params
from prunenas.ir.coupling import couple
from tests.importers.models import FAMILIES, TORCHVISION
from tests.importers.permuting import drawn_orders, lively, permute
from tests.importers.small import SMALL

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Largest difference, relative to the largest output: sums in another order."""

LARGEST = 300_000_000
"""Parameters that are looked at in double precision; what has more takes tens of gigabytes."""


def images(graph, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, *graph.input_size, generator=generator, dtype=dtype)


def check_law(imported):
    dtype = torch.float64 if params(imported.graph) <= LARGEST else torch.float32
    network = lively(imported.network(), dtype)
    orders, kept = drawn_orders(network)
    groups = couple(imported.graph)
    assert orders
    assert {*orders} | {*kept} == {group.name for group in groups.free}
    x = images(imported.graph, dtype)
    with torch.no_grad():
        before, after = network(x), permute(network, orders)(x)
    assert before.std() > 0
    assert (after - before).abs().max() <= TOLERANCE[dtype] * before.abs().max()


@pytest.mark.parametrize("name", SMALL)
def test_permuting_the_groups_of_a_small_network_changes_nothing(name):
    check_law(import_network(*SMALL[name]()))


def test_a_forgotten_layer_would_be_seen():
    imported = import_network(*SMALL["residual"]())
    network = lively(imported.network())
    orders, _ = drawn_orders(network)
    x = images(imported.graph)
    with torch.no_grad():
        twin = permute(network, orders, but="layer1.0.conv2")
        assert (twin(x) - network(x)).abs().max() > 1e-3 * network(x).abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_permuting_the_groups_of_torchvisions_changes_nothing(name):
    check_law(import_network(f"torchvision:{name}", time_limit=600))


@pytest.mark.slow
@pytest.mark.parametrize("family", [name for name, row in FAMILIES.items() if row.traced])
def test_permuting_the_groups_of_timms_changes_nothing(family):
    check_law(import_network(*FAMILIES[family].make(), time_limit=600))
