"""Profiles: how descriptors become keeps of stages, travel, and become descriptors again."""

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from prunenas.arch.descriptor import Origin, apply
from prunenas.arch.profile import StageProfile
from prunenas.errors import (
    DescriptorError,
    KeepError,
    OutputExistsError,
    ProfileError,
    SpecError,
)
from prunenas.families.base import reference
from prunenas.ir.coupling import couple
from prunenas.ir.stages import stages
from tests.arch.networks import chain, descriptor, everything, residual, selecting
from tests.graphs import graphs, legal_widths, sizes_of, sizes_under

PATTERN = tuple(i / 10 for i in range(1, 10))


def test_a_stage_keeps_the_mean_over_its_layers():
    graph = residual()
    # Three layers at the first size: stem and block.conv2 share a group, block.conv1 has one.
    told = descriptor(graph, widths={"stem": 4, "block.conv1": 8, "last": 9})
    keeps = StageProfile.of(graph, told).keeps
    assert [*keeps] == ["stage1", "stage2"]
    assert keeps["stage1"] == pytest.approx((4 / 8 + 4 / 8 + 8 / 10) / 3)
    assert keeps["stage2"] == pytest.approx(9 / 12)


def test_vectors_form_the_head():
    graph = chain()
    told = descriptor(graph, widths={"hidden": 1, "conv2": 3})
    assert StageProfile.of(graph, told).keeps == {"stage1": 1.0, "stage2": 0.5, "head": 0.25}


def test_a_profile_is_the_mean_over_descriptors():
    graph = residual()
    one = descriptor(graph, widths={"last": 3})
    other = descriptor(graph, widths={"stem": 4, "last": 6})
    keeps = StageProfile.of(graph, one, other).keeps
    assert keeps["stage1"] == pytest.approx((1 + (0.5 + 0.5 + 1) / 3) / 2)
    assert keeps["stage2"] == pytest.approx((3 / 12 + 6 / 12) / 2)


def test_layers_of_dropped_blocks_do_not_count():
    graph = residual()
    told = descriptor(graph, widths={"stem": 2, "block.conv1": 5}, dropped=("block.add",))
    assert StageProfile.of(graph, told).keeps["stage1"] == pytest.approx(2 / 8)
    both = StageProfile.of(graph, told, descriptor(graph, widths={"block.conv1": 5}))
    assert both.keeps["stage1"] == pytest.approx((2 / 8 + (1 + 1 + 0.5) / 3) / 2)


def test_kernel_patterns_are_averaged_over_a_stage():
    graph = residual()
    ones = (1.0,) * 9
    told = descriptor(graph, densities={"stem": PATTERN, "block.conv1": ones})
    densities = StageProfile.of(graph, told).densities
    assert [*densities] == ["stage1"]
    assert densities["stage1"] == pytest.approx([(p + 1) / 2 for p in PATTERN])


def test_the_source_tells_methods_and_count():
    graph = chain()
    one = descriptor(graph, origin=Origin(method="l1_norm"))
    assert "l1_norm on " in StageProfile.of(graph, one).source
    assert "(n=2)" in StageProfile.of(graph, one, one).source


def test_a_profile_needs_descriptors_of_its_graph():
    with pytest.raises(DescriptorError, match="at least one"):
        StageProfile.of(chain())
    with pytest.raises(DescriptorError, match="descriptors are for"):
        StageProfile.of(chain(), descriptor(chain()), descriptor(residual()))


@pytest.mark.parametrize("keep", [0.05, 0.3, 0.5, 0.95])
def test_a_uniform_profile_comes_back_within_rounding(keep):
    graph = reference("resnet20")
    profile = StageProfile.uniform(graph, keep)
    found = StageProfile.of(graph, profile.descriptor(graph))
    for name, value in found.keeps.items():
        # Half a channel of the narrowest layer, 16 wide; never less than one channel.
        assert abs(value - max(keep, 1 / 16)) <= 0.5 / 16 + 1e-9, name


@given(st.data(), graphs(), st.integers(1, 4))
def test_any_profile_fits_any_graph_of_its_stages(data, graph, round_to):
    names = [stage.name for stage in stages(graph)]
    assume(names)
    keeps = {name: data.draw(st.floats(0.01, 1.0)) for name in names}
    told = StageProfile(keeps=keeps).descriptor(graph, round_to=round_to)
    assert sizes_of(apply(graph, told)) == sizes_under(graph, told.widths)


@given(graphs())
def test_keep_one_is_the_identity(graph):
    assume(stages(graph))
    assert apply(graph, StageProfile.uniform(graph, 1.0).descriptor(graph)) == graph


@given(st.data(), graphs())
def test_every_profile_of_a_legal_descriptor_is_well_formed(data, graph):
    assume(stages(graph))
    told = descriptor(graph, widths=data.draw(legal_widths(graph)))
    profile = StageProfile.of(graph, told)
    assert [*profile.keeps] == [stage.name for stage in stages(graph)]
    assert all(0 < keep <= 1 for keep in profile.keeps.values())


def test_widths_are_rounded_to_multiples_where_the_full_width_allows():
    graph = residual()
    told = StageProfile.uniform(graph, 0.6).descriptor(graph, round_to=4)
    assert dict(told.widths) == {"stem": 4, "block.conv1": 8, "last": 8}


def test_divisors_and_rounding_are_both_obeyed():
    graph = everything()
    told = StageProfile.uniform(graph, 0.7).descriptor(graph, round_to=3)
    # The grouped convolution divides by 4, so by 12 with the rounding; the others by 3.
    assert couple(apply(graph, told)).widths["grouped"] == 12
    assert couple(apply(graph, told)).widths["block.conv1"] == 6


def test_patterns_go_to_the_3x3_kernels_of_their_stage_only():
    graph = reference("preresnet", depth=11)
    profile = StageProfile(
        keeps=dict(StageProfile.uniform(graph, 1.0).keeps), densities={"stage2": PATTERN}
    )
    told = profile.descriptor(graph, seed=4)
    assert dict(told.densities) == {"layer2.0.conv2": PATTERN}
    assert apply(graph, told)["layer2.0.conv2"].op.sparsity.seed == 4


def test_a_profile_travels_to_another_network_of_equal_stages():
    vgg16, vgg19 = reference("vgg16"), reference("vgg19", classes=100)
    first, last = couple(vgg16).free[0].name, couple(vgg16).free[-1].name
    guide = StageProfile.of(vgg16, descriptor(vgg16, widths={first: 16, last: 256}))
    narrow = apply(vgg19, guide.descriptor(vgg19))
    assert narrow.classes == 100
    # Stage 1 keeps (16 / 64 + 1) / 2 of each of its layers, stage 5 (1 + 1 + 1 / 2) / 3.
    widths = [*couple(narrow).widths.values()]
    assert widths[1:3] == [40, 40]
    assert widths[-5:] == [427, 427, 427, 427, 100]


def test_other_stages_are_refused_and_resampled_on_demand():
    vgg, resnet = reference("vgg16"), reference("resnet20")
    keeps = {f"stage{i}": keep for i, keep in enumerate((1.0, 0.8, 0.6, 0.4, 0.1), start=1)}
    profile = StageProfile(keeps=keeps)
    profile.descriptor(vgg)
    with pytest.raises(ProfileError, match="resample"):
        profile.descriptor(resnet)
    found = profile.resample(resnet)
    assert dict(found.keeps) == pytest.approx({"stage1": 1.0, "stage2": 0.6, "stage3": 0.1})
    apply(resnet, found.descriptor(resnet))


def test_resampling_interpolates_between_stages():
    profile = StageProfile(keeps={"stage1": 1.0, "stage2": 0.5})
    found = profile.resample(reference("vgg16")).keeps
    assert list(found.values()) == pytest.approx([1.0, 0.875, 0.75, 0.625, 0.5])


def test_resampling_to_one_stage_takes_the_mean():
    profile = StageProfile(keeps={"stage1": 1.0, "stage2": 0.5, "stage3": 0.3})
    assert dict(profile.resample(selecting()).keeps) == pytest.approx({"stage1": 0.6})


def test_a_head_is_never_guessed():
    body = StageProfile(keeps={"stage1": 0.5, "stage2": 0.5})
    graph = chain()
    with pytest.raises(ProfileError, match="resample"):
        body.descriptor(graph)
    with pytest.raises(ProfileError, match="give head"):
        body.resample(graph)
    assert body.resample(graph, head=0.25).keeps["head"] == 0.25
    with_head = StageProfile(keeps={"stage1": 0.5, "head": 0.75})
    assert with_head.resample(graph).keeps["head"] == 0.75
    assert with_head.resample(graph, head=1.0).keeps["head"] == 1.0
    assert "head" not in with_head.resample(residual()).keeps
    with pytest.raises(ProfileError, match="no stage but the head"):
        StageProfile(keeps={"head": 0.5}).resample(graph)


@pytest.mark.parametrize(
    "keeps",
    [{}, {"stage2": 1.0}, {"stage1": 1.0, "stage3": 1.0}, {"body": 1.0}, {"stage0": 1.0}],
)
def test_stage_names_are_counted_from_one(keeps):
    with pytest.raises(ProfileError, match="stage1, stage2"):
        StageProfile(keeps=keeps)


def test_a_keep_outside_its_range_is_refused():
    with pytest.raises(KeepError):
        StageProfile(keeps={"stage1": 0.0})


@pytest.mark.parametrize(
    "densities",
    [{"stage2": PATTERN}, {"stage1": (1.0,) * 4}, {"stage1": (0.0,) * 9}, {"stage1": (1.5,) * 9}],
)
def test_patterns_that_fit_no_kernel_of_the_profile_are_refused(densities):
    with pytest.raises(ProfileError, match="nine numbers"):
        StageProfile(keeps={"stage1": 1.0}, densities=densities)


# Files.


@given(
    st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=6),
    st.none() | st.floats(1e-6, 1.0),
    st.text(max_size=20),
)
def test_a_profile_comes_back_from_its_file(tmp_path_factory, keeps, head, source):
    named = {f"stage{i}": keep for i, keep in enumerate(keeps, start=1)}
    named |= {} if head is None else {"head": head}
    profile = StageProfile(keeps=named, densities={"stage1": PATTERN}, source=source)
    path = tmp_path_factory.mktemp("profile") / "deep" / "guide.json"
    assert StageProfile.load(profile.save(path)) == profile


def test_a_profile_never_replaces_another_unasked(tmp_path):
    one, other = (StageProfile(keeps={"stage1": keep}) for keep in (0.5, 0.25))
    path = one.save(tmp_path / "guide.json")
    with pytest.raises(OutputExistsError):
        other.save(path)
    assert StageProfile.load(path) == one
    other.save(path, overwrite=True)
    assert StageProfile.load(path) == other


GOOD = {"schema": 1, "profile": {"keeps": {"stage1": 0.5}, "densities": {}, "source": ""}}


def test_the_smallest_file_is_read(tmp_path):
    path = tmp_path / "guide.json"
    path.write_text(json.dumps({"schema": 1, "profile": {"keeps": {"stage1": 1}}}))
    assert StageProfile.load(path) == StageProfile(keeps={"stage1": 1.0})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps(GOOD)[:-9], "not JSON, or was cut short"),
        ("[]", "must be a JSON object"),
        (json.dumps(GOOD | {"schema": 99}), "has schema 99"),
        (json.dumps({"profile": GOOD["profile"]}), "needs a whole number 'schema'"),
        (json.dumps(GOOD | {"extra": 1}), "extra"),
        (json.dumps({"schema": 1, "profile": {"keeps": {"stage1": 0.5}, "kept": 1}}), "kept"),
        (json.dumps({"schema": 1, "profile": {"keeps": {"stage1": "half"}}}), "keeps.stage1"),
        (json.dumps({"schema": 1, "profile": {"keeps": {"stage1": 1.5}}}), r"\(0, 1\]"),
        (json.dumps({"schema": 1, "profile": {"keeps": {"stage7": 0.5}}}), "stage1, stage2"),
        (json.dumps({"schema": 1, "profile": {"keeps": {"stage1": float("nan")}}}), "finite"),
    ],
)
def test_a_bad_file_is_refused_with_its_name(tmp_path, text, message):
    path = tmp_path / "guide.json"
    path.write_text(text)
    with pytest.raises(SpecError, match=message) as caught:
        StageProfile.load(path)
    assert str(path) in str(caught.value)


def test_an_absent_file_is_told(tmp_path):
    with pytest.raises(SpecError, match=r"nowhere\.json"):
        StageProfile.load(tmp_path / "nowhere.json")
