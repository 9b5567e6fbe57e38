"""Networks by name: torchvision's, timm's, and those of the user's own packages."""

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, final

from torch import nn

from prunenas.errors import DataError, InputError, TraceError, UnknownNameError


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A module that is to be traced.

    Args:
        name: As it was asked for, such as ``torchvision:resnet50``.
        module: The network.
        input_size: The image size that it brings along; None where it brings none.
        published: Parameters that its makers state for it; None where they state none.
        weights: Which trained weights it carries; None for fresh ones.
    """

    name: str
    module: nn.Module
    input_size: tuple[int, int, int] | None = None
    published: int | None = None
    weights: str | None = None


def is_source(name: str) -> bool:
    """Return whether ``name`` is of the form ``place:network``."""
    place, colon, what = name.partition(":")
    return bool(colon and what) and all(part.isidentifier() for part in place.split("."))


def find(name: str, *, classes: int | None = None, pretrained: bool = False) -> Source:
    """Return the network called ``name``.

    Args:
        name: ``torchvision:resnet50``, ``timm:resnet50d``, or ``package.module:function`` of the
            user's own, where the function (or class) is called without arguments.
        classes: Number of classes; the network's own where it is not given.
        pretrained: Whether trained weights come along, which may have to be downloaded.

    Raises:
        UnknownNameError: There is no such network.
        InputError: The package is not installed, or a user's network is asked for classes.
        DataError: Trained weights cannot be had.
    """
    place, _, what = name.partition(":")
    if place in _COLLECTIONS:
        return _COLLECTIONS[place](name, what, classes, pretrained)
    return _own(name, place, what, classes, pretrained)


def _torchvision(name: str, what: str, classes: int | None, pretrained: bool) -> Source:
    from torchvision import models

    _known(name, what, models.list_models(module=models))
    best = models.get_model_weights(what).DEFAULT
    size = best.transforms().crop_size[0]
    given: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if pretrained and classes is not None and classes != len(best.meta["categories"]):
        raise InputError(
            f"the trained weights of {name} have {len(best.meta['categories'])} classes"
        )
    if what in ("googlenet", "inception_v3") and not pretrained:
        # Its own initialisation takes half a minute and is thrown away here.
        given |= {"init_weights": False}
    if what.startswith("vit_"):
        # Its position embedding is as large as the image that the weights are for.
        given |= {"image_size": size}
    module = _made(
        lambda: models.get_model(what, weights=best if pretrained else None, **given), name
    )
    return Source(
        name=name,
        module=module,
        input_size=(3, size, size),
        published=best.meta["num_params"] if classes is None else None,
        weights=str(best) if pretrained else None,
    )


def _timm(name: str, what: str, classes: int | None, pretrained: bool) -> Source:
    try:
        import timm
    except ImportError:
        raise InputError(f"{name} needs timm: pip install 'prunenas[timm]'") from None
    _known(name, what, timm.list_models())
    given: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    module = _made(lambda: timm.create_model(what, pretrained=pretrained, **given), name)
    config: Mapping[str, Any] = getattr(module, "pretrained_cfg", None) or {}
    return Source(
        name=name,
        module=module,
        input_size=tuple(config.get("input_size", ())) or None,
        weights=str(config.get("tag") or "pretrained") if pretrained else None,
    )


def _own(name: str, place: str, what: str, classes: int | None, pretrained: bool) -> Source:
    if classes is not None or pretrained:
        raise InputError(f"{name} is called without arguments: let it say its classes and weights")
    # As python -m does: the user's own files count from the present folder.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(place)
    except ImportError as error:
        raise InputError(
            f"{place} cannot be imported ({error}): {name} is torchvision:NAME, timm:NAME or "
            "package.module:function"
        ) from None
    for part in what.split("."):
        if not hasattr(found, part):
            near = get_close_matches(part, dir(found), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UnknownNameError(f"{place} has no {what!r}{hint}")
        found = getattr(found, part)
    module = found if isinstance(found, nn.Module) else _made(found, name)
    if not isinstance(module, nn.Module):
        raise InputError(f"{name} gave a {type(module).__name__}, not a torch module")
    size: Any = getattr(module, "input_size", None)
    return Source(name=name, module=module, input_size=tuple(size) if size else None)


def _known(name: str, what: str, known: list[str]) -> None:
    if what not in known:
        near = ", ".join(get_close_matches(what, known, n=3))
        hint = f" (did you mean {near}?)" if near else ""
        raise UnknownNameError(f"there is no network {name}{hint}")


def _made(make: Callable[[], Any], name: str) -> Any:
    try:
        return make()
    except OSError as error:
        raise DataError(f"the weights of {name} cannot be had: {error}") from None
    except TypeError as error:
        raise TraceError(f"{name} cannot be made: {error}") from None


_COLLECTIONS: Mapping[str, Callable[[str, str, int | None, bool], Source]] = {
    "torchvision": _torchvision,
    "timm": _timm,
}
