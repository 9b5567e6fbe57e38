import importlib.util
import json

import pytest
import torch

from prunenas.arch.profile import StageProfile
from prunenas.arch.spec import load
from prunenas.build.initialise import build
from prunenas.data.base import DATASETS
from prunenas.export.base import EXPORTERS
from prunenas.families.base import FAMILIES, reference
from prunenas.generators.base import GENERATORS
from prunenas.ir.canonical import digest
from prunenas.ir.cost import macs, params
from prunenas.ir.coupling import couple
from prunenas.ir.stages import stages
from prunenas.search.strategies.base import STRATEGIES
from tests.cli.conftest import DATA, QUICK

VERBS = (
    "list",
    "inspect",
    "generate",
    "profile",
    "transfer",
    "train",
    "search",
    "export",
    "watch",
    "stop",
)


def test_list_names_everything_that_is_registered(call):
    names = call("list --json").json
    for kind, registry in (
        ("families", FAMILIES),
        ("datasets", DATASETS),
        ("generators", GENERATORS),
        ("strategies", STRATEGIES),
        ("exporters", EXPORTERS),
    ):
        assert names[kind] == registry.names()
        assert names[kind]
    plain = call("list")
    assert plain.code == 0
    assert all(name in plain.out for kind in names.values() for name in kind)


def test_inspect_tells_digest_costs_groups_and_stages(call):
    graph = reference("resnet20", (3, 32, 32), 10)
    told = call("inspect resnet20 --input-size 3,32,32 --classes 10 --json").json
    assert told["digest"] == digest(graph)
    assert (told["params"], told["macs"]) == (params(graph), macs(graph))
    assert [(g["name"], g["width"], tuple(g["members"]), g["fixed"]) for g in told["groups"]] == [
        (g.name, g.width, g.members, g.fixed) for g in couple(graph)
    ]
    assert {type(group["fixed"]) for group in told["groups"]} == {str, type(None)}
    assert [stage["name"] for stage in told["stages"]] == [stage.name for stage in stages(graph)]


def test_the_arguments_of_a_name_are_the_familys(call):
    told = call("inspect resnet --input-size 1,16,16 --classes 3 --width 0.5 --depth 14 --json")
    assert told.json["digest"] == digest(reference("resnet", (1, 16, 16), 3, width=0.5, depth=14))
    assert told.json["input_size"] == [1, 16, 16]
    assert told.json["classes"] == 3


def test_inspect_prints_for_people_too(call, spec):
    shown = call("inspect half.json")
    assert shown.code == 0
    assert load(spec).digest in shown.out
    assert "keep asked 0.5" in shown.out
    assert "conv1" in shown.out


def test_inspect_shows_a_spec_with_what_was_measured(call, spec):
    assert call(f"train half.json {QUICK} --seeds 2 --out trained.json").code == 0
    told = call("inspect trained.json --json").json
    assert told["metrics"]["part"] == "test"
    assert len(told["metrics"]["results"]) == 2
    assert told["reference"]["params"] == params(reference("lenet5", (1, 16, 16), 10))
    assert [*told["keeps"]] == ["stage1", "stage2", "head"]
    assert "(n=2)" in call("inspect trained.json").out


def test_names_in_a_spec_are_shown_as_they_are(call, spec):
    """Brackets are no markup: a file from elsewhere may hold any name."""
    value = json.loads(spec.read_text())
    value["name"] = "[/bold] [red]net[/red] :fire:"
    spec.write_text(json.dumps(value))
    shown = call("inspect half.json")
    assert shown.code == 0
    assert "[/bold] [red]net[/red] :fire:" in shown.out


def test_generate_writes_reference_descriptor_and_graph(call, here):
    told = call(
        f"generate uniform --reference lenet5 --width 0.5 --data {DATA} --keep 0.5 --out u.json "
        "--json"
    ).json
    found = load(here / "u.json")
    assert told["digest"] == found.digest
    assert told["out"] == "u.json"
    assert digest(found.reference) == digest(reference("lenet5", (1, 16, 16), 10, width=0.5))
    assert found.descriptor.origin.method == "uniform"
    assert found.descriptor.origin.keep == 0.5
    assert found.provenance["command"].startswith("prunenas generate uniform --reference lenet5")


def test_generate_trains_by_the_recipe_and_options_it_is_told(call, here):
    assert (
        call(
            f"generate network_slimming --reference vgg11 --width 0.05 {QUICK} --keep 0.6 "
            "--set strength=0.01 --seed 3 --out n.json"
        ).code
        == 0
    )
    options = load(here / "n.json").descriptor.origin.options
    assert options["strength"] == 0.01
    assert options["seed"] == 3
    assert options["data"] == "tiny"
    assert (options["recipe"]["epochs"], options["recipe"]["batch"]) == (1, 8)


def test_profile_averages_specs(call, here, spec):
    assert (
        call(f"generate uniform --reference lenet5 --data {DATA} --keep 1.0 --out whole.json").code
        == 0
    )
    told = call("profile half.json whole.json --out p.json --json").json
    found = StageProfile.load(here / "p.json")
    one, other = load(here / "half.json"), load(here / "whole.json")
    assert found == StageProfile.of(one.reference, one.descriptor, other.descriptor)
    assert told["keeps"] == dict(found.keeps)


def test_transfer_puts_a_profile_on_another_network(call, here, spec):
    call("profile half.json --out p.json")
    target = reference("lenet5", (1, 16, 16), 10, width=2)
    told = call(
        "transfer p.json --to lenet5 --input-size 1,16,16 --width 2 --out t.json --json"
    ).json
    found = load(here / "t.json")
    assert digest(found.reference) == digest(target)
    assert found.descriptor.widths == StageProfile.load(here / "p.json").descriptor(target).widths
    assert told["digest"] == found.digest


@pytest.mark.parametrize("budget", ["macs", "params"])
def test_transfer_lands_on_a_budget(call, here, spec, budget):
    call("profile half.json --out p.json")
    done = call(
        f"transfer p.json --to lenet5 --input-size 1,16,16 --max-{budget} 10000 --out t.json --json"
    )
    assert 9_500 < done.json[budget] <= 10_000


def test_transfer_resamples_where_it_is_told_to(call, here, spec):
    call("profile half.json --out p.json")
    done = call("transfer p.json --to vgg11 --width 0.1 --resample --out t.json --json")
    assert len(done.json["keeps"]) == 5


def test_transfer_onto_a_spec_takes_its_graph(call, here, spec):
    call("profile half.json --out p.json")
    assert call("transfer p.json --to half.json --out t.json").code == 0
    assert digest(load(here / "t.json").reference) == load(spec).digest


def test_train_tells_mean_deviation_and_n_and_writes_a_spec(call, here, spec):
    told = call(f"train half.json {QUICK} --seeds 3 --seed 5 --out t.json --json").json
    found = load(here / "t.json").metrics
    assert (told["accuracy"], told["std"], told["n"]) == (found.accuracy, found.std, 3)
    assert [result.seed for result in found.results] == [5, 6, 7]
    assert found.part == "test"
    assert told["epochs"] == 1
    assert load(here / "t.json").provenance["training"]["recipe"]["batch"] == 8
    assert load(here / "t.json").provenance["command"] == load(spec).provenance["command"]


def test_train_prints_mean_deviation_and_n(call):
    done = call(f"train lenet5 --width 0.2 {QUICK} --seeds 2")
    assert done.code == 0
    assert "±" in done.out
    assert "(n=2)" in done.out


def test_scratch_b_spends_the_compute_of_the_reference(call, spec):
    quick = QUICK.replace("--epochs 1", "--epochs 2")
    told = call(f"train half.json {quick} --seeds 1 --protocol scratch-b --cost macs --json").json
    found = load(spec)
    assert told["epochs"] == int(2 * macs(found.reference) / macs(found.graph)) > 2
    capped = call(f"train half.json {quick} --seeds 1 --protocol scratch-b --cap 1.5 --json").json
    assert capped["epochs"] == 3


def test_export_writes_a_network_that_needs_no_prunenas(call, here, spec):
    told = call("export half.json python --out net.py --json").json
    assert told == {"out": "net.py", "digest": load(spec).digest}
    text = (here / "net.py").read_text()
    assert "import prunenas" not in text
    described = importlib.util.spec_from_file_location("net", here / "net.py")
    module = importlib.util.module_from_spec(described)
    described.loader.exec_module(module)
    classes = [v for v in vars(module).values() if getattr(v, "__module__", "") == "net"]
    twin = next(c for c in reversed(classes) if issubclass(c, torch.nn.Module))().eval()
    network = build(load(spec).graph, seed=1).eval()
    twin.load_state_dict(network.state_dict())
    images = torch.randn(2, 1, 16, 16)
    assert torch.equal(twin(images), network(images))


def test_export_json_is_the_spec_byte_for_byte(call, here, spec):
    assert call("export half.json json --out copy.json").code == 0
    assert (here / "copy.json").read_bytes() == spec.read_bytes()


def test_export_names_its_file_after_the_network(call, here):
    assert call("export lenet5").code == 0
    assert (here / "lenet5.py").exists()


@pytest.mark.parametrize(
    "line",
    [
        "inspect half.json",
        "profile half.json --out p.json",
        "transfer half-profile.json --to lenet5 --out t.json",
        f"train half.json {QUICK} --seeds 1",
        "export half.json --out e.py",
        f"generate l1_norm --reference lenet5 --width 0.3 {QUICK} --out g.json",
    ],
)
def test_with_json_stdout_is_one_object_and_nothing_else(call, spec, line):
    call("profile half.json --out half-profile.json")
    done = call(f"{line} --json")
    assert done.code == 0
    assert done.json


@pytest.mark.parametrize("verb", VERBS)
def test_help_prints_a_default_for_everything_but_the_first_argument(call, verb):
    import typer

    from prunenas.cli.options import app

    shown = call(f"{verb} --help")
    assert shown.code == 0
    command = typer.main.get_command(app).commands[verb]
    assert sum(p.required for p in command.params) == (verb != "list")
    defaulted = [p for p in command.params if not p.required and p.name not in ("help", "as_json")]
    assert shown.out.count("[default:") == len(defaulted)
    assert "--json" in shown.out


def test_help_lists_every_verb(call):
    shown = call("--help").out
    assert all(f" {verb} " in shown for verb in VERBS)
    assert call("").code == 2
