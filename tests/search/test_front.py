import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunenas.arch.metrics import Metrics, SeedResult
from prunenas.errors import InputError
from prunenas.search.candidate import candidate
from prunenas.search.front import Front, FrontRow, pareto
from prunenas.search.study import _spread
from tests.search.fakes import space

points = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), max_size=25)


def dominates(one, other):
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


@given(points)
def test_the_front_is_what_nothing_dominates(items):
    found = pareto(items, lambda item: item)
    assert {*found} == {p for p in items if not any(dominates(q, p) for q in items)}
    assert len(found) == len({*found})


@given(points)
def test_of_equal_points_the_first_is_kept_and_the_order_stays(items):
    numbered = [*enumerate(items)]
    found = pareto(numbered, lambda item: item[1])
    assert found == sorted(found)
    assert all(items.index(point) == place for place, point in found)


@given(st.integers(1, 40), st.data(), st.integers(1, 8))
def test_a_spread_holds_the_best_and_as_many_as_it_may(total, data, count):
    every = [*range(total)]
    best = data.draw(st.sampled_from(every))
    found = _spread(every, best, count)
    assert best in found
    assert found == sorted({*found})
    assert len(found) == min(total, count)
    if count > 1:
        assert 0 in found, "the smallest is what best('macs') promises"


def metrics(accuracy, *, macs=1, params=1, part="validation", n=1):
    results = tuple(
        SeedResult(seed=s, accuracy=accuracy + s / 100, loss=1.0, epochs=1, seconds=1.0)
        for s in range(n)
    )
    return Metrics(results=results, part=part, params=params, macs=macs, device="x", data="d")


def row(role, name, keep, *, macs, params):
    found = candidate(space(), dict.fromkeys(space().guide.keeps, keep), name=name)
    judged = metrics(0.5, macs=macs, params=params)
    return FrontRow(role=role, spec=found.spec(space().target), validation=judged)


@pytest.fixture
def front():
    return Front(
        rows=(
            row("control", "guided", 0.1, macs=1, params=1),
            row("front", "small", 0.2, macs=20, params=900),
            row("best", "chosen", 0.4, macs=60, params=500),
            row("front", "narrow", 0.5, macs=90, params=100),
        ),
        trials=9,
    )


@pytest.mark.parametrize(
    ("by", "name"), [("accuracy", "chosen"), ("macs", "small"), ("params", "narrow")]
)
def test_the_best_is_a_point_of_the_front_and_never_a_control(front, by, name):
    assert front.best(by).name == name


def test_the_best_by_something_else_is_refused_with_what_is_known(front):
    with pytest.raises(InputError, match=r"'latency'.*accuracy, macs, params"):
        front.best("latency")


def test_a_row_is_found_by_name_or_refused_with_the_names(front):
    assert front.row("small").role == "front"
    with pytest.raises(InputError, match="guided, small, chosen, narrow"):
        front.row("large")


def test_confirmed_metrics_are_the_specs_and_else_the_validations(front):
    plain = front.rows[1]
    assert plain.confirmed is plain.validation
    tested = metrics(0.7, part="test", n=3)
    confirmed = FrontRow(
        role="front", spec=plain.spec.with_metrics(tested), validation=plain.validation
    )
    assert confirmed.confirmed == tested
