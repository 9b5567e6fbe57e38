"""What is done with an imported network: weights, methods, profiles, files."""

from functools import cache

import numpy as np
import pytest
import torch

from prunenas.arch.descriptor import apply
from prunenas.arch.profile import StageProfile
from prunenas.arch.spec import ArchSpec, load
from prunenas.build.inherit import inherit
from prunenas.build.initialise import build
from prunenas.errors import DescriptorError
from prunenas.families.base import reference
from prunenas.generators.base import generate
from prunenas.importers.trace import import_network
from prunenas.ir.canonical import digest
from prunenas.ir.coupling import couple
from prunenas.ir.stages import stages
from tests.importers.nets import SIZE, Net, Tokens, lively
from tests.importers.small import SMALL


@cache
def resnet18():
    module, _ = SMALL["residual"]()
    return lively(module), import_network(module, (3, 64, 64))


def images(size, count=2):
    return torch.randn(count, *size, generator=torch.Generator().manual_seed(3))


# Weights


@pytest.mark.parametrize("make", [Net, Tokens])
def test_the_network_gives_the_modules_outputs(make):
    module = lively(make())
    network = import_network(module, SIZE).network()
    assert not network.training
    x = images(SIZE)
    with torch.no_grad():
        torch.testing.assert_close(network(x), module(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [Net, Tokens])
def test_training_the_network_leaves_the_module_alone(make):
    module = lively(make())
    before = {name: t.clone() for name, t in module.state_dict().items()}
    imported = import_network(module, SIZE)
    network, twin = imported.network().train(), imported.network()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    network(images(SIZE)).square().sum().backward()
    optimiser.step()
    assert all(p.requires_grad and p.grad is not None for p in network.parameters())
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())
    for name, tensor in twin.state_dict().items():
        assert torch.equal(tensor, before[imported.state[name]])
    changed = dict(network.named_parameters())
    assert any(not torch.equal(t, before[imported.state[n]]) for n, t in changed.items())


def test_training_the_module_leaves_the_network_alone():
    module = lively(Net())
    network = import_network(module, SIZE).network()
    x = images(SIZE)
    with torch.no_grad():
        before = network(x)
        module.conv1.weight.zero_()
        assert torch.equal(network(x), before)


def test_frozen_parameters_of_the_module_are_trained_in_the_network():
    module = lively(Net()).requires_grad_(False)
    assert all(p.requires_grad for p in import_network(module, SIZE).network().parameters())


def test_state_names_each_tensor_of_the_module():
    module, imported = resnet18()
    assert imported.state.keys() == build(imported.graph).state_dict().keys()
    assert {*imported.state.values()} == module.state_dict().keys()


# Methods


def test_a_method_judges_the_modules_weights_without_training():
    module, imported = resnet18()
    network = imported.network()
    found = generate("l1_norm", imported.graph, network=network, keep=0.5)
    groups = couple(imported.graph)
    assert found.selections.keys() <= {group.name for group in groups.free}
    scores = module.layer1[0].conv1.weight.abs().sum((1, 2, 3))
    kept = found.selections["layer1.0.conv1"]
    assert scores[[*kept]].min() >= np.delete(scores.detach().numpy(), kept).max()
    small = inherit(network, found)
    assert small.graph == apply(imported.graph, found)
    assert torch.equal(
        small.get_parameter("layer1.0.conv1.weight"),
        network.get_parameter("layer1.0.conv1.weight")[[*kept]][:, [*_into(found, groups)]],
    )
    with torch.no_grad():
        assert small(images((3, 64, 64))).isfinite().all()


def _into(found, groups):
    width = groups["conv1"].width
    return found.selections.get("conv1", range(width))


def test_a_method_prunes_tokens_as_well():
    imported = import_network(lively(Tokens("plain")), SIZE)
    network = imported.network()
    found = generate("l1_norm", imported.graph, network=network, keep=0.5)
    small = inherit(network, found)
    with torch.no_grad():
        assert small(images(SIZE)).isfinite().all()
    assert found.widths["patches"] == 8


# Profiles and digests


def test_a_profile_of_vgg_goes_onto_an_imported_network():
    vgg, graph = reference("vgg16"), resnet18()[1].graph
    keeps = {stage.name: 0.9 - 0.1 * i for i, stage in enumerate(stages(vgg))}
    profile = StageProfile(keeps=keeps)
    brought = profile.resample(graph)
    assert [*brought.keeps] == [stage.name for stage in stages(graph)]
    values = [*brought.keeps.values()]
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(keeps["stage1"])
    found = brought.descriptor(graph)
    narrow = apply(graph, found)
    with torch.no_grad():
        assert build(narrow).eval()(images((3, 64, 64))).shape == (2, 10)
    assert found.widths["layer1.0.conv1"] == round(64 * brought.keeps["stage2"])


def test_an_imported_network_has_the_profile_of_its_family():
    """The same architecture, imported and written by us: the same widths for the same profile."""
    imported, ours = resnet18()[1].graph, reference("resnet18", (3, 64, 64), 10)
    sizes = [[(s.name, s.spatial, len(s.groups)) for s in stages(g)] for g in (imported, ours)]
    assert sizes[0] == sizes[1]
    profile = StageProfile.uniform(ours, 0.5)
    assert profile.keeps == StageProfile.uniform(imported, 0.5).keeps
    widths = [profile.descriptor(graph).widths for graph in (imported, ours)]
    assert widths[0] == widths[1]
    assert imported.parameters() == ours.parameters()


def test_the_digest_of_an_imported_network_is_stable():
    first = resnet18()[1].graph
    module, size = SMALL["residual"]()
    second = import_network(module, size).graph
    assert digest(first) == digest(second)
    wider = import_network(*SMALL["fire"]()).graph
    assert digest(first) != digest(wider)


def test_a_descriptor_is_for_one_reference_only():
    graph = resnet18()[1].graph
    other = import_network(*SMALL["fire"]()).graph
    found = StageProfile.uniform(graph, 0.5).descriptor(graph)
    assert found.reference == digest(graph)
    with pytest.raises(DescriptorError, match="carry it over as a profile"):
        apply(other, found)


@pytest.mark.parametrize("name", ["residual", "swin", "vit", "maxvit", "shuffle"])
def test_an_imported_network_goes_into_a_file_and_back(name, tmp_path):
    graph = import_network(*SMALL[name]()).graph
    narrow = apply(graph, StageProfile.uniform(graph, 0.5).descriptor(graph))
    for each in (graph, narrow):
        path = ArchSpec(name="net", graph=each).save(tmp_path / f"{digest(each)[-8:]}.json")
        assert load(path).graph == each
