"""What ``prune`` gives beside the descriptor, and what it hands a method to look at."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from prunenas.arch.descriptor import apply
from prunenas.build.inherit import inherit
from prunenas.build.initialise import build
from prunenas.data.base import ImageData
from prunenas.errors import DescriptorError, KeepError, MethodError
from prunenas.generators.base import GENERATORS, Generator, Proposal, Subject, generate, prune
from prunenas.ir.canonical import digest
from prunenas.ir.coupling import couple
from prunenas.training.execution.evaluate import evaluate
from prunenas.training.hooks import Hooks
from prunenas.training.loop import train
from prunenas.training.recipe import Recipe
from tests.generators.networks import GRAPHS, random_images, trained

RECIPE = Recipe(epochs=1, batch=8, lr=0.01)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told(Generator):
    """Propose what a test tells it to."""

    looks_at: ClassVar[str] = "trained"
    telling: ClassVar[Callable[[Subject], Proposal]]
    seen: ClassVar[list[object]] = []
    dropped: tuple[str, ...] = ()

    def hooks(self, keep):
        """Note the keep."""
        return Hooks(before=lambda network: self.seen.append(keep))

    def propose(self, subject):
        """Return what the test tells."""
        self.seen.append(subject)
        return type(self).telling(subject)


@pytest.fixture
def told(monkeypatch):
    """Register a method that proposes what the function given here returns."""

    def file(telling, **attributes):
        kind = type(
            "Telling", (Told,), {"telling": staticmethod(telling), "seen": [], **attributes}
        )
        monkeypatch.setitem(GENERATORS._entries, "told", kind)
        return kind.seen

    return file


def halves(subject):
    return {g.name: tuple(range(0, g.width, 2)) for g in subject.groups.free}


@pytest.fixture(scope="module")
def graph():
    return GRAPHS["resnet20"]()


@pytest.fixture(scope="module")
def network(graph):
    return trained(graph)


@pytest.fixture(scope="module")
def data(graph):
    return random_images(graph)


@pytest.fixture
def subject(graph, network, data):
    return Subject(graph=graph, groups=couple(graph), asked=0.5, seed=3, network=network, data=data)


def test_a_new_method_is_one_registration(told, graph):
    told(lambda s: Proposal(selections=halves(s), dropped=("layer1.1.add",)), looks_at="graph")
    found = generate("told", graph, keep=0.5, dropped=("layer1.1.add",))
    assert found.origin.method == "told"
    assert found.origin.options == {"dropped": ["layer1.1.add"], "seed": 0}
    assert found.dropped == ("layer1.1.add",)
    assert found.selections == {g.name: tuple(range(0, g.width, 2)) for g in couple(graph).free}
    assert digest(apply(graph, found)) != digest(apply(graph, replace(found, dropped=())))


def test_the_given_network_is_the_reference_and_the_pruned_one_has_its_weights(
    told, graph, network
):
    told(lambda s: Proposal(selections=halves(s)))
    pruned = prune("told", graph, keep=0.5, network=network)
    assert pruned.reference is network
    assert pruned.refit is None
    small = pruned.network()
    kept = pruned.descriptor.selections["conv1"]
    assert torch.equal(small.weight("conv1"), network.weight("conv1")[list(kept)])
    assert generate("told", graph, keep=0.5, network=network) == pruned.descriptor


def test_the_trained_reference_is_handed_out_and_the_hooks_know_the_keep(told, graph, data):
    seen = told(lambda s: Proposal(selections=halves(s)))
    pruned = prune("told", graph, data, keep=0.4, recipe=RECIPE, seed=2)
    keep, subject = seen
    assert keep == 0.4
    assert subject.trained is pruned.reference
    expected = build(graph, seed=2)
    train(expected, data, RECIPE, seed=2, held_out=True)
    state = expected.state_dict()
    assert all(torch.equal(state[n], t) for n, t in pruned.reference.state_dict().items())


def test_weights_that_were_fitted_anew_are_those_that_are_inherited(told, graph, network):
    def telling(subject):
        refit = subject.copy()
        with torch.no_grad():
            for parameter in refit.parameters():
                parameter.mul_(3.0)
        return Proposal(selections=halves(subject), refit=refit)

    told(telling)
    pruned = prune("told", graph, keep=0.5, network=network)
    assert pruned.reference is network
    small, plain = pruned.network(), inherit(network, pruned.descriptor)
    assert torch.equal(small.weight("conv1"), 3.0 * plain.weight("conv1"))


def test_masks_stay_on_what_is_inherited(told, graph, network):
    shape = tuple(network.weight("conv1").shape)
    mask = np.arange(np.prod(shape)).reshape(shape) % 3 == 0
    told(lambda s: Proposal(masks={"conv1": mask}), counts=property(lambda self: "weights"))
    pruned = prune("told", graph, keep=0.3, network=network)
    assert pruned.descriptor.origin.reached == mask.sum() / mask.size
    small = pruned.network()
    expected = network.weight("conv1") * torch.from_numpy(mask)
    assert torch.equal(small.weight("conv1"), expected)


def test_without_weights_there_are_none_to_inherit(told, graph):
    told(lambda s: Proposal(selections=halves(s)), looks_at="graph")
    with pytest.raises(MethodError, match="looked at no weights"):
        prune("told", graph, keep=0.5).network()
    with pytest.raises(MethodError, match="looked at no weights"):
        prune("told", graph, keep=1).network()


def test_widths_alone_do_not_say_which_weights_to_inherit(told, graph, network):
    told(lambda s: Proposal(widths={g.name: g.width // 2 for g in s.groups.free}))
    with pytest.raises(DescriptorError, match="widths alone are given"):
        prune("told", graph, keep=0.5, network=network).network()


def test_a_method_looks_at_what_it_says_and_no_more(told, graph, data):
    seen = told(lambda s: Proposal(selections=halves(s)), looks_at="initial")
    pruned = prune("told", graph, data, keep=0.5, recipe=RECIPE, seed=5)
    (subject,) = seen
    state = build(graph, seed=5).state_dict()
    assert all(torch.equal(state[n], t) for n, t in subject.trained.state_dict().items())
    assert pruned.reference is subject.trained


def test_keep_is_none_where_an_option_says_how_much(told, graph, network):
    seen = told(
        lambda s: Proposal(selections=halves(s)), says_how_much=property(lambda self: "dropped")
    )
    prune("told", graph, network=network)
    assert seen[0].asked is None
    with pytest.raises(KeepError, match="needs keep"):
        _ = seen[0].keep
    with pytest.raises(KeepError, match="dropped says how much"):
        prune("told", graph, keep=0.5, network=network)


def test_batches_are_the_fit_part_normalised_in_an_order_that_the_seed_draws(subject, data):
    fit = data.part("fit")
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (data.mean, data.std))
    plain = (fit.images / 255 - mean) / std
    batches = [*subject.batches(20, batch=8)]
    assert [len(labels) for _, labels in batches] == [8, 8, 4]
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    places = [int((plain - image).abs().flatten(1).sum(1).argmin()) for image in images]
    assert len({*places}) == 20
    torch.testing.assert_close(images, plain[places])
    assert torch.equal(labels, fit.labels[places])
    again = torch.cat([images for images, _ in subject.batches(20, batch=8)])
    other = torch.cat([images for images, _ in replace(subject, seed=4).batches(20, batch=8)])
    assert torch.equal(images, again)
    assert not torch.equal(images, other)


def test_all_images_are_yielded_where_more_are_asked_for(subject, data):
    count = sum(len(labels) for _, labels in subject.batches(10**6))
    assert count == len(data.part("fit"))


@pytest.mark.parametrize(
    ("look", "parts"),
    [
        (lambda s: [*s.batches(10)], {"fit"}),
        (lambda s: s.validate(s.trained), {"validation"}),
        (lambda s: s.train(s.fresh(), RECIPE), {"fit", "validation"}),
    ],
    ids=["batches", "validate", "train"],
)
def test_neither_way_of_looking_reads_the_test_set(subject, monkeypatch, look, parts):
    asked, part = set(), ImageData.part
    monkeypatch.setattr(ImageData, "part", lambda self, name: asked.add(name) or part(self, name))
    look(subject)
    assert asked == parts


def test_batches_of_a_set_without_validation_are_all_of_it(subject, data):
    whole = replace(data, validation=data.validation[:0])
    count = sum(len(labels) for _, labels in replace(subject, data=whole).batches(10**6))
    assert count == len(data.train_labels)


def test_validate_judges_by_the_validation_part(subject, network, data):
    expected = evaluate(network, data, data.part("validation"))
    assert subject.validate(network) == expected


def test_a_copy_is_another_network_in_evaluation_mode_without_gradients(subject, network):
    weight = network.node("conv1").weight
    weight.grad = torch.ones_like(weight)
    network.train()
    twin = subject.copy()
    assert network.training
    assert not any(module.training for module in twin.modules())
    assert all(parameter.grad is None for parameter in twin.parameters())
    with torch.no_grad():
        twin.node("conv1").weight.zero_()
    assert network.weight("conv1").abs().sum() > 0
    assert torch.equal(weight.grad, torch.ones_like(weight))
    weight.grad = None
    network.eval()


def test_a_fresh_network_is_the_seeds(subject, graph):
    first, again = subject.fresh(), build(graph, seed=3)
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)
    )
    other = GRAPHS["vgg11"]()
    assert subject.fresh(other).graph == other


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda s: s.trained, "looks at a trained network, and has none"),
        (lambda s: s.copy(), "looks at a trained network, and has none"),
        (lambda s: s.images, "looks at images: give it data"),
        (lambda s: next(s.batches(1)), "looks at images: give it data"),
    ],
)
def test_what_is_not_there_is_told(subject, ask, message):
    with pytest.raises(MethodError, match=message):
        ask(replace(subject, network=None, data=None))
