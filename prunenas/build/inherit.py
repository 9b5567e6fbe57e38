"""Weights of a reference, cut to a descriptor: where the fine-tuned baseline starts."""

import warnings

import torch
from torch import Tensor, nn

from prunenas.arch.descriptor import Descriptor, apply, kept_positions
from prunenas.build.initialise import build
from prunenas.build.modules import MaskedConv2d
from prunenas.build.network import Network
from prunenas.errors import DescriptorError
from prunenas.ir.coupling import ChannelGroups, couple
from prunenas.ir.graph import Graph, Node
from prunenas.ir.ops import Depthwise2d, PadChannels, Select


def inherit(reference: Network, descriptor: Descriptor) -> Network:
    """Return the network of ``descriptor`` with the reference's weights of the kept channels.

    Args:
        reference: A trained network; it is not changed.
        descriptor: Must say by its selections which channels each narrowed group keeps.

    Raises:
        DescriptorError: It does not fit the reference's graph, tells a width without the channels,
            takes channels from a selection without telling which it has left, or keeps unequal
            parts of a grouped convolution.
    """
    graph = reference.graph
    network = build(apply(graph, descriptor), device=next(reference.parameters()).device)
    groups = couple(graph)
    silent = sorted(
        group.name
        for group in groups
        if descriptor.widths.get(group.name, group.width) != group.width
        and group.name not in descriptor.selections
    )
    if silent:
        raise DescriptorError(
            "weights can be inherited only where the kept channels are told; widths alone are "
            f"given for {', '.join(silent)}"
        )
    robbed = sorted(
        node.name
        for node in graph.nodes
        if isinstance(node.op, Select)
        and groups.axes[node.name][0].group not in descriptor.selections
        and not {*node.op.indices} <= {*_positions(node.inputs[0], groups, descriptor).tolist()}
    )
    if robbed:
        raise DescriptorError(
            f"weights can be inherited only where the kept channels are told: {', '.join(robbed)} "
            "lost some of its source's channels, say in selections which it keeps"
        )
    _warn_of_shifted_shortcuts(graph, groups, descriptor)
    with torch.no_grad():
        for node in network.graph.nodes:
            if node.weights is None:
                _copy(reference, network, graph[node.name], groups, descriptor)
    return network


def _warn_of_shifted_shortcuts(graph: Graph, groups: ChannelGroups, descriptor: Descriptor) -> None:
    """Warn where a padded shortcut no longer adds each channel to the one it was added to."""
    shifted = []
    for node in graph.nodes:
        if isinstance(node.op, PadChannels):
            short, long = (_positions(name, groups, descriptor) for name in node.inputs)
            if not torch.equal(short, long[: len(short)]):
                shifted.append(node.name)
    if shifted:
        warnings.warn(
            "the inherited network is not the reference with channels removed: the padded "
            f"shortcuts {', '.join(shifted)} join channels by their place, and the two sides keep "
            "different ones. Fine-tuning starts further away; training from scratch is not touched",
            stacklevel=3,
        )


def _copy(
    reference: Network, network: Network, node: Node, groups: ChannelGroups, descriptor: Descriptor
) -> None:
    source, target = reference.node(node.name), network.node(node.name)
    own = dict(target.named_parameters(recurse=False)) | {
        name: buffer
        for name, buffer in target.named_buffers(recurse=False)
        if name not in ("indices", "mask")
    }
    if not own:
        return
    out = _positions(node.name, groups, descriptor)
    into = _positions(node.inputs[0], groups, descriptor)
    for name, tensor in own.items():
        old: Tensor = getattr(source, name).detach()
        if old.dim() == 0:
            tensor.copy_(old)
        elif old.dim() == 1 or (isinstance(node.op, Depthwise2d)):
            tensor.copy_(old[out])
        elif isinstance(source, nn.Conv2d) and source.groups > 1:
            tensor.copy_(_grouped(old, out, into, source.groups, node.name))
        else:
            tensor.copy_(old[out][:, into])
    if isinstance(target, MaskedConv2d):
        target.weight.mul_(target.mask)


def _positions(name: str, groups: ChannelGroups, descriptor: Descriptor) -> Tensor:
    kept = kept_positions(groups.axes[name], groups, descriptor)
    assert kept is not None, "every narrowed group has a selection"
    return torch.tensor(kept)


def _grouped(weight: Tensor, out: Tensor, into: Tensor, count: int, name: str) -> Tensor:
    """Return the kept part of a grouped kernel; every group must keep equally many channels."""
    of_out, of_in = len(weight) // count, weight.shape[1]
    outs = [out[out // of_out == i] for i in range(count)]
    ins = [into[into // of_in == i] - i * of_in for i in range(count)]
    if len({len(part) for part in outs}) > 1 or len({len(part) for part in ins}) > 1:
        raise DescriptorError(f"{name}: the {count} groups must keep equally many channels each")
    return torch.cat([weight[o][:, i] for o, i in zip(outs, ins, strict=True)])
