"""The rules of the house that no other tool checks."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

import prunenas
import prunenas.ir.ops
from prunenas.ir.ops import AnyOp, Op, Producer

ROOT = Path(prunenas.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))
LONGEST = 400

OPS = get_args(AnyOp)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT.parent).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def classes_below(base: type) -> set[type]:
    for module in pkgutil.iter_modules(prunenas.ir.ops.__path__, "prunenas.ir.ops."):
        importlib.import_module(module.name)
    below = set(base.__subclasses__())
    below |= {deeper for child in below for deeper in classes_below(child)}
    # dataclass(slots=True) makes a second class; the first is found until it is collected.
    return {c for c in below if getattr(importlib.import_module(c.__module__), c.__name__, c) is c}


def is_final(op: type) -> bool:
    return "__final__" in vars(op)


def test_the_closed_set_is_every_final_op() -> None:
    assert {*OPS} == {op for op in classes_below(Op) if is_final(op)}
    assert len(OPS) == len({*OPS})


def test_every_class_of_ops_is_a_base_or_final() -> None:
    for op in classes_below(Op):
        assert is_final(op) != bool(classes_below(op)), op


def test_all_ops_are_public_and_producers_decide_a_width() -> None:
    assert {op.__name__ for op in OPS} <= {*prunenas.ir.ops.__all__}
    deciding = {op for op in OPS if hasattr(op, "width")} - {prunenas.ir.ops.Input}
    assert {*get_args(Producer)} == deciding


@pytest.mark.parametrize("op", OPS)
def test_every_op_is_a_final_frozen_record_that_names_its_kind(op: Any) -> None:
    assert op.__dataclass_params__.frozen
    assert op.__dataclass_params__.eq
    assert is_final(op)
    assert "__slots__" in vars(op)
    assert all(field.kw_only for field in fields(op))
    kind = {field.name: field for field in fields(op)}["kind"]
    assert get_origin(kind.type) is Literal
    assert get_args(kind.type) == (kind.default,) == (op.__name__,)


@pytest.mark.parametrize("op", OPS)
def test_every_op_stores_plain_values_only(op: Any) -> None:
    """Lists, dicts or arrays inside would be mutable, and unhashable."""
    allowed = {int, float, bool, str, tuple, Literal, type(None), ...}

    def plain(annotation: Any) -> bool:
        if is_dataclass(annotation):
            return annotation.__dataclass_params__.frozen
        if get_origin(annotation) is Literal:
            return True
        inner = get_args(annotation)
        return all(plain(i) for i in inner) if inner else annotation in allowed

    assert all(plain(field.type) for field in fields(op))


@pytest.mark.parametrize(
    ("module", "table"),
    [("prunenas.build.modules", "MODULES"), ("prunenas.export.python_source", "SOURCES")],
)
def test_the_keys_of_each_table_are_the_ops(module: str, table: str) -> None:
    keys: Mapping[type, object] = getattr(importlib.import_module(module), table)
    missing = sorted(op.__name__ for op in {*OPS} - {*keys})
    unknown = sorted(op.__name__ for op in {*keys} - {*OPS})
    assert (missing, unknown) == ([], [])


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(tree_of(path))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_module_is_too_long_to_read(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


def test_no_room_is_without_a_floor() -> None:
    homeless = {"utils", "util", "helpers", "helper", "common", "misc"}
    rooms = [path.stem for path in SOURCES] + [path.parent.name for path in SOURCES]
    assert not homeless & {*rooms}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_run_down_for_types_too(path: Path) -> None:
    named = {node.id for node in ast.walk(tree_of(path)) if isinstance(node, ast.Name)}
    named |= {node.attr for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)}
    assert "TYPE_CHECKING" not in named


def test_untrusted_input_is_decoded_in_two_places_only() -> None:
    importing = {
        name_of(p) for p in SOURCES if any(i.split(".")[0] == "pydantic" for i in imports_of(p))
    }
    assert importing <= {"prunenas/ir/canonical.py", "prunenas/search/space.py"}
    assert "prunenas/ir/canonical.py" in importing


@pytest.mark.parametrize("path", [p for p in SOURCES if ROOT / "cli" not in p.parents], ids=name_of)
def test_nothing_but_the_command_line_prints(path: Path) -> None:
    calls = [node.func for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
    assert "print" not in {call.id for call in calls if isinstance(call, ast.Name)}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_error_is_caught_without_being_named(path: Path) -> None:
    handlers = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.ExceptHandler)]
    assert all(handler.type is not None for handler in handlers)


def test_the_verbs_are_known_without_torch():
    """Most of the time that a command takes to start would be torch's."""
    verbs = [f"prunenas.cli.{path.stem}" for path in (ROOT / "cli").glob("*verb*.py")]
    assert len(verbs) > 5
    code = f"import sys, {', '.join(verbs)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
