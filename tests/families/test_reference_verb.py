"""What ``reference`` takes and what it refuses."""

import pytest

from prunenas.errors import InputError, ShapeError, UnknownNameError
from prunenas.families.base import FAMILIES, family, need_depth, reference, scaled
from prunenas.families.mobilenet_v2 import divisible
from prunenas.ir.blocks import blocks
from prunenas.ir.canonical import digest
from prunenas.ir.cost import params
from prunenas.ir.graph import Init
from prunenas.ir.ops import Conv2d, PadChannels, Select


@pytest.mark.parametrize(
    ("generic", "options", "name"),
    [
        ("vgg", {"depth": 19}, "vgg19"),
        ("vgg", {"depth": 16, "hidden": 512}, "vgg16_l1"),
        ("vgg", {"depth": 13, "bias": True}, "vgg13_biased"),
        ("resnet", {"depth": 20}, "resnet20"),
        ("preresnet", {"depth": 110}, "preresnet110"),
        ("densenet", {"depth": 100, "bottleneck": True, "compression": 0.5}, "densenetbc100"),
    ],
)
def test_a_name_with_a_depth_is_the_generic_name_with_the_option(generic, options, name):
    assert digest(reference(generic, **options)) == digest(reference(name))


def test_a_body_is_a_vgg_of_its_own():
    full = [64, 64, "M", 128, 128, "M", *[256] * 3, "M", *[512] * 3, "M", *[512] * 3]
    assert digest(reference("vgg", body=full)) == digest(reference("vgg16"))
    small = reference("vgg", body=[8, "M", 16])
    assert [n.op.width for n in small.nodes if isinstance(n.op, Conv2d)] == [8, 16]


def test_the_detached_shortcut_averages():
    pads = [n.op for n in reference("resnet20").nodes if isinstance(n.op, PadChannels)]
    assert [(op.stride, op.function, op.detach) for op in pads] == [(2, "subsample", False)] * 2
    detached = reference("resnet20", detach=True)
    pads = [n.op for n in detached.nodes if isinstance(n.op, PadChannels)]
    assert [(op.stride, op.function, op.detach) for op in pads] == [(2, "average", True)] * 2


def test_selections_start_by_selecting_everything():
    for name in ("preresnet110", "densenet40"):
        graph = reference(name)
        selects = [node for node in graph.nodes if isinstance(node.op, Select)]
        assert selects
        for node in selects:
            assert node.op.width == graph.shapes[node.inputs[0]].channels
        without = reference(name, selection=False)
        assert not any(isinstance(node.op, Select) for node in without.nodes)
        assert params(without) == params(graph)


@pytest.mark.parametrize(
    ("name", "init"),
    [
        ("vgg16", Init(linear="normal_0.01", scale=0.5)),
        ("vgg16_l1", Init(linear="normal_0.01", scale=0.5)),
        ("vgg16_biased", Init(conv="fan_in", linear="normal_0.01")),
        ("vgg11_imagenet", Init(linear="normal_0.01", scale=0.5, vector_scale=0.5)),
        ("vgg16_imagenet", Init(linear="normal_0.01")),
        ("resnet56", Init()),
        ("resnet50", Init()),
        ("preresnet164", Init(scale=0.5)),
        ("densenet40", Init(scale=0.5)),
        ("alexnet", Init(conv="torch")),
    ],
)
def test_each_family_draws_its_weights_as_its_source_does(name, init):
    assert reference(name).init == init


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("preresnet50_imagenet", 16),
        ("resnet50", 16),
        ("resnet34", 16),
        ("preresnet110", 36),
        ("resnet56", 27 - 2),
        ("mobilenet_v2", 10),
        ("vgg16", 0),
    ],
)
def test_residual_blocks_are_found_under_the_name_of_their_addition(name, found):
    names = [block.name for block in blocks(reference(name))]
    assert len(names) == found
    assert all(block.endswith(".add") for block in names)


def test_the_first_block_of_a_stage_leaves_its_projection():
    first = blocks(reference("preresnet50_imagenet"))[3]
    assert (first.name, first.shortcut) == ("layer2.0.add", "layer2.0.downsample")
    assert "layer2.0.relu1" not in first.branch


def test_widths_are_scaled_and_rounded():
    graph = reference("resnet20", width=0.3)
    assert graph["conv1"].op.width == scaled(16, 0.3) == 5
    assert scaled(3, 0.01) == 1
    assert reference("vgg16_l1", width=0.5)["classifier.0"].op.width == 256
    assert reference("densenet40", width=0.5)["dense1.0.conv1"].op.width == 6
    assert reference("densenet40", width=0.5)["conv1"].op.width == 12


def test_mobilenet_widths_are_multiples_of_8():
    assert [divisible(n) for n in (1, 12, 8.4, 11.2, 33.6)] == [8, 16, 8, 16, 32]
    graph = reference("mobilenet_v2", width=0.75)
    assert all(node.op.width % 8 == 0 for node in graph.nodes[:-1] if isinstance(node.op, Conv2d))
    assert graph["features.18.0"].op.width == 1280
    assert reference("mobilenet_v2", width=2.0)["features.18.0"].op.width == 2560


def test_an_unknown_family_is_told_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"unknown family 'resnet57' .*resnet56"):
        reference("resnet57")


def test_an_unknown_option_is_told_the_legal_ones():
    message = r"cannot build resnet56: detatch is no option here; the options are: detach: bool"
    with pytest.raises(InputError, match=message):
        reference("resnet56", detatch=True)


def test_an_option_that_the_name_fixes_is_refused():
    with pytest.raises(InputError, match="depth is no option here"):
        reference("resnet56", depth=20)
    with pytest.raises(InputError, match="the options are: none"):
        reference("alexnet", depth=20)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet", {"depth": "56"}, "the option is depth: int, got depth='56'"),
        ("resnet", {"depth": True}, "got depth=True"),
        ("resnet56", {"detach": 1}, "the option is detach: bool, got detach=1"),
        (
            "resnet",
            {"depth": 21},
            r"resnet: depth must be 6n \+ 2 \(8, 14, 20, ...\), got depth=21",
        ),
        ("resnet", {"depth": 2}, r"6n \+ 2"),
        ("preresnet", {"depth": 56 + 1}, r"9n \+ 2"),
        ("densenet", {"depth": 41}, r"3n \+ 4"),
        ("densenet", {"depth": 43, "bottleneck": True}, r"6n \+ 4 with bottlenecks"),
        ("densenet", {"growth": 0}, "growth is from 1 on"),
        ("densenet", {"compression": 0}, "compression in"),
        ("vgg", {"depth": 12}, "depth must be one of 11, 13, 16, 19, got depth=12"),
        ("vgg", {"depth": 0}, "depth must be one of"),
        ("vgg", {"depth": 11, "body": [8]}, "exclude each other"),
        ("vgg", {"body": [8, "P", 0, True]}, "a list of widths from 1 on and 'M'"),
        ("vgg", {"body": []}, "one width at least"),
        ("vgg", {"body": "MM"}, "one width at least"),
        ("vgg", {"body": 8}, "the option is body"),
        ("vgg", {"hidden": -1}, "hidden is a width"),
        ("vgg16", {"classes": 0}, "classes is a whole number from 1 on, got 0"),
        ("vgg16", {"classes": True}, "classes is a whole number"),
        ("vgg16", {"width": 0}, "width is a factor above 0, got 0"),
        ("vgg16", {"width": float("nan")}, "width is a factor above 0"),
        ("vgg16", {"input_size": (32, 32)}, "input_size is channels, height and width"),
        ("vgg16", {"input_size": (3, 32, 0)}, "input_size"),
    ],
)
def test_bad_values_are_told(name, options, message):
    with pytest.raises(InputError, match=message):
        reference(name, **options)


def test_all_faults_are_told_at_once():
    with pytest.raises(InputError) as told:
        reference("resnet56", classes=0, width=-1, detatch=True, detach=2)
    assert str(told.value).count(";") == 4


@pytest.mark.parametrize(
    ("name", "size"), [("vgg16", (3, 8, 8)), ("alexnet", (3, 32, 32)), ("lenet5", (1, 12, 12))]
)
def test_an_image_that_is_too_small_is_told(name, size):
    with pytest.raises(ShapeError, match=f"{name} does not fit an image of .*window"):
        reference(name, size)


def test_other_image_sizes_fit_where_the_windows_do():
    assert reference("vgg16", (1, 28, 28), 10).input_size == (1, 28, 28)
    assert reference("resnet18", (3, 64, 64)).classes == 1000
    assert reference("densenet40", [3, 64, 48]).input_size == (3, 64, 48)


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="registered twice"):
        family("vgg16", input_size=(3, 32, 32), classes=10)(FAMILIES["vgg16"].build)


def test_depths_give_the_number_of_blocks():
    assert need_depth(56, rule="6n + 2", base=2, step=6) == 9
