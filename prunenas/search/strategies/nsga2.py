"""NSGA-II."""

from typing import final

from optuna.samplers import BaseSampler, NSGAIISampler

from prunenas.search.strategies.base import STRATEGIES, Strategy


@STRATEGIES.register("nsga2")
@final
class Nsga2(Strategy):
    """A population that evolves towards the whole front of several objectives.

    Source: Deb et al. 2002, "A fast and elitist multiobjective genetic algorithm: NSGA-II".
    """

    def sampler(self, seed: int) -> BaseSampler:
        """Return Optuna's NSGA-II sampler with a population of 16."""
        return NSGAIISampler(seed=seed, population_size=16)
