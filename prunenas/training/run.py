"""One training from its first step to its last, and all that changes on the way."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import final

import torch
from torch import Tensor

from prunenas.arch.metrics import Metrics, Seeds
from prunenas.build.network import Network
from prunenas.data.base import ImageSet, PartName
from prunenas.errors import DivergenceError, MemoryShortageError
from prunenas.ir.canonical import digest
from prunenas.training.batches.base import Draw
from prunenas.training.batches.supply import batches_of
from prunenas.training.execution.distributed import SOLO, Team, parallel
from prunenas.training.execution.engine import Engine, memory_format
from prunenas.training.execution.evaluate import Evaluation, Evaluator
from prunenas.training.execution.memory import Probe, is_shortage, release, shortage
from prunenas.training.execution.steps import CapturedSteps, EagerSteps, Steps, optimizer_of
from prunenas.training.hooks import Hooks, Moment
from prunenas.training.keeping.state import Progress, State, Stretch, misfits, named, of_kind
from prunenas.training.recipe import Recipe
from prunenas.training.sparse_phase import SparseTraining

_CHECK_EVERY = 50
"""Steps between two looks at the losses, on a CPU. On CUDA a look waits for the device, so there
is one an epoch."""


@final
class Run:
    """A training under way. ``epoch`` and ``step`` say what comes next.

    ``metrics`` are those that an earlier process ended with, where it came to the end.

    Args:
        network: What is trained, on the device of the images.
        data: The data set.
        recipe: Budget and schedule, its precision decided.
        seeds: Of all draws.
        held_out: Whether the validation part is left out, and judges after every epoch.
        hooks: What a method adds.
        engine: How the steps are carried out.
        team: The processes that do it together, each its share of every batch.

    Raises:
        DataError: There are too few images, or none to validate on.
    """

    def __init__(
        self,
        network: Network,
        data: ImageSet,
        recipe: Recipe,
        *,
        seeds: Seeds,
        held_out: bool,
        hooks: Hooks,
        engine: Engine,
        team: Team = SOLO,
    ) -> None:
        assert engine.accumulate != "auto", "who makes a run has decided"
        self.network, self.data, self.recipe, self.hooks = network, data, recipe, hooks
        self._parts, self.seeds, self.team = engine.accumulate, seeds, team
        self.device, self._engine = data.device, engine
        self.layout = memory_format(engine, network.graph, recipe, self.device)
        if self.layout == "channels_last":
            network.to(memory_format=torch.channels_last)
        # What processes say to each other cannot be recorded, nor can all that hooks do.
        self._wants_capture = engine.capture and self.device.type == "cuda"
        self.captures = self._wants_capture and team.size == 1 and hooks.fit_capture
        self.batches = batches_of(
            data,
            data.part("fit" if held_out else "train"),
            recipe,
            seeds,
            least=2 * self._parts * team.size,
            share=team.share,
            parts=self._parts,
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
        self._peak_before: int | None = None
        self.metrics: Metrics | None = None
        begun = Stretch(epoch=1, step=0, execution=self._words())
        self._stretches: tuple[Stretch, ...] = (begun,)

    def _made_steps(self, engine: Engine) -> Steps:
        forward: Callable[[Tensor], Tensor] = self.network
        apart: Callable[[], AbstractContextManager[None]] = nullcontext
        if self.team.size > 1:
            forward = wrapped = parallel(self.network, sync_norms=engine.sync_norms)
            apart = wrapped.no_sync
            # With synchronised norms these are modules of their own, with a mode of their own.
            wrapped.train()  # type: ignore[no-untyped-call]
        if engine.compile:
            # One network's compiled code counts against the next one's: after eight networks
            # torch would go on uncompiled, and say nothing.
            torch.compiler.reset()
        steps = EagerSteps(
            self.network,
            self._optimizer,
            self.batches,
            self.recipe,
            forward=torch.compile(forward) if engine.compile else forward,
            layout=self.layout,
            parts=self._parts,
            team=self.team,
            apart=apart,
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
            team=self.team,
        )

    def judge(self, part: PartName) -> Evaluation:
        """Return how well the network does on a part now.

        Raises:
            MemoryShortageError: There is too little memory for it.
        """
        return self._judged(self.evaluator(part), part)

    def _judged(self, evaluator: Evaluator, part: PartName) -> Evaluation:
        try:
            return evaluator()
        except (RuntimeError, MemoryError) as error:
            if not is_shortage(error):
                raise
        raise shortage(self.network, self.device, f"judging by the {part} images", "free some")

    @property
    def execution(self) -> str:
        """Return in words how the training was carried out, stretch by stretch."""
        first, *others = self._stretches
        later = [f"{s.execution} from epoch {s.epoch}, batch {s.step + 1}, on" for s in others]
        return "; ".join([first.execution, *later])

    def _words(self) -> str:
        words = [self.recipe.precision, self.layout.replace("_", " ")]
        words += ["captured"] * self.captures + ["compiled"] * self._engine.compile
        words += ["not captured"] * (self._wants_capture and not self.captures)
        words += ["deterministic"] * self._engine.deterministic
        if self.team.size > 1:
            words.append(f"{self.team.size} processes")
            words += ["synchronised norms"] * self._engine.sync_norms
        parts = self._parts * self.team.size
        return ", ".join(words + [f"{parts} parts a batch"] * (parts > 1))

    @property
    def seconds(self) -> float:
        """Return the wall time so far, that of earlier processes included."""
        return self._seconds_before + time.perf_counter() - self._began

    @property
    def peak_bytes(self) -> int | None:
        """Return the most memory of the device that tensors took at once; None on a CPU."""
        if self.device.type != "cuda":
            return self._peak_before
        return max(torch.cuda.max_memory_allocated(self.device), self._peak_before or 0)

    def begin(self) -> None:
        """Do what is done once, before the first step."""
        if self.hooks.before:
            self.hooks.before(self.network)

    def rate(self, step: int | None = None) -> float:
        """Return the learning rate of a step of the running epoch, from 0; or of the next one."""
        done = self.step if step is None else step
        return self.recipe.lr * self.recipe.rate(self.epoch - 1, done, of=len(self.batches))

    def steps_of_epoch(self) -> Iterator[Moment]:
        """Do what is left of the running epoch; yield after each step.

        Raises:
            DivergenceError: The loss stopped being finite.
            MemoryShortageError: A batch needs more memory than there is.
        """
        self.network.train()
        if self.step == 0:
            self._sparse.begin(self.epoch)
        for draw in self.batches.draws(self.epoch, first=self.step):
            moment = self._step(draw)
            if self.device.type == "cpu" and self.step % _CHECK_EVERY == 0:
                self.check()
            yield moment
        self.check()

    def _step(self, draw: Draw) -> Moment:
        try:
            return self._plain_step(draw)
        except (RuntimeError, MemoryError) as error:
            if not is_shortage(error):
                raise
        # What the error held is free only here.
        raise self._shortage(draw)

    def _plain_step(self, draw: Draw) -> Moment:
        rate = self.rate()
        images = self.batches.images(self.step)
        self._losses[self.step] = self._steps.gradients(draw, images)
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
        return moment

    def _shortage(self, draw: Draw) -> MemoryShortageError:
        """Return the error of a batch that does not fit, with the number of parts that would."""
        probe = Probe(self.network, self._optimizer, self.batches, self.recipe, layout=self.layout)
        # What was recorded holds memory, and is of no use any more.
        self._steps = probe.steps
        self._optimizer.zero_grad(set_to_none=True)
        release(self.device)
        images, parts = len(draw[0]), probe.parts(draw, self._parts)
        advice = "not even two of them fit at a time, so take a smaller network or more memory"
        if parts is not None:
            advice = (
                f"{-(-images // parts)} of them fit at a time, so train with accumulate={parts}, "
                "which keeps the batch, or with a smaller batch"
            )
        at = f"epoch {self.epoch}, batch {self.step + 1} ({images} images)"
        return shortage(self.network, self.device, at, advice, parts=parts)

    def end_epoch(self) -> float:
        """Judge the network where it is held out, and go to the next epoch; return the loss."""
        self.team.follow(self.network.buffers())
        if self.hooks.after_epoch:
            self.hooks.after_epoch(self.network, self.epoch)
        self.team.check_together(self.network.parameters())
        if self._judge is not None:
            self.seen.append(self._judged(self._judge, "validation"))
        loss = self.team.add(self._losses).mean().item()
        self.epoch, self.step = self.epoch + 1, 0
        return loss

    def check(self) -> None:
        """Refuse losses of the running epoch that are not finite.

        Raises:
            DivergenceError: One is not; names network, epoch, batch and learning rate.
        """
        losses = self.team.add(self._losses[: self.step])
        finite = losses.isfinite()
        if not bool(finite.all()):
            batch = int(finite.logical_not().nonzero()[0])
            raise DivergenceError(
                f"the loss of the network {digest(self.network.graph)} is {losses[batch].item()} "
                f"at epoch {self.epoch}, batch {batch + 1}, learning rate "
                f"{self.rate(batch):g}: lower the recipe's lr"
            )

    def state(self) -> State:
        """Return copies on the CPU of all that changes."""
        momentum = {
            name: self._optimizer.state[weight]["momentum_buffer"]
            for name, weight in self.network.named_parameters()
            if "momentum_buffer" in self._optimizer.state.get(weight, {})
        }
        seen = [[e.accuracy, math.nan if e.top5 is None else e.top5, e.loss] for e in self.seen]
        tensors = {
            **named("network", self.network.state_dict()),
            **named("momentum", momentum),
            **named("held", self._sparse.masks),
            "losses": self.team.add(self._losses[: self.step]),
            "seen": torch.tensor(seen, dtype=torch.float64).reshape(-1, 3),
            **self._random_states(),
        }
        progress = Progress(
            epoch=self.epoch,
            step=self.step,
            seconds=self.seconds,
            parts=self._parts,
            stretches=self._stretches,
            peak_bytes=self.peak_bytes,
        )
        copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
        return State(tensors=copies, progress=progress)

    def _random_states(self) -> dict[str, Tensor]:
        states = {"random.cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["random.cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            self.team.own_name(name, rank): state
            for name, mine in states.items()
            for rank, state in enumerate(self.team.gather(mine))
        }

    def misfits(self, state: State) -> list[str]:
        """Return in words why ``state`` cannot be one of this run; nothing where it can."""
        return misfits(state, self.network, epochs=self.recipe.epochs, batches=len(self.batches))

    def restore(self, state: State) -> None:
        """Go on from ``state``, which a run of the same network, data and recipe returned.

        On another device than before, and in a process that was not there before, dropout and its
        like draw as at the beginning.
        """
        tensors, progress = state.tensors, state.progress
        self.network.load_state_dict(of_kind("network", tensors))
        for name, value in of_kind("momentum", tensors).items():
            weight = self.network.get_parameter(name)
            # Laid out as the weight is, whatever the order on disk.
            momentum = torch.empty_like(weight).copy_(value)
            self._optimizer.state[weight]["momentum_buffer"] = momentum
        self._sparse.restore(of_kind("held", tensors))
        # They are those of all processes together, so one of them has them.
        self._losses[: progress.step] = tensors["losses"].to(self.device) * self.team.leads
        here = {name: self.team.own_name(name) for name in ("random.cpu", "random.cuda")}
        if here["random.cpu"] in tensors:
            torch.set_rng_state(tensors[here["random.cpu"]])
        if self.device.type == "cuda" and here["random.cuda"] in tensors:
            torch.cuda.set_rng_state(tensors[here["random.cuda"]], self.device)
        self.epoch, self.step = progress.epoch, progress.step
        self.seen = [
            Evaluation(accuracy=a, top5=None if math.isnan(t) else t, loss=x)
            for a, t, x in tensors["seen"].tolist()
        ]
        self._began, self._seconds_before = time.perf_counter(), progress.seconds
        self._peak_before, self.metrics = progress.peak_bytes, progress.metrics
        self._go_on_after(progress.stretches)

    def _go_on_after(self, stretches: tuple[Stretch, ...]) -> None:
        mine = Stretch(epoch=self.epoch, step=self.step, execution=self._words())
        done = self.epoch > self.recipe.epochs
        began = tuple(s for s in stretches if (s.epoch, s.step) != (mine.epoch, mine.step))
        if done or (stretches and stretches[-1].execution == mine.execution):
            self._stretches = stretches
        else:
            self._stretches = (*began, mine)
