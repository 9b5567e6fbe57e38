"""Tree-structured Parzen estimator."""

from typing import final

from optuna.samplers import BaseSampler, TPESampler

from prunenas.search.strategies.base import STRATEGIES, Strategy


@STRATEGIES.register("tpe")
@final
class Tpe(Strategy):
    """Keeps that are likely among good trials and unlikely among bad ones, drawn jointly.

    Source: Bergstra et al. 2011, "Algorithms for hyper-parameter optimization".
    """

    def sampler(self, seed: int) -> BaseSampler:
        """Return Optuna's multivariate TPE sampler, after eight random trials."""
        return TPESampler(seed=seed, n_startup_trials=8, multivariate=True)
