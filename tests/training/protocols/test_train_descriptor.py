"""The four ways to train a descriptor: where each begins, how long it goes on, what stays zero."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from prunenas.arch.descriptor import Descriptor, Origin, apply
from prunenas.build.inherit import inherit
from prunenas.build.initialise import build
from prunenas.errors import DataError, DescriptorError, InputError, RecipeError
from prunenas.ir.canonical import digest
from prunenas.ir.ops import ExactMask
from prunenas.training import loop
from prunenas.training.execution import steps
from prunenas.training.execution.engine import SLOW, settle
from prunenas.training.keeping.checkpoint import Checkpoints
from prunenas.training.loop import train, train_seeds
from prunenas.training.protocols import step_seconds
from prunenas.training.protocols import train_descriptor as protocols
from prunenas.training.protocols.budgets import PROTOCOLS, StepSeconds, fine_tune
from prunenas.training.protocols.train_descriptor import train_descriptor
from prunenas.training.recipe import Recipe
from tests.training.networks import KERNELS, every_kernel, half_masks, made, small

RECIPE = Recipe(epochs=2, batch=8, lr=0.05, weight_decay=1e-2)
STILL = replace(RECIPE, epochs=1, lr=1e-30, momentum=0.0, schedule="constant")
"""Leaves the weights where they begin, but for 1e-29; the norms' statistics move."""

SIZE = (2, 4, 4)


@pytest.fixture
def data():
    return made(size=SIZE)


def masked(graph, **origin):
    masks = {name: ExactMask.of(mask) for name, mask in half_masks(graph).items()}
    told = Origin(method="made", **origin) if origin else None
    return Descriptor(reference=digest(graph), masks=masks, origin=told)


def selected(graph):
    return Descriptor(reference=digest(graph), selections={"conv": (0, 3, 5), "conv1d": (1, 2)})


def weights(network):
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def ends(graph, descriptor, data, recipe, **options):
    """Return metrics, and the weights at the end of each seed."""
    found = {}
    metrics = train_descriptor(
        graph,
        descriptor,
        data,
        recipe,
        on_trained=lambda seed, network: found.update({seed: weights(network)}),
        **options,
    )
    return metrics, found


def given(protocol, graph):
    """Return what a protocol needs."""
    return {"network": build(graph, seed=7)} if protocol in ("fine-tune", "rewind") else {}


def same(one, other):
    return one.keys() == other.keys() and all(
        torch.allclose(one[key], other[key], rtol=0, atol=1e-20) for key in one
    )


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_masked_weights_are_exactly_zero_at_every_step_and_the_others_move(
    data, monkeypatch, protocol, nesterov
):
    graph = every_kernel()
    masks = half_masks(graph)
    left, plain_step = [], steps.SGD.step

    def step(self, *arguments, **options):
        result = plain_step(self, *arguments, **options)
        by_shape = {p.shape: p for group in self.param_groups for p in group["params"]}
        for name in KERNELS:
            weight = by_shape[torch.Size(masks[name].shape)].detach().numpy()
            left.append(float(np.abs(weight[~masks[name]]).max()))
        return result

    monkeypatch.setattr(steps.SGD, "step", step)
    recipe = replace(RECIPE, nesterov=nesterov)
    options = {"fine_tuning": replace(recipe, epochs=2)} if protocol == "fine-tune" else {}
    _, found = ends(
        graph, masked(graph), data, recipe, protocol=protocol, **given(protocol, graph), **options
    )
    assert len(left) >= 4 * 6 and not any(left)
    for name in KERNELS:
        weight = found[0][f"{name}.weight"].numpy()
        assert (weight[~masks[name]] == 0).all()
        assert (weight[masks[name]] != 0).all()


@pytest.mark.parametrize("describe", [masked, selected])
def test_fine_tuning_begins_where_the_given_network_ended(data, describe):
    graph = every_kernel()
    trained = build(graph, seed=1)
    train(trained, data, RECIPE)
    before = copy.deepcopy(trained.state_dict())
    descriptor = describe(graph)
    metrics, found = ends(
        graph, descriptor, data, RECIPE, protocol="fine-tune", network=trained, fine_tuning=STILL
    )
    assert same(found[0], weights(inherit(trained, descriptor)))
    assert same(trained.state_dict(), before)
    assert (metrics.protocol, metrics.start) == ("fine-tune", "inherited weights")


def test_the_kept_weights_are_the_references_and_no_others(data):
    graph = every_kernel()
    trained = build(graph, seed=1)
    _, found = ends(
        graph, selected(graph), data, RECIPE, protocol="fine-tune", network=trained,
        fine_tuning=STILL,
    )  # fmt: skip
    full = weights(trained)
    assert torch.equal(found[0]["conv.weight"], full["conv.weight"][[0, 3, 5]])
    assert torch.equal(found[0]["depthwise.weight"], full["depthwise.weight"][[0, 3, 5]])
    assert torch.equal(found[0]["conv1d.weight"], full["conv1d.weight"][[1, 2]][:, [0, 3, 5]])
    assert torch.equal(found[0]["fc.weight"], full["fc.weight"][:, 16:48])


def test_fine_tuning_is_forty_epochs_at_a_thousandth_unless_told(data, monkeypatch):
    graph = every_kernel()
    seen = []
    plain = loop.train

    def watched(network, data, recipe, **options):
        seen.append(recipe)
        return plain(network, data, replace(recipe, epochs=1), **options)

    monkeypatch.setattr(loop, "train", watched)
    for options in ({}, {"fine_tuning": STILL}):
        ends(
            graph, selected(graph), data, RECIPE, protocol="fine-tune",
            network=build(graph), **options,
        )  # fmt: skip
    assert seen == [fine_tune(RECIPE), STILL]
    assert (seen[0].epochs, seen[0].lr, seen[0].batch) == (40, 0.001, 8)


@pytest.mark.parametrize("describe", [masked, selected])
def test_rewinding_begins_with_the_weights_that_the_reference_began_with(data, describe):
    graph = every_kernel()
    descriptor = describe(graph)
    wanted = weights(inherit(build(graph, seed=7), descriptor))
    for start, words in (
        ({"network": build(graph, seed=7)}, "initial weights, given"),
        ({"initial_seed": 7}, "initial weights, seed 7"),
    ):
        metrics, found = ends(graph, descriptor, data, STILL, protocol="rewind", **start)
        assert same(found[0], wanted)
        assert (metrics.protocol, metrics.start) == ("rewind", words)


def test_a_rewound_mask_is_the_initial_weights_times_the_mask(data):
    """And not the fresh ones of a masked layer, which are drawn wider (methods.md 0.2)."""
    graph = every_kernel()
    masks = half_masks(graph)
    _, found = ends(graph, masked(graph), data, STILL, protocol="rewind", initial_seed=7)
    initial = weights(build(graph, seed=7))
    for name in KERNELS:
        wanted = initial[f"{name}.weight"] * torch.from_numpy(masks[name])
        assert torch.equal(found[0][f"{name}.weight"], wanted)
    _, fresh = ends(graph, masked(graph), data, STILL, protocol="scratch-e", seeds=(7,))
    assert not torch.equal(fresh[7]["conv.weight"], found[0]["conv.weight"])


def test_rewinding_finds_the_seed_where_a_method_trained_its_reference(data):
    graph = every_kernel()
    told = {"seed": 7, "recipe": {}, "data": "made", "weights": "trained here"}
    metrics, _ = ends(
        graph, masked(graph, options=told), data, STILL, protocol="rewind", seeds=(3,)
    )
    assert metrics.start == "initial weights, seed 7"
    other, _ = ends(
        graph, masked(graph, options=told), data, STILL, protocol="rewind", initial_seed=8
    )
    assert other.start == "initial weights, seed 8"


@pytest.mark.parametrize(
    "told", [{}, {"seed": 7}, {"seed": 7, "recipe": {}, "weights": "given"}, {"weights": "fresh"}]
)
def test_rewinding_guesses_no_seed(data, told):
    graph = every_kernel()
    with pytest.raises(RecipeError, match="does not tell which weights"):
        ends(graph, masked(graph, options=told), data, STILL, protocol="rewind")
    with pytest.raises(RecipeError, match="does not tell which weights"):
        ends(graph, masked(graph), data, STILL, protocol="rewind")


def test_rewinding_an_identity_trains_the_reference_again(data):
    graph = every_kernel()
    network = build(graph, seed=4)
    alone = train(network, data, RECIPE, seed=4)
    metrics, found = ends(
        graph, Descriptor(reference=digest(graph)), data, RECIPE, protocol="rewind",
        initial_seed=4, seeds=(4,),
    )  # fmt: skip
    assert same(found[4], weights(network))
    assert metrics.accuracy == alone.accuracy


def test_scratch_e_is_training_the_candidate_once_a_seed(data):
    graph = every_kernel()
    seeds = (3, 5)
    metrics, found = ends(
        graph, selected(graph), data, RECIPE, protocol="scratch-e", seeds=seeds, held_out=True
    )
    alone = train_seeds(apply(graph, selected(graph)), data, RECIPE, seeds=seeds, held_out=True)
    results = [replace(result, seconds=0.0) for result in metrics.results]
    assert results == [replace(result, seconds=0.0) for result in alone.results]
    assert (metrics.part, metrics.params, metrics.macs) == ("validation", alone.params, alone.macs)
    assert not same(found[3], found[5])
    assert (metrics.protocol, metrics.start) == ("scratch-e", "fresh weights")
    assert (alone.protocol, alone.start) == (None, None)


def test_scratch_b_goes_on_for_as_long_as_the_nonzero_weights_allow(data):
    graph = every_kernel()
    metrics, _ = ends(graph, masked(graph), data, RECIPE, protocol="scratch-b")
    # A little more than half of the weights are left: less than twice the epochs.
    assert metrics.results[0].epochs == 3
    assert metrics.protocol == "scratch-b"
    metrics, _ = ends(graph, masked(graph), data, RECIPE, protocol="scratch-b", cap=1)
    assert metrics.results[0].epochs == 2


def test_scratch_b_by_seconds_goes_by_what_was_measured_here_or_before(data, monkeypatch):
    graph, asked = every_kernel(), []

    def measured(reference, candidate, recipe, *, device, engine, folder):
        asked.append((reference, candidate, recipe.precision, device, engine, folder))
        return took(0.5, 0.25)

    monkeypatch.setattr(protocols, "step_seconds", measured)
    recipe = replace(RECIPE, precision="auto")
    options = {"protocol": "scratch-b", "cost": "seconds", "engine": SLOW}
    metrics, _ = ends(graph, selected(graph), data, recipe, **options)
    assert metrics.results[0].epochs == 4
    settled = settle(recipe, "cpu").precision
    assert asked == [(graph, apply(graph, selected(graph)), settled, "cpu", SLOW, None)]
    metrics, _ = ends(graph, selected(graph), data, recipe, **options, seconds=took(0.4, 0.1))
    assert metrics.results[0].epochs == 8
    assert len(asked) == 1


def test_a_training_that_goes_on_has_the_seconds_that_it_began_with(data, monkeypatch, tmp_path):
    graph, asked = every_kernel(), []

    def measured(*arguments):
        asked.append(arguments)
        return took(0.5, 0.25) if len(asked) == 1 else took(0.5, 0.1)

    monkeypatch.setattr(step_seconds, "_measured", measured)
    for _ in range(2):
        metrics, _ = ends(
            graph, selected(graph), data, RECIPE, protocol="scratch-b", cost="seconds",
            checkpoints=Checkpoints(tmp_path),
        )  # fmt: skip
        assert metrics.results[0].epochs == 4
    assert len(asked) == 1


def took(reference, candidate):
    return StepSeconds(
        reference=reference, candidate=candidate, device="a clock", execution="fp32", steps=1
    )


def test_nothing_is_measured_where_no_seconds_are_asked_for(data, monkeypatch):
    graph = every_kernel()
    monkeypatch.setattr(protocols, "step_seconds", None)
    for protocol, cost in (("scratch-e", "seconds"), ("scratch-b", "macs")):
        ends(graph, selected(graph), data, STILL, protocol=protocol, cost=cost)


@pytest.mark.parametrize("protocol", ["scratch-e", "scratch-b"])
def test_the_epochs_of_fine_tuning_can_be_part_of_the_budget(data, protocol):
    graph = every_kernel()
    told = Descriptor(reference=digest(graph))
    metrics, _ = ends(graph, told, data, RECIPE, protocol=protocol, count_fine_tuning=3)
    assert metrics.results[0].epochs == 2 + 3


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_done_says_its_precision(data, protocol):
    graph = every_kernel()
    recipe = replace(STILL, precision="auto")
    options = {"fine_tuning": recipe} if protocol == "fine-tune" else {}
    metrics, _ = ends(
        graph, selected(graph), data, recipe, protocol=protocol, **given(protocol, graph), **options
    )
    assert metrics.execution is not None
    assert metrics.execution.startswith(settle(recipe, "cpu").precision)


@pytest.mark.parametrize("protocol", ["fine-tune", "rewind"])
def test_inherited_seeds_share_the_start_and_not_the_order(data, protocol):
    graph = every_kernel()
    options = {"fine_tuning": RECIPE} if protocol == "fine-tune" else {}
    still = {"fine_tuning": STILL} if protocol == "fine-tune" else {}
    for changes, recipe, equal in ((still, STILL, True), (options, RECIPE, False)):
        _, found = ends(
            graph, selected(graph), data, recipe, protocol=protocol, seeds=(0, 1),
            network=build(graph), **changes,
        )  # fmt: skip
        assert same(found[0], found[1]) == equal


@pytest.mark.parametrize("protocol", ["fine-tune", "rewind"])
def test_widths_alone_are_refused_where_weights_are_inherited(data, protocol):
    graph = every_kernel()
    widths = Descriptor(reference=digest(graph), widths={"conv": 4})
    with pytest.raises(DescriptorError) as caught:
        ends(graph, widths, data, RECIPE, protocol=protocol, network=build(graph))
    for words in (f"{protocol} starts from", "widths alone are given for conv", "scratch-e and"):
        assert words in str(caught.value)
    assert ends(graph, widths, data, STILL, protocol="scratch-e")[0].n == 1


@pytest.mark.parametrize(
    ("protocol", "options", "told"),
    [
        ("scratch", {}, "unknown protocol 'scratch'; known: scratch-e, scratch-b, fine-tune"),
        ("fine-tune", {}, "starts from a trained network"),
        ("scratch-e", {"network": 1}, "scratch-e: a network is for fine-tune and rewind"),
        ("scratch-b", {"initial_seed": 1}, "initial_seed is for rewind"),
        ("fine-tune", {"initial_seed": 1}, "initial_seed is for rewind; it starts from"),
        ("rewind", {"fine_tuning": RECIPE}, "fine_tuning is for fine-tune"),
        ("rewind", {"network": 1, "initial_seed": 1}, "a network or a seed, not both"),
        ("rewind", {"initial_seed": 1, "cap": 2.0}, "cap is for scratch-b"),
        ("rewind", {"initial_seed": 1, "count_fine_tuning": 4}, "is for scratch-b and scratch-e"),
        ("scratch-e", {"cost": "seconds", "seconds": 1}, "seconds is for scratch-b"),
        ("scratch-e", {"cost": "flops"}, "unknown cost 'flops'; known: repo_flops, macs, seconds"),
    ],
)
def test_what_a_protocol_lacks_or_cannot_use_is_refused(data, protocol, options, told):
    graph = every_kernel()
    if "network" in options:
        options = options | {"network": build(graph)}
    with pytest.raises(RecipeError, match=told):
        ends(graph, masked(graph), data, RECIPE, protocol=protocol, **options)


def test_a_network_of_another_graph_is_refused(data):
    graph = every_kernel()
    other = build(small(SIZE, 4, widths=(8, 8)))
    with pytest.raises(DescriptorError, match=r"fine-tune starts from .* this one is"):
        ends(graph, masked(graph), data, RECIPE, protocol="fine-tune", network=other)


def test_data_that_does_not_fit_and_no_seed_are_refused():
    graph = every_kernel()
    with pytest.raises(DataError, match="does not fit"):
        ends(graph, masked(graph), made(), RECIPE, protocol="scratch-e")
    with pytest.raises(InputError, match="at least one seed"):
        ends(graph, masked(graph), made(size=SIZE), RECIPE, protocol="scratch-e", seeds=())
