"""The four protocols and weights on disk, as they are typed."""

import numpy as np
import pytest
import torch

from prunenas.arch.descriptor import Descriptor
from prunenas.arch.spec import ArchSpec, load
from prunenas.build.inherit import inherit
from prunenas.build.initialise import build
from prunenas.build.weights import load_weights, save_weights
from prunenas.families.base import reference
from prunenas.generators.base import GENERATORS
from prunenas.generators.base.method import Proposal
from prunenas.ir.canonical import digest, encode
from prunenas.ir.ops import ExactMask
from prunenas.training.execution.engine import settle
from prunenas.training.recipe import RECIPES, Recipe
from tests.cli.conftest import DATA, QUICK

GENERATE = f"generate l1_norm --reference lenet5 {QUICK} --keep 0.5"


def lenet(**changes):
    return reference("lenet5", (1, 16, 16), 10, **changes)


@pytest.fixture
def weights(here):
    """Weights of a reference, as if it had been trained elsewhere."""
    return save_weights(build(lenet(), seed=9), here / "given.safetensors")


@pytest.fixture
def found(call, here):
    """A spec and the weights that ``generate`` looked at."""
    line = f"{GENERATE} --seed 4 --out found.json --save-weights looked.safetensors"
    done = call(f"{line} --json")
    assert done.json["weights"] == "looked.safetensors"
    return here / "found.json"


def still(line):
    """A training that moves nothing to speak of."""
    return f"{line} --data {DATA} --epochs 1 --recipe-set batch=8 --recipe-set lr=1e-30"


def parameters(network):
    return [*network.parameters()]


def close(one, other):
    return all(
        torch.allclose(a, b, rtol=0, atol=1e-20)
        for a, b in zip(parameters(one), parameters(other), strict=True)
    )


def test_the_weights_that_generate_trained_are_those_it_looked_at(call, here, found):
    spec = load(found)
    looked = load_weights(spec.reference, here / "looked.safetensors")
    assert not close(looked, build(spec.reference, seed=4))
    sizes = looked.weight("conv1").abs().sum((1, 2, 3))
    best = sorted(sizes.topk(len(spec.descriptor.selections["conv1"])).indices.tolist())
    assert [*spec.descriptor.selections["conv1"]] == best


def test_generate_looks_at_given_weights_and_needs_no_data(call, here, weights):
    done = call(
        "generate l1_norm --reference lenet5 --input-size 1,16,16 --weights given.safetensors "
        "--data-root nowhere --out g.json"
    )
    assert done.code == 0
    spec = load(here / "g.json")
    sizes = build(lenet(), seed=9).weight("conv2").abs().sum((1, 2, 3))
    best = sorted(sizes.topk(8).indices.tolist())
    assert [*spec.descriptor.selections["conv2"]] == best
    options = spec.descriptor.origin.options
    assert options["weights"] == "given"
    assert not {"data", "recipe", "accuracy"} & {*options}


def test_the_data_tells_the_size_of_a_family_whose_weights_are_given(call, here, weights):
    line = f"generate l1_norm --reference lenet5 --data {DATA} --weights given.safetensors"
    assert call(f"{line} --out g.json").code == 0
    assert digest(load(here / "g.json").reference) == digest(lenet())


def test_a_method_of_the_graph_alone_needs_no_data(call, here):
    assert call("generate uniform --reference lenet5 --data-root nowhere --out u.json").code == 0
    assert digest(load(here / "u.json").reference) == digest(reference("lenet5"))
    assert load(here / "u.json").descriptor.origin.keep == 0.5


def test_generate_trains_by_the_methods_own_recipe_unless_told(call, here, monkeypatch):
    line = f"generate l1_norm --reference lenet5 --width 0.5 --data {DATA}"
    own = Recipe(epochs=1, batch=16, lr=0.02)
    monkeypatch.setattr(GENERATORS["l1_norm"], "recipe", own)
    told = {}
    for name, flags in (
        ("own", ""),
        ("epochs", "--epochs 2"),
        ("set", "--recipe-set batch=20 --recipe-set epochs=1"),
        ("named", "--recipe fast --epochs 1"),
    ):
        assert call(f"{line} {flags} --out {name}.json").code == 0
        told[name] = load(here / f"{name}.json").descriptor.origin.options["recipe"]
    assert told["own"] == encode(own)
    assert told["epochs"] == encode(RECIPES["paper"]) | {"epochs": 2}
    assert told["set"] == encode(RECIPES["paper"]) | {"batch": 20, "epochs": 1}
    assert told["named"] == encode(settle(RECIPES["fast"], "cpu")) | {"epochs": 1}


def test_fine_tuning_begins_with_what_generate_looked_at(call, here, found):
    line = "train found.json --protocol fine-tune --weights looked.safetensors --seeds 1"
    told = call(f"{still(line)} --save-weights tuned.safetensors --out t.json --json").json
    spec = load(found)
    looked = load_weights(spec.reference, here / "looked.safetensors")
    tuned = load_weights(spec.graph, here / "tuned.safetensors")
    assert close(tuned, inherit(looked, spec.descriptor))
    assert (told["protocol"], told["start"]) == ("fine-tune", "inherited weights")
    trained = load(here / "t.json")
    assert trained.metrics.protocol == "fine-tune"
    training = trained.provenance["training"]
    assert (training["protocol"], training["start"]) == ("fine-tune", "inherited weights")
    assert (training["recipe"]["epochs"], training["recipe"]["lr"]) == (1, 1e-30)
    assert training["recipe"]["schedule"] == "constant"


def test_fine_tuning_is_forty_epochs_at_a_thousandth_of_the_recipe(call, here, found):
    line = "train found.json --protocol fine-tune --weights looked.safetensors --seeds 1"
    assert call(f"{line} --data {DATA} --recipe-set batch=30 --out t.json").code == 0
    recipe = load(here / "t.json").provenance["training"]["recipe"]
    assert (recipe["epochs"], recipe["lr"], recipe["batch"]) == (40, 0.001, 30)


def test_rewinding_begins_where_generate_began(call, here, found):
    line = still("train found.json --protocol rewind --seeds 1 --seed 8")
    assert call(f"{line} --save-weights rewound.safetensors --out r.json").code == 0
    spec = load(found)
    rewound = load_weights(spec.graph, here / "rewound.safetensors")
    assert close(rewound, inherit(build(spec.reference, seed=4), spec.descriptor))
    assert load(here / "r.json").metrics.start == "initial weights, seed 4"
    told = call(f"{line} --initial-seed 6 --json").json
    assert told["start"] == "initial weights, seed 6"


def test_rewinding_takes_saved_initial_weights(call, here, found, weights):
    line = still("train found.json --protocol rewind --weights given.safetensors --seeds 1")
    assert call(f"{line} --save-weights rewound.safetensors").code == 0
    spec = load(found)
    rewound = load_weights(spec.graph, here / "rewound.safetensors")
    assert close(rewound, inherit(build(lenet(), seed=9), spec.descriptor))


def test_a_reference_trained_by_train_is_a_reference_for_generate(call, here):
    assert call(f"train lenet5 {QUICK} --seeds 1 --save-weights ref.safetensors").code == 0
    line = f"generate l1_norm --reference lenet5 --data {DATA} --weights ref.safetensors"
    assert call(f"{line} --out g.json").code == 0
    line = f"train g.json --protocol fine-tune --weights ref.safetensors {QUICK} --seeds 2"
    done = call(line)
    assert done.code == 0
    assert "fine-tune from inherited weights, 1 epochs" in done.out
    assert "(n=2)" in done.out


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("train found.json --protocol fine-tune", "give its --weights"),
        ("train found.json --weights looked.safetensors", "--weights goes with --protocol fine-"),
        ("train found.json --initial-seed 3", "--initial-seed goes with --protocol rewind"),
        (
            "train found.json --protocol rewind --weights looked.safetensors --initial-seed 3",
            "not both",
        ),
        ("train lenet5 --protocol rewind --seeds 1", "does not tell which weights"),
        ("train found.json --save-weights w.safetensors", "say --seeds 1"),
        ("train found.json --seeds 1 --save-weights w.pt", "NAME.safetensors, got w.pt"),
        ("train found.json --seeds 1 --save-weights looked.safetensors", "choose another --save-"),
        (f"{GENERATE} --save-weights looked.safetensors", "exists"),
        ("generate uniform --save-weights w.safetensors", "uniform looks at no weights"),
        ("generate uniform --weights looked.safetensors", "uniform looks at no weights"),
        (
            "generate l1_norm --keep 1 --save-weights w.safetensors",
            "to keep all looks at no weights",
        ),
        ("generate l1_norm --weights nowhere.safetensors", "no such file"),
        ("generate l1_norm --weights found.json", "kept in .safetensors files"),
        ("generate l1_norm --weights looked.safetensors", "holds weights of the graph"),
        (
            "generate l1_norm --reference torchvision:resnet18 --pretrained --weights "
            "looked.safetensors",
            "--pretrained or --weights, not both",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(call, here, found, line, told):
    before = {path: path.read_bytes() for path in here.iterdir()}
    if line.startswith("train"):
        line += f" --data {DATA}"
    call(line).refused(told)
    assert {path: path.read_bytes() for path in here.iterdir()} == before


def test_widths_alone_are_refused_where_weights_are_inherited(call, here, spec, weights):
    call(f"train half.json --protocol fine-tune --weights given.safetensors {QUICK}").refused(
        "widths alone are given", "scratch-e and scratch-b"
    )


def test_a_method_that_hands_out_no_trained_weights_says_so(call, here, monkeypatch):
    """What it began with would pass for a trained network."""
    monkeypatch.setattr(GENERATORS["l1_norm"], "looks_at", "own")
    call(f"{GENERATE} --out g.json --save-weights w.safetensors").refused(
        "hands out no trained weights: g.json is written, w.safetensors is not"
    )
    assert [path.name for path in here.iterdir()] == ["g.json"]


def test_keep_gives_way_to_an_option_that_says_how_much(call, here, monkeypatch, weights):
    """None is asked for then, and what is asked for is refused by the method."""
    seen = []
    kind = GENERATORS["l1_norm"]
    monkeypatch.setattr(kind, "says_how_much", property(lambda self: "made"))
    monkeypatch.setattr(kind, "propose", lambda self, s: seen.append(s.asked) or Proposal())
    line = f"generate l1_norm --reference lenet5 --data {DATA} --weights given.safetensors"
    assert call(f"{line} --out g.json").code == 0
    assert seen == [None]
    assert load(here / "g.json").descriptor.origin.keep is None
    call(f"{line} --keep 0.5 --out h.json").refused("made says how much")


def test_a_spec_of_masks_trains_in_all_four_ways(call, here, weights):
    """Exact zeros in what is saved, whatever the protocol."""
    graph = lenet()
    shape = graph.parameters()["conv2.weight"]
    kept = np.arange(np.prod(shape)).reshape(shape) % 2 == 0
    descriptor = Descriptor(reference=digest(graph), masks={"conv2": ExactMask.of(kept)})
    ArchSpec.of(graph, descriptor, name="half").save(here / "masked.json")
    for protocol, start in (
        ("scratch-e", ""),
        ("scratch-b", ""),
        ("fine-tune", "--weights given.safetensors"),
        ("rewind", "--initial-seed 3"),
    ):
        line = f"train masked.json --protocol {protocol} {start} {QUICK} --seeds 1"
        assert call(f"{line} --save-weights {protocol}.safetensors").code == 0
        network = load_weights(load(here / "masked.json").graph, here / f"{protocol}.safetensors")
        weight = network.weight("conv2").numpy()
        assert (weight[~kept] == 0).all() and (weight[kept] != 0).all()
