"""Wing: search strategies, each an Optuna sampler."""
