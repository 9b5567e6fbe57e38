"""The one training loop: what it promises of seeds, schedules, hooks, images and failures."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from prunenas.build.execution import device_name
from prunenas.build.initialise import build
from prunenas.data.base import ImageData, dataset
from prunenas.data.shapes import shapes
from prunenas.errors import DataError, DivergenceError, InputError
from prunenas.families.base import reference
from prunenas.ir.cost import macs, params
from prunenas.ir.ops import KernelSparsity
from prunenas.training.batches.augment import normalise
from prunenas.training.hooks import Hooks
from prunenas.training.loop import train, train_seeds
from prunenas.training.recipe import Recipe
from tests.training.networks import linear, made, noise, small

QUICK = Recipe(epochs=5, batch=32, lr=0.1, schedule="one_cycle", nesterov=True)
PLAIN = Recipe(epochs=2, batch=8, lr=0.05, schedule="constant")


@pytest.fixture(scope="module")
def digits():
    return dataset("digits").small(700, 200)


@pytest.fixture(scope="module")
def few():
    return shapes(train=96, test=40, side=16)


def state(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def numbers(metrics):
    """Return the results without their seconds."""
    return [replace(result, seconds=0.0) for result in metrics.results]


def test_digits_are_learned_in_seconds(digits):
    found = train(build(small((1, 16, 16))), digits, QUICK)
    assert found.accuracy > 0.8
    assert found.results[0].loss < 1.0


def test_shapes_are_learned_better_than_by_chance():
    data = shapes(train=600, test=200, side=16)
    assert train(build(small()), data, QUICK, held_out=True).accuracy > 0.3


def test_bfloat16_learns_and_leaves_single_precision_weights(digits):
    network = build(small((1, 16, 16)))
    found = train(network, digits, replace(QUICK, precision="bf16"))
    assert found.accuracy > 0.8
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_bfloat16_is_no_other_computation(few):
    """The first step's loss is that of single precision, to eight bits."""
    losses = []
    for precision in ("fp32", "bf16"):
        recipe = Recipe(epochs=1, batch=96, precision=precision, augment=False)
        train(build(small()), few, recipe, on_epoch=lambda report: losses.append(report.loss))
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
    assert losses[1] != losses[0]


def test_masked_weights_stay_zero_through_training(few):
    graph = small()
    nodes = tuple(
        replace(n, op=replace(n.op, sparsity=KernelSparsity(density=(0.5,) * 9)))
        if n.name.startswith("conv")
        else n
        for n in graph.nodes
    )
    network = build(replace(graph, nodes=nodes))
    train(network, few, Recipe(epochs=2, batch=32, weight_decay=1e-2))
    for i in range(3):
        conv = network.node(f"conv{i}")
        assert not conv.weight[conv.mask == 0].any()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_same_seed_gives_the_same_numbers_bit_for_bit(few, dropout, precision):
    graph, recipe = small(dropout=dropout), replace(PLAIN, batch=32, precision=precision)
    runs = []
    for noise_before in (1, 2):
        torch.manual_seed(noise_before)
        network = build(graph, seed=3)
        runs.append((train(network, few, recipe, seed=4, held_out=True), state(network)))
    (one, weights), (other, weights_again) = runs
    assert numbers(one) == numbers(other)
    assert same(weights, weights_again)


@pytest.mark.parametrize("what", ["order", "dropout"])
def test_another_seed_gives_other_numbers(few, what):
    # One batch has one order, so there only dropout can differ.
    recipe = replace(PLAIN, batch=32 if what == "order" else 96, augment=False)
    graph = small(dropout=0.5 if what == "dropout" else 0.0)
    weights = []
    for seed in (0, 1):
        network = build(graph, seed=3)
        train(network, few, recipe, seed=seed)
        weights.append(network.weight("fc").clone())
    assert (weights[0] - weights[1]).abs().max() > 1e-4


def test_the_global_random_state_is_left_as_it_was(few):
    network = build(small(dropout=0.5))
    torch.manual_seed(7)
    before = torch.get_rng_state()
    train(network, few, PLAIN)
    assert torch.equal(torch.get_rng_state(), before)

    def stop(report):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(network, few, PLAIN, on_epoch=stop)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_seed_is_a_training_from_scratch(few):
    graph = small(dropout=0.5)
    found = train_seeds(graph, few, PLAIN, seeds=(5, 2))
    assert [result.seed for result in found.results] == [5, 2]
    assert (found.params, found.macs) == (params(graph), macs(graph))
    alone = [train(build(graph, seed=seed), few, PLAIN, seed=seed) for seed in (5, 2)]
    assert numbers(found) == [result for run in alone for result in numbers(run)]


def test_no_seed_is_refused(few):
    with pytest.raises(InputError, match="at least one seed"):
        train_seeds(small(), few, PLAIN, seeds=())


@pytest.fixture
def parts_read(monkeypatch):
    names = []
    plain = ImageData.part

    def recorded(self, name):
        names.append(name)
        return plain(self, name)

    monkeypatch.setattr(ImageData, "part", recorded)
    return names


def test_held_out_training_reads_no_test_image(few, parts_read):
    found = train(build(small()), few, PLAIN, held_out=True)
    assert {*parts_read} == {"fit", "validation"}
    assert found.part == "validation"


def test_final_training_reads_the_test_part_once_and_holds_nothing_out(few, parts_read):
    found = train(build(small()), few, PLAIN)
    assert sorted(parts_read) == ["test", "train"]
    assert parts_read[-1] == "test"
    assert found.part == "test"
    assert found.results[0].best_accuracy is None
    assert found.results[0].best_epoch is None


def test_test_images_do_not_matter_while_searching(few):
    poisoned = replace(few, test_images=few.test_images.flip(0))
    one, other = (train(build(small()), data, PLAIN, held_out=True) for data in (few, poisoned))
    assert numbers(one) == numbers(other)


def losses_and_metrics(data, **options):
    losses = []
    network = build(small(data.input_size, data.classes))
    metrics = train(network, data, PLAIN, on_epoch=lambda r: losses.append(r.loss), **options)
    return losses, metrics


def test_validation_images_are_judged_by_and_not_trained_on(few):
    images = few.train_images.clone()
    images[few.validation] = images[few.validation].flip(0)
    poisoned = replace(few, train_images=images)
    (one, judged), (other, misjudged) = (
        losses_and_metrics(data, held_out=True) for data in (few, poisoned)
    )
    assert one == other
    assert judged.results[0].loss != misjudged.results[0].loss
    assert losses_and_metrics(few)[0] != losses_and_metrics(poisoned)[0]


def test_which_images_are_held_out_does_not_matter_to_a_final_training(few):
    other = replace(few, validation=few.validation[:1])
    assert losses_and_metrics(few)[0] == losses_and_metrics(other)[0]


def test_the_best_epoch_is_the_first_best_by_validation(few):
    reports = []
    recipe = replace(PLAIN, epochs=6, batch=32, lr=0.2)
    found = train(build(small()), few, recipe, held_out=True, on_epoch=reports.append)
    accuracies = [report.accuracy for report in reports]
    (result,) = found.results
    assert len({*accuracies}) > 1
    assert result.best_accuracy == max(accuracies)
    assert result.best_epoch == 1 + accuracies.index(max(accuracies))
    assert result.accuracy == accuracies[-1]


def test_data_that_does_not_fit_is_refused_with_all_reasons(few):
    with pytest.raises(DataError) as caught:
        train(build(small((3, 32, 32), 100)), few, PLAIN)
    assert "images are [3, 16, 16], it takes [3, 32, 32]" in str(caught.value)
    assert "10 classes, it has 100" in str(caught.value)


def test_too_few_images_for_a_batch_are_refused():
    data = made(2, validation=torch.tensor([0]))
    with pytest.raises(DataError, match="1 training images make no batch"):
        train(build(linear()), data, PLAIN, held_out=True)


def test_reports_count_epochs_and_mean_losses():
    data = made()
    network, reports = build(linear()), []
    train(network, data, replace(PLAIN, epochs=3, batch=24), on_epoch=reports.append)
    assert [(r.epoch, r.epochs) for r in reports] == [(1, 3), (2, 3), (3, 3)]
    assert all(r.accuracy is None for r in reports)
    assert [r.seconds for r in reports] == sorted(r.seconds for r in reports)
    fresh = build(linear())
    loss = functional.cross_entropy(fresh(normalise(data.train_images, data)), data.train_labels)
    assert reports[0].loss == pytest.approx(loss.item(), rel=1e-5)


def test_metrics_tell_cost_place_and_data(few):
    graph = small()
    found = train(build(graph), few, PLAIN, seed=9)
    assert (found.params, found.macs) == (params(graph), macs(graph))
    assert found.data == few.name
    assert found.device == device_name(torch.device("cpu"))
    (result,) = found.results
    assert (result.seed, result.epochs) == (9, 2)
    assert result.seconds > 0


def test_top5_is_told_from_100_classes_up():
    data = made(200, 200, classes=100)
    found = train(build(linear(classes=100)), data, PLAIN)
    assert 0 <= found.accuracy <= found.top5 <= 1
    assert train(build(linear()), made(), PLAIN).top5 is None


def steps(recipe, data=None, *, gradient=1.0, start=0.0):
    """Return what each step adds to a weight and to a bias whose gradients are ``gradient``."""
    weights: list[tuple[float, float]] = []

    def watch(network):
        fc = network.node("fc")
        weights.append((fc.weight[0, 0].item(), fc.bias[0].item()))
        with torch.no_grad():
            for parameter in (fc.weight, fc.bias):
                parameter.fill_(start)
                parameter.grad.fill_(gradient)

    network = build(linear())
    train(network, data or made(), recipe, hooks=Hooks(after_backward=watch))
    fc = network.node("fc")
    weights.append((fc.weight[0, 0].item(), fc.bias[0].item()))
    return [(weight - start, bias - start) for weight, bias in weights[1:]]


def rates(recipe, data=None):
    """Return the learning rate of each step."""
    plain = replace(recipe, momentum=0.0, nesterov=False, weight_decay=0.0)
    found = steps(plain, data)
    assert all(weight == bias for weight, bias in found)
    return [-weight for weight, _ in found]


def test_a_constant_rate_is_constant():
    assert rates(replace(PLAIN, epochs=2, lr=0.3)) == pytest.approx([0.3] * 6)


def test_steps_divide_by_ten_at_the_milestones():
    # Three steps an epoch; 5 epochs fall at 2 and 3.
    expected = [0.5] * 6 + [0.05] * 3 + [0.005] * 6
    assert rates(Recipe(epochs=5, batch=8, lr=0.5)) == pytest.approx(expected)


def test_steps_divide_again_and_again():
    recipe = Recipe(epochs=5, batch=24, lr=0.5, decay_every=0.4)
    assert rates(recipe) == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005])


def test_two_milestones_in_one_epoch_divide_once_and_none_before_the_first():
    assert rates(Recipe(epochs=2, batch=24, lr=0.5)) == pytest.approx([0.5, 0.05])
    assert rates(Recipe(epochs=1, batch=24, lr=0.5)) == pytest.approx([0.5])


def test_a_warm_up_and_a_decay_factor_are_what_the_steps_use():
    recipe = Recipe(
        epochs=5, batch=24, lr=0.5, decay_at=(0.4, 0.8), decay_factor=0.2, warmup_epochs=1
    )
    assert rates(recipe) == pytest.approx([0.05, 0.5, 0.1, 0.1, 0.02])
    constant = replace(recipe, schedule="constant", warmup_epochs=2, warmup_factor=0.5)
    assert rates(constant) == pytest.approx([0.25, 0.25, 0.5, 0.5, 0.5])


def test_one_cycle_rises_for_a_fifth_and_falls_to_nothing():
    recipe = Recipe(epochs=10, batch=24, lr=0.5, schedule="one_cycle")
    up = [0.5 / 25, (0.5 / 25 + 0.5) / 2]
    down = [0.5 * (8 - i) / 8 for i in range(8)]
    assert rates(recipe) == pytest.approx(up + down)
    # The cycle goes by steps, not by epochs.
    assert rates(replace(recipe, epochs=5, batch=12)) == pytest.approx(up + down)


@pytest.mark.parametrize("epochs", range(1, 12))
def test_one_cycle_is_defined_for_every_length(epochs):
    found = rates(Recipe(epochs=epochs, batch=24, lr=0.5, schedule="one_cycle"))
    assert len(found) == epochs
    assert all(0 < rate <= 0.5 + 1e-9 for rate in found)


def test_momentum_gathers():
    found = steps(replace(PLAIN, lr=0.1, momentum=0.5, weight_decay=0.0))
    assert [w for w, _ in found][:3] == pytest.approx([-0.1, -0.15, -0.175])


def test_nesterov_looks_ahead():
    found = steps(replace(PLAIN, lr=0.1, momentum=0.5, nesterov=True, weight_decay=0.0))
    assert [w for w, _ in found][:3] == pytest.approx([-0.15, -0.175, -0.1875])


@pytest.mark.parametrize(("decay_norms", "of_bias"), [(True, -0.02), (False, 0.0)])
def test_weight_decay_spares_biases_where_asked(decay_norms, of_bias):
    recipe = replace(PLAIN, lr=0.1, momentum=0.0, weight_decay=0.1, decay_norms=decay_norms)
    for weight, bias in steps(recipe, gradient=0.0, start=2.0):
        assert weight == pytest.approx(-0.02, rel=1e-4)
        assert bias == pytest.approx(of_bias, rel=1e-4)


def test_weight_decay_spares_norms_where_asked(few):
    def still(network):
        for parameter in network.parameters():
            parameter.grad.zero_()

    for decay_norms in (True, False):
        network = build(small())
        before = state(network)
        recipe = replace(PLAIN, weight_decay=0.1, decay_norms=decay_norms)
        train(network, few, recipe, hooks=Hooks(after_backward=still))
        assert (network.weight("bn0") < before["bn0.weight"]).all() == decay_norms
        assert (network.weight("conv0").abs() < before["conv0.weight"].abs()).all()


def test_label_smoothing_is_in_the_training_loss_only():
    data, losses = made(), []
    recipe = replace(PLAIN, epochs=1, batch=24, label_smoothing=0.2, lr=1e-12)
    found = train(build(linear()), data, recipe, on_epoch=lambda r: losses.append(r.loss))
    network = build(linear())
    with torch.no_grad():
        scores = network(normalise(data.train_images, data))
        right = functional.log_softmax(scores, 1).gather(1, data.train_labels[:, None]).mean()
        every = functional.log_softmax(scores, 1).mean()
        test = functional.cross_entropy(
            network(normalise(data.test_images, data)), data.test_labels
        )
    assert losses == pytest.approx([-(0.8 * right + 0.2 * every).item()], rel=1e-5)
    assert found.results[0].loss == pytest.approx(test.item(), rel=1e-4)


def test_hooks_are_called_in_their_places():
    calls = []

    def after_backward(network):
        assert all(p.grad is not None for p in network.parameters())
        assert network.training
        calls.append("step")

    hooks = Hooks(
        after_backward=after_backward, after_epoch=lambda network, epoch: calls.append(epoch)
    )
    train(
        build(linear()),
        made(),
        PLAIN,
        hooks=hooks,
        held_out=True,
        on_epoch=lambda report: calls.append(f"report {report.epoch}"),
    )
    # 20 images are left of 24: two batches of 8 and one of 4.
    assert calls == [*["step"] * 3, 1, "report 1", *["step"] * 3, 2, "report 2"]


def test_all_four_hooks_come_in_their_order():
    calls = []
    hooks = Hooks(
        before=lambda network: calls.append("before"),
        after_backward=lambda network: calls.append("gradients"),
        after_step=lambda network, moment: calls.append((moment.epoch, moment.step)),
        after_epoch=lambda network, epoch: calls.append(f"epoch {epoch}"),
    )
    train(build(linear()), made(), PLAIN, hooks=hooks)
    steps = [("gradients", (1 + step // 3, step + 1)) for step in range(6)]
    first, second = ([call for step in part for call in step] for part in (steps[:3], steps[3:]))
    assert calls == ["before", *first, "epoch 1", *second, "epoch 2"]


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(epochs=4, batch=8, lr=0.5, schedule="one_cycle"),
        Recipe(epochs=4, batch=8, lr=0.5, warmup_epochs=1, decay_factor=0.2),
        PLAIN,
    ],
    ids=lambda recipe: recipe.schedule,
)
def test_the_moment_tells_the_rate_that_its_step_used(recipe):
    """Under a gradient of ones, without momentum, a step takes the rate from each weight."""
    plain = replace(recipe, momentum=0.0, weight_decay=0.0)
    told, before = [], []

    def after_backward(network):
        network.node("fc").weight.grad.fill_(1.0)
        before.append(network.weight("fc")[0, 0].item())

    def after_step(network, moment):
        told.append(moment.lr)
        taken.append(before[-1] - network.weight("fc")[0, 0].item())

    taken: list[float] = []
    hooks = Hooks(after_backward=after_backward, after_step=after_step)
    train(build(linear()), made(), plain, hooks=hooks)
    assert len(told) == 3 * recipe.epochs
    assert told == pytest.approx(taken, abs=1e-6)


def test_what_a_hook_does_after_a_step_is_what_the_next_one_sees():
    seen = []

    def clear(network, moment):
        network.weight("fc").zero_()

    def look(network):
        seen.append(network.weight("fc").any().item())

    train(build(linear()), made(), PLAIN, hooks=Hooks(after_backward=look, after_step=clear))
    assert seen == [True] + [False] * 5


def test_what_a_hook_does_to_gradients_is_what_the_step_uses():
    network = build(linear())
    before = state(network)

    def only_bias(network):
        network.node("fc").weight.grad.zero_()

    train(network, made(), replace(PLAIN, weight_decay=0.0), hooks=Hooks(after_backward=only_bias))
    assert torch.equal(network.weight("fc"), before["fc.weight"])
    assert not torch.equal(network.node("fc").bias, before["fc.bias"])


def test_what_a_hook_does_after_an_epoch_is_judged():
    def forget(network, epoch):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()

    reports = []
    train(
        build(linear()),
        made(),
        PLAIN,
        held_out=True,
        hooks=Hooks(after_epoch=forget),
        on_epoch=reports.append,
    )
    # All scores are equal, so the first class is always the answer: one validation image of four.
    assert [report.accuracy for report in reports] == [0.25, 0.25]


def test_an_exception_of_on_epoch_ends_the_training():
    seen = []

    def stop(report):
        seen.append(report.epoch)
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        train(build(linear()), made(), PLAIN, on_epoch=stop)
    assert seen == [1]


@pytest.mark.parametrize("schedule", ["constant", "one_cycle"])
def test_a_loss_that_is_not_finite_names_epoch_step_and_rate(schedule):
    def explode(network, epoch):
        if epoch == 1:
            with torch.no_grad():
                network.node("fc").weight.fill_(float("inf"))

    # Of one cycle the first step of the second epoch has the peak, and the next ones less.
    recipe = replace(PLAIN, epochs=5, lr=0.25, schedule=schedule)
    with pytest.raises(DivergenceError, match=r"nan at epoch 2, batch 1, learning rate 0\.25:"):
        train(build(linear()), made(), recipe, hooks=Hooks(after_epoch=explode))


def test_a_huge_rate_diverges_with_words():
    recipe = Recipe(epochs=3, batch=8, lr=1e30, schedule="constant")
    with pytest.raises(DivergenceError, match=r"epoch 1, batch \d, learning rate 1e\+30: lower"):
        train(build(linear()), made(), recipe)


def test_a_divergence_in_a_long_epoch_ends_it_early():
    steps_taken = []

    def poison(network):
        steps_taken.append(1)
        if len(steps_taken) == 3:
            network.node("fc").weight.grad.fill_(float("nan"))

    data = made(400)
    with pytest.raises(DivergenceError, match="epoch 1, batch 4"):
        train(
            build(linear()),
            data,
            replace(PLAIN, batch=2),
            hooks=Hooks(after_backward=poison),
        )
    assert len(steps_taken) < 100


@pytest.mark.parametrize("held_out", [True, False])
def test_a_divergence_of_the_last_step_is_told_too(held_out):
    def poison(network):
        network.node("fc").weight.grad.fill_(float("nan"))

    recipe = replace(PLAIN, epochs=1, batch=24)
    part = "validation" if held_out else "test"
    with pytest.raises(DivergenceError, match=f"on the {part} images is nan after epoch 1"):
        train(
            build(linear()),
            made(),
            recipe,
            held_out=held_out,
            hooks=Hooks(after_backward=poison),
        )


@pytest.mark.parametrize("detach", [True, False])
def test_the_shortcut_passes_the_gradient_unless_detached(detach):
    """With the branch cut off, what stands before the shortcut learns only through it."""
    graph = reference("resnet", depth=8, width=0.25, detach=detach)
    network = build(graph)
    with torch.no_grad():
        network.node("layer2.0.bn2").weight.zero_()
    network(torch.randn(4, 3, 32, 32)).square().sum().backward()
    reached = network.node("conv1").weight.grad.any().item()
    assert reached is not detach


def test_the_data_set_is_not_changed(few):
    before = [few.train_images.clone(), few.test_images.clone()]
    train(build(small()), few, PLAIN)
    assert torch.equal(few.train_images, before[0])
    assert torch.equal(few.test_images, before[1])


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_learns_and_says_so(precision):
    data = dataset("digits", device="cuda")
    network = build(small((1, 16, 16), dropout=0.1), device="cuda")
    states = torch.get_rng_state(), torch.cuda.get_rng_state()
    found = train(network, data, replace(QUICK, precision=precision))
    assert found.accuracy > 0.8
    assert found.device == torch.cuda.get_device_name()
    assert {p.device.type for p in network.parameters()} == {"cuda"}
    assert torch.equal(torch.get_rng_state(), states[0])
    assert torch.equal(torch.cuda.get_rng_state(), states[1])


@pytest.mark.gpu
def test_a_gpu_starts_where_the_cpu_does():
    """Same seed, same weights and same batches: only rounding tells the devices apart."""
    data = shapes(train=96, test=40, side=16)
    losses = {}
    for device in ("cpu", "cuda"):
        reports = []
        network = build(small(), device=device)
        train(network, data, replace(PLAIN, epochs=1, batch=32), on_epoch=reports.append)
        losses[device] = reports[0].loss
    assert_close(losses["cuda"], losses["cpu"], rtol=1e-2, atol=0)


def test_noise_is_not_learned():
    """A network that sees labels without any relation to the images cannot beat chance."""
    data = made(200, 400, test_images=noise(400, seed=5))
    assert train(build(linear()), data, replace(PLAIN, epochs=3)).accuracy < 0.4
