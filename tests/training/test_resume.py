"""A training that is ended, wherever that is, goes on as if it had not been."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from prunenas.arch.descriptor import Descriptor
from prunenas.build.initialise import build
from prunenas.data.shapes import shapes
from prunenas.errors import CheckpointError, DivergenceError, StoppedError
from prunenas.ir.canonical import digest
from prunenas.ir.ops import KernelSparsity
from prunenas.training.execution.engine import FAST, Engine
from prunenas.training.hooks import Hooks
from prunenas.training.keeping.checkpoint import Checkpoints
from prunenas.training.loop import train, train_seeds
from prunenas.training.protocols.train_descriptor import train_descriptor
from prunenas.training.recipe import Recipe, SparsePhase
from tests.training.networks import linear, made, small

PLAIN = Recipe(epochs=3, batch=32, lr=0.05, schedule="constant")

WAYS = {
    "plain": (PLAIN, FAST),
    "one cycle, nesterov": (replace(PLAIN, schedule="one_cycle", nesterov=True), FAST),
    "steps, no momentum": (replace(PLAIN, schedule="steps", momentum=0.0), FAST),
    "bf16": (replace(PLAIN, precision="bf16"), Engine(layout="contiguous")),
    "bf16, channels last": (replace(PLAIN, precision="bf16"), Engine(layout="channels_last")),
    "sparse phase": (replace(PLAIN, sparse=SparsePhase(keep=0.5, start=0.3, end=0.7)), FAST),
    "cutout": (replace(PLAIN, cutout=4, label_smoothing=0.1), FAST),
    "accumulated": (PLAIN, Engine(accumulate=2)),
}


class Killed(BaseException):
    """Ends a training at once: nothing catches it."""


@pytest.fixture(scope="module")
def few():
    """Three batches an epoch, the last one short."""
    return shapes(train=90, test=20, side=16)


def masked():
    graph = small(widths=(8, 16, 16), dropout=0.5)
    return replace(
        graph,
        nodes=tuple(
            replace(n, op=replace(n.op, sparsity=KernelSparsity(density=(0.5,) * 9)))
            if n.name == "conv1"
            else n
            for n in graph.nodes
        ),
    )


class Training:
    """The same call, again and again, each in a new network."""

    def __init__(self, data, recipe, engine=FAST, *, held_out=True, graph=None, seed=4):
        self.data, self.recipe, self.engine, self.held_out = data, recipe, engine, held_out
        self.graph, self.seed = graph or masked(), seed
        self.reports = {}

    def __call__(self, checkpoints=None, *, stop=None, on_epoch=None):
        def told(report):
            self.reports[report.epoch] = (report.loss, report.accuracy)
            if on_epoch:
                on_epoch(report)

        self.network = build(self.graph, seed=3)
        self.metrics = train(
            self.network,
            self.data,
            self.recipe,
            seed=self.seed,
            held_out=self.held_out,
            engine=self.engine,
            checkpoints=checkpoints,
            stop=stop,
            on_epoch=told,
        )
        return self

    @property
    def outcome(self):
        """All that must be the same, bit for bit."""
        weights = {k: v.clone() for k, v in self.network.state_dict().items()}
        return weights, [replace(r, seconds=0.0) for r in self.metrics.results], {**self.reports}


def assert_same(one, other):
    weights, *numbers = one
    weights_too, *numbers_too = other
    assert numbers == numbers_too
    assert all(torch.equal(weights[name], weights_too[name]) for name in weights)


def after(steps):
    """A wish to stop after so many steps."""
    left = iter(range(1, 1 + steps))
    return lambda: next(left) == steps


@pytest.mark.parametrize("way", WAYS)
def test_stopped_after_every_step_it_ends_where_an_unbroken_one_does(few, tmp_path, way):
    recipe, engine = WAYS[way]
    unbroken = Training(few, recipe, engine)().outcome
    broken, stops = Training(few, recipe, engine), 0
    for _ in range(20):
        torch.manual_seed(stops)  # what another process happens to have drawn
        try:
            broken(Checkpoints(tmp_path), stop=after(1))
            break
        except StoppedError:
            stops += 1
    assert stops == 9
    assert_same(broken.outcome, unbroken)


@pytest.mark.parametrize("held_out", [True, False])
@pytest.mark.parametrize("steps", [1, 4, 6, 8])
def test_killed_at_any_step_it_ends_where_an_unbroken_one_does(few, tmp_path, steps, held_out):
    unbroken = Training(few, PLAIN, held_out=held_out)().outcome
    left = iter(range(steps))

    def kill():
        if next(left, None) is None:
            raise Killed
        return False

    broken = Training(few, PLAIN, held_out=held_out)
    with pytest.raises(Killed):
        broken(Checkpoints(tmp_path), stop=kill)
    assert_same(broken(Checkpoints(tmp_path)).outcome, unbroken)


def test_an_exception_of_on_epoch_loses_nothing_of_that_epoch(few, tmp_path):
    def kill(report):
        raise Killed

    trained = Training(few, PLAIN)
    for _ in range(3):
        with pytest.raises(Killed):
            trained(Checkpoints(tmp_path), on_epoch=kill)
    assert sorted(trained.reports) == [1, 2, 3]
    assert_same(trained(Checkpoints(tmp_path)).outcome, Training(few, PLAIN)().outcome)


def test_within_an_epoch_a_state_is_kept_when_its_time_has_come(few, tmp_path):
    kept = set()

    def look():
        kept.update(path.name[:9] for path in tmp_path.glob("state-*"))
        return False

    Training(few, PLAIN)(Checkpoints(tmp_path / "rarely"), stop=look)
    assert not kept
    Training(few, PLAIN)(Checkpoints(tmp_path, every_seconds=0.0), stop=look)
    assert {"state-1-1", "state-1-2", "state-2-0", "state-2-1"} < kept


def test_a_finished_training_comes_back_at_once(few, tmp_path):
    first = Training(few, PLAIN, held_out=False)(Checkpoints(tmp_path))
    again = Training(few, PLAIN, held_out=False)

    def never():
        raise AssertionError("nothing is left to do")

    again(Checkpoints(tmp_path), stop=never, on_epoch=lambda report: never())
    assert again.metrics == first.metrics
    assert_same((again.outcome[0],), (first.outcome[0],))


def test_killed_between_the_last_epoch_and_the_result_it_is_judged_again(
    few, tmp_path, monkeypatch
):
    def kill(self, part):
        raise Killed

    trained = Training(few, PLAIN, held_out=False)
    with monkeypatch.context() as patch:
        patch.setattr("prunenas.training.run.Run.judge", kill)
        with pytest.raises(Killed):
            trained(Checkpoints(tmp_path))
    trained(Checkpoints(tmp_path), stop=lambda: pytest.fail("no step is left"))
    assert_same(trained.outcome, Training(few, PLAIN, held_out=False)().outcome)


def test_seconds_add_up_over_processes(few, tmp_path):
    trained = Training(few, PLAIN)
    with pytest.raises(StoppedError):
        trained(Checkpoints(tmp_path), stop=after(4))
    path = tmp_path / "checkpoint.json"
    record = json.loads(path.read_text())
    assert record["progress"]["seconds"] > 0
    record["progress"]["seconds"] = 5000.0
    path.write_text(json.dumps(record))
    reports = []
    trained(Checkpoints(tmp_path), on_epoch=reports.append)
    assert trained.metrics.seconds > reports[0].seconds > 5000


def test_the_best_epoch_may_lie_before_the_stop(few, tmp_path):
    recipe = replace(PLAIN, epochs=8, lr=0.2)
    trained = Training(few, recipe, graph=small())
    with pytest.raises(StoppedError):
        trained(Checkpoints(tmp_path), stop=after(20))
    (result,) = trained(Checkpoints(tmp_path)).metrics.results
    accuracies = [trained.reports[epoch][1] for epoch in range(1, 9)]
    assert len({*accuracies}) > 2
    assert result.best_accuracy == max(accuracies)
    assert result.best_epoch == 1 + accuracies.index(max(accuracies))
    assert max(accuracies[6:]) < result.best_accuracy, "or this shows nothing"


def test_stopping_names_place_and_folder(few, tmp_path):
    with pytest.raises(StoppedError) as caught:
        Training(few, PLAIN)(Checkpoints(tmp_path), stop=after(5))
    assert "epoch 2, batch 2 of 3; the same call goes on from there" in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(StoppedError, match="epoch 1, batch 1 of 3; there are no checkpoints"):
        Training(few, PLAIN)(stop=after(1))


def test_how_it_was_carried_out_is_told_by_stretches(few, tmp_path):
    with pytest.raises(StoppedError):
        Training(few, PLAIN)(Checkpoints(tmp_path), stop=after(5))
    changed = Training(few, PLAIN, Engine(accumulate=4))(Checkpoints(tmp_path))
    first = Training(few, PLAIN)().metrics.execution
    assert changed.metrics.execution == (
        f"{first}; {first}, 4 parts a batch from epoch 2, batch 3, on"
    )


def test_what_diverges_never_takes_the_place_of_what_has_not(tmp_path):
    """The check of losses comes before the state is kept, not only every 50 steps."""
    calls = []

    def explode(network):
        calls.append(1)
        if len(calls) == 5:
            network.node("fc").weight.grad.fill_(float("nan"))

    recipe = Recipe(epochs=2, batch=4, lr=0.1, schedule="constant")
    hooks = Hooks(after_backward=explode, facts={"made": "up"})
    with pytest.raises(DivergenceError, match="epoch 1, batch 6"):
        train(
            build(linear()),
            made(48),
            recipe,
            hooks=hooks,
            checkpoints=Checkpoints(tmp_path, every_seconds=0.0),
        )
    (kept,) = tmp_path.glob("state-*")
    assert kept.name.startswith("state-1-5-")


def test_every_seed_has_its_own_folder_and_finished_ones_come_back(few, tmp_path):
    graph = small(dropout=0.5)
    unbroken = train_seeds(graph, few, PLAIN, seeds=(5, 2))
    with pytest.raises(StoppedError):
        train_seeds(
            graph, few, PLAIN, seeds=(5, 2), checkpoints=Checkpoints(tmp_path), stop=after(11)
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["seed-2", "seed-5"]
    reports = []
    found = train_seeds(
        graph,
        few,
        PLAIN,
        seeds=(5, 2),
        checkpoints=Checkpoints(tmp_path),
        on_epoch=reports.append,
    )
    assert [report.epoch for report in reports] == [1, 2, 3]
    assert [replace(r, seconds=0.0) for r in found.results] == [
        replace(r, seconds=0.0) for r in unbroken.results
    ]


def test_a_descriptor_goes_on_under_its_protocol(few, tmp_path):
    graph = small()
    reference = build(graph, seed=1)
    half = Descriptor(reference=digest(graph), selections={"conv0": tuple(range(8))})

    def call(**options):
        return train_descriptor(
            graph,
            half,
            few,
            PLAIN,
            protocol="fine-tune",
            network=reference,
            fine_tuning=PLAIN,
            seeds=(0,),
            **options,
        )

    unbroken = call()
    with pytest.raises(StoppedError):
        call(checkpoints=Checkpoints(tmp_path), stop=after(4))
    broken = call(checkpoints=Checkpoints(tmp_path))
    assert replace(broken.results[0], seconds=0.0) == replace(unbroken.results[0], seconds=0.0)
    assert broken.protocol == "fine-tune"


def test_hooks_that_may_remember_things_are_refused(few, tmp_path):
    hooks = Hooks(after_backward=lambda network: None)
    with pytest.raises(CheckpointError, match="hooks may remember"):
        train(build(small()), few, PLAIN, hooks=hooks, checkpoints=Checkpoints(tmp_path))
    assert not [*tmp_path.iterdir()]


def test_hooks_that_remember_nothing_go_on_and_begin_once(few, tmp_path):
    begun = []

    def push(network):
        for _, scale in network.scales():
            scale.grad.add_(scale.detach().sign(), alpha=1e-2)

    def begin(network):
        begun.append(1)
        with torch.no_grad():
            network.node("fc").weight.mul_(0.5)

    def call(strength=1e-2, **options):
        hooks = Hooks(before=begin, after_backward=push, facts={"strength": strength})
        network = build(small(), seed=3)
        train(network, few, PLAIN, hooks=hooks, **options)
        return network.state_dict()

    unbroken = call()
    with pytest.raises(StoppedError):
        call(checkpoints=Checkpoints(tmp_path), stop=after(4))
    broken = call(checkpoints=Checkpoints(tmp_path))
    assert len(begun) == 2
    assert all(torch.equal(unbroken[name], broken[name]) for name in unbroken)
    with pytest.raises(CheckpointError, match=r"hooks\.strength: the folder has 0\.01.*0\.1"):
        call(strength=0.1, checkpoints=Checkpoints(tmp_path))


@pytest.mark.gpu
@pytest.mark.parametrize("capture", [True, False])
@pytest.mark.parametrize("steps", [2, 3, 5])
def test_a_gpu_goes_on_with_the_same_numbers(few, tmp_path, steps, capture):
    """Dropout's draws, momentum and masks come back, whether steps are recorded or not."""
    engine = Engine(capture=capture, deterministic=True)

    def call(checkpoints=None, stop=None):
        network = build(masked(), seed=3, device="cuda")
        found = train(
            network,
            few.to("cuda"),
            PLAIN,
            held_out=True,
            engine=engine,
            checkpoints=checkpoints,
            stop=stop,
        )
        return network.state_dict(), found

    unbroken, told = call()
    with pytest.raises(StoppedError):
        call(Checkpoints(tmp_path), after(steps))
    broken, told_again = call(Checkpoints(tmp_path))
    assert all(torch.equal(unbroken[name], broken[name]) for name in unbroken)
    assert told_again.accuracy == told.accuracy
    assert told_again.results[0].peak_bytes > 0


@pytest.mark.gpu
def test_a_state_of_a_gpu_goes_on_on_a_cpu(few, tmp_path):
    with pytest.raises(StoppedError):
        train(
            build(masked(), seed=3, device="cuda"),
            few,
            PLAIN,
            checkpoints=Checkpoints(tmp_path),
            stop=after(4),
        )
    found = train(build(masked(), seed=3), few, PLAIN, checkpoints=Checkpoints(tmp_path))
    assert found.execution.endswith("from epoch 2, batch 2, on")


PLACES = {"in a step": 5, "in the tensors": 5, "before the record": 1, "in the record": 6}
"""Where one is killed, and at which step or state."""

KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from prunenas.training.keeping import checkpoint
from prunenas.training.keeping.checkpoint import Checkpoints
from tests.training.test_resume import PLACES, PLAIN, Training, shapes

torch.set_num_threads(1)
write = checkpoint._write

def train(place, number, folder):
    left = iter(range(number - 1))

    def kill():
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    def killing(path, content):
        tensors = path.suffix == ".safetensors"
        if (place == "in the tensors" and tensors) or (place == "in the record" and not tensors):
            write(path, content[: len(content) // 2])
            kill()
        if place == "before the record" and not tensors:
            kill()
        write(path, content)

    checkpoint._write = killing
    stop = kill if place == "in a step" else None
    Training(data, PLAIN)(Checkpoints(folder, every_seconds=0.0), stop=stop)

data = shapes(train=90, test=20, side=16)
Training(data, PLAIN)()  # what torch does once is done once for all
for place, number in PLACES.items():
    child = os.fork()
    if not child:
        train(place, number, Path(sys.argv[1]) / place)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (place, status)
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A folder for each of ``PLACES``, as a killed process left it."""
    folder, root = tmp_path_factory.mktemp("killed"), Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        check=False,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.mark.parametrize("place", PLACES)
def test_after_kill_9_the_same_call_ends_at_the_same_weights(few, killed, place):
    folder = killed / place
    left = [*folder.iterdir()]
    trained = Training(few, PLAIN)(Checkpoints(folder))
    # The first kill of a record leaves none to go on from; the others lose a step at most.
    assert len(trained.reports) == (3 if place == "before the record" else 2)
    unbroken = Training(few, PLAIN)().outcome
    assert_same(trained.outcome[:2], unbroken[:2])
    # Nothing of the killed one lies about.
    assert len(left) >= 1 and len([*folder.iterdir()]) == 2
