"""Random search."""

from typing import final

from optuna.samplers import BaseSampler, RandomSampler

from prunenas.search.strategies.base import STRATEGIES, Strategy


@STRATEGIES.register("random")
@final
class RandomSearch(Strategy):
    """Every keep uniform in its interval.

    Source: Bergstra and Bengio 2012, "Random search for hyper-parameter optimization".
    """

    def sampler(self, seed: int) -> BaseSampler:
        """Return Optuna's random sampler."""
        return RandomSampler(seed=seed)
