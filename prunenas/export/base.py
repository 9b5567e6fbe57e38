"""The door of the wing: what an exporter is, where exporters are filed, the verb that writes."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from prunenas.arch.files import write_files
from prunenas.arch.spec import ArchSpec
from prunenas.ir.graph import Graph
from prunenas.registry import Registry


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What an exporter writes that needs more than one file.

    Args:
        text: The file that was asked for.
        beside: Content of other files in the same folder, by what follows the first one's stem,
            such as ``.masks.safetensors``.
    """

    text: str
    beside: Mapping[str, bytes]


Exporter = Callable[[ArchSpec], str | Files]
"""``(spec) -> text``: the whole file, or several. Equal specs give equal bytes: no dates."""

EXPORTERS: Registry[Exporter] = Registry("exporter", "prunenas.export")


def export(
    what: ArchSpec | Graph,
    exporter: str,
    *,
    path: str | os.PathLike[str],
    overwrite: bool = False,
) -> Path:
    """Write an architecture to a file and return the path.

    Exporters that cannot put all into it write others beside: ``json`` puts the bits of exact masks
    into ``<stem>.masks.safetensors``.

    Args:
        what: A spec, or a bare graph: it is named after the file.
        exporter: A registered exporter, such as ``python``.
        path: The file to write; folders above it are made.
        overwrite: Replace a file that is there.

    Raises:
        UnknownNameError: There is no such exporter; the known ones are listed.
        GraphError: A node's name is one that torch keeps for itself.
        MaskError: The bits of an exact mask are not here.
        OutputExistsError: Another file is there and ``overwrite`` is off.
    """
    write = EXPORTERS[exporter]
    spec = what if isinstance(what, ArchSpec) else ArchSpec(name=Path(path).stem, graph=what)
    target, written = Path(path), write(spec)
    files = written if isinstance(written, Files) else Files(text=written, beside={})
    # The file that was asked for comes last: where it is, the others are.
    contents = {target.with_name(target.stem + end): c for end, c in files.beside.items()}
    contents[target] = files.text.encode()
    write_files(contents, overwrite=overwrite)
    return target
