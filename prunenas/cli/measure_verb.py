"""The verb that measures networks on this machine. Options are the verb's own arguments."""

from typing import Annotated, Literal

import typer

from prunenas.cli.options import (
    AsJson,
    Classes,
    Depth,
    Device,
    InputSize,
    TimeLimit,
    Unknown,
    Width,
    app,
)
from prunenas.cli.resolve import device_of, name_arguments, plain_console, print_json, resolve


@app.command()
def measure(
    what: Annotated[list[str], typer.Argument(metavar="NAME|SPEC...")],
    batch: Annotated[
        list[int] | None,
        typer.Option(help="Images at a time. Repeatable.", show_default="1 and 64"),
    ] = None,
    device: Device = "auto",
    threads: Annotated[
        int | None, typer.Option(help="Threads of a CPU.", show_default="torch's number")
    ] = None,
    precision: Annotated[
        Literal["fp32", "bf16", "auto"],
        typer.Option(help="auto: bf16 where the device computes in it, else fp32."),
    ] = "auto",
    layout: Annotated[
        Literal["auto", "contiguous", "channels_last"],
        typer.Option(help="Order of tensors in memory. auto: by network, precision and device."),
    ] = "auto",
    capture: Annotated[
        bool,
        typer.Option(
            "--capture",
            help="On CUDA: time the replay of a CUDA graph.",
            show_default="call by call",
        ),
    ] = False,
    onnx: Annotated[
        bool, typer.Option(help="On a CPU: time ONNX Runtime too, where it is installed.")
    ] = True,
    seconds: Annotated[
        float,
        typer.Option(help="Time for each network and batch; 20 repeats may take longer."),
    ] = 1.0,
    input_size: InputSize = None,
    classes: Classes = None,
    width: Width = None,
    depth: Depth = None,
    unknown: Unknown = None,
    time_limit: TimeLimit = None,
    as_json: AsJson = False,
) -> None:
    """Measure latency, throughput, memory and energy on this machine, several networks in turns.

    Weights are fresh: the time does not depend on them.
    """
    from prunenas.build.measure import Conditions, measure_together
    from prunenas.report.measurements import (
        cost_table,
        left_out_lines,
        measurement_table,
        measurement_values,
    )

    under = Conditions(
        batches=(1, 64) if batch is None else (*batch,),
        device=device_of(device),
        threads=threads,
        precision=precision,
        layout=layout,
        capture=capture,
        onnx=onnx,
        seconds=seconds,
    )
    arguments = name_arguments(input_size, classes, width, depth, unknown, time_limit)
    specs = [resolve(name, arguments) for name in what]
    measured = measure_together([spec.graph for spec in specs], under)
    found = [*zip(_titles(what, [spec.name for spec in specs]), measured, strict=True)]
    if as_json:
        print_json({"measurements": measurement_values(found)})
        return
    console = plain_console()
    console.print(cost_table(found))
    console.print(measurement_table(found))
    for line in left_out_lines(found):
        console.print(f"not measured: {line}", soft_wrap=True)


def _titles(typed: list[str], names: list[str]) -> list[str]:
    """Return the name of each network; of those that share one, with place and what was typed."""
    return [
        name if names.count(name) == 1 else f"{name} ({place}: {text})"
        for place, (text, name) in enumerate(zip(typed, names, strict=True), start=1)
    ]
