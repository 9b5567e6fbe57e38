"""ArchSpec: the artefact. An architecture's whole story in one file that outlives this tool."""

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, final

from prunenas.arch.descriptor import Descriptor, apply
from prunenas.arch.files import read_text, write_files
from prunenas.arch.masks_file import (
    exact_masks,
    masks_path,
    masks_to_bytes,
    read_masks,
    with_masks,
)
from prunenas.arch.metrics import Metrics
from prunenas.arch.profile import StageProfile
from prunenas.errors import SpecError
from prunenas.ir.canonical import SCHEMA, canonical_json, decode, digest, encode, parse, upgrade
from prunenas.ir.graph import Graph
from prunenas.ir.stages import stages


def versions() -> dict[str, str]:
    """Return the versions that results depend on: Python's, ours, and of what trains and draws."""
    found = {"python": platform.python_version()}
    for name in ("prunenas", "torch", "torchvision", "optuna", "numpy"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@final
@dataclass(frozen=True, kw_only=True)
class ArchSpec:
    """One architecture with all that is known of it.

    Args:
        name: What people call it.
        graph: The whole network: all that building, costing and exporting need.
        reference: The graph it was derived from, if any.
        descriptor: The delta on the reference.
        profile: The stage profile that it came from or amounts to.
        metrics: What was measured.
        provenance: How it was made, as JSON values: commands, data, recipe, versions.
        aliases: Digests of older schemas under which the graph was known.

    Raises:
        SpecError: The reference and the descriptor do not give the graph.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    name: str
    graph: Graph
    reference: Graph | None = None
    descriptor: Descriptor | None = None
    profile: StageProfile | None = None
    metrics: Metrics | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.reference is None) != (self.descriptor is None):
            raise SpecError("a spec holds a reference and a descriptor, or neither")
        if self.reference is not None and self.descriptor is not None:
            derived = digest(apply(self.reference, self.descriptor))
            if derived != digest(self.graph):
                raise SpecError(
                    f"the descriptor turns the reference into {derived}, but the spec holds "
                    f"{digest(self.graph)}"
                )

    @staticmethod
    def of(reference: Graph, descriptor: Descriptor, *, name: str, **provenance: Any) -> "ArchSpec":
        """Return the spec of ``descriptor`` on ``reference``, with the profile it amounts to.

        Raises:
            DescriptorError: The descriptor does not fit.
        """
        return ArchSpec(
            name=name,
            graph=apply(reference, descriptor),
            reference=reference,
            descriptor=descriptor,
            profile=StageProfile.of(reference, descriptor) if stages(reference) else None,
            provenance=provenance,
        )

    @property
    def digest(self) -> str:
        """Digest of the graph."""
        return digest(self.graph)

    def with_metrics(self, metrics: Metrics) -> "ArchSpec":
        """Return this spec with ``metrics``."""
        return replace(self, metrics=metrics)

    def to_json(self) -> str:
        """Return the canonical JSON of this spec, which has no bits of masks."""
        return canonical_json({"schema": SCHEMA, "digest": self.digest} | encode(self))

    def masks_file(self) -> bytes | None:
        """Return the file of the exact masks that this spec names; None where it names none.

        Raises:
            MaskError: The bits of a mask are not here.
        """
        masks = exact_masks(self.graph, self.reference, self.descriptor)
        return masks_to_bytes(masks) if masks else None

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write this spec as JSON and return the path.

        The bits of exact masks go into ``<stem>.masks.safetensors`` beside it.

        Raises:
            OutputExistsError: Another file is there.
            MaskError: The bits of a mask are not here.
        """
        target = Path(path)
        masks = self.masks_file()
        # The spec comes last: one that is there has its masks.
        contents = {} if masks is None else {masks_path(target): masks}
        contents[target] = (self.to_json() + "\n").encode()
        write_files(contents, overwrite=overwrite)
        return target


def spec_from_json(text: str | bytes, where: str = "the spec") -> ArchSpec:
    """Return the spec that ``text`` describes; exact masks have no bits.

    Raises:
        SpecError: The text is not JSON, of a newer schema, has unknown keys or wrong types, is not
            a network, or its digest is not its graph's.
    """
    value = upgrade(parse(text, where), where)
    if value.keys() == {"profile"}:
        raise SpecError(f"{where} is a profile: `prunenas transfer` puts it on a network")
    stated = value.pop("digest", None)
    spec = decode(ArchSpec, value, where)
    if stated != spec.digest and stated not in spec.aliases:
        raise SpecError(f"{where} states the digest {stated}, but its graph's is {spec.digest}")
    return spec


def load(path: str | os.PathLike[str]) -> ArchSpec:
    """Return the spec in the file at ``path``, exact masks with the bits from the file beside it.

    Where ``<stem>.masks.safetensors`` is missing, costs are known all the same; what needs the
    bits, such as ``build``, tells which file it wanted.

    Raises:
        SpecError: The file is missing, or is not a spec this version reads.
        MaskError: The file of masks is damaged, or another spec's.
    """
    spec = spec_from_json(read_text(path), str(path))
    named = exact_masks(spec.graph, spec.reference, spec.descriptor)
    if not named:
        return spec
    masks = read_masks(masks_path(path), named)
    told = spec.descriptor
    if told is not None:
        told = replace(told, masks={n: masks[mask.digest] for n, mask in told.masks.items()})
    before = None if spec.reference is None else with_masks(spec.reference, masks)
    return replace(spec, graph=with_masks(spec.graph, masks), reference=before, descriptor=told)
