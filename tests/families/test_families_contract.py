"""Every registered family keeps these promises; none is named here."""

import numpy as np
import pytest

from prunenas.families.base import FAMILIES, reference
from prunenas.ir.canonical import digest, graph_from_json, graph_to_json
from prunenas.ir.cost import CostModel, macs, params
from prunenas.ir.coupling import couple
from prunenas.ir.ops import Linear
from prunenas.ir.stages import stages

NAMES = FAMILIES.names()


@pytest.mark.parametrize("name", NAMES)
def test_the_family_builds_at_its_own_size(name):
    graph, family = reference(name), FAMILIES[name]
    assert graph.input_size == family.input_size
    assert graph.classes == family.classes
    assert graph.shapes[graph.output].spatial == ()


@pytest.mark.parametrize("name", NAMES)
def test_another_number_of_classes_changes_the_last_layer_only(name):
    graph, other = reference(name), reference(name, classes=7)
    assert other.classes == 7
    last = graph[graph.output]
    assert isinstance(last.op, Linear)
    changed = {key for key, shape in graph.parameters().items() if other.parameters()[key] != shape}
    assert changed == {f"{last.name}.weight", f"{last.name}.bias"}


@pytest.mark.parametrize("name", NAMES)
def test_half_the_width_has_fewer_parameters_and_all_classes(name):
    graph, half = reference(name), reference(name, width=0.5)
    assert params(half) < params(graph)
    assert macs(half) < macs(graph)
    assert half.classes == graph.classes


@pytest.mark.parametrize("name", NAMES)
def test_a_sliver_of_the_width_still_builds(name):
    assert params(reference(name, width=0.01)) > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_canonical_json_gives_the_graph_back(name):
    graph = reference(name)
    again = graph_from_json(graph_to_json(graph))
    assert again == graph
    assert digest(again) == digest(graph) == digest(reference(name))


@pytest.mark.parametrize("name", NAMES)
def test_something_is_free_to_search(name):
    graph = reference(name)
    assert couple(graph).free
    assert stages(graph)
    fixed = [group for group in couple(graph) if group.fixed]
    assert {group.fixed for group in fixed} == {"network input", "network output"}


@pytest.mark.parametrize("name", NAMES)
def test_the_cost_model_agrees_at_the_full_widths(name):
    graph = reference(name)
    model, groups = CostModel.of(graph), couple(graph)
    widths = np.array([[groups[group].width for group in model.groups]], dtype=np.int64)
    assert model.params(widths).tolist() == [params(graph)]
    assert model.macs(widths).tolist() == [macs(graph)]


@pytest.mark.parametrize("name", NAMES)
def test_boolean_options_change_the_network(name):
    plain = digest(reference(name))
    for option, parameter in FAMILIES[name].options.items():
        if parameter.annotation is bool:
            assert digest(reference(name, **{option: not parameter.default})) != plain, option


def test_names_that_fix_options_stand_for_distinct_networks():
    digests = [digest(reference(name)) for name in NAMES if FAMILIES[name].fixed]
    assert len(set(digests)) == len(digests)


def test_every_option_has_an_annotation_and_a_default():
    for name in NAMES:
        for parameter in FAMILIES[name].options.values():
            assert parameter.annotation is not parameter.empty
            assert parameter.default is not parameter.empty
