"""One plain PyTorch file that needs torch only: to read, to change, to train from scratch.

The network's state-dict keys are the graph's names, so weights go back and forth. Modules nest as
the names do (see ``structure``), and parameter-free ops are calls in the forwards. The file stands
alone, so the bits of kernel masks, drawn or exact, are written into it; so are the numbers of
constants.
"""

import base64
import json
import keyword
import re
from collections.abc import Iterator, Sequence

import jinja2
import numpy as np
import torch

from prunenas.arch.spec import ArchSpec
from prunenas.build.network import Network
from prunenas.export.base import EXPORTERS
from prunenas.export.python_source.classes import BlockClass, Classes, block_classes
from prunenas.export.python_source.constants import table, with_own_constants
from prunenas.export.python_source.sources import SOURCES
from prunenas.export.python_source.structure import Scope, root
from prunenas.export.python_source.template import TEMPLATE
from prunenas.export.python_source.text import Expression, lines, paragraph, wrapped
from prunenas.export.python_source.writing import declarations, statements
from prunenas.ir.cost import effective_macs, is_sparse, macs, nonzero_params, params
from prunenas.ir.graph import Graph
from prunenas.ir.masks import mask_of, sparsity_of
from prunenas.ir.ops import BatchNorm, Conv1d, Conv2d, Depthwise2d, Linear

__all__ = ["SOURCES", "python_source"]

_BODY = ("declarations", "statements")
_FUNCTIONAL = re.compile(r"(?<![\w.])F\.")
_HELPERS = (
    "ChannelSelection",
    "ConstantTensor",
    "DropPath",
    "MaskedConv1d",
    "MaskedConv2d",
    "MaskedLinear",
    "PadShortcut",
    "Permute",
    "ShiftNorm",
    "TrainableTensor",
    "channel_shuffle",
    "stored",
)

_LONGEST_FACT = 200
"""Characters of a fact in the docstring."""


@EXPORTERS.register("python")
def python_source(spec: ArchSpec) -> str:
    """Return a Python file that defines the network of ``spec`` as one class without arguments.

    It computes what ``build`` computes, bit for bit on one machine, but draws its fresh weights
    from torch's global random state: the same scheme, other numbers.

    Raises:
        GraphError: A node's name is one that torch keeps for itself.
        MaskError: The bits of an exact mask are not here.
    """
    with torch.device("meta"):
        Network(spec.graph)
    graph = with_own_constants(spec.graph)
    name = _class_name(spec.name)
    parts = _classes(root(graph), name)
    written = "\n".join(line for part in parts for key in _BODY for line in part[key])
    helpers = {helper for helper in _HELPERS if re.search(rf"(?<![\w.]){helper}\(", written)}
    text = _template().render(
        name=name,
        about=[*_about(spec)],
        summary=_summary(graph),
        blocks=parts[:-1],
        network=parts[-1],
        helpers=helpers,
        uses_functional="PadShortcut" in helpers or _FUNCTIONAL.search(written) is not None,
        masks=[*_masks(graph)],
        constants=[*table(graph)],
        **_scheme(graph),
    )
    return text.rstrip("\n") + "\n"


def _classes(network: Scope, name: str) -> list[dict[str, list[str]]]:
    """Return the bodies of all classes, the network's own last."""
    classes = block_classes(network, taken=[name, *_HELPERS])
    blocks = [_block(block, classes) for block in classes.values()]
    return [*blocks, _body(network, classes, None)]


def _body(scope: Scope, classes: Classes, block: BlockClass | None) -> dict[str, list[str]]:
    return {
        "declarations": declarations(scope, classes, block, 8),
        "statements": statements(scope, classes, block),
    }


def _scheme(graph: Graph) -> dict[str, object]:
    """Return what the function that draws fresh weights has to do."""
    init, scales = graph.init, _scales(graph)
    kinds = {type(node.op) for node in graph.nodes}
    images = init.conv != "torch" and not kinds.isdisjoint({Conv2d, Depthwise2d})
    rows = init.conv != "torch" and Conv1d in kinds
    convs = " | ".join(["nn.Conv1d"] * rows + ["nn.Conv2d"] * images)
    linears = init.linear != "torch" and Linear in kinds
    masked = {type(node.op) for node in graph.nodes if sparsity_of(node.op) is not None}
    twins = [
        ("MaskedConv1d", rows and Conv1d in masked),
        ("MaskedConv2d", images and not masked.isdisjoint({Conv2d, Depthwise2d})),
    ]
    return {
        "init": init,
        "scales": scales,
        "draws_convs": convs,
        "draws_linears": linears,
        "draws_masked_convs": " | ".join(name for name, drawn in twins if drawn),
        "draws_masked_linears": linears and Linear in masked,
        "initialises": bool(scales or convs or linears),
    }


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(TEMPLATE)


def _class_name(name: str) -> str:
    """Return ``name`` as the name of a class that hides nothing that the file uses."""
    words = re.findall("[A-Za-z0-9]+", name)
    camel = "".join(word[:1].upper() + word[1:] for word in words)
    if not camel or camel[0].isdigit():
        camel = f"Network{camel}"
    if keyword.iskeyword(camel) or camel in {"F", "Tensor", "MASKS", "CONSTANTS", *_HELPERS}:
        camel += "Network"
    return camel


def _block(block: BlockClass, classes: Classes) -> dict[str, list[str]]:
    head = Expression("__init__(", ("self", *map(str, block.parameters)))
    return _body(block.scope, classes, block) | {
        "class": [block.name, block.doc],
        "head": lines("def ", head, indent=4, after=" -> None:"),
    }


def _summary(graph: Graph) -> str:
    size = " x ".join(map(str, graph.input_size))
    return f"Images of {size} to {graph.classes} class scores."


def _about(spec: ArchSpec) -> Iterator[str]:
    """Yield the lines of the module's docstring."""
    graph = spec.graph
    yield from paragraph(
        f"{spec.name}: a network for {_summary(graph)[:1].lower()}{_summary(graph)[1:]}"
    )
    yield ""
    facts = [
        f"Parameters: {params(graph):,}",
        f"Multiply-accumulates: {macs(graph):,} for one image",
        *_after_masks(graph),
        f"Input: {' x '.join(map(str, graph.input_size))} (channels, height, width)",
        f"Classes: {graph.classes}",
        f"Digest: {spec.digest}",
        *_story(spec),
    ]
    for fact in facts:
        yield from paragraph(f"- {fact}")
    yield ""
    yield from paragraph(
        "Written by prunenas. The keys of the state dict are the names in the spec, so weights "
        "trained by either can be loaded into the other. Weights start fresh, by the spec's scheme."
    )


def _after_masks(graph: Graph) -> list[str]:
    """Return the costs of a sparse network with weights that no mask sets to zero."""
    if not is_sparse(graph):
        return []
    return [
        f"Nonzero parameters: {nonzero_params(graph):,}; masks set the others to zero",
        f"Effective multiply-accumulates: {effective_macs(graph):,}, with such weights only",
    ]


def _story(spec: ArchSpec) -> Iterator[str]:
    if spec.reference is not None:
        yield (
            f"Reference: {params(spec.reference):,} parameters, {macs(spec.reference):,} "
            "multiply-accumulates"
        )
        yield from (
            f"Reference, {fact[0].lower()}{fact[1:]}" for fact in _after_masks(spec.reference)
        )
    origin = spec.descriptor.origin if spec.descriptor else None
    if origin is not None:
        yield f"Found by: {origin.method}" + (f", keep {origin.keep:g}" if origin.keep else "")
    if spec.metrics is not None:
        m = spec.metrics
        spread = f" +- {m.std:.2%}" if m.n > 1 else ""
        yield f"Accuracy: {m.accuracy:.2%}{spread} on {m.data} ({m.part}), n = {m.n}"
    for key, value in sorted(spec.provenance.items()):
        text = value if isinstance(value, str) else json.dumps(value, default=str, sort_keys=True)
        # Long tables of settings stay in the spec: a docstring is for reading.
        if isinstance(value, str) or len(text) <= _LONGEST_FACT:
            yield f"{key}: {text}"


def _scales(graph: Graph) -> Sequence[tuple[int, float]]:
    """Return the batch norms whose scales do not start at 1, by dimension."""
    norms = [graph.shapes[n.name] for n in graph.nodes if isinstance(n.op, BatchNorm)]
    wanted = [
        (2, graph.init.scale, any(len(shape.dims) == 3 for shape in norms)),
        (1, graph.init.vector_scale, any(len(shape.dims) < 3 for shape in norms)),
    ]
    return [(dimension, scale) for dimension, scale, used in wanted if used and scale != 1]


def _masks(graph: Graph) -> Iterator[tuple[str, str]]:
    """Yield the mask of each sparse kernel as base64 of its bits."""
    for node in graph.nodes:
        sparsity = sparsity_of(node.op)
        if node.weights is None and sparsity is not None:
            shape = graph.parameters()[f"{node.name}.weight"]
            mask = mask_of(sparsity, shape, node.name)
            text = base64.b64encode(np.packbits(mask.reshape(-1)).tobytes()).decode()
            yield node.name, wrapped(text)
