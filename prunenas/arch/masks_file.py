"""The bits of exact masks on disk: one safetensors file beside the spec that tells of them.

A tensor is one mask: eight weights a byte, under the mask's digest as its name. So a mask that
several layers or the descriptor name is stored once, and none can stand for another.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from prunenas.arch.descriptor import Descriptor
from prunenas.errors import MaskError
from prunenas.ir.graph import Graph, Node
from prunenas.ir.masks import sparsity_of
from prunenas.ir.ops import ExactMask, KernelOp

SUFFIX = ".masks.safetensors"

_SCHEMA = 1

_MOST_TOLD = 3
"""Digests in a message; a network may have a hundred masks."""


def masks_path(path: str | os.PathLike[str]) -> Path:
    """Return where the masks of the spec at ``path`` lie: ``net.masks.safetensors`` beside it."""
    return Path(path).with_name(Path(path).stem + SUFFIX)


def exact_masks(*holders: Graph | Descriptor | None) -> dict[str, ExactMask]:
    """Return the exact masks of graphs and descriptors by their digests; one with bits wins."""
    found: dict[str, ExactMask] = {}
    for mask in (mask for holder in holders for mask in _masks_of(holder)):
        if mask.digest not in found or found[mask.digest].bits is None:
            found[mask.digest] = mask
    return found


def _masks_of(holder: Graph | Descriptor | None) -> Iterable[ExactMask]:
    if isinstance(holder, Descriptor):
        return holder.masks.values()
    nodes = () if holder is None else holder.nodes
    return [mask for node in nodes if isinstance(mask := sparsity_of(node.op), ExactMask)]


def masks_to_bytes(masks: Mapping[str, ExactMask]) -> bytes:
    """Return the file that holds ``masks``; equal masks give equal bytes.

    Raises:
        MaskError: The bits of a mask are not here.
    """
    packed = {key: np.packbits(masks[key].array().reshape(-1)) for key in sorted(masks)}
    # One entry of metadata: safetensors writes several in any order.
    return save(packed, metadata={"schema": str(_SCHEMA)})


def read_masks(path: Path, masks: Mapping[str, ExactMask]) -> dict[str, ExactMask]:
    """Return ``masks`` with their bits from the file at ``path``.

    Where there is no such file they come without, and tell which file they wanted when they are
    asked for their bits.

    Raises:
        MaskError: The file is damaged, no masks file, of a newer schema, or another spec's.
    """
    if not path.exists():
        return {key: mask.sought_in(str(path)) for key, mask in masks.items()}
    try:
        with safe_open(path, framework="np") as file:
            _check_schema(path, file.metadata())
            stored = {key: file.get_tensor(key) for key in {*file.keys()} & {*masks}}
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise MaskError(f"{path} cannot be read, or was cut short: {error}") from None
    missing = sorted(masks.keys() - stored)
    if missing:
        others = len(missing) - _MOST_TOLD
        told = ", ".join(missing[:_MOST_TOLD]) + (f" and {others} more" if others > 0 else "")
        raise MaskError(
            f"{path} does not hold the mask {told}: it belongs to another spec, or is damaged"
        )
    return {key: mask.with_bits(_bits(stored[key]), str(path)) for key, mask in masks.items()}


def with_masks(graph: Graph, masks: Mapping[str, ExactMask]) -> Graph:
    """Return ``graph`` with each of its exact masks as it stands in ``masks``, by digest."""

    def filled(node: Node) -> Node:
        op = node.op
        if not isinstance(op, KernelOp) or not isinstance(op.sparsity, ExactMask):
            return node
        return replace(node, op=replace(op, sparsity=masks[op.sparsity.digest]))

    return replace(graph, nodes=tuple(map(filled, graph.nodes)))


def _check_schema(path: Path, metadata: Mapping[str, str] | None) -> None:
    schema = (metadata or {}).get("schema", "")
    if not schema.isdecimal():
        raise MaskError(f"{path} holds no masks: its metadata has no schema")
    if int(schema) > _SCHEMA:
        raise MaskError(
            f"{path} has schema {schema}, this version reads {_SCHEMA}: upgrade prunenas"
        )


def _bits(stored: NDArray[np.uint8]) -> bytes:
    # Of any other type or shape the bytes are no mask's, which its digest tells.
    return stored.tobytes()
