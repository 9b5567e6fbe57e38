"""Canonical JSON: a round trip for what is right, a path and a reason for what is wrong."""

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from prunenas.errors import SpecError
from prunenas.ir.canonical import (
    SCHEMA,
    canonical_json,
    digest,
    digest_of,
    encode,
    graph_from_json,
    graph_to_json,
    parse,
)
from prunenas.ir.cost import macs, params
from prunenas.ir.coupling import couple
from prunenas.ir.graph import Graph, Init, Node
from prunenas.ir.ops import Conv2d, Dropout, Flatten, Input, KernelSparsity, Linear
from tests.graphs import graphs

TINY = Graph(
    nodes=(
        Node(name="input", op=Input(width=1, spatial=(2, 2))),
        Node(name="conv", op=Conv2d(width=3, kernel=(1, 1)), inputs=("input",)),
        Node(name="flatten", op=Flatten(), inputs=("conv",)),
        Node(name="fc", op=Linear(width=2), inputs=("flatten",)),
    ),
    output="fc",
)

# Frozen: whoever changes this text changes every digest, and must raise the schema.
TINY_JSON = (
    '{"init":{"conv":"fan_out","linear":"torch","scale":1,"vector_scale":1},"nodes":['
    '{"inputs":[],"name":"input","op":{"kind":"Input","spatial":[2,2],"width":1},"weights":null},'
    '{"inputs":["input"],"name":"conv","op":{"bias":false,"dilation":[1,1],"groups":1,'
    '"kernel":[1,1],"kind":"Conv2d","padding":[0,0],"sparsity":null,"stride":[1,1],"width":3},'
    '"weights":null},'
    '{"inputs":["conv"],"name":"flatten","op":{"kind":"Flatten"},"weights":null},'
    '{"inputs":["flatten"],"name":"fc","op":{"bias":true,"kind":"Linear","width":2},'
    '"weights":null}],"output":"fc","schema":1}'
)


def tiny() -> Any:
    return json.loads(TINY_JSON)


def refusal(value: object) -> str:
    with pytest.raises(SpecError) as told:
        graph_from_json(value if isinstance(value, str) else json.dumps(value))
    return str(told.value)


def test_the_canonical_text_is_frozen() -> None:
    assert graph_to_json(TINY) == TINY_JSON
    assert graph_from_json(TINY_JSON) == TINY


def test_the_digest_is_the_hash_of_the_text() -> None:
    assert digest(TINY) == hashlib.sha256(TINY_JSON.encode()).hexdigest()[:16]
    assert digest(TINY) == digest_of(tiny())


@given(graphs())
def test_decoding_undoes_encoding(graph: Graph) -> None:
    text = graph_to_json(graph)
    decoded = graph_from_json(text)
    assert decoded == graph
    assert graph_to_json(decoded) == text
    assert digest(decoded) == digest(graph)


def reordered(value: Any, shuffle: Callable[[list[Any]], None]) -> Any:
    if isinstance(value, list):
        return [reordered(item, shuffle) for item in value]
    if not isinstance(value, dict):
        return value
    keys = [*value]
    shuffle(keys)
    return {key: reordered(value[key], shuffle) for key in keys}


@given(graphs(), st.randoms(use_true_random=False))
def test_the_order_of_keys_and_the_spaces_do_not_matter(
    graph: Graph, source: random.Random
) -> None:
    value = reordered(json.loads(graph_to_json(graph)), source.shuffle)
    decoded = graph_from_json(json.dumps(value, indent=3))
    assert decoded == graph
    assert digest(decoded) == digest(graph)


@given(graphs(), graphs())
def test_equal_digests_are_equal_graphs(first: Graph, second: Graph) -> None:
    assert (digest(first) == digest(second)) == (first == second)


def test_whatever_changes_the_network_changes_the_digest() -> None:
    def with_op(**fields: object) -> Graph:
        op = replace(TINY["conv"].op, **fields)
        return replace(TINY, nodes=(TINY.nodes[0], replace(TINY.nodes[1], op=op), *TINY.nodes[2:]))

    others = [
        with_op(width=4),
        with_op(bias=True),
        with_op(sparsity=KernelSparsity(density=(0.5,))),
        with_op(sparsity=KernelSparsity(density=(0.5,), seed=1)),
        replace(TINY, init=Init(conv="fan_in")),
        replace(TINY, init=Init(scale=0.5)),
        replace(TINY, nodes=(*TINY.nodes[:3], replace(TINY.nodes[3], name="head")), output="head"),
    ]
    assert len({digest(graph) for graph in [TINY, *others]}) == 1 + len(others)


def test_defaults_may_be_left_out_and_are_written_back() -> None:
    value = tiny()
    del value["init"], value["nodes"][1]["op"]["stride"], value["nodes"][0]["weights"]
    assert graph_to_json(graph_from_json(json.dumps(value))) == TINY_JSON


@given(st.floats(min_value=0, allow_infinity=False), st.floats(0, 1))
def test_floats_survive_exactly(scale: float, p: float) -> None:
    nodes = (*TINY.nodes, Node(name="dropout", op=Dropout(p=p), inputs=("fc",)))
    graph = Graph(nodes=nodes, output="dropout", init=Init(scale=scale))
    assert graph_from_json(graph_to_json(graph)) == graph


def test_equal_numbers_are_written_alike() -> None:
    assert canonical_json([1.0, -0.0, 0.5, 1e3, 1e-7]) == "[1,0,0.5,1000,1e-07]"
    assert digest(replace(TINY, init=Init(scale=1))) == digest(TINY)


def test_tuples_mappings_and_dataclasses_become_json_types() -> None:
    assert encode({"a": (1, [Flatten()])}) == {"a": [1, [{"kind": "Flatten"}]]}


def test_numbers_that_are_not_finite_are_never_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        graph_to_json(replace(TINY, init=Init(scale=float("inf"))))


def changed(path: str, new: object) -> Any:
    value = tiny()
    at = value
    *above, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    for key in above:
        at = at[key]
    at[last] = new
    return value


@pytest.mark.parametrize(
    ("path", "new", "reason"),
    [
        ("colour", "red", "unknown key"),
        ("nodes.1.colour", "red", "unknown key"),
        ("nodes.1.op.colour", "red", "unknown key"),
        ("init.colour", "red", "unknown key"),
        ("output", 3, "string"),
        ("output", None, "string"),
        ("nodes", {}, "array"),
        ("nodes.1", 7, "object"),
        ("nodes.1.name", 7, "string"),
        ("nodes.1.inputs", "input", "array"),
        ("nodes.1.inputs.0", 0, "string"),
        ("nodes.1.weights", 0, "string"),
        ("nodes.1.op.width", "3", "integer"),
        ("nodes.1.op.width", 3.5, "integer"),
        ("nodes.1.op.width", True, "integer"),
        ("nodes.1.op.width", None, "integer"),
        ("nodes.1.op.bias", 1, "boolean"),
        ("nodes.1.op.kernel.1", "1", "integer"),
        ("nodes.1.op.sparsity", {"density": [True]}, "number"),
        ("nodes.0.op.spatial", 2, "array"),
        ("init.conv", "fan", "fan_out"),
        ("init.scale", "1", "number"),
    ],
)
def test_unknown_keys_and_wrong_types_are_told_with_their_path(
    path: str, new: object, reason: str
) -> None:
    message = refusal(changed(path, new))
    assert path in message
    assert reason in message


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        ({"kind": "Conv3d", "width": 3}, "unknown op 'Conv3d'; known: Activation, Add,"),
        ({"kind": ["Conv2d"]}, "unknown op ['Conv2d']"),
        ({"kind": None}, "unknown op None"),
        ({"kind": "x" * 10_000}, "unknown op 'xxx"),
        ({"width": 3}, "unknown op None"),
        ({}, "unknown op None"),
        ([], "Input should be an object"),
        ("Flatten", "Input should be an object"),
        (None, "Input should be an object"),
    ],
)
def test_an_op_that_is_not_known_or_not_named_is_told_with_the_known_ones(
    op: object, reason: str
) -> None:
    message = refusal(changed("nodes.2.op", op))
    assert f"nodes.2.op: {reason}" in message
    assert len(message) < 800


def test_an_op_names_its_own_missing_fields_only() -> None:
    value = tiny()
    del value["nodes"][1]["op"]["width"]
    message = refusal(value)
    assert "nodes.1.op.width" in message
    assert message.count("\n") == 1


def test_a_value_that_an_op_refuses_is_told_with_its_path() -> None:
    message = refusal(changed("nodes.1.op.width", 0))
    assert "nodes.1.op: Conv2d needs positive integers, got width=0" in message


def test_all_bad_fields_are_told_at_once_but_not_a_thousand() -> None:
    value = tiny()
    value["nodes"][1]["op"]["width"] = "3"
    value["nodes"][3]["op"]["bias"] = 0
    value["output"] = 1
    message = refusal(value)
    assert all(path in message for path in ("nodes.1.op.width", "nodes.3.op.bias", "output"))
    many = refusal(changed("nodes", [{"name": 0, "op": {"kind": "Flatten"}}] * 1000))
    assert "and 990 more" in many
    assert len(many) < 2000


@pytest.mark.parametrize(
    ("path", "new", "reason"),
    [
        ("nodes.1.inputs", ["fc"], "'conv' reads 'fc', which stands after it"),
        ("nodes.1.inputs", ["ghost"], "'conv' reads 'ghost', which does not exist"),
        ("nodes.2.inputs", ["input"], "the output does not depend on conv"),
        ("nodes.1.name", "input", "'input' occurs 2 times"),
        ("nodes.1.weights", "fc", "'conv' uses the weights of 'fc', which stands after it"),
        ("nodes.2.op", {"kind": "Shuffle", "groups": 2}, "at flatten: 3 channels do not divide"),
        ("nodes", [], "does not exist"),
        ("output", "nowhere", "the output 'nowhere' does not exist"),
    ],
)
def test_what_is_no_network_is_told_with_the_node(path: str, new: object, reason: str) -> None:
    assert reason in refusal(changed(path, new))


@pytest.mark.parametrize("schema", [None, 0, -1, 1.0, True, "1", [1]])
def test_a_schema_that_is_no_whole_number_is_told(schema: object) -> None:
    message = refusal(changed("schema", schema))
    assert "graph needs a whole number 'schema' from 1 on" in message
    assert repr(schema) in message


def test_a_missing_schema_is_told() -> None:
    value = tiny()
    del value["schema"]
    assert "'schema'" in refusal(value)


def test_a_newer_schema_is_told_with_the_remedy() -> None:
    message = refusal(changed("schema", SCHEMA + 1))
    assert f"graph has schema {SCHEMA + 1}, this version reads up to {SCHEMA}" in message
    assert "upgrade prunenas" in message


@given(graphs(), st.data())
def test_every_truncated_text_is_refused(graph: Graph, data: st.DataObject) -> None:
    text = graph_to_json(graph)
    cut = data.draw(st.integers(0, len(text) - 1))
    assert "graph is not JSON, or was cut short" in refusal(text[:cut])


@pytest.mark.parametrize("text", ["[]", "3", '"graph"', "null", "true"])
def test_json_that_is_no_object_is_told(text: str) -> None:
    assert "graph must be a JSON object, found" in refusal(text)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused(number: str) -> None:
    text = TINY_JSON.replace('"scale":1,', f'"scale":{number},')
    assert f"{number} is not a finite number" in refusal(text)


def nonsense(size: int) -> dict[str, str]:
    return {
        "brackets": "[" * size,
        "braces": '{"a":' * (size // 5),
        "closed brackets": "[" * (size // 2) + "]" * (size // 2),
        "digits": "9" * size,
        "a long string": '{"schema":1,"output":"' + "x" * (size - 24) + '"}',
        "a wide list": '{"schema":1,"output":"a","nodes":[' + "0," * (size // 2 - 20) + "0]}",
        "a wide list of ops": '{"schema":1,"output":"a","nodes":['
        + '{"op":{"kind":"Conv2d"}},' * (size // 25 - 2)
        + "0]}",
        "nested nodes": '{"schema":1,"output":"a","nodes":' + "[" * 900 + "]" * 900 + "}",
        "nested ops": '{"schema":1,"nodes":[' + '{"op":' * 900 + "0" + "}" * 900 + "]}",
        "random bytes": random.Random(0).randbytes(size).decode("latin-1"),
    }


@pytest.mark.parametrize("size", [1_000_000, 10_000_000])
@pytest.mark.parametrize("kind", [*nonsense(100)])
def test_megabytes_of_nonsense_are_refused_with_a_short_message(kind: str, size: int) -> None:
    message = refusal(nonsense(size)[kind])
    assert "graph" in message
    assert len(message) < 2000


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(SpecError, match="spec is not JSON"):
        parse(random.Random(0).randbytes(1000), "spec")


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 99) | st.floats(-1, 2) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["op", "kind", "name", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(graphs(), st.data())
def test_a_damaged_graph_is_refused_or_is_a_sound_graph(graph: Graph, data: st.DataObject) -> None:
    value = json.loads(graph_to_json(graph))
    for _ in range(data.draw(st.integers(1, 2))):
        *above, last = data.draw(st.sampled_from(places(value)[1:]))
        at = value
        for key in above:
            at = at[key]
        donors = [*at.values()] if isinstance(at, dict) else [*at]
        at[last] = data.draw(JSON | st.sampled_from(donors) | st.integers(0, 8))
    try:
        damaged = graph_from_json(json.dumps(value))
    except SpecError:
        return
    assume(damaged != graph)
    assert graph_from_json(graph_to_json(damaged)) == damaged
    assert params(damaged) >= 0 <= macs(damaged)
    assert {g.width % g.divisor for g in couple(damaged)} == {0}
