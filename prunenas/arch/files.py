"""Writing files so that nothing is lost: whole or not at all, and never over another file."""

import os
from pathlib import Path

from prunenas.errors import OutputExistsError, SpecError


def write_text(path: str | os.PathLike[str], text: str, *, overwrite: bool = False) -> Path:
    """Write ``text`` to ``path`` and return it; folders above it are made.

    Raises:
        OutputExistsError: There is a file with other content and ``overwrite`` is off.
    """
    target = Path(path)
    if target.is_dir():
        raise OutputExistsError(f"{target} is a folder: name a file")
    if target.exists() and not overwrite:
        if target.read_bytes() == text.encode():
            return target
        raise OutputExistsError(f"{target} exists: choose another name or remove it first")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    part.write_bytes(text.encode())
    part.replace(target)
    return target


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
