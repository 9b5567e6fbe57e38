"""A call that no other op can tell, frozen as it is."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

from prunenas.errors import ShapeError
from prunenas.ir.axis import Axes, constant
from prunenas.ir.ops.layout import LayoutOp
from prunenas.ir.shape import Shape, need_positive
from prunenas.ir.unifier import Unifier


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Opaque(LayoutOp):
    """One of torch's aten ops by its name; every width that it reads is fixed, none is counted.

    Args:
        call: Name and overload, such as ``cumsum.default``.
        arguments: JSON of the positional and the named arguments; ``{"tensor": 0}`` stands for
            the first input.
        item: Which of several results this is; None for one that is single.
        sizes: Sizes of the result without the batch.
        lead: Entries of the batch dimension for each image; None without a batch.
    """

    arity: ClassVar[tuple[int, int | None]] = (0, None)
    kind: Literal["Opaque"] = "Opaque"
    call: str
    arguments: str
    item: int | None = None
    sizes: tuple[int, ...]
    lead: int | None = 1

    def __post_init__(self) -> None:
        need_positive(self.kind, sizes=self.sizes)
        # The name is looked up among torch's ops and nowhere else.
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*\.[A-Za-z_][A-Za-z0-9_]*", self.call):
            raise ShapeError(f"Opaque needs the name of an aten op, got {self.call!r}")
        self.called_with()

    @staticmethod
    def text(arguments: list[Any]) -> str:
        """Return positional and named arguments as ``arguments``."""
        return json.dumps(arguments, sort_keys=True, separators=(",", ":"))

    def called_with(self) -> tuple[list[Any], dict[str, Any]]:
        """Return positional and named arguments, tensors as ``{"tensor": i}``.

        Raises:
            ShapeError: They cannot be read.
        """
        try:
            positional, named = json.loads(self.arguments)
        except (ValueError, RecursionError) as error:
            raise ShapeError(f"the arguments of {self.call} cannot be read: {error}") from None
        if not isinstance(positional, list) or not isinstance(named, dict):
            raise ShapeError(f"the arguments of {self.call} are a list and an object")
        return positional, named

    def shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the sizes that the call was seen to return."""
        positional, named = self.called_with()
        wanted = {*_tensors([*positional, *named.values()])}
        if wanted != {*range(len(inputs))}:
            raise ShapeError(
                f"{self.call} is given {len(inputs)} tensors, its arguments name {sorted(wanted)}"
            )
        return Shape(self.sizes, self.lead)

    def axes(
        self,
        inputs: Sequence[Axes],
        shapes: Sequence[Shape],
        out: Shape,
        unifier: Unifier,
        node: str,
    ) -> Axes:
        """Fix all that is read; what comes out has no variables."""
        for axis in (axis for axes in inputs for axis in axes):
            unifier.fix(axis, f"{node} calls {self.call}, which no op describes")
        return tuple(map(constant, out.sizes))


def _tensors(value: object) -> Iterator[int]:
    """Yield the numbers of the tensors among arguments.

    Raises:
        ShapeError: An object is something else than a tensor's place.
    """
    if isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
    elif (
        isinstance(value, dict) and value.keys() == {"tensor"} and isinstance(value["tensor"], int)
    ):
        yield value["tensor"]
    elif isinstance(value, dict):
        raise ShapeError(f"the arguments of an Opaque name something other than a tensor: {value}")
