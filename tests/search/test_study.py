import json
from collections import Counter

import pytest

from prunenas.arch.profile import StageProfile
from prunenas.arch.spec import load
from prunenas.errors import DataError, RunError, RunFolderError, SpaceError, UnknownNameError
from prunenas.ir.canonical import digest, encode
from prunenas.ir.cost import macs
from prunenas.search.candidate import candidate
from prunenas.search.front import pareto
from prunenas.search.study import search
from tests.search.fakes import RECIPE, accuracy, profile, space, target, tiny_data

INSIDE = profile(0.83, 0.27, 0.47)
"""Between the places of the grid."""
OUTSIDE = profile(1.0, 0.1, 1.0)


def run(within=None, out=None, **options):
    fields = {"recipe": RECIPE, "trials": 8, "confirm_seeds": 2, "front_size": 3, "out": out}
    return search(within or space(), tiny_data(), **(fields | options))


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def score(graph, seed=0):
    return accuracy(graph, seed=seed, held_out=True)


def test_starts_are_tried_first_in_their_order(training):
    within = space(transferred=INSIDE)
    run(within)
    starts = [candidate(within, p.keeps, name="").digest for p in within.starts().values()]
    assert len({*starts}) == 3
    assert candidate(within, within.snapped(INSIDE.keeps), name="").digest not in starts
    assert [graph for graph, _, _ in training.calls[:3]] == starts


@pytest.mark.parametrize("transferred", [None, INSIDE, OUTSIDE])
@pytest.mark.parametrize("strategy", ["random", "tpe", "nsga2"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_best_is_never_below_a_start(training, strategy, transferred, seed):
    within = space(transferred=transferred)
    front = run(within, strategy=strategy, trials=5, seed=seed, confirm_seeds=0)
    best = next(row for row in front.rows if row.role == "best")
    for start in within.starts().values():
        judged = candidate(within, start.keeps, name="").graph
        assert best.validation.accuracy >= score(judged, seed)
    assert front.best() is best.spec


def test_every_control_is_marked_and_judged_like_a_trial(training):
    front = run(space(transferred=OUTSIDE))
    roles = Counter(row.role for row in front.rows)
    assert roles["control"] == 4
    assert roles["best"] == 1
    assert 0 <= roles["front"] <= 2
    controls = [row for row in front.rows if row.role == "control"]
    assert [row.spec.name for row in controls] == [
        "uniform, equal MACs",
        "uniform, equal params",
        "guided",
        "transferred",
    ]
    for row in front.rows:
        assert row.validation.part == "validation"
        assert row.validation.accuracy == score(row.spec.graph)
        assert row.spec.provenance["role"] == row.role
        assert row.confirmed.part == "test"
        assert row.confirmed.n == 2


def test_controls_cost_no_trials(training):
    front = run(space(transferred=OUTSIDE), trials=6)
    assert front.trials == 6


def test_the_front_is_the_pareto_front_of_all_trials(training, tmp_path):
    front = run(out=tmp_path / "run", trials=15, front_size=50, confirm_seeds=0)
    tried = {}
    for line in (tmp_path / "run" / "study.journal").read_text().splitlines():
        keeps = json.loads(line).get("user_attr", {}).get("keeps")
        if keeps:
            found = candidate(space(), keeps, name="")
            tried.setdefault(found.digest, found)
    wanted = pareto(tried.values(), lambda c: (-score(c.graph), c.macs))
    rows = [row for row in front.rows if row.role != "control"]
    assert {row.spec.digest for row in rows} == {c.digest for c in wanted}
    assert len(rows) > 1
    costs = [row.validation.macs for row in rows]
    assert costs == sorted(costs)
    assert front.left_out == 0


def test_a_front_of_three_costs_counts_params_too(training):
    front = run(objectives=("accuracy", "params"), trials=15, front_size=50, confirm_seeds=0)
    found = [row.validation for row in front.rows if row.role != "control"]
    kept = pareto(found, lambda m: (-m.accuracy, m.macs, m.params))
    assert kept == found


def test_points_that_are_not_confirmed_are_counted(training):
    whole = run(trials=15, front_size=50, confirm_seeds=0)
    points = sum(row.role != "control" for row in whole.rows)
    assert points > 2
    some = run(trials=15, front_size=2, confirm_seeds=0)
    assert sum(row.role != "control" for row in some.rows) == 2
    assert some.left_out == points - 2
    assert some.best().digest == whole.best().digest
    assert some.best("macs").digest == whole.best("macs").digest


def test_every_candidate_meets_the_budget(training):
    front = run(space(max_macs=12_000), trials=12)
    tried = [row for row in front.rows if row.role != "control"]
    assert all(macs(row.spec.graph) <= 12_000 for row in tried)


def test_nothing_is_trained_twice(training):
    run(space(step=0.3), trials=20)
    assert {*Counter(training.calls).values()} == {1}
    # Networks of a coarse grid recur: there are fewer trainings than trials.
    assert len(training.trainings(held_out=True)) < 20


def test_trials_share_one_seed_and_the_front_has_seeds_of_its_own(training):
    front = run(seed=7, confirm_seeds=3)
    assert {seed for _, seed, held_out in training.calls if held_out} == {7}
    assert {seed for _, seed, held_out in training.calls if not held_out} == {8, 9, 10}
    assert all([r.seed for r in row.confirmed.results] == [8, 9, 10] for row in front.rows)


def test_without_confirm_seeds_nothing_but_the_validation_part_is_asked_for(training):
    front = run(confirm_seeds=0)
    assert training.trainings(held_out=False) == []
    assert all(row.confirmed is row.validation and row.spec.metrics is None for row in front.rows)


@pytest.mark.parametrize("seed", [-1, 43_000, 2**40])
def test_any_seed_will_do(training, seed):
    assert run(seed=seed, trials=4, confirm_seeds=1).trials == 4


def test_same_seed_same_front_and_another_seed_another_search(training):
    first = run(trials=12, confirm_seeds=0)
    again = run(trials=12, confirm_seeds=0)
    assert [row.spec.digest for row in first.rows] == [row.spec.digest for row in again.rows]
    training.calls.clear()
    run(trials=12, confirm_seeds=0)
    ours = {graph for graph, _, _ in training.calls}
    training.calls.clear()
    run(trials=12, confirm_seeds=0, seed=1)
    assert {graph for graph, _, _ in training.calls} != ours


def test_a_folder_holds_specs_facts_and_front(training, tmp_path):
    out = tmp_path / "run"
    front = run(out=out, provenance={"command": "by hand"})
    told = json.loads((out / "front.json").read_text())
    assert told["trials"] == 8
    assert [row["role"] for row in told["rows"]] == [row.role for row in front.rows]
    for row, line in zip(front.rows, told["rows"], strict=True):
        assert load(out / line["spec"]) == row.spec
        assert row.spec.provenance["command"] == "by hand"
    facts = json.loads((out / "run.json").read_text())
    assert facts == encode(front.best().provenance["search"])
    assert facts["strategy"] == {"name": "tpe", "sampler": "TPESampler"}
    assert facts["data"] == {"name": "tiny", "digest": tiny_data().digest}
    assert facts["recipe"] == encode(RECIPE)
    assert facts["seed"] == 0


def test_specs_of_an_earlier_front_go(training, tmp_path):
    run(out=tmp_path, trials=3)
    run(out=tmp_path, trials=20)
    told = json.loads((tmp_path / "front.json").read_text())
    files = {f"specs/{path.name}" for path in (tmp_path / "specs").iterdir()}
    assert files == {row["spec"] for row in told["rows"]}


def test_a_search_without_folder_gives_the_same_front(training, tmp_path):
    kept = run(out=tmp_path / "run")
    bare = run()
    assert [(r.role, r.spec) for r in bare.rows] == [(r.role, r.spec) for r in kept.rows]


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"seed": 1}, "seed: the folder has 0, asked for 1"),
        ({"strategy": "random"}, "strategy.name: the folder has 'tpe', asked for 'random'"),
        ({"objectives": ("accuracy", "macs")}, "objectives: the folder has"),
        ({"recipe": None}, "recipe.epochs: the folder has 2, asked for 160"),
        ({"within": space(max_macs=20_000)}, "space.max_macs: the folder has 25000"),
        ({"within": space(guide=profile(0.6, 0.5, 0.5))}, "space.guide.keeps.head: "),
        ({"within": space(target=target(2.0))}, "space.target: "),
    ],
)
def test_another_searchs_folder_is_refused_and_stays_as_it_is(training, tmp_path, changes, path):
    run(out=tmp_path, trials=2)
    before = contents(tmp_path)
    training.calls.clear()
    with pytest.raises(RunFolderError, match="another search") as caught:
        run(out=tmp_path, **({"trials": 3} | changes))
    assert path in str(caught.value)
    assert contents(tmp_path) == before
    assert training.calls == []


def test_counts_are_no_part_of_what_a_search_is(training, tmp_path):
    run(out=tmp_path, trials=2, confirm_seeds=1, front_size=1)
    assert run(out=tmp_path, trials=4, confirm_seeds=2, front_size=5).trials == 4


def test_a_trial_that_diverges_counts_and_the_search_goes_on(training):
    training.diverges = lambda graph, held_out: held_out and len(training.calls) in (1, 4)
    # The first trial's network is a control too, and is not trained again to see it diverge.
    with pytest.warns(UserWarning, match="'guided' is left out: the loss is inf"):
        front = run(trials=6)
    assert front.trials == 6
    dead = {training.calls[0][0], training.calls[3][0]}
    assert not dead & {row.spec.digest for row in front.rows}
    assert len([call for call in training.calls if call[0] in dead]) == 2


def test_a_search_whose_trials_all_diverge_fails_and_ends(training, tmp_path):
    training.diverges = lambda graph, held_out: True
    for _ in range(2):
        with pytest.raises(RunError, match="every training diverged"):
            run(out=tmp_path, trials=6)
    assert len(training.calls) == 6


def test_events_tell_every_training_and_every_epoch(training):
    events = []
    front = run(trials=4, confirm_seeds=1, on_event=events.append)
    ended = [event for event in events if event.metrics is not None]
    trials = [event for event in ended if event.phase == "trials"]
    assert [(e.done, e.total, e.name) for e in trials] == [
        (n, 4, f"trial {n}") for n in range(1, 5)
    ]
    controls = [event for event in ended if event.phase == "controls"]
    assert [(event.done, event.total) for event in controls] == [(1, 3), (2, 3), (3, 3)]
    confirm = [event for event in ended if event.phase == "confirm"]
    assert [event.done for event in confirm] == [*range(1, len(front.rows) + 1)]
    epochs = [event for event in events if event.epoch is not None]
    assert len(epochs) == RECIPE.epochs * len(training.calls)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"trials": 0}, "trials=0"),
        ({"confirm_seeds": -1}, "confirm_seeds=-1"),
        ({"front_size": 0}, "front_size=0"),
        ({"objectives": ()}, "name accuracy"),
        ({"objectives": ("macs",)}, "name accuracy"),
        ({"objectives": ("accuracy", "accuracy")}, "each name once"),
        ({"objectives": ("accuracy", "latency")}, r"'latency'.*params"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused_before_anything_is_written(
    training, tmp_path, options, told
):
    with pytest.raises(SpaceError, match=told):
        run(out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_an_unknown_strategy_is_refused_with_the_known_ones(training, tmp_path):
    with pytest.raises(UnknownNameError, match="nsga2, random, tpe"):
        run(out=tmp_path / "run", strategy="grid")
    assert not (tmp_path / "run").exists()


def test_data_that_does_not_fit_is_refused_before_the_folder_is_taken(training, tmp_path):
    other = tiny_data(classes=11)
    with pytest.raises(DataError, match="11 classes"):
        search(space(), other, recipe=RECIPE, trials=1, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_narrow_space_of_one_network_ends(training):
    """Radius 0: every trial proposes the guide."""
    front = run(space(radius=0, max_macs=None), trials=5, confirm_seeds=1)
    (best,) = [row for row in front.rows if row.role != "control"]
    assert dict(best.spec.profile.keeps) == dict(front.row("guided").spec.profile.keeps)
    trained = {graph for graph, _, held_out in training.calls if held_out}
    assert trained == {row.spec.digest for row in front.rows}


def test_densities_of_the_guide_travel_into_the_specs(training):
    pattern = (0.5,) * 9
    from prunenas.families.base import reference

    graph = reference("vgg11", (1, 16, 16), 10, width=0.1)
    half = dict.fromkeys(StageProfile.uniform(graph, 1.0).keeps, 0.5)
    guide = StageProfile(keeps=half, densities={"stage1": pattern})
    front = run(space(target=graph, guide=guide, max_macs=None), trials=3, confirm_seeds=0)
    assert {*front.best().descriptor.densities.values()} == {pattern}
    assert digest(front.best().graph) == front.best().digest


def test_a_control_that_diverges_is_left_out_and_said(training):
    within = space(transferred=profile(0.95, 0.2, 0.2))
    lost = candidate(within, within.transferred.keeps, name="transferred")
    training.diverges = lambda graph, held_out: digest(graph) == lost.digest
    with pytest.warns(UserWarning, match="'transferred' is left out"):
        front = search(within, tiny_data(), recipe=RECIPE, trials=4, confirm_seeds=1)
    names = [row.spec.name for row in front.rows if row.role == "control"]
    assert names == ["uniform, equal MACs", "uniform, equal params", "guided"]
