"""From a trial's keeps to an architecture and its cost. No training."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final

from prunenas.arch.allocate import allocate
from prunenas.arch.descriptor import Descriptor, apply
from prunenas.arch.profile import StageProfile
from prunenas.arch.spec import ArchSpec
from prunenas.errors import BudgetError
from prunenas.ir.canonical import digest
from prunenas.ir.cost import effective_macs, is_sparse, macs, nonzero_params, params
from prunenas.ir.graph import Graph
from prunenas.search.space import SearchSpace

_HALVINGS = 16
"""Steps to a density: enough to tell apart two that differ by a few weights in a million."""


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
        """Multiply-accumulates for one image, dense."""
        return macs(self.graph)

    @property
    def params(self) -> int:
        """Trainable parameters, dense."""
        return params(self.graph)

    @property
    def effective_macs(self) -> int:
        """Multiply-accumulates after masks, by which candidates are compared."""
        return effective_macs(self.graph)

    @property
    def nonzero_params(self) -> int:
        """Parameters after masks, by which candidates are compared."""
        return nonzero_params(self.graph)

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
    profile = replace(space.guide, keeps=keeps, source=source)
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

    Where the best is sparse, equal means equal effective multiply-accumulates and equal nonzero
    parameters, of uniform widths without masks. One more control is the target at its full widths
    with one density in every layer that a guide can mask, at equal effective multiply-accumulates.
    A control that cannot be that small is left out with a warning.

    Source: Liu et al. 2019, arXiv:1810.05270, section 5 (uniform pruning and sparsification).
    """
    kinds = ("effective MACs", "nonzero params") if is_sparse(best.graph) else ("MACs", "params")
    rows = [
        _uniform(space, f"uniform, equal {kinds[0]}", max_macs=best.effective_macs),
        _uniform(space, f"uniform, equal {kinds[1]}", max_params=best.nonzero_params),
    ]
    if space.guide.is_sparse:
        rows.append(_uniformly_sparse(space, best.effective_macs))
    rows.append(_on_budget(space, space.guide, "guided"))
    if space.transferred is not None:
        rows.append(_on_budget(space, space.transferred, "transferred"))
    return tuple(row for row in rows if row is not None)


def _uniform(
    space: SearchSpace,
    name: str,
    *,
    max_macs: int | None = None,
    max_params: int | None = None,
) -> Candidate | None:
    profile = StageProfile.uniform(space.target, 1.0)
    try:
        found = allocate(
            space.target, profile, max_macs=max_macs, max_params=max_params, fill=False
        )
    except BudgetError as error:
        _left_out(name, error)
        return None
    return Candidate(name=name, graph=apply(space.target, found), descriptor=found, scaled=True)


def _uniformly_sparse(space: SearchSpace, max_macs: int) -> Candidate | None:
    """Return the target at full widths with the largest density that meets ``max_macs``."""
    name = "uniformly sparse, equal effective MACs"

    def of(density: float) -> Candidate:
        found = StageProfile.uniform(space.target, 1.0, density=density).descriptor(space.target)
        return Candidate(name=name, graph=apply(space.target, found), descriptor=found, scaled=True)

    # One draw serves all densities, and more of it is kept at a larger one: costs only rise.
    low, high = 0.0, 1.0
    found = of(2.0**-_HALVINGS)
    if found.effective_macs > max_macs:
        _left_out(name, f"with next to no weights it has {found.effective_macs:,}")
        return None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        tried = of(middle)
        if tried.effective_macs <= max_macs:
            low, found = middle, tried
        else:
            high = middle
    return found


def _left_out(name: str, reason: object) -> None:
    warnings.warn(f"the control {name!r} is left out: {reason}", stacklevel=3)
