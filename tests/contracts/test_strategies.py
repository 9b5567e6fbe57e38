"""Every registered strategy keeps these promises; none is named here."""

import json
import random

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler

from prunenas.errors import UnknownNameError
from prunenas.search.strategies.base import STRATEGIES, Strategy
from prunenas.search.study import search
from tests.search.fakes import RECIPE, install, space, tiny_data

NAMES = STRATEGIES.names()
SPACE = {"stage1": FloatDistribution(0.1, 0.5), "stage2": FloatDistribution(0.3, 1.0)}
DIRECTIONS = (["maximize"], ["maximize", "minimize"], ["maximize", "minimize", "minimize"])

every_strategy = pytest.mark.parametrize("name", NAMES)
every_direction = pytest.mark.parametrize("directions", DIRECTIONS, ids=len)


@pytest.fixture(autouse=True)
def quiet_optuna():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


def proposals(name, directions, *, seed, trials=24, study=None):
    """Return what is proposed when a sampler is made anew for every trial."""
    strategy = STRATEGIES[name]()
    study = study or optuna.create_study(directions=directions)
    done = len(study.trials)
    for number in range(done, trials):
        study.sampler = strategy.sampler(seed * 1000 + number)
        trial = study.ask(SPACE)
        a, b = trial.params["stage1"], trial.params["stage2"]
        study.tell(trial, [a - (b - 0.6) ** 2, a * b, b][: len(directions)])
    return [tuple(trial.params.values()) for trial in study.trials]


@every_strategy
def test_it_is_a_strategy_that_makes_samplers(name):
    assert issubclass(STRATEGIES[name], Strategy)
    assert isinstance(STRATEGIES[name]().sampler(0), BaseSampler)
    assert (STRATEGIES[name].__doc__ or "").strip()


@every_strategy
@every_direction
def test_the_same_seed_proposes_the_same_and_stays_in_the_intervals(name, directions):
    first = proposals(name, directions, seed=1)
    assert first == proposals(name, directions, seed=1)
    assert all(0.1 <= a <= 0.5 and 0.3 <= b <= 1 for a, b in first)


@every_strategy
@every_direction
def test_another_seed_proposes_something_else(name, directions):
    assert proposals(name, directions, seed=1) != proposals(name, directions, seed=2)


@every_strategy
@every_direction
def test_no_proposal_is_drawn_twice_in_a_row(name, directions):
    """A sampler made anew from one seed would repeat its first draw for ever."""
    found = proposals(name, directions, seed=1)
    assert len({*found}) > len(found) // 2


@every_strategy
@every_direction
def test_all_it_remembers_is_in_the_study(name, directions):
    """A search that is taken up by another process proposes what the unbroken one would have."""
    study = optuna.create_study(directions=directions)
    proposals(name, directions, seed=1, trials=19, study=study)
    assert proposals(name, directions, seed=1, study=study) == proposals(name, directions, seed=1)


@every_strategy
def test_it_makes_samplers_of_the_largest_and_smallest_seed(name):
    for seed in (0, 2**32 - 1):
        STRATEGIES[name]().sampler(seed).reseed_rng()


@every_strategy
def test_the_global_random_states_are_left_alone(name):
    before = random.getstate(), np.random.get_state()[1].tolist()
    proposals(name, DIRECTIONS[1], seed=1, trials=20)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


@every_strategy
@pytest.mark.parametrize(
    "objectives", [("accuracy",), ("accuracy", "macs"), ("params", "accuracy")]
)
def test_a_search_runs_and_its_folder_names_the_sampler(name, objectives, tmp_path, monkeypatch):
    install(monkeypatch)
    front = search(
        space(),
        tiny_data(),
        recipe=RECIPE,
        strategy=name,
        objectives=objectives,
        trials=20,
        confirm_seeds=0,
        out=tmp_path / "run",
    )
    assert front.trials == 20
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    sampler = type(STRATEGIES[name]().sampler(0)).__name__
    assert facts["strategy"] == {"name": name, "sampler": sampler}
    assert facts["objectives"] == [*objectives]
    assert front.best().provenance["search"]["strategy"] == facts["strategy"]


def test_an_unknown_strategy_is_refused_with_the_known_ones():
    with pytest.raises(UnknownNameError, match=", ".join(NAMES)):
        STRATEGIES["grid"]
