"""The result of a search: a Pareto front of specs, and the controls it is held against."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, final

from prunenas.arch.metrics import Metrics
from prunenas.arch.spec import ArchSpec
from prunenas.errors import InputError

Role = Literal["best", "front", "control"]
T = TypeVar("T")


@final
@dataclass(frozen=True, kw_only=True)
class FrontRow:
    """One architecture of a front.

    Args:
        role: ``best`` is the search's choice, ``front`` another Pareto point, ``control`` a
            baseline judged by the same objective.
        spec: The architecture; its metrics are the confirmed ones on the test set.
        validation: What the search saw: one seed, on the validation part.
    """

    role: Role
    spec: ArchSpec
    validation: Metrics

    @property
    def confirmed(self) -> Metrics:
        """Metrics on the test set over several seeds; the validation's where none were asked."""
        return self.spec.metrics or self.validation


@final
@dataclass(frozen=True, kw_only=True)
class Front:
    """Pareto points and controls.

    Args:
        rows: Controls first, then the front from few macs to many.
        trials: Finished trials.
        left_out: Pareto points that were not confirmed.
    """

    rows: tuple[FrontRow, ...]
    trials: int
    left_out: int = 0

    @property
    def is_sparse(self) -> bool:
        """Whether some row is a network under masks: all are compared by costs after masks then."""
        return any(row.confirmed.is_sparse for row in self.rows)

    def best(self, by: Literal["accuracy", "macs", "params"] = "accuracy") -> ArchSpec:
        """Return the spec of one Pareto point.

        Args:
            by: ``accuracy`` is the search's choice, by validation accuracy; ``macs`` and
                ``params`` the smallest on the front, of sparse networks after masks.

        Raises:
            InputError: ``by`` is none of these.
        """
        front = [row for row in self.rows if row.role != "control"]
        keys: dict[str, Callable[[FrontRow], float]] = {
            "accuracy": lambda row: -(row.role == "best"),
            "macs": lambda row: row.validation.compared_macs,
            "params": lambda row: row.validation.compared_params,
        }
        if by not in keys:
            raise InputError(f"the best by {by!r} is not known; by {', '.join(keys)}")
        return min(front, key=keys[by]).spec

    def row(self, name: str) -> FrontRow:
        """Return the row of the architecture called ``name``.

        Raises:
            InputError: There is none.
        """
        for row in self.rows:
            if row.spec.name == name:
                return row
        known = ", ".join(row.spec.name for row in self.rows)
        raise InputError(f"the front has no {name!r}; it has {known}")


def pareto(items: Iterable[T], losses: Callable[[T], Sequence[float]]) -> list[T]:
    """Return the items that no other item beats in one loss without being worse in another.

    Of items with equal losses the first is kept.
    """
    kept: list[tuple[T, Sequence[float]]] = []
    for item in items:
        loss = losses(item)
        if any(all(a <= b for a, b in zip(other, loss, strict=True)) for _, other in kept):
            continue
        kept = [
            (one, other)
            for one, other in kept
            if not all(a <= b for a, b in zip(loss, other, strict=True))
        ]
        kept.append((item, loss))
    return [item for item, _ in kept]
