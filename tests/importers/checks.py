"""What is asked of every imported network, whoever made it."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from prunenas.arch.descriptor import Descriptor, apply, within_bounds
from prunenas.arch.profile import StageProfile
from prunenas.build.initialise import build
from prunenas.importers.trace import ImportedNetwork
from prunenas.ir.canonical import digest
from prunenas.ir.cost import CostModel, macs, params
from prunenas.ir.coupling import couple
from prunenas.ir.graph import Graph
from tests.export.source import networks, source_of


def check_truth(imported: ImportedNetwork, module: nn.Module) -> None:
    """Same function, same parameters; each width varies or says why not."""
    assert imported.certificate.difference <= imported.certificate.bound
    assert len(imported.certificate.checks) >= 2
    groups = couple(imported.graph)
    assert groups.free
    assert all(group.fixed for group in groups if group not in groups.free)
    whole = sum(p.numel() for p in module.parameters())
    assert params(imported.graph) == whole - sum(imported.dropped.values())
    assert not imported.frozen


def descriptors(graph: Graph, *, draws: int) -> Iterator[Descriptor]:
    """Yield the one that keeps half, then some with any legal widths."""
    yield StageProfile.uniform(graph, 0.5).descriptor(graph)
    groups = couple(graph)
    rng = np.random.default_rng(0)
    for _ in range(draws):
        drawn = {
            group.name: group.divisor * int(rng.integers(1, group.width // group.divisor + 1))
            for group in groups.free
        }
        legal = within_bounds(groups, drawn)
        yield Descriptor(
            reference=digest(graph), widths={group.name: legal[group.name] for group in groups.free}
        )


def check_shrinking(graph: Graph, *, draws: int = 3) -> float:
    """Narrower networks are built, trained a step, counted, exported; return the MACs cut."""
    model, groups = CostModel.of(graph), couple(graph)
    cut = 0.0
    for number, descriptor in enumerate(descriptors(graph, draws=draws)):
        narrow = apply(graph, descriptor)
        widths = groups.widths | dict(descriptor.widths)
        row = np.array([[widths[name] for name in model.groups]])
        network = build(narrow, seed=number)
        assert sum(p.numel() for p in network.parameters()) == model.params(row)[0]
        assert macs(narrow) == model.macs(row)[0]
        _train_a_step(network)
        _check_export(narrow, network)
        if number == 0:
            cut = 1 - macs(narrow) / macs(graph)
    return cut


def _train_a_step(network: nn.Module) -> None:
    graph = network.graph
    # The largest take minutes a step.
    count = 2 if macs(graph) < 2e10 else 1
    x = torch.randn(count, *graph.input_size, generator=torch.Generator().manual_seed(0))
    scores = network.train()(x)
    assert scores.shape == (count, graph.classes)
    scores.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    network.zero_grad(set_to_none=True)


def _check_export(graph: Graph, network: nn.Module) -> None:
    """The plain Python file, run by itself, loads the weights and gives the same bits."""
    (kind,) = networks(source_of(graph))
    theirs = kind()
    theirs.load_state_dict(network.state_dict(), strict=True)
    x = torch.randn(1, *graph.input_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(theirs.eval()(x), network.eval()(x))
