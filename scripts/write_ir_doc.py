"""Write docs/ir.md from the docstrings of the ops, so that there is one description of each.

Usage: python scripts/write_ir_doc.py
"""

import inspect
import re
from pathlib import Path
from typing import Any, get_args

from prunenas.ir import ops
from prunenas.ir.ops import AnyOp, Op
from prunenas.ir.ops.base import ChannelOp

RULES = ("shape", "axes", "macs", "parameters")
UNLESS_STATED = {
    ChannelOp.channels: "Pass the source's channels on.",
    Op.macs: "None are counted.",
    Op.parameters: "None.",
}
"""What the rules of the base classes come to."""


def first_line(thing: Any) -> str:
    """Return the first line of a docstring."""
    if thing in UNLESS_STATED:
        return UNLESS_STATED[thing]
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def listed(text: str) -> str:
    """Return a docstring with its arguments as a list."""
    text = re.sub(r"^Args:\n", "", text, flags=re.MULTILINE)
    return re.sub(r"^    (\w+): ", r"- `\1`: ", text, flags=re.MULTILINE).replace(
        "\n        ", "\n  "
    )


def asked(op: type[Op], rule: str) -> str:
    """Return the method that states a rule: of an op on images, the channels say its axes."""
    return "channels" if rule == "axes" and issubclass(op, ChannelOp) else rule


def describe(op: type[Op]) -> list[str]:
    """Return the lines about one op: what it is, what it stores, and the rules it states."""
    least, most = op.arity
    reads = str(least) if least == most else f"{least} or {most or 'more'}"
    stored = [f"`{name}`" for name in inspect.signature(op).parameters if name != "kind"]
    lines = [f"## {op.__name__}", "", listed(inspect.getdoc(op) or ""), ""]
    lines += [f"Reads {reads} value(s). Stores {', '.join(stored) or 'nothing'}.", ""]
    for rule in RULES:
        lines.append(f"- **{rule}**: {first_line(getattr(op, asked(op, rule)))}")
    return [*lines, ""]


def document() -> str:
    """Return the whole page."""
    head = ["# The ops", "", inspect.getdoc(ops) or "", ""]
    return "\n".join([*head, *(line for op in get_args(AnyOp) for line in describe(op))])


if __name__ == "__main__":
    target = Path(__file__).parents[1] / "docs" / "ir.md"
    target.write_text(document(), encoding="utf-8")
    print(f"wrote {target}")
