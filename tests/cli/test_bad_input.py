"""Everything wrong that can be typed or handed over ends with 2 and one clear message."""

import json
import random

import pytest

from prunenas.arch.descriptor import Descriptor
from prunenas.arch.spec import ArchSpec
from prunenas.families.base import FAMILIES
from prunenas.ir.canonical import digest
from tests.arch.networks import everything
from tests.cli.conftest import SPACE


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("inspect resnet21", ["family 'resnet21'", "resnet20", "vgg16"]),
        ("generate sliming", ["method 'sliming'", "network_slimming"]),
        ("generate uniform --data mnits", ["data set 'mnits'", "digits", "cifar10"]),
        ("train lenet5 --data mnits", ["data set 'mnits'", "digits"]),
        ("export lenet5 tensorflow", ["exporter 'tensorflow'", "json, python"]),
        ("generate uniform --recipe slow", ["recipe 'slow'", "paper", "fast"]),
        ("train lenet5 --protocol scratch-c", ["'scratch-c'", "scratch-e, scratch-b"]),
        ("train lenet5 --device gpu", ["'gpu'"]),
        ("search space.toml --strategy grid", ["strategy 'grid'", "nsga2, random, tpe"]),
        ("search space.toml --data mnits", ["data set 'mnits'"]),
        ("search space.toml --recipe slow", ["recipe 'slow'"]),
        ("search space.toml --objectives accuracy,latency", ["'latency'", "accuracy, macs"]),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(call, space_file, line, told):
    call(line).refused(*told)


def test_every_family_is_listed_when_one_is_unknown(call):
    call("inspect nope").refused(*FAMILIES.names())


@pytest.mark.parametrize("keep", ["0", "-0.5", "1.01", "nan", "inf"])
@pytest.mark.parametrize(
    "line", ["generate uniform --reference lenet5 --data digits", "transfer p.json --to lenet5"]
)
def test_a_keep_outside_zero_to_one_is_refused(call, spec, here, line, keep):
    call("profile half.json --out p.json")
    call(f"{line} --keep {keep} --out x.json").refused("keep")
    assert not (here / "x.json").exists()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("inspect lenet5 --input-size 3,32", "3,32,32"),
        ("inspect lenet5 --input-size a,b,c", "3,32,32"),
        ("inspect lenet5 --input-size 0,0,0", "input_size"),
        ("inspect lenet5 --input-size 1,4,4", "lenet5"),
        ("inspect lenet5 --classes 0", "classes"),
        ("inspect lenet5 --width 0", "width"),
        ("inspect lenet5 --width nan", "width"),
        ("inspect lenet5 --depth 3", "depth"),
        ("inspect resnet --depth 21", "depth"),
        ("inspect half.json --classes 3", "--classes"),
        ("inspect half.json --width 0.5", "--width"),
        ("inspect half.json --unknown freeze", "--unknown"),
        ("inspect lenet5 --time-limit 5", "--time-limit"),
        ("inspect lenet5 --unknown refuse", "--unknown"),
        ("inspect lenet5 --unknown bogus", "--unknown is refuse or freeze, got 'bogus'"),
        ("train half.json --data digits --seeds 0", "--seeds"),
        ("train half.json --data digits --epochs 0", "epochs=0"),
        ("train half.json --data digits --recipe-set epocs=3", "epocs"),
        ("train half.json --data digits --recipe-set epochs=x", "epochs"),
        ("train half.json --data digits --recipe-set lr=nan", "lr"),
        ("train half.json --data digits --recipe-set lr=NaN", "lr"),
        ("train half.json --data digits --recipe-set name=fast", "name"),
        ("train half.json --data digits --recipe-set epochs", "name=value"),
        ("train half.json --data shapes --epochs 1", "does not fit"),
        ("train lenet5 --data digits --protocol scratch-b", "reference"),
        ("train half.json --data digits --protocol scratch-b --cost flops", "repo_flops, macs"),
        ("train half.json --data digits --protocol scratch-b --cap 0.5", "cap"),
        ("generate uniform --set a=1", "no option a"),
        ("generate network_slimming --set strength=x --data digits", "strength"),
        ("generate network_slimming --set strength=-1 --data digits", "strength"),
        ("transfer p.json --to vgg11 --out t.json", "resample"),
        ("transfer p.json --to lenet5 --out t.json --max-macs 10", "max_macs=10"),
        ("transfer p.json --to lenet5 --out t.json --head 0.5", "--resample"),
        ("transfer p.json --to lenet5 --out t.json --round-to 0", "0"),
        ("profile p.json --out q.json", "is a profile"),
        ("transfer half.json --to lenet5 --out t.json", "is a spec"),
        ("profile nowhere.json --out q.json", "nowhere.json"),
        ("inspect nowhere.json", "nowhere.json"),
        ("inspect .", "cannot be read"),
        ("search nowhere.toml", "nowhere.toml"),
        ("search half.json", "half.json"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(call, spec, line, told):
    call("profile half.json --out p.json")
    call(line).refused(told)


@pytest.mark.parametrize(
    "line",
    ["", "bake", "inspect", "inspect lenet5 --nope", "train lenet5 --seeds x", "profile", "search"],
)
def test_a_command_that_cannot_be_parsed_ends_with_2(call, line):
    done = call(line)
    assert done.code == 2
    assert "Traceback" not in done.err
    assert done.err or done.out


def change(spec, **fields):
    value = json.loads(spec.read_text())
    spec.write_text(json.dumps(value | fields))
    return value


def test_widths_that_break_a_divisor_a_bound_and_a_fixed_group_are_all_told_at_once(call, here):
    graph = everything()
    path = here / "broken.json"
    ArchSpec.of(graph, Descriptor(reference=digest(graph)), name="n").save(path)
    value = json.loads(path.read_text())
    value["descriptor"]["widths"] = {"grouped": 10, "padded.conv": 9, "fc": 4}
    path.write_text(json.dumps(value))
    call("inspect broken.json").refused("grouped", "padded.conv", "fc", "multiple of 4", "wider")


def test_a_descriptor_for_another_graph_is_refused(call, spec):
    value = json.loads(spec.read_text())
    value["descriptor"]["reference"] = "0123456789abcdef"
    spec.write_text(json.dumps(value))
    call("inspect half.json").refused("0123456789abcdef")


@pytest.mark.parametrize("verb", ["inspect", "profile", "train", "export"])
@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"extra": 1}, "extra"),
        ({"name": 3}, "name"),
        ({"schema": 99}, "schema 99"),
        ({"schema": "1"}, "schema"),
        ({"digest": "0123456789abcdef"}, "0123456789abcdef"),
        ({"graph": {}}, "graph"),
    ],
)
def test_a_spec_that_is_none_is_refused_by_every_verb(call, spec, verb, fields, told):
    change(spec, **fields)
    call(f"{verb} half.json").refused(told)


def graph_without_reference(call, here):
    assert call("export lenet5 json --out net.json").code == 0
    value = json.loads((here / "net.json").read_text())
    return here / "net.json", value


def test_a_cycle_is_refused(call, here):
    path, value = graph_without_reference(call, here)
    nodes = value["graph"]["nodes"]
    nodes[1]["inputs"] = [nodes[3]["name"]]
    path.write_text(json.dumps(value))
    call("inspect net.json").refused(nodes[1]["name"])


def test_a_dangling_input_is_refused(call, here):
    path, value = graph_without_reference(call, here)
    value["graph"]["nodes"][2]["inputs"] = ["nowhere"]
    path.write_text(json.dumps(value))
    call("inspect net.json").refused("nowhere")


@pytest.mark.parametrize("part", [0, 1, 0.5, 0.99])
def test_a_file_cut_short_is_refused(call, spec, part):
    text = spec.read_text()
    spec.write_text(text[: int(len(text) * part) if part < 1 else -2])
    call("inspect half.json").refused("half.json")


@pytest.mark.parametrize("verb", ["inspect", "profile", "export", "train", "search", "transfer"])
@pytest.mark.parametrize("kind", ["bytes", "letters", "brackets"])
def test_ten_megabytes_of_nonsense_are_refused(call, here, verb, kind):
    size = 10_000_000
    nonsense = {
        "bytes": random.Random(0).randbytes(size),
        "letters": b"nonsense " * (size // 9),
        "brackets": b"[" * size,
    }[kind]
    (here / "big.json").write_bytes(nonsense)
    done = call(f"{verb} big.json")
    done.refused("big.json")
    assert len(done.err) < 2_000


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("max_macs", "max_mac", "max_mac"),
        ("trials", "trails", "run.trails"),
        ("radius", "raduis", "keep.raduis"),
        ("classes", "clases", "reference.clases"),
        ("epochs", "epocs", "epocs"),
    ],
)
def test_a_misspelt_key_of_a_space_is_named_with_its_path(call, here, old, new, path):
    (here / "space.toml").write_text(SPACE.replace(old, new))
    call("search space.toml --out run").refused(path)
    assert not (here / "run").exists()


@pytest.mark.parametrize(
    "line",
    [
        "generate uniform --reference lenet5 --data digits --out half.json",
        "generate network_slimming --reference vgg11 --data digits --out half.json",
        "profile half.json --out half.json",
        "transfer p.json --to lenet5 --out half.json",
        "train half.json --data digits --out half.json",
        "export lenet5 json --out half.json",
    ],
)
def test_an_existing_file_is_never_overwritten_and_refused_before_any_training(
    call, spec, monkeypatch, line
):
    import prunenas.training.loop as loop

    def trains(*args, **options):
        raise AssertionError("it trains")

    monkeypatch.setattr(loop, "carried_out", trains)
    call("profile half.json --out p.json")
    before = spec.read_bytes()
    call(line).refused("half.json exists")
    assert spec.read_bytes() == before
