"""Taylor pruning: what the loss would lose, to first order, if a channel were gone."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunenas.generators.base import GENERATORS, Generator, Proposal, Subject, need
from prunenas.generators.base.gradients import Twin, loss_gradients, training_batches
from prunenas.generators.base.scores import REDUCTIONS, Reduction, kernel
from prunenas.generators.base.weights import SCOPES, Scope, kept_channels, scored_layers
from prunenas.ir.coupling import ChannelGroups
from prunenas.ir.graph import Graph
from prunenas.ir.ops import (
    Activation,
    BatchNorm,
    Clamp,
    GroupNorm,
    LayerNorm,
    LeakyRelu,
    RmsNorm,
)

Form = Literal["weight", "activation"]

_PASSED = BatchNorm | GroupNorm | LayerNorm | RmsNorm | Activation | LeakyRelu | Clamp
"""What belongs to the layer before it, where it is the only reader."""


@GENERATORS.register("taylor")
@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Taylor(Generator):
    """Keep the channels without which the loss would change most, to first order.

    ``weight`` (2019): a filter's score is the sum of ``(w * g) ** 2`` over its weights, averaged
    over batches, g the gradient of a batch's mean cross-entropy. With ``joint`` it is the square of
    the sum of ``w * g``: what the whole filter adds to the loss. Behind a filter with a batch norm
    that sum is zero in training mode, since the loss does not change with the filter's scale.

    ``activation`` (2017): of every channel's map z and each image, the size of the mean over
    positions of ``z * dL/dz``, averaged over images and divided by the L2 norm of the layer's
    scores. The map is taken behind the batch norm and the activation that follow the layer, as far
    as nothing else reads what is between. Maps of a layer that is called twice count together.
    Products are reduced as soon as a map's gradient is there; no map is kept for longer.

    Both sources remove a few channels at a time with training in between; this is one of their
    rounds. A channel that has several filters or maps (a head of attention) scores their sum.
    Channel selections follow their source.

    Args:
        form: ``weight`` or ``activation``.
        joint: Of ``weight``: the square of a filter's sum instead of the sum of squares.
        scope: ``global``: one strict threshold for all groups, so that ``int(n * (1 - keep)) + 1``
            of ``n`` channels go; ``layer``: each group keeps its best ``int(width * keep)``.
        reduction: How a coupled group's score follows from those of its layers.
        images: Images that are looked at.
        batch: Images a pass; the squares of ``weight`` depend on it.
        training: Whether batch norms use the batch's statistics, and dropout drops.

    Source: Molchanov et al. 2019, arXiv:1906.10771, section 3.1 (``weight``, as NNI implements it;
        both sums are named there); Molchanov et al. 2017, arXiv:1611.06440, section 2.2
        (``activation``).
    """

    reads: ClassVar[bool] = True
    form: Form = "weight"
    joint: bool = False
    scope: Scope = "global"
    reduction: Reduction = "sum"
    images: int = 1024
    batch: int = 64
    training: bool = False

    def __post_init__(self) -> None:
        forms = get_args(Form)
        need(
            "taylor",
            form=(self.form, self.form in forms, f"is one of {', '.join(forms)}"),
            joint=(self.joint, not self.joint or self.form == "weight", "goes with form='weight'"),
            scope=(self.scope, self.scope in SCOPES, f"is one of {', '.join(SCOPES)}"),
            reduction=(
                self.reduction,
                self.reduction in REDUCTIONS,
                f"is one of {', '.join(REDUCTIONS)}",
            ),
            images=(self.images, self.images >= 1, "is at least 1"),
            batch=(self.batch, self.batch >= 1 + self.training, "is at least 1, in training 2"),
        )

    def propose(self, subject: Subject) -> Proposal:
        """Return the channels that stay."""
        layers = scored_layers(subject)
        by_weight = self.form == "weight"
        scores = self._by_weight(subject, layers) if by_weight else self._by_map(subject, layers)
        return kept_channels(
            subject, scores.__getitem__, reduction=self.reduction, scope=self.scope
        )

    def _by_weight(self, subject: Subject, layers: tuple[str, ...]) -> dict[str, Tensor]:
        """Return the score of each filter ``[out]`` by layer."""
        kernels = {name: kernel(subject.trained, name).double() for name in layers}
        total: dict[str, Tensor] = {}
        count = 0
        for gradients, _ in loss_gradients(
            subject, layers, images=self.images, batch=self.batch, training=self.training
        ):
            count += 1
            for name, gradient in gradients.items():
                product = (kernels[name] * gradient).flatten(1)
                joint = product.sum(dim=1).square()
                score = joint if self.joint else product.square().sum(dim=1)
                total[name] = total[name] + score if name in total else score
        return {name: score / count for name, score in total.items()}

    def _by_map(self, subject: Subject, layers: tuple[str, ...]) -> dict[str, Tensor]:
        """Return the normalised score of each map ``[out]`` by layer."""
        twin = Twin(subject, (), training=self.training)
        watch = _Watch(subject, twin, layers)
        batches = training_batches(
            subject, images=self.images, batch=self.batch, training=self.training
        )
        total: dict[str, Tensor] = {}
        seen = 0
        for images, labels in batches:
            seen += len(labels)
            for name, products in watch(images, labels).items():
                score = products.abs().sum(dim=0)
                total[name] = total[name] + score if name in total else score
        means = {name: score / seen for name, score in total.items()}
        # A layer whose gradients all vanish has no length to be divided by.
        return {name: mean / (float(mean.norm()) or 1.0) for name, mean in means.items()}


@final
class _Watch:
    """Looks at the maps of some layers while a network is differentiated.

    Args:
        subject: What is looked at.
        twin: The copy whose modules are watched, for good.
        layers: The layers whose maps count.
    """

    def __init__(self, subject: Subject, twin: Twin, layers: tuple[str, ...]) -> None:
        graph = subject.graph
        self.graph, self.twin = graph, twin
        members = [node for node in graph.nodes if (node.weights or node.name) in layers]
        # Along which dimension an activation works says nothing: the layer knows its channels.
        self.layers = {
            tail(graph, subject.groups, node.name): (
                node.weights or node.name,
                subject.groups.channel[node.name],
            )
            for node in members
        }
        self.widths = {
            owner: graph.shapes[end].sizes[channel] for end, (owner, channel) in self.layers.items()
        }
        self.calls: dict[nn.Module, list[str]] = defaultdict(list)
        for node in graph.nodes:
            self.calls[twin.network.node(node.name)].append(node.name)
        for module, names in self.calls.items():
            if any(name in self.layers for name in names):
                module.register_forward_hook(self._see)
        self.pending: dict[nn.Module, list[str]] = {}
        self.products: dict[str, Tensor] = {}
        self.images = 0
        # What is the same for all images does not hang on them, but on its own tensors.
        self.stored = [
            parameter.requires_grad_(True)
            for node in graph.nodes
            if graph.shapes[node.name].lead is None
            for parameter in twin.network.node(node.name).parameters()
        ]

    def __call__(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the mean over positions of map times gradient ``[n out]`` by layer.

        The gradient is that of each image's own cross-entropy. Of a map that is the same for all
        images there is one row.
        """
        self.pending = {module: [*names] for module, names in self.calls.items()}
        self.images = len(images)
        self.products = {}
        images = images.clone().requires_grad_(True)
        loss = functional.cross_entropy(self.twin(images), labels, reduction="sum")
        torch.autograd.grad(loss, [images, *self.stored], allow_unused=True)
        return {
            name: self.products.get(name, loss.new_zeros(1, width, dtype=torch.float64))
            for name, width in self.widths.items()
        }

    def _see(self, module: nn.Module, read: tuple[Any, ...], value: Tensor) -> None:
        name = self.pending[module].pop(0)
        if name in self.layers and value.requires_grad:
            value.register_hook(self._reducing(name, value.detach()))  # type: ignore[no-untyped-call]

    def _reducing(self, name: str, value: Tensor) -> Callable[[Tensor], None]:
        held = [value]
        owner, channel = self.layers[name]
        rows = 1 if self.graph.shapes[name].lead is None else self.images

        def reduce(gradient: Tensor) -> None:
            product = (held.pop() * gradient).movedim(channel, -1)
            means = product.reshape(rows, -1, product.shape[-1]).double().mean(dim=1)
            before = self.products.get(owner)
            self.products[owner] = means if before is None else before + means

        return reduce


def tail(graph: Graph, groups: ChannelGroups, name: str) -> str:
    """Return the last value that is only a layer's own: behind its batch norm and activation."""
    readers = graph.readers[name]
    if len(readers) != 1 or name == graph.output:
        return name
    (reader,) = readers
    same = groups.dims[reader.name] == groups.dims[name]
    return tail(graph, groups, reader.name) if same and isinstance(reader.op, _PASSED) else name
