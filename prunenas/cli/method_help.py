"""``generate METHOD --help``: the verb's options, and then the method's own."""

from typing import Any

from rich.console import Console
from typer.core import TyperCommand


class MethodCommand(TyperCommand):
    """A command whose help tells of the method that stands before ``--help``."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Note the method, which the help cannot ask for: nothing is parsed by then."""
        if "--help" in args:
            ctx.meta["method"] = _named(args)
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the verb's help, and the method's."""
        super().format_help(ctx, formatter)
        if name := ctx.meta.get("method"):
            print_method(name, Console(markup=False, emoji=False, highlight=False))


def _named(args: list[str]) -> str | None:
    """Return the method among ``args``; what stands first must be one, unless it is an option."""
    words = [arg for arg in args if not arg.startswith("-")]
    if not words:
        return None
    from prunenas.generators.base import GENERATORS

    known = next((word for word in words if word in GENERATORS), None)
    if known is None and not args[0].startswith("-"):
        GENERATORS[args[0]]
    return known


def print_method(name: str, console: Console) -> None:
    """Print what a method does, its options and where it comes from.

    Raises:
        UnknownNameError: No such method.
    """
    from rich.markdown import Markdown
    from rich.table import Table

    # Not at the top: the methods import torch, which other verbs do without.
    from prunenas.generators.base.about import about

    told = about(name)
    console.print(f"METHOD {told.name}", style="bold")
    console.print(told.summary)
    console.print()
    console.print(Markdown(told.text.replace("``", "`")))
    console.print()
    console.print(f"It looks at {told.needs}.")
    if told.options:
        table = Table(title="Options: --set name=value", title_justify="left")
        for title in ("name", "type", "default", "meaning"):
            table.add_column(title)
        for option in told.options:
            table.add_row(
                option.name, option.kind, option.default, option.meaning.replace("``", "")
            )
        console.print(table)
    console.print(f"Source: {told.source or 'none; a control'}")
