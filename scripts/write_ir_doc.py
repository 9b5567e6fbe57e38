"""Write docs/ir.md from the docstrings of the ops, so that there is one description of each.

Usage: python scripts/write_ir_doc.py
"""

import inspect
from pathlib import Path
from typing import get_args

from prunenas.ir import ops
from prunenas.ir.ops import AnyOp, Op

RULES = ("shape", "channels", "macs", "parameters")


def first_line(thing: object) -> str:
    """Return the first line of a docstring."""
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def describe(op: type[Op]) -> list[str]:
    """Return the lines about one op: what it is, what it stores, and the rules it states."""
    least, most = op.arity
    reads = f"{least}" if least == most else f"{least} or more"
    stored = [f"`{name}`" for name in inspect.signature(op).parameters if name != "kind"]
    lines = [f"## {op.__name__}", "", inspect.getdoc(op) or "", ""]
    lines += [f"Reads {reads} value(s). Stores {', '.join(stored) or 'nothing'}.", ""]
    for rule in RULES:
        own = next(vars(base)[rule] for base in op.__mro__ if rule in vars(base))
        lines.append(f"- **{rule}**: {first_line(own)}")
    return [*lines, ""]


def document() -> str:
    """Return the whole page."""
    head = ["# The ops", "", inspect.getdoc(ops) or "", ""]
    return "\n".join([*head, *(line for op in get_args(AnyOp) for line in describe(op))])


if __name__ == "__main__":
    target = Path(__file__).parents[1] / "docs" / "ir.md"
    target.write_text(document(), encoding="utf-8")
    print(f"wrote {target}")
