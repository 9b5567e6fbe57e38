"""What the JSON exporter writes is what ``load`` reads."""

import numpy as np
import pytest

from prunenas.arch.spec import ArchSpec, load, spec_from_json
from prunenas.errors import MaskError, OutputExistsError
from prunenas.export.base import export
from prunenas.families.base import reference
from tests.graphs import with_exact_masks


def test_the_spec_comes_back(tmp_path):
    spec = ArchSpec(name="small", graph=reference("lenet5"), provenance={"seed": 3})
    assert load(export(spec, "json", path=tmp_path / "small.json")) == spec


def test_a_saved_spec_is_the_same_file(tmp_path):
    spec = ArchSpec(name="small", graph=reference("lenet5"))
    saved = spec.save(tmp_path / "saved.json")
    exported = export(spec, "json", path=tmp_path / "exported.json")
    assert saved.read_bytes() == exported.read_bytes()


def masked() -> ArchSpec:
    kept = np.random.default_rng(0).random((84, 120)) < 0.3
    return ArchSpec(name="sparse", graph=with_exact_masks(reference("lenet5"), {"fc2": kept}))


def test_exact_masks_are_written_beside_as_save_does(tmp_path):
    spec = masked()
    spec.save(tmp_path / "saved" / "net.json")
    export(spec, "json", path=tmp_path / "exported" / "net.json")
    saved, exported = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("saved", "exported")
    )
    assert {*saved} == {"net.json", "net.masks.safetensors"}
    assert saved == exported
    again = load(tmp_path / "exported" / "net.json")
    assert again == spec
    assert again.graph["fc2"].op.sparsity.bits is not None


def test_a_file_beside_is_not_replaced_either(tmp_path):
    (tmp_path / "net.masks.safetensors").write_bytes(b"precious")
    with pytest.raises(OutputExistsError, match=r"net\.masks\.safetensors exists"):
        export(masked(), "json", path=tmp_path / "net.json")
    assert [p.name for p in tmp_path.iterdir()] == ["net.masks.safetensors"]
    export(masked(), "json", path=tmp_path / "net.json", overwrite=True)
    assert load(tmp_path / "net.json") == masked()


def test_without_bits_nothing_is_written(tmp_path):
    bare = spec_from_json(masked().to_json())
    for exporter in ("json", "python"):
        with pytest.raises(MaskError, match="are not here"):
            export(bare, exporter, path=tmp_path / "net")
    assert not [*tmp_path.iterdir()]
