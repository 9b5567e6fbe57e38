"""The networks of Liu et al. 2019 and of its released code, to the unit."""

import json
import math
from collections import Counter
from pathlib import Path

import pytest

from prunenas.arch.descriptor import Descriptor, apply
from prunenas.errors import DescriptorError
from prunenas.families.base import reference
from prunenas.ir.canonical import digest
from prunenas.ir.cost import macs, params, repo_flops
from prunenas.ir.coupling import couple
from prunenas.ir.ops import Activation, BatchNorm, Conv2d, Linear, PadChannels

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "architectures.json").read_text())
FACTS = {fact["id"]: fact for fact in GOLDEN["architectures"]}
# Two networks that a slip in the released code made (projections, block type by depth).
EXEMPT = {"resnet50_lotterycode_cifar10", "resnet56_lotterycode_cifar10"}
NAMES = [name for name in FACTS if name not in EXEMPT]

FAMILY = {
    "preresnet164": ("preresnet164", {}),
    "preresnet110_slimcode": ("preresnet110", {}),
    "preresnet110": ("preresnet110", {"selection": False}),
    "preresnet110_lotterycode": ("preresnet", {"depth": 164, "selection": False}),
    "densenet40": ("densenet40", {}),
    "densenet40_unstructured": ("densenet40", {"selection": False}),
    "densenet100_theta2_nobottleneck": (
        "densenet",
        {"depth": 100, "compression": 0.5, "selection": False},
    ),
    "densenetbc100": ("densenetbc100", {"selection": False}),
    "vgg16A": ("vgg16_l1", {}),
    "resnet56": ("resnet56", {"detach": True}),
    "resnet56A": ("resnet56", {"detach": True}),
    "resnet56B": ("resnet56", {"detach": True}),
    "resnet110": ("resnet110", {"detach": True}),
    "resnet110B": ("resnet110", {"detach": True}),
    "resnet20_sfp": ("resnet20", {}),
    "resnet56_sfp": ("resnet56", {}),
    "resnet110_sfp": ("resnet110", {}),
    "resnet34_imagenet": ("resnet34", {}),
    "resnet34A_imagenet": ("resnet34", {}),
    "vgg16_imagenet": ("vgg16_imagenet", {}),
    "thinet_conv": ("vgg16_imagenet", {}),
    "thinet_gap": ("vgg16_gap", {}),
    "resnet50_port_imagenet": ("resnet50_port", {}),
    "thinet_resnet50_30": ("resnet50_port", {}),
    "thinet_resnet50_70": ("resnet50_port", {}),
    "vgg11_torchvision": ("vgg11_plain_imagenet", {}),
    "vgg16_torchvision": ("vgg16_imagenet", {}),
    "vgg16_bn_torchvision": ("vgg16_bn_imagenet", {}),
    "resnet18_torchvision": ("resnet18", {}),
    "resnet34_torchvision": ("resnet34", {}),
    "resnet50_torchvision": ("resnet50", {}),
    "resnet50_sss": ("preresnet50_imagenet", {}),
    "resnet41_sss": ("preresnet50_imagenet", {}),
    "resnet32_sss": ("preresnet50_imagenet", {}),
} | {
    f"vgg{depth}_{theirs}": (f"vgg{depth}{ours}", {})
    for depth in (11, 13, 16, 19)
    for theirs, ours in (("l1", "_l1"), ("slim", ""), ("bn_unstructured", "_biased"))
}


def pruned(graph, widths=(), dropped=()):
    return apply(graph, Descriptor(reference=digest(graph), widths=dict(widths), dropped=dropped))


def inner(graph):
    """Return the first convolution of each block."""
    names = (node.name for node in graph.nodes)
    return [name for name in names if name.startswith("layer") and name.endswith(".conv1")]


def convolutions(graph):
    return [node.name for node in graph.nodes if isinstance(node.op, Conv2d)]


def dropped_blocks(units, blocks=(3, 4, 6, 3)):
    """Return what ``[(kept, first kept), ...]`` leaves out of each stage."""
    wanted = json.loads(
        units.replace("(", "[").replace(")", "]").replace("T", "true").replace("F", "false")
    )
    gone = []
    for stage, ((kept, first), full) in enumerate(zip(wanted, blocks, strict=True), start=1):
        stay = {0, *range(1, kept)} if first else {*range(1, kept + 1)}
        gone += [f"layer{stage}.{block}.add" for block in range(full) if block not in stay]
    return tuple(gone)


def network(name):
    fact = FACTS[name]
    family, options = FAMILY[name.removesuffix("_cifar10").removesuffix("_cifar100")]
    graph = reference(family, tuple(fact["input_shape"]), fact["num_classes"], **options)
    if "cfg" in fact:
        widths = [item for item in fact["cfg"] if item != "M"]
        return pruned(graph, zip(convolutions(graph), widths, strict=True))
    if "block_inner_widths" in fact:
        return pruned(graph, zip(inner(graph), fact["block_inner_widths"], strict=True))
    if "bottleneck_inner_width_per_stage" in fact:
        kept = fact["bottleneck_inner_width_per_stage"]
        names = [n.removesuffix("1") + i for n in inner(graph) for i in "12"]
        return pruned(graph, {n: kept[int(n[len("layer")]) - 1] for n in names})
    return pruned(graph, dropped=dropped_blocks(fact["units"])) if "units" in fact else graph


@pytest.fixture(scope="module")
def networks():
    return {name: network(name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_macs_are_right_to_the_unit(name, networks):
    graph, fact = networks[name], FACTS[name]
    assert params(graph) == fact["params_without_selection_indexes"]
    assert macs(graph) == fact["macs"]


@pytest.mark.parametrize("name", NAMES)
def test_every_convolution_is_there(name, networks):
    fact = FACTS[name]
    rows = fact.get("conv_layers") or FACTS[fact["conv_layers_same_as"]]["conv_layers"]
    graph, found = networks[name], Counter()
    for node in graph.nodes:
        if isinstance(op := node.op, Conv2d):
            source, out = graph.shapes[node.inputs[0]], graph.shapes[node.name]
            assert (op.kernel[0], op.stride[0]) == (op.kernel[1], op.stride[1])
            size = (op.kernel[0], op.stride[0], op.groups, op.bias, out.spatial[0])
            cost = op.macs([source], out)
            found[source.channels, out.channels, *size, cost] += 1
    assert found == Counter(tuple(row[1:]) for row in rows)


@pytest.mark.parametrize("name", NAMES)
def test_every_linear_layer_is_there(name, networks):
    graph = networks[name]
    found = [
        (graph.shapes[node.inputs[0]].channels, node.op.width, node.op.bias)
        for node in graph.nodes
        if isinstance(node.op, Linear)
    ]
    assert found == [tuple(row[1:]) for row in FACTS[name]["linear_layers"]]


@pytest.mark.parametrize("name", [n for n in NAMES if "block_inner_widths" in FACTS[n]])
def test_inner_widths_have_the_names_of_the_facts(name, networks):
    theirs = {row[0]: row[2] for row in FACTS[name]["conv_layers"] if row[0].endswith("conv1")}
    graph = networks[name]
    assert theirs == {key: graph[key].op.width for key in theirs}


def unseen(name, graph):
    """Return the cost of poolings that the released code calls as functions, unseen by itself."""
    shape = graph.shapes[graph["avgpool"].inputs[0]] if "avgpool" in graph else None
    if (name.startswith("vgg") and name.endswith(("cifar10", "cifar100"))) or name == "thinet_gap":
        return shape.numel
    if name.startswith("densenet"):
        return sum(4 * graph.shapes[f"trans{i}.pool"].numel for i in (1, 2))
    return 0


@pytest.mark.parametrize("name", [n for n in NAMES if "repo_counter_flops" in FACTS[n]])
def test_the_released_counter_is_reproduced(name, networks):
    graph = networks[name]
    counted, theirs = repo_flops(graph) - unseen(name, graph), FACTS[name]["repo_counter_flops"]
    if FACTS[name]["input_shape"][1] == 32:
        assert counted == theirs
    else:
        # Their counter for large images adds in single precision, and only weights that are not 0.
        assert counted == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("name", [n for n in NAMES if "scratch_B" in FACTS[n]])
def test_the_longer_budget_follows_from_the_counter(name, networks):
    fact = FACTS[name]
    expected, large, small = fact["scratch_B"], networks[fact["parent"]], networks[name]
    if "mac_ratio" in expected:
        ratio, base, cap = macs(large) / macs(small), 100, math.inf
        assert ratio == pytest.approx(expected["mac_ratio"], abs=5e-6)
    else:
        ratio = repo_flops(large) / repo_flops(small)
        base, cap = (160, math.inf) if fact["input_shape"][1] == 32 else (90, 2)
        error = 4e-5 if name == "thinet_gap" else 3.3e-6
        assert ratio == pytest.approx(expected["flops_ratio_repo_counter"], abs=error)
    assert math.floor(base * min(cap, ratio)) == expected["epochs"]


def by_stage(graph, kept, skipped):
    """Return inner widths: ``kept`` a stage, full where the layer's number is ``skipped``."""
    return {
        name: kept[int(name[len("layer")]) - 1]
        for block, name in enumerate(inner(graph))
        if 2 + 2 * block not in skipped
    }


@pytest.mark.parametrize(
    ("name", "kept", "skipped", "ratio", "epochs"),
    [
        ("resnet56", (14, 28, 57), {16, 20, 38, 54}, 1.11564, 178),
        ("resnet56", (6, 22, 57), {16, 18, 20, 34, 38, 54}, 1.37911, 220),
        ("resnet110", (8, 32, 64), {36}, 1.18828, 190),
        ("resnet110", (8, 19, 44), {36, 38, 74}, 1.62727, 260),
        ("resnet34", (32, 51, 153, 512), {2, 8, 14, 16, 26, 28, 30, 32}, None, 118),
    ],
)
def test_li_et_al_skip_sensitive_layers(name, kept, skipped, ratio, epochs):
    """Rates and skipped layers of arXiv:1608.08710; ratios as the released script notes them."""
    graph = reference(name)
    small = pruned(graph, by_stage(graph, kept, skipped))
    found = repo_flops(graph) / repo_flops(small)
    if ratio is not None:
        assert found == pytest.approx(ratio, abs=4e-5)
    assert math.floor(found * (90 if name == "resnet34" else 160)) == epochs


def conv_weights(graph):
    tensors = graph.parameters()
    return sum(math.prod(tensors[f"{name}.weight"]) for name in convolutions(graph))


@pytest.mark.parametrize(
    ("label", "name", "options"),
    [
        ("vgg19_bn_unstructured (CIFAR)", "vgg19_biased", {}),
        ("preresnet110 (CIFAR)", "preresnet110", {}),
        ("densenetbc100 (true BC)", "densenetbc100", {}),
        (
            "densenet100_theta2_nobottleneck (as coded)",
            "densenet",
            {"depth": 100, "compression": 0.5},
        ),
        ("vgg16_bn (ImageNet)", "vgg16_bn_imagenet", {}),
        ("resnet50 (ImageNet)", "resnet50", {}),
    ],
)
def test_weight_level_pruning_finds_as_many_weights(label, name, options):
    totals = GOLDEN["unstructured_totals"]["conv_weight_totals"]
    assert conv_weights(reference(name, **options)) == totals[label]


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("vgg16_slim", "vgg16"),
        ("vgg19_slim", "vgg19"),
        ("preresnet164", "preresnet164"),
        ("densenet40", "densenet40"),
        ("vgg11_slim_imagenet", "vgg11_imagenet"),
    ],
)
def test_network_slimming_finds_as_many_scales(label, name):
    graph = reference(name)
    scales = sum(
        graph.shapes[node.name].channels for node in graph.nodes if isinstance(node.op, BatchNorm)
    )
    assert scales == GOLDEN["slimming_channel_totals"]["totals"][label]


FIXTURES = GOLDEN["slimming_fixtures_third_party"]


@pytest.mark.parametrize("at", range(len(FIXTURES)))
def test_slimmed_networks_of_others_can_be_written(at):
    fixture = FIXTURES[at]
    name = {"vgg11_slim_imagenet": "vgg11_imagenet"}.get(fixture["model"], fixture["model"][:5])
    graph = reference(name)
    free = [group.name for group in couple(graph).free]
    widths = dict(zip(free, (n for n in fixture["cfg"] if n != "M"), strict=True))
    assert sum(widths.values()) == fixture["sum_kept"]
    if 0 in widths.values():
        with pytest.raises(DescriptorError, match="the smallest width is 1"):
            pruned(graph, widths)
        return
    small = pruned(graph, widths)
    if "measured_params" in fixture:
        assert params(small) == fixture["measured_params"]
        assert macs(small) == fixture["measured_macs"]
    else:
        # Stated by a third party, whose table does not fit its own widths better than this.
        assert params(small) / 1e6 == pytest.approx(fixture["stated_params_M"], rel=0.025)
        assert macs(small) / 1e6 == pytest.approx(fixture["stated_macc_M"], rel=0.015)


@pytest.mark.parametrize("key", [k for k in GOLDEN["sfp"]["table"] if k.endswith("keep0.9")])
def test_soft_filter_pruning_starts_from_these_networks(key):
    """Its code calls ReLU as a function (unseen) and subsamples by a pooling module (seen)."""
    fact = GOLDEN["sfp"]["table"][key]
    graph = reference("resnet", depth=fact["depth"])
    assert conv_weights(graph) == fact["conv_weights"]
    assert sum(graph[name].op.width for name in convolutions(graph)) == fact["filters_total"]
    relus = sum(graph.shapes[n.name].numel for n in graph.nodes if isinstance(n.op, Activation))
    pads = [node for node in graph.nodes if isinstance(node.op, PadChannels)]
    pools = sum(graph.shapes[node.name].numel // 2 for node in pads)
    counted = repo_flops(graph) - relus + pools
    assert counted == pytest.approx(fact["code_flops_dense"], rel=1e-6)
