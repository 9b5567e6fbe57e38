"""StageProfile: keep per stage, free of any reference. The only thing that travels."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from prunenas.arch.descriptor import (
    Descriptor,
    Origin,
    check_keep,
    kept_width,
    reached_keep,
    within_bounds,
)
from prunenas.arch.files import read_text, write_text
from prunenas.errors import DescriptorError, KeepError, ProfileError, SpecError
from prunenas.ir.blocks import drop_blocks
from prunenas.ir.canonical import SCHEMA, canonical_json, decode, digest, encode, parse, upgrade
from prunenas.ir.coupling import couple
from prunenas.ir.graph import Graph
from prunenas.ir.ops import KernelOp, kernel_of
from prunenas.ir.records import Remade, remade
from prunenas.ir.stages import HEAD, Stage, stages


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StageProfile:
    """How much of each stage is kept.

    Args:
        keeps: Keep in (0, 1] by stage name: ``stage1``, ``stage2``, ..., and ``head`` where layers
            without spatial size may vary.
        densities: The pattern of each stage: keep probability of each position of its 3x3 kernels,
            ``[9]``; may be empty.
        source: Where the numbers come from, in words.
        other_densities: Density in (0, 1] of the kernels of a stage that are not 3x3 (1x1, linear
            layers, ...), by stage; may be empty.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    keeps: Mapping[str, float]
    densities: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    source: str = ""
    other_densities: Mapping[str, float] = field(default_factory=dict, metadata={"omit": True})

    def __post_init__(self) -> None:
        wanted = [f"stage{i}" for i in range(1, len(self.keeps) + 1 - (HEAD in self.keeps))]
        wanted += [HEAD] if HEAD in self.keeps else []
        if not self.keeps or {*self.keeps} != {*wanted}:
            raise ProfileError(
                f"a profile names its stages stage1, stage2, ... and perhaps {HEAD}, got "
                f"{', '.join(self.keeps) or 'none'}"
            )
        for keep in self.keeps.values():
            check_keep(keep)
        strange = [
            f"{name}: {pattern}"
            for name, pattern in self.densities.items()
            if name not in self.keeps
            or len(pattern) != 9
            or not all(0 <= p <= 1 for p in pattern)
            or not any(pattern)
        ]
        if strange:
            raise ProfileError(
                "densities are nine numbers in [0, 1], not all 0, of a stage of the profile, got "
                + "; ".join(strange)
            )
        strange = [
            f"{name}: {density}"
            for name, density in self.other_densities.items()
            if name not in self.keeps or not 0 < density <= 1
        ]
        if strange:
            raise ProfileError(
                "the density of a stage's other kernels is a number in (0, 1], got "
                + "; ".join(strange)
            )
        object.__setattr__(self, "keeps", MappingProxyType({n: self.keeps[n] for n in wanted}))
        object.__setattr__(self, "densities", MappingProxyType(dict(self.densities)))
        object.__setattr__(self, "other_densities", MappingProxyType(dict(self.other_densities)))

    def __reduce__(self) -> Remade:
        return remade(self)

    @property
    def is_sparse(self) -> bool:
        """Whether this speaks of masks."""
        return bool(self.densities or self.other_densities)

    @staticmethod
    def of(graph: Graph, *descriptors: Descriptor) -> "StageProfile":
        """Return the mean keep of each stage of ``graph`` over ``descriptors``.

        A stage's keep is the unweighted mean of kept / full over its producing layers. Layers of
        dropped blocks are left out of the mean: a profile tells widths, not depth. A stage that
        every descriptor drops whole has keep 1.

        A stage's pattern is the unweighted mean over its masked layers with 3x3 kernels: of an
        exact mask, how often each position is kept; of densities, these. Of its other masked
        kernels it is the mean density. Layers that are not masked do not count, and neither do
        layers that stand in no stage: depthwise ones, and those of fixed groups, such as the
        classifier, or all that the graph itself has under exact masks.

        Raises:
            DescriptorError: A descriptor is for another graph; or there is none.
            MaskError: The bits of an exact mask are not here.

        Source: Liu et al. 2019, arXiv:1810.05270, section 5 (guided pruning and sparsification).
        """
        if not descriptors:
            raise DescriptorError("a profile needs at least one descriptor")
        found = digest(graph)
        strangers = [d.reference for d in descriptors if d.reference != found]
        if strangers:
            raise DescriptorError(
                f"the graph is {found}, but descriptors are for {', '.join(strangers)}"
            )
        left = [_left(graph, descriptor) for descriptor in descriptors]
        keeps = {}
        for stage in stages(graph):
            means = [
                np.mean(kept)
                for descriptor, there in zip(descriptors, left, strict=True)
                if (kept := _layer_keeps(stage, descriptor, there))
            ]
            keeps[stage.name] = float(np.mean(means)) if means else 1.0
        methods = sorted({d.origin.method for d in descriptors if d.origin})
        patterns, others = _stage_densities(graph, descriptors, left)
        return StageProfile(
            keeps={name: min(1.0, keep) for name, keep in keeps.items()},
            densities=patterns,
            other_densities=others,
            source=f"{' and '.join(methods) or 'descriptors'} on {found} (n={len(descriptors)})",
        )

    @staticmethod
    def uniform(graph: Graph, keep: float, *, density: float | None = None) -> "StageProfile":
        """Return the profile that keeps the same of every stage of ``graph``.

        Args:
            graph: The graph whose stages are named.
            keep: Keep of each stage.
            density: Density of all kernels of all stages; None masks none.
        """
        names = [stage.name for stage in stages(graph)]
        told = "" if density is None else f", density {density:g}"
        return StageProfile(
            keeps=dict.fromkeys(names, keep),
            densities={} if density is None else dict.fromkeys(names, (density,) * 9),
            other_densities={} if density is None else dict.fromkeys(names, density),
            source=f"uniform {keep:g}{told}",
        )

    def descriptor(self, graph: Graph, *, round_to: int = 1, seed: int = 0) -> Descriptor:
        """Return this profile put on ``graph``: each free group at its stage's keep.

        Args:
            graph: Any graph with as many stages.
            round_to: Widths become multiples of it where the full width allows.
            seed: Seed of the channels that selections draw, and of masks.

        Raises:
            ProfileError: The stages differ in number; ``resample`` says how to go on.
            KeepError: ``round_to`` is below 1.
        """
        found = stages(graph)
        self.check(graph)
        if round_to < 1:
            raise KeepError(f"widths can be rounded to multiples from 1 on, got {round_to}")
        groups = couple(graph)
        widths = {
            group.name: kept_width(
                group.width,
                self.keeps[stage.name],
                divisor=int(np.lcm(group.divisor, round_to)),
            )
            for stage in found
            for group in stage.groups
        }
        fitted = within_bounds(groups, widths)
        changed = {g.name: fitted[g.name] for g in groups.free if fitted[g.name] != g.width}
        return Descriptor(
            reference=digest(graph),
            widths=changed,
            densities=self.densities_on(graph),
            seed=seed,
            origin=Origin(
                method="profile",
                reached=reached_keep(groups, fitted),
                options={"source": self.source, "keeps": dict(self.keeps), "round_to": round_to},
            ),
        )

    def check(self, graph: Graph) -> None:
        """Refuse a graph whose stages are not this profile's.

        Raises:
            ProfileError: The stages differ.
        """
        names = [stage.name for stage in stages(graph)]
        if names != [*self.keeps]:
            raise ProfileError(
                f"the profile has the stages {', '.join(self.keeps)}, the graph "
                f"{', '.join(names) or 'none'}: bring it over with "
                "resample(graph), or --resample on the command line"
            )

    def resample(self, graph: Graph, *, head: float | None = None) -> "StageProfile":
        """Return this profile stretched over the stages of ``graph``, by linear interpolation.

        Keeps only: patterns and densities of stages are not carried over.

        Args:
            graph: The graph whose stages are wanted.
            head: Keep of the head; by default the profile's own.

        Raises:
            ProfileError: The graph has a head, the profile has none, and ``head`` is not given.
        """
        names = [stage.name for stage in stages(graph)]
        wanted = [name for name in names if name != HEAD]
        own = [keep for name, keep in self.keeps.items() if name != HEAD]
        keeps: dict[str, float] = {}
        if wanted:
            if not own:
                raise ProfileError("the profile has no stage but the head, the graph has")
            places = np.linspace(0, len(own) - 1, len(wanted)) if len(wanted) > 1 else [0.0]
            values = (
                np.interp(places, np.arange(len(own)), own)
                if len(wanted) > 1
                else [float(np.mean(own))]
            )
            keeps = {name: float(v) for name, v in zip(wanted, values, strict=True)}
        if HEAD in names:
            value = self.keeps.get(HEAD, head) if head is None else head
            if value is None:
                raise ProfileError("the graph has a head, the profile has none: give head=1.0, say")
            keeps[HEAD] = value
        return StageProfile(keeps=keeps, source=f"{self.source}, resampled to {len(wanted)} stages")

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write this profile as JSON and return the path.

        Raises:
            OutputExistsError: Another file is there.
        """
        text = canonical_json({"schema": SCHEMA, "profile": encode(self)})
        return write_text(path, text + "\n", overwrite=overwrite)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> "StageProfile":
        """Return the profile in the file at ``path``.

        Raises:
            SpecError: The file is not a profile this version reads.
        """
        value: dict[str, Any] = upgrade(parse(read_text(path), str(path)), str(path))
        if "graph" in value:
            raise SpecError(f"{path} is a spec: `prunenas profile {path}` makes a profile of it")
        return decode(_ProfileFile, value, str(path)).profile

    def densities_on(self, graph: Graph) -> dict[str, tuple[float, ...]]:
        """Return the densities of each layer of ``graph`` that this profile masks.

        Each stage's pattern goes to all of its 3x3 kernels, its other density to all positions of
        its other kernels. Layers that share weights follow their owner.
        """
        if not self.is_sparse:
            return {}
        found: dict[str, tuple[float, ...]] = {}
        for stage in stages(graph):
            other = self.other_densities.get(stage.name)
            for member in _kernels(stage, graph):
                if _is_3x3(graph, member):
                    if stage.name in self.densities:
                        found[member] = self.densities[stage.name]
                elif other is not None:
                    found[member] = (other,) * _area(graph, member)
        return found


def _left(graph: Graph, descriptor: Descriptor) -> Graph:
    return drop_blocks(graph, descriptor.dropped) if descriptor.dropped else graph


def _layer_keeps(stage: Stage, descriptor: Descriptor, left: Graph) -> list[float]:
    """Return kept / full of each producing layer of ``stage`` that is ``left``."""
    return [
        descriptor.widths.get(group.name, group.width) / group.width
        for group in stage.groups
        for member in group.members
        if member in left
    ]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _ProfileFile:
    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    profile: StageProfile


def _kernels(stage: Stage, graph: Graph) -> list[str]:
    """Return the layers of ``stage`` in ``graph`` that have a kernel of their own."""
    return [
        member
        for member in stage.layers
        if member in graph
        and isinstance(graph[member].op, KernelOp)
        and graph[member].weights is None
    ]


def _kernel(graph: Graph, name: str) -> tuple[int, ...]:
    op = graph[name].op
    assert isinstance(op, KernelOp), "only layers with a kernel are asked for"
    return kernel_of(op)


def _is_3x3(graph: Graph, name: str) -> bool:
    return _kernel(graph, name) == (3, 3)


def _area(graph: Graph, name: str) -> int:
    return math.prod(_kernel(graph, name))


def _stage_densities(
    graph: Graph, descriptors: Sequence[Descriptor], left: Sequence[Graph]
) -> tuple[dict[str, tuple[float, ...]], dict[str, float]]:
    """Return the mean pattern of 3x3 kernels and the mean density of others, by stage."""
    patterns: dict[str, tuple[float, ...]] = {}
    others: dict[str, float] = {}
    for stage in stages(graph):
        found = [
            (_is_3x3(graph, member), density)
            for descriptor, there in zip(descriptors, left, strict=True)
            for member in _kernels(stage, there)
            if (density := _density(descriptor, member)) is not None
        ]
        if threes := [density for is_3x3, density in found if is_3x3]:
            patterns[stage.name] = tuple(float(p) for p in np.mean(threes, axis=0))
        if rest := [np.mean(density) for is_3x3, density in found if not is_3x3]:
            others[stage.name] = float(np.mean(rest))
    return patterns, others


def _density(descriptor: Descriptor, name: str) -> NDArray[np.float64] | None:
    """Return the share that is kept of each kernel position, row by row; None if not masked."""
    if name in descriptor.densities:
        return np.asarray(descriptor.densities[name])
    if name not in descriptor.masks:
        return None
    kept = descriptor.masks[name].array()
    share: NDArray[np.float64] = kept.reshape(*kept.shape[:2], -1).mean(axis=(0, 1))
    return share
