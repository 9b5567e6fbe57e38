"""From a trial's keeps to an architecture and its cost. No training."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from prunenas.arch.allocate import allocate
from prunenas.arch.descriptor import Descriptor, apply
from prunenas.arch.profile import StageProfile
from prunenas.arch.spec import ArchSpec
from prunenas.ir.canonical import digest
from prunenas.ir.cost import macs, params
from prunenas.ir.graph import Graph
from prunenas.search.space import SearchSpace


@final
@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One architecture that a search may train.

    Args:
        name: What people call it.
        graph: The network.
        descriptor: The delta on the space's target.
        scaled: Whether it was scaled down to land on the budget.
    """

    name: str
    graph: Graph
    descriptor: Descriptor
    scaled: bool = False

    @property
    def digest(self) -> str:
        """Digest of the graph: two candidates with one digest are one network."""
        return digest(self.graph)

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return macs(self.graph)

    @property
    def params(self) -> int:
        """Trainable parameters."""
        return params(self.graph)

    def spec(self, target: Graph, **provenance: object) -> ArchSpec:
        """Return this candidate as a spec on the space's target."""
        return ArchSpec.of(target, self.descriptor, name=self.name, **provenance)


def candidate(
    space: SearchSpace, keeps: Mapping[str, float], *, name: str, source: str = "search"
) -> Candidate:
    """Return the architecture of ``keeps`` in ``space``; over budget, it is scaled down to it.

    Args:
        space: Target, rounding and budget.
        keeps: Keep by stage.
        name: What people call the candidate.
        source: Where the keeps come from.
    """
    profile = StageProfile(keeps=keeps, densities=space.guide.densities, source=source)
    return _on_budget(space, profile, name)


def _on_budget(space: SearchSpace, profile: StageProfile, name: str) -> Candidate:
    descriptor = profile.descriptor(space.target, round_to=space.round_to)
    graph = apply(space.target, descriptor)
    if space.within_budget(graph):
        return Candidate(name=name, graph=graph, descriptor=descriptor)
    descriptor = allocate(
        space.target,
        profile,
        max_macs=space.max_macs,
        max_params=space.max_params,
        round_to=space.round_to,
    )
    return Candidate(
        name=name, graph=apply(space.target, descriptor), descriptor=descriptor, scaled=True
    )


def controls(space: SearchSpace, best: Candidate) -> tuple[Candidate, ...]:
    """Return the baselines that ``best`` is to be held against.

    Uniform widths at the best candidate's multiply-accumulates and at its parameters (never above,
    by less than one step), the guide, and the transferred guide where there is one. They need not
    lie in the space, and uniform widths of equal parameters need not meet its budget.
    """
    uniform = StageProfile.uniform(space.target, 1.0)
    rows = []
    for name, budget in (
        ("uniform, equal MACs", {"max_macs": best.macs}),
        ("uniform, equal params", {"max_params": best.params}),
    ):
        found = allocate(space.target, uniform, fill=False, **budget)
        rows.append(
            Candidate(name=name, graph=apply(space.target, found), descriptor=found, scaled=True)
        )
    rows.append(_on_budget(space, space.guide, "guided"))
    if space.transferred is not None:
        rows.append(_on_budget(space, space.transferred, "transferred"))
    return tuple(rows)
