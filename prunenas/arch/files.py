"""Writing files so that nothing is lost: whole or not at all, and never over another file."""

import os
from collections.abc import Mapping
from pathlib import Path

from prunenas.errors import OutputExistsError, SpecError


def write_text(path: str | os.PathLike[str], text: str, *, overwrite: bool = False) -> Path:
    """Write ``text`` to ``path`` and return it; folders above it are made.

    Raises:
        OutputExistsError: There is a file with other content and ``overwrite`` is off.
    """
    target = Path(path)
    write_files({target: text.encode()}, overwrite=overwrite)
    return target


def write_files(contents: Mapping[Path, bytes], *, overwrite: bool = False) -> None:
    """Write several files, in their order; folders above them are made.

    Each appears whole or not at all, and none is written if one must not be: so the file that
    tells of the others stands last.

    Raises:
        OutputExistsError: One is there with other content and ``overwrite`` is off.
    """
    missing = {p: c for p, c in contents.items() if not _is_there(p, c, overwrite=overwrite)}
    for target, content in missing.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        part.write_bytes(content)
        part.replace(target)


def _is_there(target: Path, content: bytes, *, overwrite: bool) -> bool:
    """Return whether nothing is left to write; refuse where something else is in the way."""
    if target.is_dir():
        raise OutputExistsError(f"{target} is a folder: name a file")
    if overwrite or not target.exists():
        return False
    if target.read_bytes() == content:
        return True
    raise OutputExistsError(f"{target} exists: choose another name or remove it first")


def read_text(path: str | os.PathLike[str]) -> str:
    """Return the text of the file at ``path``.

    Raises:
        SpecError: There is no such file, or it is not text.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} cannot be read: {error}") from None


def file_name(name: str) -> str:
    """Return ``name`` as a file name without suffix: lower case, words joined by hyphens."""
    words = "".join(c if c.isalnum() else " " for c in name.lower()).split()
    return "-".join(words) or "unnamed"
