"""Weights on disk: a network's state as safetensors, which cannot hold anything but tensors."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from prunenas.arch.files import write_files
from prunenas.build.initialise import build
from prunenas.build.modules import Masked
from prunenas.build.network import Network
from prunenas.errors import WeightsError
from prunenas.ir.canonical import canonical_json, digest
from prunenas.ir.graph import Graph

SCHEMA = 1

_KEY = "prunenas"
"""Of our entry in the metadata; one only, so that the same weights make the same bytes."""

_SHOWN = 5
"""Keys of one kind that an error lists."""


def save_weights(network: Network, path: str | os.PathLike[str]) -> Path:
    """Write the weights and buffers of ``network`` as ``.safetensors`` and return the path.

    The file is there whole or not at all, and says which graph it belongs to.

    Raises:
        WeightsError: The name does not end in ``.safetensors``.
        OutputExistsError: Another file is there.
    """
    target = _named(path)
    state = {
        key: tensor.detach().to("cpu", copy=True).contiguous()
        for key, tensor in network.state_dict().items()
    }
    graph = network.graph
    told = {
        "schema": SCHEMA,
        "graph": digest(graph),
        "input_size": graph.input_size,
        "classes": graph.classes,
    }
    write_files({target: save(state, metadata={_KEY: canonical_json(told)})})
    return target


def load_weights(
    graph: Graph, path: str | os.PathLike[str], device: torch.device | str = "cpu"
) -> Network:
    """Return the network of ``graph`` with the weights of a ``.safetensors`` file.

    A file that ``save_weights`` wrote must be of this very graph. One from elsewhere is taken if
    its keys and shapes are the graph's exactly; numbers of another float type are converted. What
    the graph's masks remove is set to zero.

    Args:
        graph: What the weights belong to.
        path: The file.
        device: Where the network is put.

    Raises:
        WeightsError: The file is absent, damaged, or of another network.
    """
    source = _named(path)
    if not source.is_file():
        raise WeightsError(f"{source}: there is no such file")
    network = build(graph)
    network.init_seed = None
    try:
        # "pt" hands out torch tensors.
        with safe_open(source, framework="pt") as file:
            _check_origin(file.metadata() or {}, graph, source)
            found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{source} cannot be read as safetensors: {error}") from None
    wanted = network.state_dict()
    _check_fit(wanted, found, source)
    network.load_state_dict(found)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, Masked):
                module.weight.masked_fill_(module.mask == 0, 0.0)
    return network.to(device)


def _named(path: str | os.PathLike[str]) -> Path:
    target = Path(path)
    if target.suffix != ".safetensors":
        raise WeightsError(f"weights are kept in .safetensors files, got {target}")
    return target


def _check_origin(metadata: Mapping[str, str], graph: Graph, source: Path) -> None:
    """Refuse our own files of another graph, or of a newer version."""
    if _KEY not in metadata:
        return
    told = _parsed(metadata[_KEY], source)
    schema = told.get("schema")
    if not isinstance(schema, int) or not 1 <= schema <= SCHEMA:
        raise WeightsError(
            f"{source} has schema {schema!r}, this version reads up to {SCHEMA}: upgrade prunenas"
        )
    if told.get("graph") != digest(graph):
        raise WeightsError(
            f"{source} holds weights of the graph {told.get('graph')} (images "
            f"{told.get('input_size')}, {told.get('classes')} classes), this one is "
            f"{digest(graph)} (images {[*graph.input_size]}, {graph.classes} classes)"
        )


def _parsed(text: str, source: Path) -> Mapping[str, Any]:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise WeightsError(f"{source}: what it says of its graph is damaged")
    return told


def _check_fit(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], source: Path) -> None:
    """Refuse tensors that are not exactly the network's, telling all that is wrong."""
    both = [key for key in wanted if key in found]
    faults = [
        *_listed("missing", [key for key in wanted if key not in found]),
        *_listed("unexpected", sorted({*found} - {*wanted})),
        *_listed(
            "of another shape",
            [
                f"{key} is {[*found[key].shape]} and should be {[*wanted[key].shape]}"
                for key in both
                if found[key].shape != wanted[key].shape
            ],
        ),
        *_listed(
            "of another type",
            [
                f"{key} is {found[key].dtype} and should be {wanted[key].dtype}"
                for key in both
                if found[key].is_floating_point() != wanted[key].is_floating_point()
            ],
        ),
    ]
    if faults:
        raise WeightsError(f"{source} does not fit the network:\n  " + "\n  ".join(faults))


def _listed(kind: str, every: Sequence[str]) -> list[str]:
    """Return one line about the keys in ``every``, shortened; none if there are none."""
    if not every:
        return []
    more = f", ... {len(every)} in all" if len(every) > _SHOWN else ""
    return [f"{kind}: {', '.join(every[:_SHOWN])}{more}"]
