"""Searches without training."""

import importlib

import optuna
import pytest

from tests.search.fakes import FakeTraining

# By its path: the attribute ``prunenas.search`` is the verb.
objective = importlib.import_module("prunenas.search.objective")


@pytest.fixture(autouse=True)
def quiet_optuna():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


@pytest.fixture
def training(monkeypatch) -> FakeTraining:
    """Put a formula in the place of training."""
    fake = FakeTraining()
    monkeypatch.setattr(objective, "train_seeds", fake)
    return fake


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """Keep the journal from waiting for the disk: no test pulls the plug."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
