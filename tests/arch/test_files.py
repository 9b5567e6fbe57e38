"""Files are written whole or not at all, and never over another."""

from pathlib import Path

import pytest

from prunenas.arch.files import write_text
from prunenas.errors import OutputExistsError


def test_folders_are_made_and_nothing_else_is_left(tmp_path):
    path = write_text(tmp_path / "a" / "b" / "file.json", "größer\n")
    assert path.read_bytes() == "größer\n".encode()
    assert [*path.parent.iterdir()] == [path]


@pytest.mark.parametrize("content", [b"other", b"\xff\xfe\x00", b"text", b"text\r\n", b""])
def test_a_file_with_other_content_is_never_replaced(tmp_path, content):
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(OutputExistsError, match="choose another name"):
        write_text(path, "text\n")
    assert path.read_bytes() == content
    write_text(path, "text\n", overwrite=True)
    assert path.read_bytes() == b"text\n"


def test_a_folder_is_never_replaced(tmp_path):
    for overwrite in (False, True):
        with pytest.raises(OutputExistsError, match="is a folder"):
            write_text(tmp_path, "text", overwrite=overwrite)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_text(tmp_path / "file.json", "old")

    def broken(self, data):
        with open(self, "wb") as file:
            file.write(data[:2])
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", broken)
    with pytest.raises(OSError, match="no space"):
        write_text(path, "new and longer", overwrite=True)
    assert path.read_text() == "old"
