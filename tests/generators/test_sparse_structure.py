"""Sparse Structure Selection: the update by hand, factors in their places, folding, what goes."""

import copy
import random

import numpy as np
import pytest
import torch

from prunenas.arch.descriptor import Descriptor, apply
from prunenas.build.initialise import build
from prunenas.errors import KeepError, MethodError
from prunenas.families.base import reference
from prunenas.generators.base import Subject, generate, make_generator, prune
from prunenas.generators.base.channel_costs import channel_costs
from prunenas.generators.base.factors import BlockFactors, ChannelFactors
from prunenas.generators.sparse_structure import ProximalGradient, block_weights
from prunenas.ir.blocks import blocks
from prunenas.ir.canonical import digest
from prunenas.ir.cost import macs, params
from prunenas.ir.coupling import couple
from prunenas.ir.ops import Gate
from prunenas.ir.writer import GraphWriter
from prunenas.training.loop import Hooks, train
from prunenas.training.recipe import RECIPES, Recipe
from tests.generators.networks import GRAPHS, attending, silenced, trained
from tests.generators.residuals import postact, preact, some
from tests.training.networks import made

RECIPE = Recipe(epochs=2, batch=12, lr=0.05, schedule="constant")
EVERY = {**GRAPHS, "attending": attending}
WITHOUT_BLOCKS = {"vgg11", "vgg11_l1", "densenet", "densenet_plain", "grouped"}
KINDS = {"blocks": BlockFactors, "neurons": ChannelFactors}


def images(graph, train=44):
    return made(train=train, size=graph.input_size, classes=graph.classes)


def test_the_update_is_the_released_one():
    generator = np.random.default_rng(0)
    start, gamma, momentum = generator.uniform(0, 0.4, 50), 0.3, 0.9
    value = torch.tensor(start, requires_grad=True)
    update = ProximalGradient({"a": value}, {"a": gamma}, momentum)
    expected, velocity, touched = start.copy(), np.zeros(50), set()
    for lr in (0.1, 0.1, 0.05, 0.5, 0.01, 0.1):
        grad = generator.normal(0, 1, 50)
        value.grad = torch.tensor(grad)
        update.step(lr)
        z = expected - lr * grad
        z = np.sign(z) * np.maximum(np.abs(z) - lr * gamma, 0)
        velocity = momentum * velocity + (z - expected)
        expected = np.maximum(z + momentum * velocity, 0)
        np.testing.assert_allclose(value.detach().numpy(), expected, rtol=1e-12, atol=1e-15)
        touched |= {*np.flatnonzero(expected == 0)}
    assert value.grad is None
    assert 0 < len(touched) < 50
    assert touched - {*np.flatnonzero(expected == 0)}, "some come back from zero"


def test_without_a_gradient_a_factor_shrinks_all_the_same():
    value = torch.ones(2, requires_grad=True)
    ProximalGradient({"a": value}, {"a": 0.5}, 0.0).step(0.2)
    assert value.tolist() == pytest.approx([0.9, 0.9])


def test_the_factors_of_a_training_are_those_of_the_written_out_update():
    """The whole training again, with factors of the test's own on the additions' branches."""
    graph, data = preact(), images(preact())
    network = trained(graph)
    found = generate(
        "sparse_structure", graph, data, keep=0.5, recipe=RECIPE, network=network, gamma=0.2, seed=2
    )
    twin = copy.deepcopy(network)
    own = {name: torch.ones((), requires_grad=True) for name in ("add1", "add2")}
    speed = dict.fromkeys(own, 0.0)
    for name, value in own.items():
        # In both blocks the branch is the first of what is added.
        twin.node(name).register_forward_pre_hook(lambda _, x, v=value: (x[0] * v, x[1]))

    def step(_, moment):
        for name, value in own.items():
            old = value.item()
            z = old - moment.lr * value.grad.item()
            z = np.sign(z) * max(abs(z) - moment.lr * 0.2, 0)
            speed[name] = 0.9 * speed[name] + z - old
            value.data.fill_(max(z + 0.9 * speed[name], 0))
            value.grad = None

    train(twin, data, RECIPE, seed=2, held_out=True, hooks=Hooks(after_step=step))
    told = found.origin.found["factors"]
    assert told == pytest.approx({name: value.item() for name, value in own.items()}, rel=1e-5)
    assert len({*told.values()}) == 2
    assert max(told.values()) < 1
    assert found.dropped == (min(told, key=told.get),)


@pytest.mark.parametrize("scale", KINDS)
def test_factors_of_zero_silence_exactly_what_goes(scale):
    """What is trained with some factors at 0 computes the same when these are taken out."""
    graph = GRAPHS["mobilenet_v2" if scale == "blocks" else "vgg11"]()
    result = prune(
        "sparse_structure", graph, images(graph), recipe=RECIPE, network=trained(graph),
        scale=scale, gamma=0.9 if scale == "blocks" else 1.2, zeros_only=True,
    )  # fmt: skip
    small, x = result.network().eval(), some(graph)
    assert 0 < result.descriptor.origin.reached < 1
    with torch.no_grad():
        expected = result.refit(x)
        torch.testing.assert_close(small(x), expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(result.reference(x), expected, rtol=1e-2)
    told = result.descriptor.origin.found
    if scale == "blocks":
        zero = [name for name, factor in told["factors"].items() if factor == 0]
        assert [*result.descriptor.dropped] == zero
    else:
        gone = {
            group.name: group.width - result.descriptor.widths.get(group.name, group.width)
            for group in couple(graph).free
        }
        saved = {*result.descriptor.origin.kept_best}
        assert gone == {n: zeros - (n in saved) for n, zeros in told["zeros"].items()}
    assert result.descriptor.origin.keep is None


@pytest.mark.parametrize("name", sorted({*EVERY} - {"resnet20"}))
def test_the_cut_network_equals_the_folded_one_with_the_same_channels_silenced(name):
    """A shortcut padded with channels joins by place, so it is left out here."""
    graph = EVERY[name]()
    result = prune(
        "sparse_structure", graph, images(graph), keep=0.6, recipe=RECIPE, network=trained(graph),
        scale="neurons",
    )  # fmt: skip
    assert result.descriptor.selections
    zeroed = silenced(result.refit, result.descriptor, filters=True)
    with torch.no_grad():
        small, expected = (n.eval()(some(graph)) for n in (result.network(), zeroed))
    torch.testing.assert_close(small, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("keep", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_keep_counts_blocks_and_the_smallest_factors_go(keep):
    graph = GRAPHS["mobilenet_v2"]()
    found = generate(
        "sparse_structure", graph, images(graph), keep=keep, recipe=RECIPE, network=trained(graph)
    )
    factors, gone = found.origin.found["factors"], {0.1: 9, 0.3: 7, 0.5: 5, 0.7: 3, 0.9: 1}[keep]
    assert len(factors) == len(blocks(graph)) == 11
    # Of several at 0 the last go first.
    backwards = [*factors][::-1]
    assert {*found.dropped} == {*sorted(backwards, key=factors.get)[:gone]}
    assert found.origin.reached == pytest.approx(1 - gone / 11)
    assert not found.widths


def resting(monkeypatch):
    """Let no training change anything, so that all factors stay at 1."""
    monkeypatch.setattr(Subject, "train", lambda self, network, recipe=None, hooks=None: None)


def test_of_equal_factors_the_last_go(monkeypatch):
    resting(monkeypatch)
    graph = GRAPHS["mobilenet_v2"]()
    found = generate("sparse_structure", graph, images(graph), keep=0.7)
    assert found.dropped == tuple(block.name for block in blocks(graph)[-3:])
    none = generate("sparse_structure", graph, images(graph), zeros_only=True)
    assert not none.dropped
    assert none.origin.reached == 1


def test_keep_counts_channels_over_all_groups(monkeypatch):
    resting(monkeypatch)
    graph = GRAPHS["vgg11"]()
    found = generate("sparse_structure", graph, images(graph), keep=0.9, scale="neurons")
    widths = [group.width for group in couple(graph).free]
    gone = int(sum(widths) * 0.1)
    assert found.widths == {couple(graph).free[-1].name: widths[-1] - gone}


def test_divisors_hold_and_no_group_is_emptied(monkeypatch):
    resting(monkeypatch)
    graph = GRAPHS["grouped"]()
    found = generate("sparse_structure", graph, images(graph), keep=0.4, scale="neurons")
    # 23 of 56 stay: all of stem and left (20), 3 of right, which must be even.
    assert dict(found.widths) == {"right": 4, "mixed": 4, "grouped": 4}
    assert found.origin.kept_best == ("mixed", "grouped")


@pytest.mark.parametrize("weighting", ["macs", "params"])
def test_a_block_weighs_what_it_saves_alone(weighting):
    graph = preact()
    first = {
        "macs": 16 * 9 * (4 * 3 + 3 * 6),
        "params": 9 * 4 * 3 + 2 * 3 + 9 * 3 * 6 + 6,
    }[weighting]
    second = {
        "macs": 16 * 9 * (6 * 5 + 5 * 6),
        "params": 2 * 6 + 9 * 6 * 5 + 2 * 5 + 9 * 5 * 6 + 6,
    }[weighting]
    mean = (first + second) / 2
    weights = block_weights(graph, weighting, {"add1": 1, "add2": 1})
    assert weights == pytest.approx({"add1": first / mean, "add2": second / mean})


@pytest.mark.parametrize("scale", KINDS)
def test_the_weighting_decides_how_hard_each_factor_is_pushed(scale, monkeypatch):
    graph, seen = preact(), {}

    def step(self, network, recipe=None, hooks=None):
        class Moment:
            lr = 0.1

        hooks.after_step(network, Moment)

    monkeypatch.setattr(Subject, "train", step)
    init = ProximalGradient.__init__

    def watched(self, values, gammas, momentum):
        seen.update(values=values, gammas=dict(gammas))
        init(self, values, gammas, momentum)

    monkeypatch.setattr(ProximalGradient, "__init__", watched)
    options = {"scale": scale, "weighting": "macs", "gamma": 0.5, "momentum": 0.0}
    generate("sparse_structure", graph, images(graph), keep=0.5, **options)
    if scale == "blocks":
        weights = block_weights(graph, "macs", {"add1": 1, "add2": 1})
    else:
        costs = channel_costs(graph, "macs")
        widths = {group.name: group.width for group in couple(graph).free}
        mean = sum(costs[n] * w for n, w in widths.items()) / sum(widths.values())
        weights = {name: costs[name] / mean for name in widths}
    assert seen["gammas"] == pytest.approx({name: 0.5 * w for name, w in weights.items()})
    for name, value in seen["values"].items():
        assert value.tolist() == pytest.approx([1 - 0.1 * 0.5 * weights[name]] * len(value))


def dropped(stages):
    """Return the blocks that ``[(kept, first kept), ...]`` of four stages leaves out."""
    gone = []
    for stage, ((kept, first), full) in enumerate(zip(stages, (3, 4, 6, 3), strict=True), start=1):
        stay = range(kept) if first else range(1, kept + 1)
        gone += [f"layer{stage}.{i}.add" for i in range(full) if i not in stay]
    return tuple(gone)


@pytest.mark.parametrize(
    ("stages", "total", "size"),
    [
        ([(0, False), (4, True), (6, True), (3, True)], 3472621568, 25351080),
        ([(1, False), (4, True), (4, True), (1, True)], 2817523712, 14261928),
        ([(0, False), (2, False), (5, False), (1, True)], 2.278e9, 14.92e6),
    ],
    ids=["ResNet-41", "ResNet-32", "ResNet-26"],
)
def test_the_published_block_lists_have_their_costs(stages, total, size):
    graph = reference("preresnet50_imagenet")
    assert {block.name for block in blocks(graph)} == {*BlockFactors.of(graph).sizes}
    small = apply(graph, Descriptor(reference=digest(graph), dropped=dropped(stages)))
    # Of the last only rounded figures are known.
    exact = isinstance(total, int)
    assert macs(small) == (total if exact else pytest.approx(total, rel=5e-4))
    assert params(small) == (size if exact else pytest.approx(size, rel=5e-4))
    for stage, (_, first) in enumerate(stages, start=1):
        here = f"layer{stage}.0"
        assert f"{here}.downsample" in small, "the projection stays"
        assert (f"{here}.conv3" in small) == first


@pytest.mark.parametrize("scale", KINDS)
@pytest.mark.parametrize("name", EVERY)
def test_every_graph_runs_or_is_refused_with_the_reason(name, scale):
    graph = EVERY[name]()
    options = {"keep": 0.5, "recipe": RECIPE, "scale": scale}
    if scale == "blocks" and name in {*WITHOUT_BLOCKS, "gated"}:
        why = "add: relu1 is read elsewhere too" if name == "gated" else "there is none$"
        with pytest.raises(MethodError, match=f"removable residual block .* {why}"):
            generate("sparse_structure", graph, images(graph), **options)
        assert generate("sparse_structure", graph, keep=1).origin.reached == 1
        return
    result = prune("sparse_structure", graph, images(graph), **options)
    network = build(apply(graph, result.descriptor)).eval()
    assert network(some(graph)).shape == (4, graph.classes)
    assert 0 < result.descriptor.origin.reached < 1
    alone = result.descriptor.origin.found.get("left_alone", {})
    assert not {*alone} & {*result.descriptor.widths}
    if name in {"preresnet", "densenet"} and scale == "neurons":
        assert all("decides which of its channels are read" in why for why in alone.values())
        assert alone
    else:
        assert not alone


def test_a_block_that_ends_in_a_gate_s_other_side_is_left_alone_and_told():
    net = GraphWriter((3, 8, 8))
    x = net.relu("relu", net.batch_norm("bn", net.conv("stem", net.input, 6, kernel=3)))
    x = net.join("add1", x, net.batch_norm("bn1", net.conv("conv1", x, 6, kernel=3)))
    y = net.batch_norm("bn2", net.conv("conv2", x, 6, kernel=3))
    factors = net.activation(
        "sigmoid", net.conv("expand", net.global_pool("mean", y), 6, kernel=1), "sigmoid"
    )
    x = net.join("add2", x, net.add("gate", Gate(), y, factors))
    graph = net.finish(net.linear("fc", net.global_pool("pool", x), 5))
    assert {*BlockFactors.of(graph).left_alone} == {"add2"}
    found = generate("sparse_structure", graph, images(graph), keep=0.4, recipe=RECIPE)
    # Of the one block that carries a factor, int(1 * 0.6) go.
    assert found.dropped == ()
    assert found.origin.found["left_alone"] == {"add2": "bn2 is read elsewhere too"}


@pytest.mark.parametrize("scale", KINDS)
def test_hooks_are_gone_afterwards_even_when_training_raises(scale, monkeypatch):
    graph, seen = preact(), []
    copied = Subject.copy
    monkeypatch.setattr(Subject, "copy", lambda self: seen.append(copied(self)) or seen[-1])

    def stop(report):
        hooked = [m for m in seen[-1].modules() if m._forward_hooks or m._forward_pre_hooks]
        assert hooked
        raise KeyboardInterrupt

    options = {"keep": 0.5, "recipe": RECIPE, "scale": scale}
    with pytest.raises(KeyboardInterrupt):
        generate("sparse_structure", graph, images(graph), on_epoch=stop, **options)
    result = prune("sparse_structure", graph, images(graph), **options)
    assert len(seen) == 2
    assert result.refit is seen[1]
    for network in seen:
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert {*result.refit.state_dict()} == {*build(graph).state_dict()}
    assert all(p.grad is None for p in result.refit.parameters())
    assert not result.refit.training


@pytest.mark.parametrize("scale", KINDS)
def test_the_same_seed_finds_the_same_and_nothing_else_is_touched(scale):
    graph = GRAPHS["resnet20"]()
    network = trained(graph)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    options = {"keep": 0.5, "recipe": RECIPE, "scale": scale, "seed": 3}
    one, two = (
        prune("sparse_structure", graph, images(graph), network=network, **options)
        for _ in range(2)
    )
    assert one.descriptor == two.descriptor
    assert one.descriptor.origin == two.descriptor.origin
    assert all(torch.equal(network.state_dict()[key], value) for key, value in before.items())
    assert not network.training
    assert all(p.grad is None for p in network.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_half_precision_trains_factors_too():
    graph = postact()
    recipe = Recipe(epochs=1, batch=12, lr=0.05, schedule="constant", precision="bf16")
    for scale in KINDS:
        found = generate(
            "sparse_structure", graph, images(graph), keep=0.5, recipe=recipe, scale=scale
        )
        assert found.origin.found


def test_factors_have_no_decay_and_their_own_momentum():
    method = make_generator("sparse_structure")
    assert (method.gamma, method.momentum, method.scale) == (0.01, 0.9, "blocks")
    assert method.recipe == RECIPES["paper_sss"]
    graph = postact()
    recipe = Recipe(epochs=1, batch=12, lr=0.001, weight_decay=0.5, schedule="constant")
    found = generate("sparse_structure", graph, images(graph), keep=0.5, recipe=recipe, gamma=0.0)
    assert found.origin.found["factors"]["add"] == pytest.approx(1.0, abs=0.01)


def test_parts_of_grouped_convolutions_are_refused_with_the_reason():
    with pytest.raises(MethodError, match="no descriptor can change how many parts"):
        make_generator("sparse_structure", scale="groups")


def test_zeros_only_takes_no_keep():
    graph = preact()
    with pytest.raises(KeepError, match="zeros_only says how much"):
        generate("sparse_structure", graph, images(graph), keep=0.5, zeros_only=True)
    with pytest.raises(KeepError, match="needs keep"):
        generate("sparse_structure", graph, images(graph))


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("scale", "layers", "is one of blocks, groups, neurons"),
        ("gamma", -0.1, "is finite and not negative"),
        ("momentum", 1.0, "is in"),
        ("weighting", "seconds", "is one of none, macs, params"),
    ],
)
def test_impossible_options_are_refused(option, value, rule):
    with pytest.raises(MethodError, match=f"sparse_structure: {option} {rule}"):
        make_generator("sparse_structure", **{option: value})
