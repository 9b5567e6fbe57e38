"""The artefact: it comes back as it was, and nothing else is taken for it."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunenas.arch.descriptor import Origin, apply
from prunenas.arch.metrics import Metrics, SeedResult
from prunenas.arch.profile import StageProfile
from prunenas.arch.spec import ArchSpec, load, spec_from_json
from prunenas.errors import DescriptorError, OutputExistsError, SpecError
from prunenas.ir.canonical import canonical_json, digest
from prunenas.ir.stages import stages
from tests.arch.networks import chain, descriptor, everything, residual
from tests.graphs import graphs, legal_widths

METRICS = Metrics(
    results=(
        SeedResult(seed=0, accuracy=0.5, loss=1.0, epochs=2, seconds=0.25),
        SeedResult(
            seed=1,
            accuracy=0.75,
            loss=0.5,
            epochs=2,
            seconds=3.0,
            top5=1.0,
            best_accuracy=0.8,
            best_epoch=1,
        ),
    ),
    part="validation",
    params=10,
    macs=20,
    device="a CPU",
    data="shapes",
)


def full_spec():
    graph = everything()
    told = descriptor(
        graph,
        widths={"grouped": 8},
        selections={"stem": (0, 1, 2, 4, 6, 7), "pick": (1, 2, 4, 7)},
        dropped=("block.add",),
        densities={"padded.conv": (0.5,) * 9},
        seed=3,
        origin=Origin(method="by hand", keep=0.5, kept_best=("stem",), options={"p": [1, "two"]}),
    )
    spec = ArchSpec.of(graph, told, name="small", command="generate", numbers=[1, 2.5])
    return replace(spec.with_metrics(METRICS), aliases=("0" * 16,))


@given(st.data(), graphs())
def test_any_spec_comes_back_from_json(data, graph):
    told = descriptor(graph, widths=data.draw(legal_widths(graph)), seed=5)
    spec = ArchSpec.of(graph, told, name="random")
    again = spec_from_json(spec.to_json())
    assert again == spec
    assert again.to_json() == spec.to_json()
    assert (spec.profile is not None) == bool(stages(graph))


def test_a_full_spec_comes_back_from_its_file(tmp_path):
    spec = full_spec()
    again = load(spec.save(tmp_path / "new" / "folder" / "small.json"))
    assert again == spec
    assert again.descriptor.origin == spec.descriptor.origin
    assert again.metrics.std == METRICS.std


def test_a_spec_holds_the_whole_network_and_the_profile_it_amounts_to():
    spec = full_spec()
    assert spec.graph == apply(spec.reference, spec.descriptor)
    assert spec.digest == digest(spec.graph)
    assert spec.profile == StageProfile.of(spec.reference, spec.descriptor)
    assert spec.provenance == {"command": "generate", "numbers": [1, 2.5]}


def test_a_network_alone_is_a_spec():
    spec = ArchSpec(name="alone", graph=chain())
    assert spec_from_json(spec.to_json()) == spec


def test_a_descriptor_that_does_not_give_the_graph_is_refused():
    graph = chain()
    told = descriptor(graph, widths={"conv1": 4})
    with pytest.raises(SpecError, match="the descriptor turns the reference into"):
        ArchSpec(name="wrong", graph=graph, reference=graph, descriptor=told)


def test_reference_and_descriptor_come_together():
    graph = chain()
    with pytest.raises(SpecError, match="or neither"):
        ArchSpec(name="half", graph=graph, reference=graph)
    with pytest.raises(SpecError, match="or neither"):
        ArchSpec(name="half", graph=graph, descriptor=descriptor(graph))


def test_a_descriptor_of_another_reference_is_refused():
    with pytest.raises(DescriptorError, match="carry it over as a profile"):
        ArchSpec.of(chain(), descriptor(residual()), name="wrong")


def changed(path, value):
    """Return the JSON of a full spec with one place changed, or removed where ``value`` is ..."""
    json_spec = json.loads(full_spec().to_json())
    *above, last = path
    place = json_spec
    for key in above:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return canonical_json(json_spec)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["digest"], "f" * 16, "states the digest ffffffffffffffff, but its graph's is"),
        (["digest"], ..., "states the digest None"),
        (["schema"], 2, "has schema 2, this version reads up to 1: upgrade"),
        (["schema"], ..., "needs a whole number 'schema'"),
        (["schema"], "1", "found '1'"),
        (["colour"], "red", "colour: "),
        (["metrics", "colour"], 1, "metrics.colour: "),
        (["metrics", "results", 1, "colour"], 1, "metrics.results.1.colour: "),
        (["metrics", "results"], [], "at least one seed"),
        (["metrics", "part"], "train", "metrics.part: "),
        (["metrics", "params"], "10", "metrics.params: "),
        (["descriptor", "widths", "grouped"], 8.5, "descriptor.widths.grouped: "),
        (["descriptor", "widths", "grouped"], 9, "must be a multiple of 4, asked for 9"),
        (["descriptor", "seed"], True, "descriptor.seed: "),
        (["descriptor", "seed"], 4, "the descriptor turns the reference into"),
        (["descriptor"], None, "or neither"),
        (["profile", "keeps", "stage1"], 0, r"\(0, 1\]"),
        (["name"], 7, "name: "),
        (["graph"], ..., "graph: "),
        (["graph", "output"], "nowhere", "the output 'nowhere' does not exist"),
        (["graph", "nodes", 1, "inputs"], ["nowhere"], "reads 'nowhere', which does not exist"),
        (["graph", "nodes", 1, "inputs"], ["grouped"], "so there is a cycle or a wrong order"),
        (["graph", "nodes", 1, "inputs"], ["stem"], "so there is a cycle or a wrong order"),
        (["graph", "nodes", 1, "op", "kind"], "Conv3d", "unknown op 'Conv3d'"),
        (["graph", "nodes", 1, "op", "width"], -4, "positive"),
        (["graph", "nodes", 1, "op", "width"], "8", "graph.nodes.1.op.width: "),
        (["graph", "init", "conv"], "magic", "graph.init.conv: "),
        (["reference", "nodes", 1, "op", "colour"], 1, "reference.nodes.1.op.colour: "),
    ],
)
def test_a_damaged_spec_is_refused_with_the_place(path, value, message):
    with pytest.raises(SpecError, match=message):
        spec_from_json(changed(path, value))


def test_an_alias_is_as_good_as_the_digest():
    assert spec_from_json(changed(["digest"], "0" * 16)) == full_spec()


@given(st.floats(0, 1, exclude_max=True))
def test_a_spec_cut_short_is_refused(share):
    text = full_spec().to_json()
    with pytest.raises(SpecError, match="not JSON, or was cut short"):
        spec_from_json(text[: int(share * len(text))])


@pytest.mark.parametrize(
    "text",
    [
        "x" * 10_000_000,
        "[" * 1_000_000,
        '{"schema":1,"graph":' * 100_000,
        json.dumps({"schema": 1, "name": "a" * 10_000_000}),
        json.dumps({"schema": 1, "graph": {"nodes": [{}] * 100_000}}),
        '{"schema":1,"provenance":{"loss":NaN}}',
        '{"schema":1,"provenance":{"loss":1e999}}',
        "null",
        "",
    ],
    ids=["letters", "brackets", "deep", "long name", "empty nodes", "nan", "inf", "null", "empty"],
)
def test_nonsense_is_refused(text):
    with pytest.raises(SpecError) as caught:
        spec_from_json(text)
    assert len(str(caught.value)) < 10_000


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "spec.json"
    path.write_bytes(b"\xff\xfe\x00spec")
    with pytest.raises(SpecError, match=r"spec\.json"):
        load(path)


def test_a_folder_or_nothing_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere.json"):
        with pytest.raises(SpecError, match=path.name):
            load(path)


def test_saving_twice_is_fine_and_never_replaces_another(tmp_path):
    spec = full_spec()
    path = spec.save(tmp_path / "small.json")
    assert spec.save(path) == path
    with pytest.raises(OutputExistsError, match=r"small\.json exists"):
        replace(spec, name="other").save(path)
    assert load(path) == spec
