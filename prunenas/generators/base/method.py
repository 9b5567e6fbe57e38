"""What every pruning method is: a generator of descriptors."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunenas.arch.allocate import Scores
from prunenas.build.initialise import build
from prunenas.build.network import Network
from prunenas.data.base import ImageSet
from prunenas.errors import KeepError, MethodError
from prunenas.ir.canonical import digest, digest_of, encode
from prunenas.ir.coupling import ChannelGroups
from prunenas.ir.draw import subset
from prunenas.ir.graph import Graph
from prunenas.registry import Registry
from prunenas.training.batches.augment import normalise
from prunenas.training.execution.evaluate import Evaluation, evaluate
from prunenas.training.follow import OnEpoch, Stop
from prunenas.training.hooks import Hooks
from prunenas.training.keeping.checkpoint import Checkpoints, weights_digest
from prunenas.training.loop import train
from prunenas.training.recipe import Recipe

LooksAt = Literal["graph", "initial", "trained", "own"]
"""What a method needs: the graph alone; a fresh network; a trained one; or it trains by itself."""

Counts = Literal["channels", "weights", "blocks", "parts"]
"""What a method's keep is a fraction of; ``parts`` are those of grouped convolutions."""

_SCORED_BATCH = 128
"""Images a forward pass of scoring: what a small machine holds of the largest networks here."""


_HOOKS = frozenset(
    f"_{when}_hooks{which}"
    for when in ("forward", "forward_pre", "backward", "backward_pre")
    for which in ("", "_with_kwargs", "_always_called")
)
"""Where torch files the hooks of a module."""

_TAKEN = frozenset(
    {"method", "graph", "data", "keep", "recipe", "seed", "network", "device", "on_epoch"}
    | {"checkpoints", "stop", "weights", "accuracy"}
)
"""Names that no option can have: arguments of ``prune``, and what an origin tells besides."""


@final
@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a method looks at.

    Args:
        graph: The reference.
        groups: Its groups.
        asked: The keep that is asked for, in (0, 1); None where the method's options say how much.
        seed: Seed of whatever the method draws.
        network: The reference with its weights; None for methods that need none. Look at a
            ``copy`` if anything is to be changed.
        data: The images; None where the method reads none. The test set is not to be read.
        recipe: How the reference is trained.
        given: Whether the caller handed the network in, so that it did not begin as ``fresh``.
        checkpoints: Where the trainings of the method are kept; nowhere where it is None.
        stop: Asked after every step of them.
        on_epoch: Called after every epoch that the method trains.
    """

    graph: Graph
    groups: ChannelGroups
    asked: float | None
    seed: int
    network: Network | None = None
    data: ImageSet | None = None
    recipe: Recipe = field(default_factory=Recipe)
    given: bool = False
    checkpoints: Checkpoints | None = None
    stop: Stop | None = None
    on_epoch: OnEpoch | None = None

    @property
    def keep(self) -> float:
        """The keep that is asked for.

        Raises:
            KeepError: None is.
        """
        if self.asked is None:
            raise KeepError("this method needs keep, a fraction in (0, 1]")
        return self.asked

    @property
    def trained(self) -> Network:
        """The reference with its weights, in evaluation mode or not; not to be changed.

        Raises:
            MethodError: There is none.
        """
        if self.network is None:
            raise MethodError("this method looks at a trained network, and has none")
        return self.network

    @property
    def images(self) -> ImageSet:
        """The data set.

        Raises:
            MethodError: There is none.
        """
        if self.data is None:
            raise MethodError("this method looks at images: give it data")
        return self.data

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return next(self.trained.parameters()).device

    def copy(self) -> Network:
        """Return a copy of the network, in evaluation mode, that can be trained.

        Gradients, frozen parameters and hooks are the caller's: the copy has none.
        """
        twin = copy.deepcopy(self.trained).eval().requires_grad_(True)
        twin.zero_grad(set_to_none=True)
        for module in twin.modules():
            for hooks in (value for name, value in vars(module).items() if name in _HOOKS):
                hooks.clear()
        return twin

    def fresh(self, graph: Graph | None = None) -> Network:
        """Return a fresh network of the reference or of ``graph``, where the network lies."""
        device = "cpu" if self.network is None else self.device
        return build(graph or self.graph, seed=self.seed, device=device)

    def batches(self, count: int, *, batch: int = _SCORED_BATCH) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images ``[b c h w]``, plain and normalised, and labels ``[b]``.

        They are drawn by the seed from the training images less the validation part, ``count`` of
        them or all there are; the same each time.
        """
        data = self.images.to(self.device)
        part = data.part("fit")
        chosen = subset(len(part), min(count, len(part)), seed=self.seed, stream="scored images")
        order = torch.tensor(chosen, device=self.device)
        for start in range(0, len(order), batch):
            places = order[start : start + batch]
            yield normalise(part.read(places), data), part.labels[places]

    def validate(self, network: Network) -> Evaluation:
        """Return how well ``network`` does on the validation part."""
        data = self.images.to(self.device)
        return evaluate(network, data, data.part("validation"))

    def train(
        self, network: Network, recipe: Recipe | None = None, hooks: Hooks | None = None
    ) -> None:
        """Train ``network`` in place on the training images less the validation part.

        It goes on where it was cut short, unless its hooks may remember things: then it begins
        anew.
        """
        recipe, hooks = recipe or self.recipe, hooks or Hooks()
        train(
            network,
            self.images,
            recipe,
            seed=self.seed,
            held_out=True,
            hooks=hooks,
            checkpoints=kept_in(self.checkpoints, network, recipe, hooks),
            stop=self.stop,
            on_epoch=self.on_epoch,
        )


def kept_in(
    checkpoints: Checkpoints | None, network: Network, recipe: Recipe, hooks: Hooks
) -> Checkpoints | None:
    """Return where one of a method's trainings is kept, told by what it begins with.

    None where nothing is to be kept, or the hooks may remember things.
    """
    if checkpoints is None or not hooks.remember_nothing:
        return None
    facts = [digest(network.graph), weights_digest(network), encode(recipe), encode(hooks.facts)]
    return checkpoints.under(f"training-{digest_of(facts)}")


@final
@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What a method wants.

    Args:
        widths: New width by group, where the method does not say which channels.
        selections: Kept channels by group, ascending.
        scores: Score of each channel by group, for those in ``selections``: where a bound of the
            graph asks for fewer channels than the method kept, the lowest scores go.
        kept_best: Groups or layers that the method would have emptied.
        dropped: Residual blocks to leave out.
        part_counts: Parts that are left of each grouped convolution that the method scores, also
            where all are. Where parts go, the selections tell whole parts on both sides.
        masks: Kept weights by layer, true where kept, of the kernel's shape.
        densities: Keep probability of each kernel position by layer.
        nominal: Keep that the method means for each group or layer, where the architecture cannot
            have it.
        found: What the method measured, as JSON values.
        refit: A copy of the reference, full-size, with weights that the method fitted anew for
            the kept channels; None where weights stay as they are.
    """

    widths: Mapping[str, int] = field(default_factory=dict)
    selections: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    scores: Scores = field(default_factory=dict)
    kept_best: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    part_counts: Mapping[str, int] = field(default_factory=dict)
    masks: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    densities: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    nominal: Mapping[str, float] = field(default_factory=dict)
    found: Mapping[str, Any] = field(default_factory=dict)
    refit: Network | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Generator(ABC):
    """A pruning method. Its options are the fields of its dataclass, told in its docstring.

    ``prune`` makes one, gives it what it ``looks_at`` (a reference that is trained with the
    method's ``hooks``, say) and asks it to ``propose`` once. A method never sees the test set,
    never changes the caller's network, and draws only from ``Subject.seed``.
    """

    looks_at: ClassVar[LooksAt] = "trained"
    """``own``: it trains through ``Subject.train``, from the given weights or fresh ones."""

    recipe: ClassVar[Recipe] = Recipe()
    """How the reference is trained where the caller does not say."""

    @property
    def reads(self) -> bool:
        """Whether the method itself looks at images, beside those the reference is trained on.

        A method that always does says ``reads: ClassVar[bool] = True``.
        """
        return False

    @property
    def counts(self) -> Counts:
        """What the keep is a fraction of."""
        return "channels"

    @property
    def says_how_much(self) -> str | None:
        """The option that says how much is kept instead of ``keep``, if it is set."""
        return None

    def check(self, graph: Graph) -> None:
        """Refuse options that do not fit ``graph``, before anything is trained.

        Raises:
            MethodError: They do not fit.
        """
        return None

    def hooks(self, keep: float | None) -> Hooks:
        """Return what the method adds to the training of the reference.

        Hooks that remember nothing say so by their ``facts``: only such a training can go on where
        it was cut short.

        Args:
            keep: The keep that is asked for; None where the method's options say how much.
        """
        return Hooks()

    @abstractmethod
    def propose(self, subject: Subject) -> Proposal:
        """Return what to keep; fixed groups are not named, divisors are respected."""


GENERATORS: Registry[type[Generator]] = Registry("method", "prunenas.generators")


def make_generator(method: str, **options: Any) -> Generator:
    """Return the method called ``method`` with its options set.

    Raises:
        UnknownNameError: No such method.
        MethodError: It has no such option; the message lists those it has. Or it has one whose
            name means something else already.
    """
    kind = GENERATORS[method]
    known = [f.name for f in fields(kind)]
    if taken := sorted(_TAKEN & {*known}):
        raise MethodError(
            f"{method}: no option can be called {', '.join(taken)}, which prune and the origin "
            "of a descriptor use themselves; rename it"
        )
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise MethodError(
            f"{method} has no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}"
        )
    return kind(**options)


def need(method: str, **rules: tuple[object, bool, str]) -> None:
    """Refuse impossible options, all at once: name=(value, whether it is fine, the rule).

    Raises:
        MethodError: Some value is not fine.
    """
    faults = [
        f"{name} {rule}, got {value!r}" for name, (value, fine, rule) in rules.items() if not fine
    ]
    if faults:
        raise MethodError(f"{method}: " + "; ".join(faults))


def is_fraction(value: float) -> bool:
    """Return whether ``value`` lies in (0, 1]."""
    return 0 < value <= 1


def is_amount(value: float) -> bool:
    """Return whether ``value`` is finite and not negative."""
    return 0 <= value < math.inf
