"""Descriptors, profiles and specs survive the way to another process, which copying is too."""

import copy
from dataclasses import fields, replace
from types import MappingProxyType

import numpy as np
import pytest

from prunenas.arch.descriptor import Descriptor, Origin
from prunenas.arch.metrics import Metrics, SeedResult, Seeds
from prunenas.arch.profile import StageProfile
from prunenas.arch.spec import ArchSpec
from prunenas.ir.canonical import encode
from prunenas.ir.ops import ExactMask
from tests.arch.networks import descriptor, everything
from tests.ir.test_records import WAYS


def full_descriptor() -> Descriptor:
    graph = everything()
    options = {"p": [1, "two"], "deep": {"seed": 3}}
    return descriptor(
        graph,
        widths={"grouped": 8},
        selections={"stem": (0, 1, 2, 4, 6, 7), "pick": (1, 2, 4, 7)},
        dropped=("block.add",),
        densities={"padded.conv": (0.5,) * 9},
        masks={"fc": ExactMask.of(np.arange(80).reshape(5, 16) % 3 > 0)},
        seed=3,
        origin=Origin(method="by hand", keep=0.5, options=options, nominal={"stem": 0.7}),
    )


def full_profile() -> StageProfile:
    return StageProfile(
        keeps={"stage1": 0.5, "stage2": 0.25, "head": 1.0},
        densities={"stage1": (0.5,) * 9},
        other_densities={"stage2": 0.5},
        source="by hand",
    )


def full_metrics() -> Metrics:
    seeds = Seeds(order=1, augmentation=2, layers=3, masks=(4,))
    result = SeedResult(seed=1, accuracy=0.75, loss=0.5, epochs=2, seconds=3.0, seeds=seeds)
    return Metrics(
        results=(result,), part="test", params=9, macs=9, device="CPU", data="made", execution="x"
    )


def full_spec() -> ArchSpec:
    spec = ArchSpec.of(everything(), full_descriptor(), name="small", command="generate")
    return replace(spec, profile=full_profile(), metrics=full_metrics(), aliases=("0" * 16,))


MADE = pytest.mark.parametrize("made", [full_descriptor, full_profile, full_metrics, full_spec])


@WAYS
@MADE
def test_a_value_arrives_equal_in_every_field(travel, made):
    value = made()
    other = travel(value)
    assert other == value
    assert encode(other) == encode(value)


@WAYS
@pytest.mark.parametrize("made", [full_descriptor, full_profile])
def test_what_was_read_only_is_so_again(travel, made):
    value = made()
    locked = [f.name for f in fields(value) if isinstance(getattr(value, f.name), MappingProxyType)]
    assert len(locked) >= 3
    assert all(isinstance(getattr(travel(value), name), MappingProxyType) for name in locked)


def test_a_deep_copy_shares_nothing_that_can_change():
    value = full_descriptor()
    other = copy.deepcopy(value)
    other.origin.options["deep"]["seed"] = 4
    assert value.origin.options["deep"]["seed"] == 3


@WAYS
def test_the_spec_that_arrives_is_the_same_file_and_has_its_masks(travel):
    spec = full_spec()
    assert travel(spec).to_json() == spec.to_json()
    assert travel(spec).masks_file() == spec.masks_file()
