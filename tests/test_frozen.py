"""Surfaces that people rely on: they change on purpose, with a line in the changelog."""

import json
from dataclasses import fields
from pathlib import Path

import pytest

import prunenas as pn
from prunenas.families.base import FAMILIES
from prunenas.ir.canonical import digest
from prunenas.search import space_file

GOLDEN = Path(__file__).parent / "golden"


def test_the_public_names_are_these() -> None:
    assert sorted(pn.__all__) == [
        "ArchSpec",
        "Checkpoints",
        "Descriptor",
        "Engine",
        "Graph",
        "ImportedNetwork",
        "Job",
        "Measurement",
        "Metrics",
        "Network",
        "Pruned",
        "Recipe",
        "SearchSpace",
        "SparsePhase",
        "StageProfile",
        "allocate",
        "apply",
        "build",
        "dataset",
        "export",
        "fine_tune",
        "generate",
        "import_network",
        "inherit",
        "load",
        "load_space",
        "load_weights",
        "measure",
        "named_recipe",
        "prune",
        "reference",
        "save_weights",
        "scratch_b",
        "scratch_e",
        "search",
        "step_seconds",
        "trace",
        "train",
        "train_descriptor",
        "train_many",
        "train_seeds",
    ]
    assert all(getattr(pn, name).__doc__ for name in pn.__all__)


@pytest.mark.parametrize(
    ("table", "keys"),
    [
        (
            space_file.SpaceFile,
            "schema reference guide transferred keep round_to max_macs max_params run",
        ),
        (space_file.ReferenceTable, "family input_size classes width options spec"),
        (space_file.GuideTable, "keeps head source"),
        (space_file.KeepTable, "radius floor step"),
        (
            space_file.RunTable,
            "data recipe strategy objectives trials confirm_seeds front_size seed",
        ),
    ],
)
def test_the_keys_of_a_space_are_these(table: type, keys: str) -> None:
    assert [f.name for f in fields(table)] == keys.split()


def test_a_spec_of_schema_1_loads_for_ever() -> None:
    spec = pn.load(GOLDEN / "spec-v1.json")
    assert spec.name == "every field"
    assert spec.digest == json.loads((GOLDEN / "spec-v1.json").read_text())["digest"]
    assert spec.metrics is not None and spec.metrics.accuracy == 0.75
    assert spec.to_json() + "\n" == (GOLDEN / "spec-v1.json").read_text()


def test_a_profile_of_schema_1_loads_for_ever() -> None:
    assert (
        pn.StageProfile.load(GOLDEN / "profile-v1.json") == pn.load(GOLDEN / "spec-v1.json").profile
    )


def test_the_digest_of_every_family_stays() -> None:
    frozen = json.loads((GOLDEN / "digests.json").read_text())
    assert {name: digest(pn.reference(name)) for name in FAMILIES.names()} == frozen
