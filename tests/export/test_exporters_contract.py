"""Every registered exporter keeps these promises; none is named here."""

import numpy as np
import pytest

from prunenas.arch.descriptor import Descriptor, Origin
from prunenas.arch.spec import ArchSpec
from prunenas.errors import OutputExistsError, UnknownNameError
from prunenas.export.base import EXPORTERS, Files, export
from prunenas.families.base import reference
from prunenas.ir.canonical import digest
from tests.graphs import with_exact_masks

NAMES = EXPORTERS.names()

GRAPHS = {
    "lenet5": reference("lenet5"),
    "resnet20": reference("resnet20", width=0.5),
    "vgg11": reference("vgg11", width=0.25),
    "densenet40": reference("densenet40", width=0.5),
    "mobilenet_v2": reference("mobilenet_v2", (3, 32, 32), 10, width=0.25),
    "masked": with_exact_masks(
        reference("lenet5"), {"fc2": np.random.default_rng(0).random((84, 120)) < 0.5}
    ),
}


def text_of(exporter: str, spec: ArchSpec) -> str:
    written = EXPORTERS[exporter](spec)
    return written.text if isinstance(written, Files) else written


def spec_with_a_story() -> ArchSpec:
    graph = GRAPHS["resnet20"]
    descriptor = Descriptor(
        reference=digest(graph),
        widths={"layer1.0.conv1": 3},
        dropped=("layer2.1.add",),
        origin=Origin(method="by_hand", keep=0.5),
    )
    nasty = {"command": 'x """ y \\ \n z', "recipe": {"epochs": 3, "seeds": [0, 1]}}
    return ArchSpec.of(graph, descriptor, name='a "small" net\n', **nasty)


@pytest.fixture(params=NAMES)
def exporter(request):
    return request.param


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_is_written_and_named_after_its_file(exporter, name, tmp_path):
    path = export(GRAPHS[name], exporter, path=tmp_path / "new" / f"{name}.out")
    written = path.read_text(encoding="utf-8")
    assert path == tmp_path / "new" / f"{name}.out"
    assert written == text_of(exporter, ArchSpec(name=name, graph=GRAPHS[name]))
    assert written.endswith("\n")
    assert name in written
    assert digest(GRAPHS[name]) in written


def test_equal_specs_give_equal_text(exporter):
    assert text_of(exporter, spec_with_a_story()) == text_of(exporter, spec_with_a_story())


def test_specs_of_other_networks_give_other_text(exporter):
    texts = {text_of(exporter, ArchSpec(name="x", graph=graph)) for graph in GRAPHS.values()}
    assert len(texts) == len(GRAPHS)


def test_the_story_is_told(exporter):
    text = text_of(exporter, spec_with_a_story())
    assert "by_hand" in text
    assert "epochs" in text


def test_nothing_is_overwritten(exporter, tmp_path):
    path = tmp_path / "net"
    path.write_text("precious")
    with pytest.raises(OutputExistsError, match="net exists"):
        export(GRAPHS["lenet5"], exporter, path=path)
    assert path.read_text() == "precious"


def test_unless_asked_for(exporter, tmp_path):
    path = tmp_path / "net"
    path.write_text("worthless")
    export(GRAPHS["lenet5"], exporter, path=path, overwrite=True)
    assert path.read_text() == text_of(exporter, ArchSpec(name="net", graph=GRAPHS["lenet5"]))


def test_writing_the_same_again_is_no_conflict(exporter, tmp_path):
    assert export(GRAPHS["lenet5"], exporter, path=tmp_path / "net") == export(
        GRAPHS["lenet5"], exporter, path=tmp_path / "net"
    )


def test_exact_masks_are_written_in_the_file_or_beside_it(exporter, tmp_path):
    one, other = (
        with_exact_masks(
            reference("lenet5"), {"fc2": np.random.default_rng(s).random((84, 120)) < 0.5}
        )
        for s in (1, 2)
    )
    found = []
    for name, graph in (("one", one), ("other", other), ("again", one)):
        export(ArchSpec(name="net", graph=graph), exporter, path=tmp_path / name / "net")
        found.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert found[0] == found[2] != found[1]
    # A mask has ten thousand weights, and no way of writing it down is shorter than its bits.
    assert sum(map(len, found[0].values())) > 84 * 120 / 8


def test_an_unknown_exporter_is_told_the_known_ones_and_leaves_no_file(tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'python'") as error:
        export(GRAPHS["lenet5"], "pyton", path=tmp_path / "net")
    assert all(name in str(error.value) for name in NAMES)
    assert [*tmp_path.iterdir()] == []
