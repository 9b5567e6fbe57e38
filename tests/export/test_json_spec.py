"""What the JSON exporter writes is what ``load`` reads."""

from prunenas.arch.spec import ArchSpec, load
from prunenas.export.base import export
from prunenas.families.base import reference


def test_the_spec_comes_back(tmp_path):
    spec = ArchSpec(name="small", graph=reference("lenet5"), provenance={"seed": 3})
    assert load(export(spec, "json", path=tmp_path / "small.json")) == spec


def test_a_saved_spec_is_the_same_file(tmp_path):
    spec = ArchSpec(name="small", graph=reference("lenet5"))
    saved = spec.save(tmp_path / "saved.json")
    exported = export(spec, "json", path=tmp_path / "exported.json")
    assert saved.read_bytes() == exported.read_bytes()
