"""The documents say what the code says."""

import importlib
import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from torch.distributed.run import get_args_parser

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(f"docs/{page.name}" for page in ROOT.glob("docs/*.md"))]
LINK = re.compile(r"\]\((?!https?:)([^)#]+)[^)]*\)")


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


def links(page: str) -> list[Path]:
    path = ROOT / page
    return [(path.parent / t).resolve() for t in LINK.findall(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_lead_somewhere(page: str) -> None:
    assert not [target for target in links(page) if not target.exists()]


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = {"README.md"}, ["README.md"]
    while waiting:
        linked = {str(t.relative_to(ROOT)) for t in links(waiting.pop()) if t.suffix == ".md"}
        new = {page for page in linked if page in PAGES} - reached
        reached |= new
        waiting += new
    assert reached == {*PAGES}


def command_lines(page: str) -> list[str]:
    """Return the lines of a page's shell blocks that start our command, whole."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if re.search(r"^(\w+=\S+ )*(torchrun .* )?prunenas ", line)]


def arguments(line: str) -> list[str]:
    """Return what a shell would hand to ``prunenas``, through torchrun where it stands before."""
    words = [w for w in shlex.split(line, comments=True) if not re.match(r"[A-Z_]+=", w)]
    if words[0] == "torchrun":
        # abbreviations of its options hide ours
        told = get_args_parser().parse_args(words[1:])
        words = [told.training_script, *told.training_script_args]
    assert words[0] == "prunenas", line
    return words[1:]


def parse(line: str) -> str:
    """Parse a command line as ours does, and run nothing; return its verb."""
    for verbs in ("verbs", "generate_verb", "measure_verb", "search_verb", "training_verbs"):
        importlib.import_module(f"prunenas.cli.{verbs}")
    importlib.import_module("prunenas.cli.watch_verb")
    group: Any = typer.main.get_command(importlib.import_module("prunenas.cli.options").app)
    # help ends the parsing of what stands beside it
    name, *rest = [word for word in arguments(line) if word != "--help"]
    with group.commands[name].make_context(name, rest):
        return name


@pytest.mark.parametrize("page", [page for page in PAGES if command_lines(page)])
def test_the_command_lines_of_a_page_are_ours(page: str) -> None:
    for line in command_lines(page):
        assert parse(line)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("prunenas train vgg11 --run-dir mine", "No such option"),
        ("prunenas train vgg11 --seeds many", "valid integer"),
        ("prunenas stop", "Missing parameter: run"),
        ("prunenas trian vgg11", "trian"),
        ("torchrun --nproc-per-node 2 -m prunenas train vgg11 --run mine", "2"),
    ],
)
def test_a_command_line_that_is_not_ours_is_told(line: str, told: str) -> None:
    with pytest.raises((Exception, SystemExit), match=told):
        parse(line)


def test_no_page_waits_to_be_filled_in() -> None:
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
    assert not [page.name for page in pages if "@@" in page.read_text(encoding="utf-8")]
