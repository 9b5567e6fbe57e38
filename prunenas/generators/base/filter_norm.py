"""What filter pruning by the L1 and by the L2 norm share: all but the norm."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from prunenas.build.network import Network
from prunenas.build.silence import silence
from prunenas.errors import MethodError
from prunenas.generators.base.method import Generator, Proposal, Subject, is_fraction, need
from prunenas.generators.base.norms import (
    added,
    matching,
    norm_scores,
    projections,
    removed_channels,
)
from prunenas.generators.base.presets import PRESETS, preset_keeps
from prunenas.generators.base.scores import Reduction, best_of_each, layers_of
from prunenas.ir.coupling import ChannelGroup, ChannelGroups, couple
from prunenas.ir.graph import Graph
from prunenas.ir.stages import stages

NormReduction = Literal["sum", "mean", "max", "min", "first", "projection"]
"""How a coupled group is scored: over its members, or on its projection shortcut."""

Variant = Literal["independent", "greedy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterNorm(Generator):
    """Keep the filters with the largest norms; the options are told by the methods themselves."""

    power: ClassVar[int]
    """1 or 2: which norm."""

    keeps: Mapping[str, float] | None = None
    skip: tuple[str, ...] = ()
    coupled: bool = True
    reduction: NormReduction = "sum"
    variant: Variant = "independent"
    preset: str | None = None

    def __post_init__(self) -> None:
        keeps = {} if self.keeps is None else self.keeps
        known = get_args(NormReduction)
        alone = self.preset is None or (self.keeps is None and not self.skip)
        need(
            self.called,
            keeps=(
                self.keeps,
                self.keeps is None or (bool(keeps) and all(map(is_fraction, keeps.values()))),
                "names stages, groups or layers, with a fraction in (0, 1] for each",
            ),
            skip=(self.skip, isinstance(self.skip, tuple | list), "is a list of patterns"),
            reduction=(self.reduction, self.reduction in known, f"is {'/'.join(known)}"),
            variant=(
                self.variant,
                self.variant in get_args(Variant),
                f"is {'/'.join(get_args(Variant))}",
            ),
            preset=(
                self.preset,
                self.preset is None or (self.preset in PRESETS and alone),
                f"is {'/'.join(PRESETS)}, without keeps and skip",
            ),
        )
        object.__setattr__(self, "skip", tuple(self.skip))

    @property
    def called(self) -> str:
        """The method's name."""
        return f"l{self.power}_norm"

    @property
    def says_how_much(self) -> str | None:
        """A preset and keeps do."""
        return "preset" if self.preset is not None else "keeps" if self.keeps is not None else None

    def check(self, graph: Graph) -> None:
        """Refuse patterns that name nothing, a preset of another network, and empty plans."""
        if couple(graph).free:
            self._plan(graph, asked=1.0)

    def propose(self, subject: Subject) -> Proposal:
        """Return the kept filters of every group that the options do not leave alone."""
        graph, groups = subject.graph, subject.groups
        keeps, left = self._plan(graph, subject.asked)
        chosen = [group for group in groups.free if group.name in keeps]
        on_projection = self._projections(graph, subject.trained, chosen)
        network = subject.copy() if self.variant == "greedy" else subject.trained
        scores: dict[str, NDArray[np.float64]] = {}
        selections: dict[str, tuple[int, ...]] = {}
        emptied: list[str] = []
        for group in chosen:
            scores[group.name] = self._scores(network, groups, group, on_projection)
            kept, none = best_of_each([group], scores, keeps)
            selections |= kept
            emptied += none
            if self.variant == "greedy" and len(kept[group.name]) < group.width:
                # What reads the removed channels scores without them from here on.
                silence(network, groups, removed_channels(groups, graph, kept))
        found: dict[str, Any] = {"left_alone": left} if left else {}
        if self.reduction == "projection":
            found["projections"] = {name: [*layers] for name, layers in on_projection.items()}
        return Proposal(selections=selections, scores=scores, kept_best=tuple(emptied), found=found)

    def _scores(
        self,
        network: Network,
        groups: ChannelGroups,
        group: ChannelGroup,
        on_projection: Mapping[str, tuple[str, ...]],
    ) -> NDArray[np.float64]:
        reduction: Reduction = "sum" if self.reduction == "projection" else self.reduction
        layers = on_projection.get(group.name, ())
        return norm_scores(network, groups, group, self.power, reduction, layers)

    def _projections(
        self, graph: Graph, network: Network, chosen: list[ChannelGroup]
    ) -> dict[str, tuple[str, ...]]:
        """Return the projection shortcuts on which groups are scored alone."""
        if self.reduction != "projection":
            return {}
        every = {*projections(graph)}
        found = {
            group.name: tuple(layer for layer in layers_of(network, group) if layer in every)
            for group in chosen
        }
        return {name: layers for name, layers in found.items() if layers}

    def _plan(self, graph: Graph, asked: float | None) -> tuple[dict[str, float], dict[str, str]]:
        """Return the keep of every group that takes part, and why each other is left alone."""
        groups = couple(graph)
        # Channel selections have no filters: they follow their source.
        free = [group for group in groups.free if not group.select]
        skipped = {
            name: pattern
            for pattern, names in matching(free, self.skip, f"{self.called}: skip").items()
            for name in names
        }
        trunks = set() if self.coupled else added(graph, groups)
        told = self._told(graph, free, asked)
        left = {
            group.name: (
                f"skip names it: {skipped[group.name]}"
                if group.name in skipped
                else "an addition couples it"
                if group.name in trunks and self.preset is None
                else f"{self.says_how_much} does not name it"
            )
            for group in free
            if group.name not in told or group.name in skipped or group.name in trunks
        }
        keeps = {name: keep for name, keep in told.items() if name not in left}
        if not free:
            left = {group.name: "it follows its source, which is fixed" for group in groups.free}
        elif not keeps:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in left.items())
            raise MethodError(f"{self.called}: every group is left alone: {reasons}")
        return keeps, left

    def _told(
        self, graph: Graph, free: list[ChannelGroup], asked: float | None
    ) -> dict[str, float]:
        """Return the keep of every group that the options or the caller name."""
        if self.preset is not None:
            return preset_keeps(graph, self.preset)
        if self.keeps is None:
            assert asked is not None, "checked by the verb"
            return {group.name: asked for group in free}
        of_stage = {s.name: [g.name for g in s.groups if not g.select] for s in stages(graph)}
        told = {
            name: keep for stage, keep in self.keeps.items() for name in of_stage.get(stage, ())
        }
        own = [key for key in self.keeps if key not in of_stage]
        try:
            named = matching(free, own, f"{self.called}: keeps")
        except MethodError as error:
            raise MethodError(f"{error}; the stages are {', '.join(of_stage)}") from None
        # The plainer a name, the more it says: a pattern yields to it, and a stage to both.
        for key in sorted(own, key=lambda key: any(sign in key for sign in "*?["), reverse=True):
            told |= dict.fromkeys(named[key], self.keeps[key])
        return told
