"""The documents say what the code says."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_the_ops_is_current() -> None:
    found = (ROOT / "docs" / "ir.md").read_text(encoding="utf-8")
    assert found == script("write_ir_doc").document(), "run python scripts/write_ir_doc.py"


def test_the_tables_of_the_methods_are_current() -> None:
    found = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    writer = script("write_methods_doc")
    assert found == writer.document(), "run python scripts/write_methods_doc.py"


def test_every_method_of_ours_has_an_entry_with_a_command_and_lines_of_python() -> None:
    assert script("write_methods_doc").undescribed() == []
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    entries = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    marked = [entry for entry in entries if "<!-- options: " in entry]
    for entry in marked:
        name = entry.partition("\n")[0].strip("`")
        assert f"<!-- options: {name} -->" in entry
        assert f"| [`{name}`](#{name}) |" in text, name
        assert f"prunenas generate {name} " in entry, name
        assert f'"{name}"' in entry, name


def test_a_method_of_another_package_needs_no_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = script("write_methods_doc")
    stranger = type("Stranger", (), {"__module__": "elsewhere.methods"})
    ours = type("Ours", (), {"__module__": "prunenas.generators.unheard_of"})
    here = {**{name: writer.GENERATORS[name] for name in writer.GENERATORS.names()}}
    monkeypatch.setattr(writer, "GENERATORS", _Names(here | {"theirs": stranger, "ours": ours}))
    assert writer.undescribed() == ["ours"]


class _Names(dict[str, type]):
    def names(self) -> list[str]:
        return [*self]


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))])
def test_links_to_files_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    missing = [t for t in targets if not (ROOT / page).parent.joinpath(t).exists()]
    assert not missing


def test_no_page_waits_to_be_filled_in() -> None:
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
    assert not [page.name for page in pages if "@@" in page.read_text(encoding="utf-8")]
