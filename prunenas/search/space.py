"""SearchSpace: keeps per stage around a guide, on one target, under a budget."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from types import MappingProxyType
from typing import final

from prunenas.arch.allocate import allocate
from prunenas.arch.profile import StageProfile
from prunenas.errors import SpaceError
from prunenas.ir.canonical import digest
from prunenas.ir.cost import effective_macs, nonzero_params
from prunenas.ir.graph import Graph


@final
@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """Which architectures a search may propose.

    Args:
        target: The graph that is narrowed.
        guide: The middle of the space.
        intervals: Smallest and largest keep by stage; the guide lies inside.
        step: Sampled keeps lie on a grid of this step through the guide.
        round_to: Widths become multiples of it where the full width allows.
        max_macs: Budget of multiply-accumulates; candidates above it are scaled down to land on it.
            Of sparse networks it speaks of effective macs: the guide's masks are in all of a space.
        max_params: Budget of parameters, likewise; of sparse networks of nonzero ones.
        transferred: A second guide, found elsewhere, that is judged beside the first.

    Raises:
        SpaceError: The numbers do not make a space; all faults at once.
        ProfileError: A guide's stages are not the target's.
        BudgetError: No network of the target meets the budget.
    """

    target: Graph
    guide: StageProfile
    intervals: Mapping[str, tuple[float, float]]
    step: float = 0.05
    round_to: int = 1
    max_macs: int | None = None
    max_params: int | None = None
    transferred: StageProfile | None = None

    def __post_init__(self) -> None:
        self.guide.check(self.target)
        if self.transferred is not None:
            self.transferred.check(self.target)
        faults = [
            f"{stage}: the guide {keep:g} is not in [{low:g}, {high:g}]"
            for stage, keep in self.guide.keeps.items()
            for low, high in [self.intervals.get(stage, (0.0, 0.0))]
            if not 0 < low <= keep <= high <= 1
        ]
        faults += [f"there is no {stage}" for stage in self.intervals.keys() - self.guide.keeps]
        faults += [f"step={self.step:g} is not positive"] if not 0 < self.step < inf else []
        faults += [f"round_to={self.round_to} is below 1"] if self.round_to < 1 else []
        if faults:
            raise SpaceError("not a search space: " + "; ".join(faults))
        object.__setattr__(self, "intervals", MappingProxyType(dict(self.intervals)))
        if self.budgeted:
            # Refuses a budget that cannot be met now, not after the first hour.
            for profile in (self.guide, *([self.transferred] if self.transferred else [])):
                allocate(
                    self.target,
                    profile,
                    max_macs=self.max_macs,
                    max_params=self.max_params,
                    round_to=self.round_to,
                )

    @staticmethod
    def around(
        guide: StageProfile,
        *,
        target: Graph,
        radius: float = 0.15,
        floor: float = 0.1,
        step: float = 0.05,
        round_to: int = 1,
        max_macs: float | None = None,
        max_params: float | None = None,
        transferred: StageProfile | None = None,
    ) -> "SearchSpace":
        """Return the space of keeps at most ``radius`` from the guide's, none below ``floor``.

        Raises:
            SpaceError: ``radius``, ``floor`` or a budget makes no sense.
            ProfileError: A guide's stages are not the target's.
            BudgetError: No network of the target meets the budget.
        """
        rules = (
            (f"{radius=:g} is not in [0, 1]", 0 <= radius <= 1),
            (f"{floor=:g} is not in (0, 1]", 0 < floor <= 1),
            (f"{max_macs=} is not positive and finite", max_macs is None or 0 < max_macs < inf),
            (
                f"{max_params=} is not positive and finite",
                max_params is None or 0 < max_params < inf,
            ),
        )
        faults = [fault for fault, fine in rules if not fine]
        if faults:
            raise SpaceError("not a search space: " + "; ".join(faults))
        return SearchSpace(
            target=target,
            guide=guide,
            intervals={
                stage: (
                    min(keep, max(floor, _decimal(keep - radius))),
                    max(keep, min(1.0, _decimal(keep + radius))),
                )
                for stage, keep in guide.keeps.items()
            },
            step=step,
            round_to=round_to,
            max_macs=None if max_macs is None else int(max_macs),
            max_params=None if max_params is None else int(max_params),
            transferred=transferred,
        )

    @property
    def budgeted(self) -> bool:
        """Whether there is a budget."""
        return self.max_macs is not None or self.max_params is not None

    def within_budget(self, graph: Graph) -> bool:
        """Return whether ``graph`` meets the budget, after masks."""
        return (self.max_macs is None or effective_macs(graph) <= self.max_macs) and (
            self.max_params is None or nonzero_params(graph) <= self.max_params
        )

    def snapped(self, keeps: Mapping[str, float]) -> dict[str, float]:
        """Return ``keeps`` moved to the grid through the guide, inside the intervals."""
        moved = {}
        for stage, keep in keeps.items():
            low, high = self.intervals[stage]
            middle = self.guide.keeps[stage]
            steps = round((keep - middle) / self.step)
            value = middle + steps * self.step
            # One step back inside; the guide itself is inside, so this ends there at the latest.
            value += self.step if value < low - 1e-9 else -self.step if value > high + 1e-9 else 0
            moved[stage] = round(min(high, max(low, value)), 9)
        return moved

    def contains(self, keeps: Mapping[str, float]) -> bool:
        """Return whether every keep lies in its interval."""
        return all(low <= keeps[stage] <= high for stage, (low, high) in self.intervals.items())

    def starts(self) -> dict[str, StageProfile]:
        """Return the profiles that a search tries first: those of its controls that lie inside."""
        largest = min(high for _, high in self.intervals.values())
        profiles = {"guided": self.guide, "uniform": StageProfile.uniform(self.target, largest)}
        # Kernel patterns are the guide's in all of the space.
        if self.transferred is not None and _masks(self.transferred) == _masks(self.guide):
            profiles["transferred"] = self.transferred
        return {name: p for name, p in profiles.items() if self.contains(p.keeps)}

    def facts(self) -> dict[str, object]:
        """Return what makes this space this space, as JSON values: two equal spaces agree in it."""
        return {
            "target": digest(self.target),
            "guide": _told(self.guide),
            "intervals": {stage: list(pair) for stage, pair in self.intervals.items()},
            "step": self.step,
            "round_to": self.round_to,
            "max_macs": self.max_macs,
            "max_params": self.max_params,
            "transferred": None if self.transferred is None else _told(self.transferred),
        }


def _decimal(keep: float) -> float:
    # 0.6 + 0.3 is below 0.9, but people who write these numbers mean an interval up to 0.9.
    return round(keep, 12)


def _masks(profile: StageProfile) -> tuple[Mapping[str, object], Mapping[str, object]]:
    return profile.densities, profile.other_densities


def _told(profile: StageProfile) -> dict[str, object]:
    told: dict[str, object] = {
        "keeps": dict(profile.keeps),
        "densities": {stage: list(pattern) for stage, pattern in profile.densities.items()},
    }
    # Left out where there are none, so that runs from before there were any go on.
    return told | (
        {"other_densities": dict(profile.other_densities)} if profile.other_densities else {}
    )
