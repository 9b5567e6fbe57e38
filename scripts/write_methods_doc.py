"""Write the tables of options in docs/methods.md from the docstrings of the methods.

The page is written by hand but for what stands between two marks, so that an option is described
in one place. Usage: python scripts/write_methods_doc.py
"""

import re
from pathlib import Path

from prunenas.generators.base import GENERATORS
from prunenas.generators.base.about import about

PAGE = Path(__file__).parents[1] / "docs" / "methods.md"
MARKED = re.compile(r"(<!-- options: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def options(name: str) -> str:
    """Return what a method looks at, and its options as a Markdown table."""
    told = about(name)
    lines = [f"Looks at {told.needs}.", ""]
    if told.options:
        lines += ["| option | type | default | meaning |", "| --- | --- | --- | --- |"]
        lines += [
            f"| `{o.name}` | `{cell(o.kind)}` | `{cell(o.default)}` | {cell(o.meaning)} |"
            for o in told.options
        ]
        lines.append("")
    lines += [f"Source: {told.source}" if told.source else "A control, of no source.", ""]
    return "\n".join(lines)


def cell(text: str) -> str:
    """Return ``text`` so that a table of Markdown can hold it."""
    return text.replace("``", "`").replace("|", "\\|")


def document() -> str:
    """Return the page with its tables as the docstrings are now."""
    text = PAGE.read_text(encoding="utf-8")
    return MARKED.sub(lambda found: found[1] + options(found[2]) + found[3], text)


def undescribed() -> list[str]:
    """Return the methods of this package that have no entry; those of others have pages there."""
    told = {name for _, name, _ in MARKED.findall(PAGE.read_text(encoding="utf-8"))}
    ours = {n for n in GENERATORS.names() if GENERATORS[n].__module__.startswith("prunenas.")}
    return sorted(ours - told)


if __name__ == "__main__":
    PAGE.write_text(document(), encoding="utf-8")
    print(f"wrote {PAGE}", *(f"; no entry for {name}" for name in undescribed()))
