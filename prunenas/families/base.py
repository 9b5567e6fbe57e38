"""The door of the wing: what a family is, where families are filed, the verb that builds one."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType, UnionType
from typing import Final, final, get_args, get_origin

from prunenas.errors import InputError, ShapeError
from prunenas.ir.graph import Graph
from prunenas.ir.writer import GraphWriter
from prunenas.registry import Registry

Builder = Callable[..., Graph]
"""``(net, classes, width, *, options...) -> Graph``: writes one network on ``net``.

``net`` is a fresh writer of the wanted image size, ``classes`` a positive number, ``width`` a
positive factor for all widths. Options are keyword-only and annotated: the annotations are
checked before the builder runs, so it only has to check what a type cannot say. An option that
no registered name fixes has a default: every name builds without further words.
"""

ImageSize = tuple[int, int, int]
"""Channels, height and width of an image."""

CIFAR_SIZE: Final = (3, 32, 32)
IMAGENET_SIZE: Final = (3, 224, 224)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A network, or a row of networks that differ in options.

    Args:
        build: Writes the network.
        input_size: Image that the network was made for.
        classes: Number of classes that it was made for.
        fixed: Options that the registered name stands for; they may not be given again.
    """

    build: Builder
    input_size: ImageSize
    classes: int
    fixed: Mapping[str, object]

    @property
    def options(self) -> dict[str, inspect.Parameter]:
        """What may be given, by name, with annotation and default."""
        return {
            name: parameter
            for name, parameter in inspect.signature(self.build).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY and name not in self.fixed
        }

    def faults(self, options: Mapping[str, object]) -> list[str]:
        """Return what is wrong with ``options``, one line each."""
        legal = self.options
        known = ", ".join(_told(parameter) for parameter in legal.values()) or "none"
        faults = [
            f"{name} is no option here; the options are: {known}"
            for name in options
            if name not in legal
        ]
        faults += [
            f"the option is {_told(legal[name])}, got {name}={value!r}"
            for name, value in options.items()
            if name in legal and not _fits(value, legal[name].annotation)
        ]
        return faults


FAMILIES: Registry[Family] = Registry("family", "prunenas.families")


def family(
    name: str, *, input_size: ImageSize, classes: int, **fixed: object
) -> Callable[[Builder], Builder]:
    """Return a decorator that files a builder under ``name``, with some options ``fixed``.

    One builder may carry many names: ``resnet20`` is ``resnet`` with ``depth=20``.
    """

    def file(build: Builder) -> Builder:
        FAMILIES.register(name)(
            Family(
                build=build,
                input_size=input_size,
                classes=classes,
                fixed=MappingProxyType(fixed),
            )
        )
        return build

    return file


def reference(
    name: str,
    input_size: ImageSize | None = None,
    classes: int | None = None,
    *,
    width: float = 1.0,
    **options: object,
) -> Graph:
    """Return the unpruned network ``name``: what a search starts from.

    Args:
        name: A registered family.
        input_size: Channels, height and width of the image; by default the family's own.
        classes: Number of classes; by default the family's own.
        width: Factor for all widths, hidden linear layers and growth included, classes not.
        **options: What this family offers besides.

    Raises:
        UnknownNameError: There is no such family; the known ones are listed.
        InputError: A value is wrong or an option unknown; all such faults are told.
        ShapeError: The image is too small for the network's windows.

    Example:
        >>> reference("resnet20", classes=100).classes
        100
        >>> reference("vgg16", width=0.5)["features.0"].op.width
        32
    """
    entry = FAMILIES[name]
    size = entry.input_size if input_size is None else tuple(input_size)
    labels = entry.classes if classes is None else classes
    faults = [*_plain_faults(size, labels, width), *entry.faults(options)]
    if faults:
        raise InputError(f"cannot build {name}: " + "; ".join(faults))
    net = GraphWriter((size[0], size[1], size[2]))
    try:
        return entry.build(net, labels, width, **entry.fixed, **options)
    except ShapeError as error:
        image = "x".join(map(str, size))
        raise ShapeError(f"{name} does not fit an image of {image}: {error}") from error
    except InputError as error:
        raise InputError(f"cannot build {name}: {error}") from error


def scaled(width: int, factor: float) -> int:
    """Return ``width`` times ``factor``, rounded, at least 1."""
    return max(1, round(width * factor))


def need_depth(depth: int, *, rule: str, base: int, step: int) -> int:
    """Return n of ``depth = step * n + base``.

    Raises:
        InputError: There is no whole positive n; ``rule`` says what the depths are.
    """
    blocks, rest = divmod(depth - base, step)
    if rest or blocks < 1:
        first = ", ".join(str(base + step * n) for n in (1, 2, 3))
        raise InputError(f"depth must be {rule} ({first}, ...), got depth={depth}")
    return blocks


def _plain_faults(size: tuple[int, ...], classes: object, width: object) -> list[str]:
    faults = []
    if len(size) != 3 or not all(_fits(n, int) and n > 0 for n in size):
        faults.append(f"input_size is channels, height and width, all from 1 on, got {size}")
    if not isinstance(classes, int) or isinstance(classes, bool) or classes < 1:
        faults.append(f"classes is a whole number from 1 on, got {classes!r}")
    if not isinstance(width, int | float) or not math.isfinite(width) or width <= 0:
        faults.append(f"width is a factor above 0, got {width!r}")
    return faults


def _fits(value: object, kind: object) -> bool:
    """Return whether ``value`` is of the annotation ``kind``; a bool is no number."""
    if isinstance(kind, UnionType):
        return any(_fits(value, part) for part in get_args(kind))
    if kind is int or kind is float:
        numbers = int if kind is int else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool)
    plain = get_origin(kind) or kind
    return isinstance(plain, type) and isinstance(value, plain)


def _told(parameter: inspect.Parameter) -> str:
    return str(parameter.replace(default=parameter.empty))
