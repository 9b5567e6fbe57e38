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


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))])
def test_links_to_files_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    missing = [t for t in targets if not (ROOT / page).parent.joinpath(t).exists()]
    assert not missing


def test_no_page_waits_to_be_filled_in() -> None:
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
    assert not [page.name for page in pages if "@@" in page.read_text(encoding="utf-8")]
