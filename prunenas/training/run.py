"""One training from its first step to its last, and all that changes on the way."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor

from prunenas.arch.metrics import Seeds
from prunenas.build.network import Network
from prunenas.data.base import ImageData, PartName
from prunenas.errors import DivergenceError
from prunenas.ir.canonical import digest
from prunenas.training.batches import ResidentBatches
from prunenas.training.engine import Engine, memory_format
from prunenas.training.evaluate import Evaluation, Evaluator
from prunenas.training.hooks import Hooks, Moment
from prunenas.training.recipe import Recipe
from prunenas.training.sparse_phase import SparseTraining
from prunenas.training.steps import CapturedSteps, EagerSteps, Steps, optimizer_of

_CHECK_EVERY = 50
"""Steps between two looks at the losses, on a CPU. On CUDA a look waits for the device, so there
is one an epoch."""


@final
@dataclass(frozen=True, kw_only=True)
class State:
    """All that changes in a training, to go on from.

    Args:
        tensors: Weights, buffers, momentum, random states, losses of the running epoch.
        values: The rest, as JSON values.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


@final
class Run:
    """A training under way. ``epoch`` and ``step`` say what comes next.

    Args:
        network: What is trained, on the device of the images.
        data: The data set.
        recipe: Budget and schedule, its precision decided.
        seeds: Of all draws.
        held_out: Whether the validation part is left out, and judges after every epoch.
        hooks: What a method adds.
        engine: How the steps are carried out.

    Raises:
        DataError: There are too few images, or none to validate on.
    """

    def __init__(
        self,
        network: Network,
        data: ImageData,
        recipe: Recipe,
        *,
        seeds: Seeds,
        held_out: bool,
        hooks: Hooks,
        engine: Engine,
    ) -> None:
        self.network, self.data, self.recipe, self.hooks = network, data, recipe, hooks
        self.device, self._engine = data.device, engine
        self.layout = memory_format(engine, network.graph, recipe, self.device)
        if self.layout == "channels_last":
            network.to(memory_format=torch.channels_last)
        self.captures = engine.capture and self.device.type == "cuda"
        self.batches = ResidentBatches(
            data,
            data.part("fit" if held_out else "train"),
            recipe,
            seeds,
            least=2 * engine.accumulate,
        )
        # An empty validation part is refused here, before the first epoch and not after it.
        self._judge = self.evaluator("validation") if held_out else None
        self._optimizer = optimizer_of(network, recipe)
        self._steps = self._made_steps(engine)
        self._sparse = SparseTraining(network, self._optimizer, recipe)
        self._losses = torch.zeros(len(self.batches), device=self.device)
        self.epoch, self.step = 1, 0
        self.seen: list[Evaluation] = []
        self._began, self._seconds_before = time.perf_counter(), 0.0

    def _made_steps(self, engine: Engine) -> Steps:
        forward = torch.compile(self.network) if engine.compile else self.network
        steps = EagerSteps(
            self.network,
            self._optimizer,
            self.batches,
            self.recipe,
            forward=forward,
            layout=self.layout,
            parts=engine.accumulate,
        )
        return CapturedSteps(steps, self.device) if self.captures else steps

    def evaluator(self, part: PartName) -> Evaluator:
        """Return what judges the network on a part as it is trained: precision, layout, capture."""
        return Evaluator(
            self.network,
            self.data,
            self.data.part(part),
            recipe=self.recipe,
            layout=self.layout,
            capture=self.captures,
        )

    @property
    def execution(self) -> str:
        """Return in words how the training is carried out."""
        words = [self.recipe.precision, self.layout.replace("_", " ")]
        words += ["captured"] * self.captures + ["compiled"] * self._engine.compile
        words += ["deterministic"] * self._engine.deterministic
        parts = self._engine.accumulate
        return ", ".join(words + [f"{parts} parts a batch"] * (parts > 1))

    @property
    def seconds(self) -> float:
        """Return the wall time so far, that of earlier processes included."""
        return self._seconds_before + time.perf_counter() - self._began

    def begin(self) -> None:
        """Do what is done once, before the first step."""
        if self.hooks.before:
            self.hooks.before(self.network)

    def rate(self) -> float:
        """Return the learning rate of the next step."""
        if self.recipe.schedule == "one_cycle":
            steps = len(self.batches)
            done = (self.epoch - 1) * steps + self.step
            return self.recipe.lr * one_cycle(done / (self.recipe.epochs * steps))
        return self.recipe.lr * self.recipe.rate(self.epoch - 1)

    def steps_of_epoch(self) -> Iterator[Moment]:
        """Do what is left of the running epoch; yield after each step.

        Raises:
            DivergenceError: The loss stopped being finite.
        """
        self.network.train()
        if self.step == 0:
            self._sparse.begin(self.epoch)
        for draw in self.batches.draws(self.epoch, first=self.step):
            rate = self.rate()
            self._losses[self.step] = self._steps.gradients(draw)
            if self.hooks.after_backward:
                self.hooks.after_backward(self.network)
            self._sparse.after_backward()
            self._steps.update(rate)
            self.step += 1
            finished = (self.epoch - 1) * len(self.batches) + self.step
            moment = Moment(epoch=self.epoch, step=finished, lr=rate)
            if self.hooks.after_step:
                self.hooks.after_step(self.network, moment)
            self._sparse.after_step(moment)
            if self.device.type == "cpu" and self.step % _CHECK_EVERY == 0:
                self.check()
            yield moment
        self.check()

    def end_epoch(self) -> float:
        """Judge the network where it is held out, and go to the next epoch; return the loss."""
        if self.hooks.after_epoch:
            self.hooks.after_epoch(self.network, self.epoch)
        if self._judge is not None:
            self.seen.append(self._judge())
        loss = self._losses.mean().item()
        self.epoch, self.step = self.epoch + 1, 0
        return loss

    def check(self) -> None:
        """Refuse losses of the running epoch that are not finite.

        Raises:
            DivergenceError: One is not; names network, epoch, batch and learning rate.
        """
        losses = self._losses[: self.step]
        finite = losses.isfinite()
        if not bool(finite.all()):
            batch = int(finite.logical_not().nonzero()[0])
            raise DivergenceError(
                f"the loss of the network {digest(self.network.graph)} is {losses[batch].item()} "
                f"at epoch {self.epoch}, batch {batch + 1}, learning rate "
                f"{self._rate_at(batch):g}: lower the recipe's lr"
            )

    def _rate_at(self, step: int) -> float:
        now, self.step = self.step, step
        rate = self.rate()
        self.step = now
        return rate

    def state(self) -> State:
        """Return copies on the CPU of all that changes."""
        momentum = {
            name: self._optimizer.state[weight]["momentum_buffer"]
            for name, weight in self.network.named_parameters()
            if "momentum_buffer" in self._optimizer.state.get(weight, {})
        }
        tensors = {
            **_named("network", self.network.state_dict()),
            **_named("momentum", momentum),
            **_named("held", self._sparse.masks),
            "losses": self._losses[: self.step],
            "random.cpu": torch.get_rng_state(),
        }
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        values = {
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            "seen": [[one.accuracy, one.top5, one.loss] for one in self.seen],
        }
        copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
        return State(tensors=copies, values=values)

    def restore(self, state: State) -> None:
        """Go on from ``state``, which a run of the same network, data and recipe returned."""
        tensors, values = state.tensors, state.values
        self.network.load_state_dict(_of("network", tensors))
        for name, value in _of("momentum", tensors).items():
            weight = self.network.get_parameter(name)
            # Laid out as the weight is, whatever the order on disk.
            momentum = torch.empty_like(weight).copy_(value)
            self._optimizer.state[weight]["momentum_buffer"] = momentum
        self._sparse.restore(_of("held", tensors))
        self._losses[: values["step"]] = tensors["losses"].to(self.device)
        torch.set_rng_state(tensors["random.cpu"])
        if self.device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], self.device)
        self.epoch, self.step = values["epoch"], values["step"]
        self.seen = [Evaluation(accuracy=a, top5=t, loss=x) for a, t, x in values["seen"]]
        self._began, self._seconds_before = time.perf_counter(), values["seconds"]


def one_cycle(done: float) -> float:
    """Return the learning rate as a part of its peak, after ``done`` in [0, 1] of all steps.

    A straight line from 1/25 up to 1 at a fifth of the training, and one from there down to 0.

    Source: Smith and Topin 2018, arXiv:1708.07120 (linear, without the momentum's cycle).
    """
    return 0.04 + 0.96 * done / 0.2 if done < 0.2 else (1 - done) / 0.8


def _named(kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{kind}.{name}": tensor for name, tensor in tensors.items()}


def _of(kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{kind}."
    return {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}
