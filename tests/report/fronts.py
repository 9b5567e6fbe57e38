"""A front made by hand."""

from prunenas.arch.metrics import Metrics, SeedResult
from prunenas.search.candidate import candidate
from prunenas.search.front import Front, FrontRow
from tests.search.fakes import space


def metrics(*accuracies, part="test", top5=None, data="made", macs=12_345, params=6_789, **more):
    results = tuple(
        SeedResult(seed=s, accuracy=a, loss=1.0, epochs=1, seconds=1.0, top5=top5)
        for s, a in enumerate(accuracies)
    )
    return Metrics(
        results=results, part=part, params=params, macs=macs, device="a device", data=data, **more
    )


def row(role, name, keep, judged=None, validation=None):
    found = candidate(space(max_macs=None), dict.fromkeys(space().guide.keeps, keep), name=name)
    spec = found.spec(space().target)
    return FrontRow(
        role=role,
        spec=spec if judged is None else spec.with_metrics(judged),
        validation=validation or metrics(0.5, part="validation"),
    )


def made_front(**fields) -> Front:
    told = {"data": fields.pop("data", "made")}
    rows = (
        row("control", "uniform, equal MACs", 0.5, metrics(0.70, 0.72, **told)),
        row("control", "guided", 0.6, metrics(0.71, 0.75, macs=13_000, **told)),
        row("front", "trial 4", 0.2, metrics(0.60, 0.62, macs=5_000, **told)),
        row("best", "trial 9", 0.7, metrics(0.80, 0.84, macs=20_000, **told)),
    )
    return Front(**({"rows": rows, "trials": 17} | fields))


def sparse_front(**fields) -> Front:
    """A sparse best, and a dense control."""
    after = {"nonzero_params": 2_222, "effective_macs": 4_444}
    rows = (
        row("control", "uniform, equal effective MACs", 0.5, metrics(0.70, 0.72, macs=4_400)),
        row("best", "trial 9", 0.7, metrics(0.80, 0.84, macs=20_000, **after)),
    )
    return Front(**({"rows": rows, "trials": 17} | fields))
