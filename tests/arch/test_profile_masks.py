"""Profiles of networks under masks: a pattern and a density for each stage, and where they go."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from prunenas.arch.descriptor import apply
from prunenas.arch.profile import StageProfile
from prunenas.errors import MaskError, ProfileError
from prunenas.families.base import reference
from prunenas.ir.masks import mask_of
from prunenas.ir.ops import ExactMask
from prunenas.ir.stages import stages
from tests.arch.networks import chain, descriptor, residual
from tests.graphs import graphs, kernel_masks, sizes_of

PATTERN = tuple(i / 10 for i in range(1, 10))


def kept_at(shape, *positions):
    """A mask that keeps these positions of every kernel, and nothing else."""
    mask = np.zeros((*shape[:2], *shape[2:]), dtype=bool)
    mask.reshape(*shape[:2], -1)[:, :, list(positions)] = True
    return ExactMask.of(mask)


def test_an_exact_mask_counts_as_how_often_each_position_is_kept():
    graph = residual()
    half = np.zeros((10, 8, 3, 3), dtype=bool)
    half[:5, :, 1, 1] = True
    half[:, :2, 0, 2] = True
    masks = {"stem": kept_at((8, 3, 3, 3), 4, 8), "block.conv1": ExactMask.of(half)}
    profile = StageProfile.of(graph, descriptor(graph, masks=masks))
    expected = [0, 0, 0.25 / 2, 0, (1 + 0.5) / 2, 0, 0, 0, 1 / 2]
    assert profile.densities["stage1"] == pytest.approx(expected)
    assert {*profile.densities} == {"stage1"}
    assert not profile.other_densities


def test_masks_and_densities_of_several_descriptors_are_averaged_layer_by_layer():
    graph = residual()
    one = descriptor(graph, masks={"last": kept_at((12, 8, 3, 3), *range(9))})
    other = descriptor(graph, densities={"last": PATTERN})
    found = StageProfile.of(graph, one, other).densities["stage2"]
    assert found == pytest.approx([(1 + p) / 2 for p in PATTERN])


def test_a_stage_that_keeps_a_single_weight_has_a_pattern_still():
    graph = residual()
    mask = np.zeros((12, 8, 3, 3), dtype=bool)
    mask[0, 0, 2, 2] = True
    told = descriptor(graph, masks={"last": ExactMask.of(mask)})
    profile = StageProfile.of(graph, told)
    assert profile.densities["stage2"] == (*[0.0] * 8, 1 / 96)
    again = apply(graph, profile.descriptor(graph))
    # No filter is left empty, and positions that are never kept stay empty.
    drawn = mask_of(again["last"].op.sparsity, (12, 8, 3, 3), "last")
    assert drawn.any(axis=(1, 2, 3)).all()
    assert not drawn.reshape(12, 8, 9)[:, :, :8].any()


def test_kernels_of_other_sizes_have_one_density_a_stage():
    graph = reference("preresnet", depth=11, width=0.5)
    rng = np.random.default_rng(0)
    shapes = graph.parameters()
    names = ("layer1.0.conv1", "layer1.0.conv3", "layer1.0.conv2", "layer2.0.conv3")
    kept = {name: rng.random(shapes[f"{name}.weight"]) < 0.4 for name in names}
    assert kept["layer1.0.conv1"].shape[2:] == (1, 1)
    told = descriptor(graph, masks={name: ExactMask.of(mask) for name, mask in kept.items()})
    profile = StageProfile.of(graph, told)
    assert {*profile.densities} == {"stage1"}
    assert profile.densities["stage1"] == pytest.approx(
        kept["layer1.0.conv2"].mean(axis=(0, 1)).reshape(-1)
    )
    ones = [kept["layer1.0.conv1"].mean(), kept["layer1.0.conv3"].mean()]
    assert dict(profile.other_densities) == pytest.approx(
        {"stage1": sum(ones) / 2, "stage2": kept["layer2.0.conv3"].mean()}
    )


def test_patterns_and_other_densities_travel_to_the_kernels_of_their_stages():
    small, large = reference("preresnet", depth=11), reference("preresnet", depth=20)
    profile = StageProfile(
        keeps=dict(StageProfile.uniform(small, 1.0).keeps),
        densities={"stage1": PATTERN},
        other_densities={"stage1": 0.5, "stage3": 0.25},
    )
    told = profile.descriptor(large).densities
    assert {name for name, d in told.items() if d == PATTERN} == {
        "conv1",
        "layer1.0.conv2",
        "layer1.1.conv2",
    }
    assert told["layer1.1.conv3"] == (0.5,)
    assert told["layer3.0.conv3"] == (0.25,)
    # A block's first convolution stands before the stride, so in the stage above.
    assert told["layer2.0.conv1"] == (0.5,)
    assert not {"layer2.0.conv2", "layer2.0.conv3", "layer3.1.conv2", "fc"} & {*told}
    assert profile.resample(large).is_sparse is False


def test_the_head_and_rows_have_other_densities():
    graph = chain()
    profile = StageProfile.uniform(graph, 1.0, density=0.5)
    told = profile.descriptor(graph).densities
    assert told == {"conv1": (0.5,) * 9, "conv2": (0.5,) * 9, "hidden": (0.5,)}
    apply(graph, profile.descriptor(graph))


def test_layers_that_stand_in_no_stage_are_left_out():
    graph = chain()
    shape = graph.parameters()["fc.weight"]
    told = descriptor(graph, masks={"fc": ExactMask.of(np.ones(shape, dtype=bool))})
    profile = StageProfile.of(graph, told)
    assert not profile.is_sparse
    sparse = apply(graph, descriptor(graph, masks={"conv2": kept_at((6, 8, 3, 3), 0)}))
    assert [stage.name for stage in stages(sparse)] == ["head"]
    assert not StageProfile.of(sparse, descriptor(sparse)).is_sparse


def test_masks_in_dropped_blocks_do_not_count():
    graph = residual()
    masks = {"stem": kept_at((8, 3, 3, 3), 0), "block.conv1": kept_at((10, 8, 3, 3), 8)}
    told = descriptor(graph, masks=masks, dropped=("block.add",))
    assert StageProfile.of(graph, told).densities["stage1"] == (1.0, *[0.0] * 8)


def test_a_pattern_of_masks_needs_their_bits():
    graph = residual()
    bare = kept_at((12, 8, 3, 3), 0).sought_in("gone.safetensors")
    with pytest.raises(MaskError, match=r"gone\.safetensors is missing"):
        StageProfile.of(graph, descriptor(graph, masks={"last": bare}))


@given(st.data(), graphs())
def test_the_profile_of_any_masks_is_well_formed_and_goes_back_on_its_graph(data, graph):
    assume(stages(graph))
    masks = {n: ExactMask.of(kept) for n, kept in data.draw(kernel_masks(graph)).items()}
    profile = StageProfile.of(graph, descriptor(graph, masks=masks))
    again = profile.descriptor(graph)
    assert sizes_of(apply(graph, again)) == sizes_of(graph)
    in_stages = {member for stage in stages(graph) for member in stage.layers}
    assert profile.is_sparse == bool(in_stages & {*masks})
    assert {*masks} & in_stages <= {*again.densities}


@pytest.mark.parametrize("other", [{"stage2": 0.5}, {"stage1": 0.0}, {"stage1": 1.5}])
def test_other_densities_lie_above_0_and_belong_to_a_stage(other):
    with pytest.raises(ProfileError, match="other kernels"):
        StageProfile(keeps={"stage1": 1.0}, other_densities=other)


def test_other_densities_are_written_where_there_are_any(tmp_path):
    plain = StageProfile(keeps={"stage1": 0.5})
    sparse = StageProfile(keeps={"stage1": 0.5}, other_densities={"stage1": 1.0})
    assert "other_densities" not in plain.save(tmp_path / "plain.json").read_text()
    assert StageProfile.load(sparse.save(tmp_path / "sparse.json")) == sparse
