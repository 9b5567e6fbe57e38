"""Which weights may go, and from scores of weights to masks, or to kept channels."""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from prunenas.arch.allocate import Scores, removed_part, strict_place, strict_threshold
from prunenas.errors import MethodError
from prunenas.generators.base.method import Proposal, Subject
from prunenas.generators.base.scores import Reduction, best_of_each, group_scores
from prunenas.ir.coupling import couple
from prunenas.ir.graph import Graph
from prunenas.ir.masks import mask_of, sparsity_of
from prunenas.ir.ops import Conv1d, Conv2d, Depthwise2d, KernelOp

Layers = Literal["conv", "hidden", "all"]
"""Which layers may lose weights; ``prunable`` says what is which."""

Rule = Literal["strict", "quantile", "count"]
"""How a threshold follows from scores and a keep; ``kept_masks`` says how."""

Scope = Literal["global", "layer"]
"""Whether one threshold holds for all layers together, or each has its own."""

Form = Literal["masks", "widths"]
"""Whether single weights go, or whole channels."""

LAYERS, RULES, SCOPES, FORMS = map(get_args, (Layers, Rule, Scope, Form))

WeightScores = Mapping[str, NDArray[np.floating]]
"""Score of each weight by layer, of the kernel's shape; a larger score is kept longer."""

Masks = dict[str, NDArray[np.bool_]]
"""Kept weights by layer, true where kept."""


def prunable(graph: Graph, layers: Layers) -> tuple[str, ...]:
    """Return the layers that may lose weights, a shared kernel once, in the graph's order.

    Biases, norms and kernels that are computed never do.

    Args:
        graph: The reference.
        layers: ``conv``: every convolution, first and projecting ones too, no linear layer (what
            the code of Liu et al. 2019 does); ``hidden``: convolutions and linear layers but those
            that decide the network's output (ShrinkBench); ``all`` of them.

    Raises:
        MethodError: There is none.
    """
    kinds = Conv2d | Depthwise2d | Conv1d if layers == "conv" else KernelOp
    output = _classifiers(graph) if layers == "hidden" else set()
    found = tuple(
        node.name
        for node in graph.nodes
        if isinstance(node.op, kinds) and node.weights is None and node.name not in output
    )
    if not found:
        raise MethodError(f"nothing to prune: the graph has no layer of layers={layers!r}")
    return found


def _classifiers(graph: Graph) -> set[str]:
    """Return the layers that decide how many numbers the network returns."""
    groups = couple(graph)
    decided = {name for axis in groups.dims[graph.output] for s in axis for name in s.groups}
    return {graph[m].weights or m for name in decided for m in groups[name].members}


def present(graph: Graph, layers: Iterable[str]) -> Masks:
    """Return the weights of each layer that are there: all but those that a mask has removed.

    Only these are candidates: what a mask of the reference removes never comes back.

    Args:
        graph: The reference.
        layers: Names of layers with a kernel of their own.

    Raises:
        MaskError: The bits of an exact mask are not here.
    """
    shapes = graph.parameters()
    there = {}
    for name in layers:
        shape, sparsity = shapes[f"{name}.weight"], sparsity_of(graph[name].op)
        there[name] = (
            np.ones(shape, dtype=np.bool_) if sparsity is None else mask_of(sparsity, shape, name)
        )
    return there


def kept_masks(
    scores: WeightScores,
    keep: float,
    *,
    scope: Scope = "global",
    rule: Rule = "strict",
    among: Mapping[str, NDArray[np.bool_]] | None = None,
) -> tuple[Masks, tuple[str, ...]]:
    """Return which weights stay.

    Of ``n`` scores and a removed part ``p = 1 - keep``:

    * ``strict``: those above the score at place ``int(n * p)`` in ascending order; without ties
      ``int(n * p) + 1`` go, and ties with it all go (the code of Liu et al. 2019);
    * ``quantile``: those not below the ``p``-quantile, interpolated linearly; ties stay
      (ShrinkBench);
    * ``count``: the ``round(n * keep)`` largest, at least one, of equal ones the first (the code
      of Lee et al. 2019).

    A layer that would lose everything keeps its best weight, the first of equal ones.

    Args:
        scores: Finite scores by layer.
        keep: In (0, 1).
        scope: One threshold for all layers, or one for each.
        rule: See above.
        among: The weights that take part by layer; the others go, and ``n`` does not count them.

    Returns:
        Masks, and the layers that would have been emptied.

    Raises:
        MethodError: A score is not finite.
    """
    wild = [name for name, score in scores.items() if not np.isfinite(score).all()]
    if wild:
        raise MethodError(f"weights cannot be ranked, scores are not finite in {', '.join(wild)}")
    there = {
        name: np.ones(score.size, dtype=np.bool_) if among is None else among[name].reshape(-1)
        for name, score in scores.items()
    }
    flat = {name: score.reshape(-1)[there[name]] for name, score in scores.items()}
    if scope == "layer":
        kept = {name: _kept(score, keep, rule) for name, score in flat.items()}
    else:
        every = _kept(np.concatenate([*flat.values()]), keep, rule)
        ends = np.cumsum([len(score) for score in flat.values()])[:-1]
        kept = dict(zip(flat, np.split(every, ends), strict=True))
    masks, emptied = {}, []
    for name, score in scores.items():
        if not kept[name].any():
            emptied.append(name)
            kept[name][flat[name].argmax()] = True
        mask = np.zeros(score.size, dtype=np.bool_)
        mask[there[name]] = kept[name]
        masks[name] = mask.reshape(score.shape)
    return masks, tuple(emptied)


def _kept(scores: NDArray[np.floating], keep: float, rule: Rule) -> NDArray[np.bool_]:
    count = len(scores)
    if rule == "quantile":
        return np.asarray(scores >= np.quantile(scores.astype(np.float64), removed_part(keep)))
    if rule == "strict":
        place = strict_place(count, keep)
        return np.asarray(scores > np.partition(scores, place)[place])
    kept = max(1, round(count * keep))
    least = np.partition(scores, count - kept)[count - kept]
    mask = np.asarray(scores > least)
    mask[np.flatnonzero(scores == least)[: kept - int(mask.sum())]] = True
    return mask


def kept_weights(subject: Subject, scores: WeightScores, *, scope: Scope, rule: Rule) -> Proposal:
    """Return which weights of the scored layers stay, of those that no mask has removed yet."""
    among = present(subject.graph, [*scores])
    masks, emptied = kept_masks(scores, subject.keep, scope=scope, rule=rule, among=among)
    return Proposal(masks=masks, kept_best=emptied)


def kept_channels(
    subject: Subject,
    filters: Callable[[str], Tensor],
    *,
    reduction: Reduction,
    scope: Scope,
) -> Proposal:
    """Return which channels of the free groups stay, by scores of the filters behind them.

    Channel selections have no filters: they follow their source, and are told in what is found.

    Args:
        subject: What is looked at.
        filters: Score of each output ``[out]`` of the layer of that name.
        reduction: How a coupled group's score follows from those of its layers.
        scope: ``global``: one strict threshold over all groups, at the place that it has in their
            order, so that of equal scores the first stay; ``layer``: the best ``int(width * keep)``
            of each group.

    Raises:
        MethodError: A score is not finite.
    """
    groups = [group for group in subject.groups.free if not group.select]
    scores = {
        group.name: group_scores(subject.trained, subject.groups, group, filters, reduction)
        for group in groups
    }
    wild = [name for name, score in scores.items() if not np.isfinite(score).all()]
    if wild:
        raise MethodError(f"channels cannot be ranked, scores are not finite in {', '.join(wild)}")
    if scope == "layer":
        keeps = {group.name: subject.keep for group in groups}
        selections, emptied = best_of_each(groups, scores, keeps)
    else:
        selections, emptied = strict_threshold(_places(scores), groups, subject.keep)
    selecting = [group.name for group in subject.groups.free if group.select]
    alone = dict.fromkeys(selecting, "a channel selection has no filters: it follows its source")
    found = {"left_alone": alone} if alone else {}
    return Proposal(selections=selections, scores=scores, kept_best=emptied, found=found)


def _places(scores: Scores) -> Scores:
    """Return the place of each score in ascending order of all: of equal ones the first is last.

    Gradients of dead channels are exactly zero, and a strict threshold would take all that tie.
    """
    if not scores:
        return {}
    every = np.concatenate([*scores.values()])
    places = np.empty(len(every))
    places[np.argsort(-every, kind="stable")] = np.arange(len(every), 0, -1)
    ends = np.cumsum([len(score) for score in scores.values()])[:-1]
    return dict(zip(scores, np.split(places, ends), strict=True))


def scored_layers(subject: Subject) -> tuple[str, ...]:
    """Return the layers that ``kept_channels`` asks the scores of, in the graph's order."""
    members = {
        subject.graph[member].weights or member
        for group in subject.groups.free
        if not group.select
        for member in group.members
    }
    return tuple(node.name for node in subject.graph.nodes if node.name in members)
