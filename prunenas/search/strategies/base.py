"""What a search strategy is: an Optuna sampler, made afresh for every trial."""

from abc import ABC, abstractmethod

from optuna.samplers import BaseSampler

from prunenas.registry import Registry


class Strategy(ABC):
    """Chooses the keeps of the next trial.

    A sampler is made for every trial from a seed of its own, so a search that was interrupted
    proposes what the unbroken one would have proposed: everything else that a sampler needs must
    come from the study.
    """

    @abstractmethod
    def sampler(self, seed: int) -> BaseSampler:
        """Return the sampler of one trial; one or several objectives."""


STRATEGIES: Registry[type[Strategy]] = Registry("strategy", "prunenas.search.strategies")
