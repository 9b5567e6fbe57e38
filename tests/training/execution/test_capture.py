"""Captured steps without a GPU: what is recorded, what it must not do, and what it leaves alone.

A stand-in records by doing the work once and replays by doing it again, so the bookkeeping around
a capture (fixed inputs, warm-up, lengths, rates, hooks between the two works) is run for real. Two
modes of torch then show what a capture would refuse: looks at values, and tensors elsewhere.
"""

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from prunenas.arch.metrics import Seeds
from prunenas.build.capture import Recorded
from prunenas.build.initialise import build
from prunenas.build.network import Network
from prunenas.data.base import ImageData, Part
from prunenas.data.shapes import shapes
from prunenas.errors import InputError
from prunenas.families.base import reference
from prunenas.ir.ops import Input, KernelSparsity, Opaque
from prunenas.training.batches.base import ResidentBatches
from prunenas.training.execution.evaluate import Evaluator
from prunenas.training.execution.steps import CapturedSteps, EagerSteps, optimizer_of
from prunenas.training.hooks import Hooks
from prunenas.training.recipe import Recipe
from tests.build.examples import EXAMPLES
from tests.training.networks import small

RECIPE = Recipe(batch=16, lr=0.05, nesterov=True, weight_decay=1e-3, cutout=4, label_smoothing=0.1)
SEEDS = Seeds(order=1, augmentation=2, layers=3)


def record(work):
    """Do what capturing does not: the work, once; replays do it again."""
    work()
    return work


def at_once(device, work):
    work()


@pytest.fixture(scope="module")
def data():
    return shapes(train=90, test=40, side=16)


def masked(graph):
    nodes = tuple(
        replace(n, op=replace(n.op, sparsity=KernelSparsity(density=(0.5,) * 9)))
        if n.name.startswith("conv")
        else n
        for n in graph.nodes
    )
    return replace(graph, nodes=nodes)


def trained(data, graph, *, captured, epochs=2, between=None, parts=1, momentum=0.9):
    """Return losses and state after some epochs of steps at changing rates."""
    network = build(graph, seed=5).train()
    recipe = replace(RECIPE, momentum=momentum, nesterov=momentum > 0)
    batches = ResidentBatches(data, data.part("train"), recipe, SEEDS, least=2 * parts)
    steps = EagerSteps(network, optimizer_of(network, recipe), batches, recipe, parts=parts)
    if captured:
        cpu = torch.device("cpu")
        steps = CapturedSteps(steps, cpu, record=record, warm_up=at_once)
    losses = []
    torch.manual_seed(7)
    for epoch in range(1, epochs + 1):
        for place, draw in enumerate(batches.draws(epoch)):
            losses.append(steps.gradients(draw).clone())
            if between:
                between(network)
            steps.update(0.1 / (epoch + place))
    return torch.stack(losses), {k: t.clone() for k, t in network.state_dict().items()}


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("kind", ["plain", "dropout", "masked"])
def test_replayed_steps_are_the_eager_ones_bit_for_bit(data, kind, momentum, parts):
    """90 images in batches of 16 leave a last one of 10, which is recorded on its own."""
    graph = {"plain": small(), "dropout": small(dropout=0.5), "masked": masked(small())}[kind]
    (losses, state), (again, state_again) = (
        trained(data, graph, captured=captured, parts=parts, momentum=momentum)
        for captured in (False, True)
    )
    assert torch.equal(losses, again)
    assert len(losses) == 12
    assert all(torch.equal(state[key], state_again[key]) for key in state)


def test_a_hook_between_gradients_and_update_counts(data):
    def between(network):
        network.node("fc").weight.grad.mul_(0.5)

    plain = trained(data, small(), captured=True)[1]
    (losses, state), (again, state_again) = (
        trained(data, small(), captured=captured, between=between) for captured in (False, True)
    )
    assert torch.equal(losses, again)
    assert torch.equal(state["fc.weight"], state_again["fc.weight"])
    assert not torch.equal(state["fc.weight"], plain["fc.weight"])


def test_a_gradient_that_a_hook_replaced_is_refused_and_not_ignored(data):
    """A recorded update reads the memory of the old one."""

    def replace_it(network):
        weight = network.node("fc").weight
        weight.grad = weight.grad * 0

    trained(data, small(), captured=False, epochs=1, between=replace_it)
    with pytest.raises(InputError, match="change gradients in place"):
        trained(data, small(), captured=True, epochs=1, between=replace_it)


def test_only_hooks_that_say_so_are_captured_between():
    assert Hooks().fit_capture
    assert Hooks(after_step=lambda network, moment: None, in_place=True).fit_capture
    assert not Hooks(after_step=lambda network, moment: None).fit_capture
    assert not Hooks(before=lambda network: None).fit_capture


def test_each_length_is_recorded_once(data):
    recorded = []

    def counting(work):
        recorded.append(work)
        return record(work)

    network = build(small()).train()
    batches = ResidentBatches(data, data.part("train"), RECIPE, SEEDS)
    eager = EagerSteps(network, optimizer_of(network, RECIPE), batches, RECIPE)
    steps = CapturedSteps(eager, torch.device("cpu"), record=counting, warm_up=at_once)
    for epoch in (1, 2, 3):
        for draw in batches.draws(epoch):
            steps.gradients(draw)
            steps.update(0.1)
    assert len(recorded) == 4  # gradients and update, of 16 images and of 10


def test_a_recorded_function_reads_its_own_inputs_and_no_others():
    inputs = (torch.ones(3), torch.arange(3))
    recorded = Recorded(lambda given: given[0] * given[1], inputs, record)
    inputs[0].fill_(100)
    assert recorded((torch.full((3,), 2.0), torch.tensor([1, 2, 3]))).tolist() == [2, 4, 6]
    assert recorded((torch.full((3,), 3.0), torch.tensor([1, 2, 3]))).tolist() == [3, 6, 9]


def test_a_captured_evaluation_is_the_plain_one_as_the_network_changes(data):
    network = build(small())
    part = data.part("test")
    captured = Evaluator(
        network, data, part, batch=15, capture=True, record=record, warm_up=at_once
    )
    plain = Evaluator(network, data, part, batch=15)
    seen = []
    for _ in range(3):
        assert captured() == plain()
        seen.append(plain().loss)
        with torch.no_grad():
            for weight in network.parameters():
                weight.add_(0.1)
    assert len({*seen}) == 3


class NoLooks(TorchDispatchMode):
    """Refuses what a CUDA graph cannot hold: values read by the host, or brought by it."""

    LOOKS = frozenset(
        {
            "aten::_local_scalar_dense",
            "aten::nonzero",
            "aten::masked_select",
            "aten::equal",
            "aten::is_nonzero",
            "aten::lift_fresh",
            "aten::_unique2",
        }
    )

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().split(".")[0]
        if name in self.LOOKS:
            raise AssertionError(f"{name} cannot be captured")
        if name == "aten::index":
            places = [i for i in args[1] if i is not None]
            assert all(i.dtype != torch.bool for i in places), "a mask has as many places as values"
        return function(*args, **(kwargs or {}))


def test_looks_are_seen():
    with NoLooks():
        for look in (
            lambda: torch.ones(1).item(),
            lambda: torch.ones(2).nonzero(),
            lambda: torch.ones(2)[torch.ones(2) > 0],
            lambda: torch.tensor([1.0, 2.0]),
        ):
            with pytest.raises(AssertionError):
                look()


def test_no_module_looks_at_a_value_forth_or_back():
    """But for calls that an importer froze: what is in them is not ours."""
    looking = []
    for example in EXAMPLES:
        if isinstance(example.op, Input | Opaque):
            continue
        module, values = example.module().train(), example.values(3)
        inputs = [v.requires_grad_() if v.is_floating_point() else v for v in values]
        try:
            with NoLooks():
                out = module(*inputs)
                if out.requires_grad:
                    torch.autograd.backward(out, torch.ones_like(out))
        except AssertionError as error:
            looking.append(f"{example}: {error}")
    assert not looking


@pytest.mark.parametrize("kind", ["plain", "dropout", "masked"])
def test_a_step_and_an_evaluation_look_at_no_value(data, kind):
    graph = {"plain": small(), "dropout": small(dropout=0.5), "masked": masked(small())}[kind]
    network = build(graph).train()
    batches = ResidentBatches(data, data.part("train"), RECIPE, SEEDS)
    steps = EagerSteps(network, optimizer_of(network, RECIPE), batches, RECIPE)
    draws = [*batches.draws(1)]
    steps.gradients(draws[0])
    steps.update(0.1)
    judge = Evaluator(network, data, data.part("test"))
    with NoLooks():
        for draw in draws:
            steps.gradients(draw)
            steps.optimizer.step()
        judge._judge((torch.arange(10),))


def some(graph, count):
    """Return that many black images for ``graph``, on the device of the mode around."""
    return torch.zeros(count, *graph.input_size, dtype=torch.uint8)


@pytest.mark.parametrize(
    "name", ["resnet20", "vgg11", "preresnet164", "densenet40", "mobilenet_v2"]
)
def test_on_cuda_nothing_of_a_step_lies_on_the_cpu(name):
    """Fake tensors know devices without having one; a mixture of two is refused."""
    graph = reference(name, (3, 32, 32), 10, width=0.25)
    facts = ImageData(
        name="black",
        train_images=some(graph, 4),
        train_labels=torch.zeros(4, dtype=torch.long),
        test_images=some(graph, 4),
        test_labels=torch.zeros(4, dtype=torch.long),
        classes=10,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        flip=True,
        crop_padding=4,
        validation=torch.arange(2),
    )
    with FakeTensorMode(), torch.device("cuda:0"):
        network = Network(graph).train()
        part = Part(some(graph, 40), torch.zeros(40, dtype=torch.long))
        batches = ResidentBatches(facts, part, RECIPE, SEEDS)
        steps = EagerSteps(
            network, optimizer_of(network, RECIPE), batches, RECIPE, layout="channels_last"
        )
        draw = (
            torch.zeros(16, dtype=torch.long),
            torch.zeros(16, 2, dtype=torch.long),
            torch.zeros(16, dtype=torch.bool),
            torch.zeros(16, 2, dtype=torch.long),
        )
        loss = steps._loss(draw)
        assert (loss.device.type, loss.shape) == ("cuda", ())
        sums = Evaluator(network, facts, part)._judge((torch.zeros(10, dtype=torch.long),))
        assert (sums.device.type, sums.shape) == ("cuda", (3,))
