"""Too little memory: a named error that says what fits, and a training that finds out itself."""

from dataclasses import replace

import pytest
import torch

from prunenas.build.initialise import build
from prunenas.data.shapes import shapes
from prunenas.errors import MemoryShortageError, RecipeError, RunError, StoppedError
from prunenas.ir.canonical import digest
from prunenas.training.execution.engine import Engine
from prunenas.training.execution.memory import is_shortage
from prunenas.training.hooks import Hooks
from prunenas.training.keeping.checkpoint import Checkpoints
from prunenas.training.loop import train
from prunenas.training.recipe import Recipe
from tests.training.networks import linear, made, small

RECIPE = Recipe(epochs=2, batch=32, lr=0.05, schedule="constant")
SAID = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.fixture(scope="module")
def few():
    """Three batches an epoch."""
    return shapes(train=90, test=20, side=16)


class Narrow:
    """A network that has memory for so many images at once, when it trains."""

    def __init__(self, images, error=SAID, *, graph=None, first=0):
        self.images, self.error, self.first = images, error, first
        self.asked: list[int] = []
        self.network = build(graph or small(dropout=0.5), seed=3)
        self.network.register_forward_pre_hook(self.refuse)

    def refuse(self, module, inputs):
        if module.training:
            self.asked.append(len(inputs[0]))
            if self.asked[-1] > self.images and len(self.asked) > self.first:
                raise self.error

    @property
    def state(self):
        return {name: tensor.clone() for name, tensor in self.network.state_dict().items()}


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (SAID, True),
        (MemoryError(), True),
        (RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_a_shortage_is_told_from_other_errors(error, is_one):
    assert is_shortage(error) is is_one


def test_the_cpu_allocator_really_says_so():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_shortage(caught.value)


@pytest.mark.parametrize(("images", "parts"), [(16, 2), (10, 4), (8, 4), (4, 8), (2, 16)])
def test_the_error_names_place_and_what_fits(few, images, parts):
    narrow = Narrow(images)
    with pytest.raises(MemoryShortageError) as caught:
        train(narrow.network, few, RECIPE)
    told = str(caught.value)
    assert "epoch 1, batch 1 (32 images)" in told
    assert digest(narrow.network.graph) in told
    assert "cpu" in told and "GiB in all" in told
    assert f"{32 // parts} of them fit at a time, so train with accumulate={parts}" in told
    assert caught.value.parts == parts
    assert isinstance(caught.value, RunError)


def test_what_it_says_fits_does_and_half_as_many_parts_do_not(few):
    with pytest.raises(MemoryShortageError, match="accumulate=4"):
        train(Narrow(10).network, few, RECIPE, engine=Engine(accumulate=2))
    assert train(Narrow(10).network, few, RECIPE, engine=Engine(accumulate=4)).n == 1


def test_where_nothing_fits_no_number_is_suggested(few):
    with pytest.raises(MemoryShortageError, match="not even two of them fit") as caught:
        train(Narrow(1).network, few, RECIPE)
    assert caught.value.parts is None
    with pytest.raises(MemoryShortageError, match="not even two of them fit"):
        train(Narrow(1).network, few, RECIPE, engine=Engine(accumulate="auto"))


def test_to_look_for_what_fits_leaves_the_network_as_it_was(few):
    """Batch norms that have seen images, momentum, and dropout's draws."""
    narrow = Narrow(8, first=4)
    seen = []
    hooks = Hooks(after_step=lambda network, moment: seen.append(narrow.state))
    with pytest.raises(MemoryShortageError, match="epoch 2, batch 2"):
        train(narrow.network, few, RECIPE, hooks=hooks)
    assert len(seen) == 4
    assert all(torch.equal(seen[-1][name], t) for name, t in narrow.state.items())


def test_other_errors_of_a_step_go_up_as_they_are(few):
    with pytest.raises(RuntimeError, match="shapes cannot"):
        train(Narrow(8, RuntimeError("shapes cannot be multiplied")).network, few, RECIPE)


def test_a_shortage_while_judging_is_told_too(few):
    network = build(small(), seed=3)

    def refuse(module, inputs):
        if not module.training:
            raise SAID

    network.register_forward_pre_hook(refuse)
    with pytest.raises(MemoryShortageError, match="judging by the validation images"):
        train(network, few, RECIPE, held_out=True)
    with pytest.raises(MemoryShortageError, match="judging by the test images"):
        train(network, few, RECIPE)


def test_auto_is_one_where_memory_suffices(few):
    narrow, plain = Narrow(32), build(small(dropout=0.5), seed=3)
    found = train(narrow.network, few, RECIPE, engine=Engine(accumulate="auto"))
    assert found.execution == train(plain, few, RECIPE).execution
    assert all(torch.equal(narrow.state[name], t) for name, t in plain.state_dict().items())


@pytest.mark.parametrize("first", [0, 4])
def test_auto_begins_anew_with_the_parts_that_fit(few, first):
    """Whether memory is short at once or later, it is the training that was told the parts."""
    narrow, told = Narrow(8, first=first), Narrow(8)
    found = train(narrow.network, few, RECIPE, engine=Engine(accumulate="auto"))
    same = train(told.network, few, RECIPE, engine=Engine(accumulate=4))
    assert "4 parts a batch" in found.execution
    assert found.execution == same.execution
    assert all(torch.equal(narrow.state[name], t) for name, t in told.state.items())
    assert replace(found.results[0], seconds=0.0) == replace(same.results[0], seconds=0.0)


def test_auto_goes_on_from_the_last_checkpoint(few, tmp_path):
    narrow, reports = Narrow(8, first=4), []
    options = {"engine": Engine(accumulate="auto"), "checkpoints": Checkpoints(tmp_path)}
    found = train(narrow.network, few, RECIPE, on_epoch=reports.append, **options)
    assert [report.epoch for report in reports] == [1, 2]
    assert found.execution.endswith("4 parts a batch from epoch 2, batch 1, on")
    assert found.execution.count("parts a batch") == 1


def test_auto_knows_the_parts_when_it_goes_on_in_another_process(few, tmp_path):
    options = {"engine": Engine(accumulate="auto"), "checkpoints": Checkpoints(tmp_path)}
    steps = iter(range(2))
    with pytest.raises(StoppedError):
        train(Narrow(8).network, few, RECIPE, stop=lambda: next(steps, None) == 1, **options)
    again, told = Narrow(8), Narrow(8)
    train(again.network, few, RECIPE, **options)
    assert max(again.asked) == 8
    train(told.network, few, RECIPE, engine=Engine(accumulate=4))
    assert all(torch.equal(again.state[name], t) for name, t in told.state.items())


def test_auto_does_not_repeat_hooks_that_may_remember(few):
    hooks = Hooks(after_backward=lambda network: None)
    with pytest.raises(MemoryShortageError, match="accumulate=4"):
        train(Narrow(8).network, few, RECIPE, hooks=hooks, engine=Engine(accumulate="auto"))


@pytest.mark.gpu
@pytest.mark.parametrize("capture", [True, False])
def test_a_gpu_with_too_little_memory_says_what_fits_and_auto_finds_it(capture):
    """400 MiB, where a batch keeps some 550 MiB for its backward pass."""
    data = shapes(train=1024, test=20, side=32).to("cuda")
    recipe = replace(RECIPE, epochs=1, batch=512)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(400 * 2**20 / total)
    try:
        network = build(small((3, 32, 32), widths=(64, 64, 64)), device="cuda")
        with pytest.raises(MemoryShortageError, match="epoch 1, batch 1") as caught:
            train(network, data, recipe, engine=Engine(capture=capture))
        assert caught.value.parts in (2, 4, 8)
        network = build(small((3, 32, 32), widths=(64, 64, 64)), device="cuda")
        found = train(network, data, recipe, engine=Engine(capture=capture, accumulate="auto"))
        assert f"{caught.value.parts} parts a batch" in found.execution
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_other_words_than_auto_are_refused():
    for wrong in (0, -1):
        with pytest.raises(RecipeError, match=f"accumulate={wrong} must be at least 1, or auto"):
            Engine(accumulate=wrong)


def test_small_batches_are_cut_as_far_as_two_images():
    data = made(12, 8)
    with pytest.raises(MemoryShortageError, match=r"2 of them fit at a time.*accumulate=2"):
        train(Narrow(3, graph=linear()).network, data, replace(RECIPE, batch=4))
