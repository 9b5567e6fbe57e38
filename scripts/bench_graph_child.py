"""What bench_graph.py measures in processes of their own, one JSON object a line.

Usage: python scripts/bench_graph_child.py WHAT MODEL
"""

import copy
import gc
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import torch
from torch import nn

import prunenas as pn
from prunenas.errors import PruneNASError
from prunenas.importers.sources import find
from prunenas.importers.verify import Certificate
from prunenas.ir.cost import macs
from prunenas.ir.coupling import couple

KEEP = 0.5
LONG = 20.0
"""Seconds after which nothing is timed another time."""

T = TypeVar("T")
Row = dict[str, Any]
Size = tuple[int, int, int]


def main() -> None:
    """Print what is measured."""
    warnings.simplefilter("ignore")
    what, name = sys.argv[1:]
    for row in MEASURED[what](name):
        print(json.dumps(row), flush=True)


def timed(work: Callable[..., T], *args: Any, **options: Any) -> tuple[T, float]:
    """Return what a call returns, and its wall seconds; old garbage is not its doing."""
    gc.collect()
    started = time.perf_counter()
    result = work(*args, **options)
    return result, time.perf_counter() - started


def made(name: str) -> tuple[nn.Module, Size]:
    """Return a fresh network and the size of its images: 224 x 224 where it takes that."""
    side = 299 if name == "inception_v3" else 224
    return find(f"torchvision:{name}").module.eval(), (3, side, side)


def warm_up() -> None:
    """Trace something small both ways, so that no later timing loads a front end."""
    small = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
    pn.import_network(small, (3, 8, 8))
    torch.export.export(small, (torch.zeros(2, 3, 8, 8),), strict=False)


def narrowing(name: str) -> Iterator[Row]:
    """Yield the milliseconds of each step on a fresh graph object, by the kind of budget."""
    graph = pn.trace(*made(name))
    row: Row = {"nodes": len(graph.nodes)}
    for kind, budget in (("keep", KEEP), ("max_macs", KEEP * macs(graph))):
        # The first run warms up.
        runs = [_narrowed(graph, {kind: budget}) for _ in range(10)][1:]
        row[kind] = {step: [run[step] for run in runs] for step in runs[0]}
    yield row


def _narrowed(graph: pn.Graph, budget: dict[str, Any]) -> dict[str, float]:
    # What was found out about a graph is remembered with it.
    fresh = pn.Graph(nodes=graph.nodes, output=graph.output, init=graph.init)
    _, first = timed(couple, fresh)
    descriptor, second = timed(_allocated, fresh, budget)
    _, third = timed(pn.apply, fresh, descriptor)
    return {"couple": 1e3 * first, "allocate": 1e3 * second, "apply": 1e3 * third}


def _allocated(graph: pn.Graph, budget: dict[str, Any]) -> pn.Descriptor:
    return pn.allocate(graph, pn.StageProfile.uniform(graph, KEEP), **budget)


def peer_global(name: str) -> Iterator[Row]:
    """Yield the milliseconds of the peer's two calls, its ranking global over all layers."""
    module, size = made(name)
    pruner, duration = timed(peer_pruner, module, size, everywhere=True)
    yield {"call": "BasePruner(...), which builds its dependency graph", "ms": 1e3 * duration}
    _, duration = timed(pruner.step)
    call = "BasePruner.step(), global_pruning=True, pruning_ratio=0.5"
    yield {"call": call, "ms": 1e3 * duration}


def peer_pruner(module: nn.Module, size: Size, *, everywhere: bool) -> Any:
    """Return Torch-Pruning's pruner of half the channels, the classifier left as it is."""
    try:
        import torch_pruning
    except ImportError:
        raise SystemExit("torch-pruning is missing: pip install 'prunenas[bench]'") from None
    widths = ("out_features", "out_channels")
    return torch_pruning.pruner.BasePruner(
        module,
        torch.rand(1, *size),
        importance=torch_pruning.importance.MagnitudeImportance(p=1),
        global_pruning=everywhere,
        pruning_ratio=1 - KEEP,
        ignored_layers=[
            m for m in module.modules() if any(getattr(m, w, None) == 1000 for w in widths)
        ],
        num_heads={
            m: m.num_heads for m in module.modules() if isinstance(m, nn.MultiheadAttention)
        },
        # Its defaults are dicts that all pruners of a process share.
        in_channel_groups={},
        out_channel_groups={},
    )


def paths(name: str) -> Iterator[Row]:
    """Yield the seconds of each way from the module to a narrow network that runs."""
    warm_up()
    module, size = made(name)
    elements = sum(p.numel() for p in module.parameters())
    for who, way in (("fresh", _fresh), ("bare", _bare), ("kept", _kept), ("peer", _peer)):
        runs: list[float] = []
        narrow = module
        try:
            while len(runs) < 3 and sum(runs) < LONG:
                # The peer cuts open what it is given.
                narrow, duration = timed(way, copy.deepcopy(module), size)
                runs.append(duration)
            with torch.no_grad():
                narrow.eval()(torch.rand(1, *size))
        except PruneNASError:
            continue
        left = sum(p.numel() for p in narrow.parameters()) / elements
        yield {"who": who, "runs": runs, "left": left}


def _fresh(module: nn.Module, size: Size) -> nn.Module:
    graph = pn.import_network(module, size).graph
    return pn.build(pn.apply(graph, pn.StageProfile.uniform(graph, KEEP).descriptor(graph)))


def _bare(module: nn.Module, size: Size) -> nn.Module:
    with patch("prunenas.importers.trace.certify", return_value=Certificate(checks=())):
        return _fresh(module, size)


def _kept(module: nn.Module, size: Size) -> nn.Module:
    network = pn.import_network(module, size).network()
    return pn.inherit(network, pn.generate("l1_norm", network.graph, keep=KEEP, network=network))


def _peer(module: nn.Module, size: Size) -> nn.Module:
    peer_pruner(module, size, everywhere=False).step()
    return module


def forward_memory(name: str) -> Iterator[Row]:
    """Yield the MiB of the tensors of a network, and what a forward of two images adds."""
    module, size = made(name)

    def forward() -> None:
        with torch.no_grad():
            module(torch.rand(2, *size))

    own = sum(t.numel() * t.element_size() for t in module.state_dict().values()) / 2**20
    yield {"own": own, "added": _added(forward)}


def import_memory(name: str) -> Iterator[Row]:
    """Yield the MiB that an import adds at its peak; what a first import loads is there before."""
    warm_up()
    module, size = made(name)
    yield {"added": _added(lambda: pn.import_network(module, size))}


def _added(work: Callable[[], object]) -> float:
    gc.collect()
    before = _resident("VmRSS")
    # This sets the peak back to the present.
    Path("/proc/self/clear_refs").write_text("5")
    work()
    return _resident("VmHWM") - before


def _resident(key: str) -> float:
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith(key)).split()[1]) / 1024


MEASURED: dict[str, Callable[[str], Iterator[Row]]] = {
    "narrowing": narrowing,
    "peer_global": peer_global,
    "paths": paths,
    "forward_memory": forward_memory,
    "import_memory": import_memory,
}


if __name__ == "__main__":
    main()
