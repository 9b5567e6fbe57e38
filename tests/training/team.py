"""What the processes of a team do in the tests: each way of training, by one or by several."""

import io
import os
import socket
import sys
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import multiprocessing

from prunenas.build.initialise import build
from prunenas.cli import main
from prunenas.errors import DataError, RunError
from prunenas.ir.ops import KernelSparsity
from prunenas.training.execution.distributed import Team, current_team, joined
from prunenas.training.execution.engine import FAST, Engine
from prunenas.training.hooks import Hooks
from prunenas.training.keeping.checkpoint import Checkpoints
from prunenas.training.loop import train
from prunenas.training.recipe import Recipe, SparsePhase
from tests.training.networks import linear, made, small

SIZE = (3, 8, 8)
RECIPE = Recipe(epochs=2, batch=8, lr=0.1, weight_decay=1e-2, schedule="one_cycle", augment=True)
"""The last of four batches has five images: three for one process, two for the other."""


def images():
    return made(29, 9, size=SIZE, flip=True, crop_padding=1)


def masked_graph():
    graph = small(SIZE, 4, widths=(8, 8, 8))
    nodes = tuple(
        replace(n, op=replace(n.op, sparsity=KernelSparsity(density=(0.5,) * 9)))
        if n.name.startswith("conv")
        else n
        for n in graph.nodes
    )
    return replace(graph, nodes=nodes)


def shrink(network):
    """Add a penalty's gradient, as methods do."""
    for _, scale in network.scales():
        scale.grad.add_(scale.detach().sign(), alpha=1e-2)


def trained(network, data, recipe, engine, **options):
    """Train and return all there is to compare."""
    losses = []
    metrics = train(
        network,
        data,
        recipe,
        engine=engine,
        on_epoch=lambda report: losses.append(report.loss),
        **options,
    )
    result = metrics.results[0]
    return {
        "losses": losses,
        "state": {name: tensor.clone() for name, tensor in network.state_dict().items()},
        "reached": [result.accuracy, result.loss],
        "best": result.best_epoch,
        "words": f"{metrics.execution}; {metrics.device}",
    }


def in_parts(parts):
    return Engine(capture=False, accumulate=parts)


def plain(parts):
    network = build(small(SIZE, 4, widths=(8, 8, 8)), seed=1)
    return trained(network, images(), RECIPE, in_parts(parts))


def held_out(parts):
    network = build(small(SIZE, 4, widths=(8, 8, 8)), seed=1)
    return trained(network, images(), replace(RECIPE, batch=16), in_parts(parts), held_out=True)


def masked(parts):
    """Masks, a sparse phase, hooks, bfloat16 and parts that are cut again."""
    phase = SparsePhase(keep=0.5, start=0.5, end=1)
    recipe = replace(RECIPE, batch=16, sparse=phase, precision="bf16", cutout=2)
    network = build(masked_graph(), seed=1)
    return trained(network, images(), recipe, in_parts(parts), hooks=HOOKS)


HOOKS = Hooks(after_backward=shrink, after_step=lambda network, moment: None)


def interrupted(folder, rank):
    """Stop one process in the middle of an epoch, let all go on, and do the same unbroken."""
    data = made(101, 8, size=SIZE)
    calls = []

    def stop():
        calls.append(1)
        return rank == 1 and len(calls) == 13

    def go(**options):
        network = build(small(SIZE, 4, widths=(8,), dropout=0.5), seed=1)
        return trained(network, data, replace(RECIPE, batch=4), FAST, **options)

    kept = Checkpoints(folder)
    return {
        "told": error_of(lambda: go(checkpoints=kept, stop=stop)),
        "files": sorted(path.suffix for path in folder.iterdir()),
        "again": go(checkpoints=kept),
        "unbroken": go(),
    }


def own_draws():
    """Return the random state that layers draw from in this process."""
    seen = []
    hooks = Hooks(after_step=lambda network, moment: seen.append(torch.get_rng_state()))
    train(build(linear(SIZE), seed=1), images(), replace(RECIPE, epochs=1), hooks=hooks)
    return seen[0]


def error_of(work):
    try:
        work()
    except (RunError, DataError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def quarrels(rank):
    """Return the errors of trainings that cannot be one."""
    data, wild = images(), replace(RECIPE, lr=1e30, schedule="constant")

    def drift(network, moment):
        with torch.no_grad():
            network.node("fc").weight.add_(rank)

    def fresh():
        return build(linear(SIZE), seed=1)

    return {
        "wild": error_of(lambda: train(fresh(), data, wild)),
        "seeds": error_of(lambda: train(fresh(), data, RECIPE, seed=rank)),
        "drift": error_of(lambda: train(fresh(), data, RECIPE, hooks=Hooks(after_step=drift))),
    }


COMMANDS = {
    "train": "train vgg11 --width 0.125 --recipe fast --epochs 1 --seeds 1 --device cpu --json",
    "again": "train vgg11 --width 0.125 --recipe fast --epochs 1 --seeds 1 --device cpu",
    "unknown": "train nosuchnet --device cpu",
    "search": "search space.toml",
}


def called(command):
    """Return exit code, output and errors of the command line."""
    sys.argv = ["prunenas", *command.split()]
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "200")
        try:
            main()
        except SystemExit as ended:
            return ended.code or 0, out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


def told_by_torchrun(rank, port):
    """Set what torchrun would."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def abandoned(rank):
    """Let one process fail while the other trains. It hears of it when the first has ended."""
    with joined("cpu"):
        if rank == 1:
            raise DataError("the image 7.png is damaged")
        train(build(linear(SIZE)), images(), replace(RECIPE, epochs=9999))


def work(rank, ports, folder):
    """Do all of it as one of two processes, and leave what was found in ``folder``."""
    told_by_torchrun(rank, ports[0])
    with joined("cpu") as (team, _):
        assert team == current_team() == Team(rank=rank, size=2)
        found = {"plain": plain(1), "held_out": held_out(1), "masked": masked(2)}
        found["interrupted"] = interrupted(folder / "kept", rank)
        found["draws"] = own_draws()
        found["quarrels"] = quarrels(rank)
    os.chdir(folder)
    for port, (name, command) in zip(ports[2:], COMMANDS.items(), strict=True):
        os.environ["MASTER_PORT"] = str(port)
        found[name] = called(command)
    os.environ["MASTER_PORT"] = str(ports[1])
    found["abandoned"] = error_of(lambda: abandoned(rank))
    torch.save(found, folder / f"{rank}.pt")


def synchronised(rank, ports, folder):
    """Train on two devices, with batch norms that see the images of both."""
    told_by_torchrun(rank, ports[0])
    with joined("cuda") as (_, device):
        network = build(small(SIZE, 4, widths=(8, 8, 8)), seed=1, device=device)
        engine = Engine(sync_norms=True, deterministic=True)
        found = trained(network, images(), replace(RECIPE, precision="fp32"), engine)
    found["state"] = {name: tensor.cpu() for name, tensor in found["state"].items()}
    torch.save(found, folder / f"{rank}.pt")


def free_ports(count):
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def two_processes(job, folder: Path):
    """Return what both processes found."""
    multiprocessing.spawn(job, (free_ports(2 + len(COMMANDS)), folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]
