"""Metrics over seeds."""

from dataclasses import replace

import pytest

from prunenas.arch.metrics import Metrics, SeedResult
from prunenas.errors import InputError
from prunenas.ir.canonical import decode, encode


def metrics(*accuracies, top5=None):
    results = tuple(
        SeedResult(seed=i, accuracy=a, loss=0.5, epochs=3, seconds=2.0, top5=top5)
        for i, a in enumerate(accuracies)
    )
    return Metrics(results=results, part="test", params=10, macs=20, device="a CPU", data="shapes")


def test_mean_and_sample_deviation_over_seeds():
    found = metrics(0.2, 0.4, 0.9)
    assert found.n == 3
    assert found.accuracy == pytest.approx(0.5)
    # Deviations -0.3, -0.1, 0.4; divided by n - 1.
    assert found.std == pytest.approx((0.26 / 2) ** 0.5)
    assert found.seconds == 6.0


def test_one_seed_has_no_deviation():
    found = metrics(0.25)
    assert (found.n, found.accuracy, found.std) == (1, 0.25, 0.0)


def test_top5_is_the_mean_where_it_was_measured():
    assert metrics(0.2, 0.4, top5=0.75).top5 == 0.75
    assert metrics(0.2, 0.4).top5 is None


def test_no_result_is_refused():
    with pytest.raises(InputError, match="at least one seed"):
        metrics()


def test_networks_are_compared_by_what_masks_leave():
    dense = metrics(0.5)
    sparse = replace(dense, nonzero_params=3, effective_macs=4)
    assert (dense.compared_params, dense.compared_macs, dense.is_sparse) == (10, 20, False)
    assert (sparse.compared_params, sparse.compared_macs, sparse.is_sparse) == (3, 4, True)
    assert (sparse.params, sparse.macs) == (10, 20)


def test_metrics_of_a_dense_network_are_written_as_ever():
    dense = metrics(0.5)
    assert encode(dense).keys().isdisjoint({"nonzero_params", "effective_macs"})
    sparse = replace(dense, nonzero_params=3, effective_macs=4)
    assert decode(Metrics, encode(sparse), "metrics") == sparse


def test_trainings_of_one_network_become_one_with_all_their_seeds():
    together = Metrics.together([metrics(0.2), metrics(0.4, 0.9)])
    assert [result.accuracy for result in together.results] == [0.2, 0.4, 0.9]
    assert replace(together, results=metrics(0.2).results) == metrics(0.2)
    with pytest.raises(InputError, match="at least one seed"):
        Metrics.together([])


def test_trainings_of_different_things_are_not_seeds_of_one():
    other = replace(metrics(0.2), params=11, data="digits", part="validation", device="a GPU")
    faults = "params is 10 and 11; data is shapes and digits; part is test and validation"
    with pytest.raises(InputError, match=f": {faults}$"):
        Metrics.together([metrics(0.4), other])
