"""The search command: file and flags in, run folder and table out."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from prunenas.arch.metrics import Metrics
from prunenas.cli.progress import Display
from prunenas.cli.resolve import command_line, plain_console
from prunenas.cli.stopping import stopping
from prunenas.data.base import dataset
from prunenas.errors import SpaceError
from prunenas.export.base import export
from prunenas.report.run_report import write_report
from prunenas.report.table import front_table
from prunenas.search.front import Front, FrontRow
from prunenas.search.space_file import load_space
from prunenas.search.strategies.base import STRATEGIES
from prunenas.search.study import search
from prunenas.training.keeping.tensorboard import Scalars


def run_search(
    path: Path,
    *,
    out: Path,
    changes: Mapping[str, str | int],
    overrides: Mapping[str, Any],
    epochs: int | None,
    device: str,
    data_root: Path | None,
    scalars: bool,
    quiet: bool,
    tells: bool,
) -> dict[str, Any]:
    """Run the search in the file at ``path``, and return its front as JSON values.

    Args:
        path: A space in TOML.
        out: Run folder.
        changes: Guides and budgets to replace in the file.
        overrides: Fields of the file's run table to replace.
        epochs: Epochs instead of the recipe's.
        device: Where to train.
        data_root: Folder of data sets.
        scalars: Keep scalars for TensorBoard too.
        quiet: Tell nothing of the progress.
        tells: Print the table.
    """
    space, run = load_space(path, **changes)
    run = replace(run, **overrides)
    if run.data is None:
        raise SpaceError(f"{path} names no data set in [run], and --data is not given")
    recipe = run.resolved_recipe()
    recipe = recipe if epochs is None else replace(recipe, epochs=epochs)
    # A misspelt name must not wait for a data set to be fetched.
    STRATEGIES[run.strategy]
    command = command_line()
    logs = [Scalars(out / "tensorboard")] if scalars else []
    with ExitStack() as ends:
        for log in logs:
            ends.callback(log.close)
        display = ends.enter_context(Display(quiet=quiet))
        stop = ends.enter_context(stopping(quiet=quiet))
        front = search(
            space,
            dataset(run.data, device=device, root=data_root),
            recipe=recipe,
            strategy=run.strategy,
            objectives=run.objectives,
            trials=run.trials,
            confirm_seeds=run.confirm_seeds,
            front_size=run.front_size,
            seed=run.seed,
            out=out,
            provenance={
                "command": command,
                "space": path.name,
                "overrides": {
                    **changes,
                    **overrides,
                    **({} if epochs is None else {"epochs": epochs}),
                },
            },
            stop=stop,
            on_event=display.event,
            logs=logs,
        )
    write_report(front, out, command=command)
    model = export(front.best("accuracy"), "python", path=out / "best.py", overwrite=True)
    if tells:
        console = plain_console()
        console.print(front_table(front))
        console.print(f"specs, front.png, table.md and {model.name} are in {out}")
    return _facts(front, out)


def _facts(front: Front, out: Path) -> dict[str, Any]:
    return {
        "out": str(out),
        "trials": front.trials,
        "left_out": front.left_out,
        "rows": [_row_facts(row) for row in front.rows],
    }


def _row_facts(row: FrontRow) -> dict[str, Any]:
    return {
        "name": row.spec.name,
        "role": row.role,
        "digest": row.spec.digest,
        "keeps": dict(row.spec.profile.keeps) if row.spec.profile else {},
        "validation": _metrics_facts(row.validation),
        "confirmed": _metrics_facts(row.confirmed),
    }


def _metrics_facts(metrics: Metrics) -> dict[str, Any]:
    return {
        "part": metrics.part,
        "accuracy": metrics.accuracy,
        "top5": metrics.top5,
        "std": metrics.std if metrics.n > 1 else None,
        "n": metrics.n,
        "params": metrics.params,
        "macs": metrics.macs,
        **(
            {
                "nonzero_params": metrics.nonzero_params,
                "effective_macs": metrics.effective_macs,
            }
            if metrics.is_sparse
            else {}
        ),
    }
