"""The door of the wing: what an exporter is, where exporters are filed, the verb that writes."""

import os
from collections.abc import Callable
from pathlib import Path

from prunenas.arch.files import write_text
from prunenas.arch.spec import ArchSpec
from prunenas.ir.graph import Graph
from prunenas.registry import Registry

Exporter = Callable[[ArchSpec], str]
"""``(spec) -> text``: the whole file. Equal specs give equal text: no dates, no machine."""

EXPORTERS: Registry[Exporter] = Registry("exporter", "prunenas.export")


def export(
    what: ArchSpec | Graph,
    exporter: str,
    *,
    path: str | os.PathLike[str],
    overwrite: bool = False,
) -> Path:
    """Write an architecture to one file and return the path.

    Args:
        what: A spec, or a bare graph: it is named after the file.
        exporter: A registered exporter, such as ``python``.
        path: The file to write; folders above it are made.
        overwrite: Replace a file that is there.

    Raises:
        UnknownNameError: There is no such exporter; the known ones are listed.
        GraphError: A node's name is one that torch keeps for itself.
        OutputExistsError: Another file is there and ``overwrite`` is off.
    """
    write = EXPORTERS[exporter]
    spec = what if isinstance(what, ArchSpec) else ArchSpec(name=Path(path).stem, graph=what)
    return write_text(path, write(spec), overwrite=overwrite)
