"""Regression, against closed forms and plain least squares, and the laws of what it gives."""

import itertools
import random
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from prunenas.build.inherit import inherit
from prunenas.build.initialise import build
from prunenas.errors import MethodError
from prunenas.generators.base import generate, prune
from prunenas.generators.regression import lasso_scores
from prunenas.ir.coupling import couple
from prunenas.ir.ops import Conv2d, Flatten, KernelSparsity
from prunenas.ir.writer import GraphWriter
from prunenas.training.batches.augment import normalise
from tests.generators.networks import GRAPHS, attending, random_images, silenced, trained
from tests.graphs import graphs

EVERY = {**GRAPHS, "attending": attending}
FEW = {"images": 24, "locations": 4}


def plain(*, bias=True, norm=False):
    """A convolution of 8 channels, one behind it of 6 that is read as a vector of 4 positions."""
    net = GraphWriter((2, 4, 4))
    x = net.relu("relu1", net.conv("first", net.input, 8, kernel=1))
    x = net.add(
        "second", Conv2d(width=6, kernel=(3, 3), stride=(2, 2), padding=(1, 1), bias=bias), x
    )
    x = net.batch_norm("bn", x) if norm else x
    x = net.add("flat", Flatten(), net.relu("relu2", x))
    return net.finish(net.linear("fc", x, 3))


def duplicated(network):
    """Make every second channel of ``first`` equal to the one before it, and read alike."""
    with torch.no_grad():
        for i in range(0, 8, 2):
            network.node("first").weight[i + 1] = network.node("first").weight[i]
            network.node("second").weight[:, i + 1] = network.node("second").weight[:, i]
    return network


def columns(network, images):
    """Return the patches ``[n 8 9]`` that ``second`` reads, image by image, row by row."""
    with torch.no_grad():
        x = torch.relu(network.node("first")(images)).double().numpy()
    x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    places = itertools.product(range(len(x)), (0, 2), (0, 2))
    return np.array([x[i, :, u : u + 3, v : v + 3].reshape(8, 9) for i, u, v in places])


def outputs(*networks):
    images = torch.randn(
        4, *networks[0].graph.input_size, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        return [network.eval()(images) for network in networks]


def kept(scores, count):
    return {int(i) for i in np.argsort(-scores, kind="stable")[:count]}


@pytest.mark.parametrize("rank", [1, 3, 6, 9])
def test_lasso_on_orthogonal_columns_is_the_soft_threshold(rank):
    random_numbers = np.random.default_rng(rank)
    norms = random_numbers.uniform(0.5, 3.0, 10)
    design = np.linalg.qr(random_numbers.normal(size=(50, 10)))[0] * norms
    response = design @ random_numbers.normal(size=10) + 0.1 * random_numbers.normal(size=50)
    products = design.T @ response
    scores = lasso_scores(design.T @ design, products, rank, slack=1.0)
    # Coefficient i is soft(products[i], penalty) / norms[i]^2: the largest products survive.
    assert {*np.flatnonzero(scores >= 1)} == kept(np.abs(products), rank)
    # Any penalty between the last that survives and the next gives such coefficients.
    falling = np.sort(np.abs(products))[::-1]
    shrunk = scores[scores >= 1] - 1
    survivors = np.flatnonzero(scores >= 1)
    found = [
        np.maximum(np.abs(products[survivors]) - penalty, 0) / norms[survivors] ** 2
        for penalty in np.linspace(falling[rank], falling[rank - 1], 2000)
    ]
    assert min(np.abs(each / max(each.max(), 1e-9) - shrunk).max() for each in found) < 0.01


def test_lasso_keeps_what_the_response_is_made_of():
    random_numbers = np.random.default_rng(0)
    design = random_numbers.normal(size=(200, 12))
    response = design[:, [2, 5, 11]] @ np.array([1.0, -2.0, 0.5])
    scores = lasso_scores(design.T @ design, design.T @ response, 3)
    assert {*np.flatnonzero(scores >= 1)} == {2, 5, 11}
    assert scores[[5, 2, 11]].tolist() == sorted(scores[[5, 2, 11]], reverse=True)
    assert ((scores >= 0) & (scores <= 2)).all()


@pytest.mark.parametrize("slack", [1.0, 1.1, 1.5])
def test_survivors_are_no_fewer_than_asked_and_no_more_than_the_slack_allows(slack):
    random_numbers = np.random.default_rng(4)
    design = random_numbers.normal(size=(300, 40)) + random_numbers.normal(size=(300, 1))
    response = design @ random_numbers.normal(size=40)
    for rank in (1, 7, 20, 33):
        scores = lasso_scores(design.T @ design, design.T @ response, rank, slack=slack)
        assert rank <= (scores >= 1).sum() <= slack * rank


def test_lasso_without_any_response_prefers_nothing():
    assert lasso_scores(np.eye(3), np.zeros(3), 1).tolist() == [0, 0, 0]
    assert lasso_scores(np.zeros((3, 3)), np.zeros(3), 1).tolist() == [0, 0, 0]


def test_one_of_two_equal_channels_is_enough_and_the_refit_reproduces_the_original():
    """Targets from the original network, exact where the kept channels suffice."""
    graph = plain()
    network, data = duplicated(build(graph, seed=3).eval()), random_images(graph, fit=300)
    found = prune(
        "regression", graph, data, keep=0.5, network=network, whole="none", lasso_samples=60
    )
    first = found.descriptor.selections["first"]
    assert sorted(i // 2 for i in first) == [0, 1, 2, 3]
    errors = found.descriptor.origin.found["errors"]["second"]
    assert errors["refit"] < 1e-6 < errors["cut"]
    images = normalise(data.part("validation").images, data)
    with torch.no_grad():
        reads = [dict(net.reads(images, ["relu2"]))["relu2"][0] for net in (network, found.refit)]
    rows = list(found.descriptor.selections["second"])
    torch.testing.assert_close(reads[0][:, rows], reads[1][:, rows], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("bias", "norm"), [(True, False), (False, False), (False, True)])
def test_the_refit_is_least_squares_on_the_kept_channels(bias, norm):
    """With an intercept if the layer has a bias, or a batch norm to take it; all 4 locations."""
    graph = plain(bias=bias, norm=norm)
    network, data = trained(graph, seed=2), random_images(graph, fit=100)
    found = prune("regression", graph, data, keep=0.5, network=network, seed=1)
    images = normalise(data.part("fit").images, data)
    first = list(found.descriptor.selections["first"])
    patches = columns(network, images)
    old = network.weight("second").double().numpy().reshape(6, -1)
    target = patches.reshape(len(patches), -1) @ old.T
    if bias:
        target = target + network.node("second").bias.detach().double().numpy()
    design = patches[:, first].reshape(len(patches), -1)
    if bias or norm:
        design = np.column_stack([design, np.ones(len(design))])
    assert len(design) > 2 * design.shape[1]
    solved, left, *_ = np.linalg.lstsq(design, target, rcond=None)
    rows = list(found.descriptor.selections["second"])
    kernel = found.refit.weight("second")[:, first].double().numpy().reshape(6, -1)
    np.testing.assert_allclose(kernel[rows], solved.T[rows, :36], rtol=1e-3, atol=1e-4)
    if bias:
        own = found.refit.node("second").bias.detach().numpy()
        np.testing.assert_allclose(own[rows], solved[36, rows], rtol=1e-3, atol=1e-4)
    if norm:
        moved = network.node("bn").running_mean - found.refit.node("bn").running_mean
        np.testing.assert_allclose(moved.numpy()[rows], solved[36, rows], rtol=1e-3, atol=1e-4)
    energy = np.square(patches.reshape(len(patches), -1) @ old.T).sum()
    errors = found.descriptor.origin.found["errors"]["second"]
    assert errors["refit"] == pytest.approx(left.sum() / energy, abs=1e-5)
    assert errors["refit"] < errors["cut"]


def test_later_layers_are_fitted_to_the_original_from_what_the_pruned_network_gives():
    graph = plain()
    network, data = trained(graph, seed=2), random_images(graph, fit=100)
    found = prune("regression", graph, data, keep=0.5, network=network, seed=1)
    images = normalise(data.part("fit").images, data)
    with torch.no_grad():
        target = network(images).double().numpy()
        (now,) = dict(found.refit.reads(images, ["fc"]))["fc"]
    second = found.descriptor.selections["second"]
    places = [4 * channel + i for channel in second for i in range(4)]
    design = np.column_stack([now[:, places].double().numpy(), np.ones(len(now))])
    solved = np.linalg.lstsq(design, target, rcond=None)[0]
    fitted = found.refit.weight("fc")[:, places].double().numpy()
    np.testing.assert_allclose(fitted, solved.T[:, :-1], rtol=1e-3, atol=1e-4)
    assert not now[:, [p for p in range(24) if p not in places]].any()


def test_masked_kernels_keep_their_weights_and_are_told():
    net = GraphWriter((3, 6, 6))
    x = net.relu("relu", net.conv("first", net.input, 4, kernel=3))
    sparse = KernelSparsity(density=(0.5,) * 9, seed=3)
    x = net.add("next", Conv2d(width=5, kernel=(3, 3), sparsity=sparse), x)
    graph = net.finish(net.linear("fc", net.global_pool("pool", x), 3))
    network = build(graph)
    found = prune("regression", graph, random_images(graph), keep=0.5, network=network)
    assert found.descriptor.origin.found["not_refitted"] == {"next": "its kernel has a mask"}
    rows, into = (list(found.descriptor.selections[name]) for name in ("next", "first"))
    assert torch.equal(
        found.refit.weight("next")[rows][:, into], network.weight("next")[rows][:, into]
    )


@pytest.mark.parametrize(
    ("name", "whole"),
    [*((name, "selected") for name in EVERY), ("preresnet", "none"), ("resnet20", "joined")],
)
def test_what_is_inherited_from_the_refit_computes_what_the_refit_does(name, whole):
    graph = EVERY[name]()
    network = trained(graph)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no shortcut joins other channels than it did
        found = prune(
            "regression", graph, random_images(graph), keep=0.4, network=network, whole=whole, **FEW
        )
        small, refit, whole_net = outputs(found.network(), found.refit, network)
    assert (small - refit).abs().max() < 1e-5 * refit.abs().max()
    if name != "mobilenet_v2":  # untrained, it gives all images the same scores
        assert (small - whole_net).abs().max() > 1e-5 * whole_net.abs().max()


@pytest.mark.parametrize("name", ["vgg11", "resnet20", "preresnet", "densenet_plain", "grouped"])
def test_removed_equals_silenced_before_any_refit(name):
    graph = GRAPHS[name]()
    network = trained(graph)
    found = prune(
        "regression", graph, random_images(graph), keep=0.4, network=network, refit=False, **FEW
    )
    assert found.refit is None
    small, zeroed = outputs(
        inherit(network, found.descriptor), silenced(network, found.descriptor, filters=True)
    )
    assert (small - zeroed).abs().max() < 1e-5 * zeroed.abs().max()


@pytest.mark.parametrize(
    ("name", "keep"), [*zip(EVERY, itertools.cycle((0.3, 0.5, 0.8)), strict=False)]
)
def test_every_group_is_at_its_keep_or_told_to_be_left_alone(name, keep):
    graph = EVERY[name]()
    found = generate(
        "regression", graph, random_images(graph), keep=keep, network=trained(graph), **FEW
    )
    left_alone = found.origin.found["left_alone"]
    for group in couple(graph).free:
        width = len(found.selections.get(group.name, range(group.width)))
        wanted = max(int(group.width * keep + 1e-9) // group.divisor, 1) * group.divisor
        assert width == (group.width if group.name in left_alone else wanted)


def test_blocks_with_selections_sample_their_input_and_leave_the_trunk():
    graph = GRAPHS["preresnet"]()
    found = generate(
        "regression", graph, random_images(graph), keep=0.5, network=trained(graph), **FEW
    )
    groups = couple(graph)
    selections = {group.name for group in groups.free if group.select}
    assert selections
    assert selections <= {*found.selections}
    assert not {"conv1", "layer1.0.conv3"} & {*found.selections}


@settings(max_examples=10)
@given(graphs())
def test_random_graphs_are_pruned_or_refused_with_reasons(graph):
    network, data = build(graph, seed=0), random_images(graph)
    try:
        found = prune("regression", graph, data, keep=0.5, network=network, images=6, locations=2)
    except MethodError as refusal:
        assert "nothing to prune" in str(refusal)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (scores,) = outputs(found.network())
    assert scores.isfinite().all()


def test_the_callers_network_modes_and_random_states_stay():
    graph = GRAPHS["gated"]()
    network, data = trained(graph).train(), random_images(graph)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    states = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
    first, again = (
        generate("regression", graph, data, keep=0.5, network=network, seed=2, **FEW)
        for _ in range(2)
    )
    assert first == again
    assert first.origin == again.origin
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert random.getstate() == states[0]
    assert str(np.random.get_state()) == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize(
    "options",
    [
        {"images": 0},
        {"locations": 0},
        {"lasso_samples": 0},
        {"slack": 0.9},
        {"slack": float("inf")},
        {"whole": "some"},
    ],
)
def test_impossible_options_are_refused(options):
    graph = plain()
    with pytest.raises(MethodError, match=next(iter(options))):
        generate(
            "regression", graph, random_images(graph), keep=0.5, network=build(graph), **options
        )
