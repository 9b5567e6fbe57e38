"""Searches without training."""

import optuna
import pytest

from tests.search.fakes import FakeTraining, install


@pytest.fixture(autouse=True)
def quiet_optuna():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


@pytest.fixture
def training(monkeypatch) -> FakeTraining:
    return install(monkeypatch)
