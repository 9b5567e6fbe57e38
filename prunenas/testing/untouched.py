"""What looking at a network must leave as it was."""

import random
from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np
import torch
from torch import Tensor, nn


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Untouched:
    """All that a caller can see of a network, copied.

    Args:
        tensors: Parameters, their gradients, and buffers, with the tensors they were copied from.
        modules: Every module by name, its mode and its hooks.
        trainable: Which parameters ask for gradients.
    """

    tensors: dict[str, tuple[int, Tensor]]
    modules: dict[str, tuple[int, bool, list[int]]]
    trainable: list[str]

    @classmethod
    def of(cls, network: nn.Module) -> Self:
        """Return what ``network`` is now."""
        tensors: dict[str, Tensor] = dict(network.named_parameters()) | dict(
            network.named_buffers()
        )
        grads = {
            f"{name}.grad": parameter.grad
            for name, parameter in network.named_parameters()
            if parameter.grad is not None
        }
        return cls(
            tensors={n: (id(t), t.detach().clone()) for n, t in (tensors | grads).items()},
            modules={
                name: (id(module), module.training, _hooks(module))
                for name, module in network.named_modules()
            },
            trainable=[name for name, p in network.named_parameters() if p.requires_grad],
        )

    def same_as(self, before: Self) -> None:
        """Fail where anything differs from ``before``."""
        assert self.modules == before.modules
        assert self.trainable == before.trainable
        assert self.tensors.keys() == before.tensors.keys()
        for name, (identity, tensor) in self.tensors.items():
            assert identity == before.tensors[name][0], f"{name} is another tensor"
            assert torch.equal(tensor, before.tensors[name][1]), f"{name} has changed"


def _hooks(module: nn.Module) -> list[int]:
    filed = [kind for name, kind in sorted(vars(module).items()) if name.endswith("_hooks")]
    return [hook for kind in filed for hook in kind]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class States:
    """The global random states, and whether gradients are on."""

    python: Any
    numpy: Any
    torch: Tensor
    gradients: bool

    @classmethod
    def now(cls) -> Self:
        """Return the states as they are."""
        return cls(
            python=random.getstate(),
            numpy=np.random.get_state(legacy=False),
            torch=torch.get_rng_state(),
            gradients=torch.is_grad_enabled(),
        )

    def same_as(self, before: Self) -> None:
        """Fail where any differs from ``before``."""
        assert self.python == before.python, "random was drawn from"
        assert repr(self.numpy) == repr(before.numpy), "numpy.random was drawn from"
        assert torch.equal(self.torch, before.torch), "torch's generator was drawn from"
        assert self.gradients == before.gradients
