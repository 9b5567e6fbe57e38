"""Exact masks on disk: they come back with the spec beside them, and nothing else is taken."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from prunenas.arch.masks_file import masks_path
from prunenas.arch.spec import ArchSpec, load, spec_from_json
from prunenas.build.initialise import build
from prunenas.errors import MaskError, OutputExistsError, SpecError
from prunenas.ir.cost import effective_macs, nonzero_params
from prunenas.ir.ops import ExactMask
from tests.arch.networks import chain, descriptor
from tests.graphs import graphs, kernel_masks, with_exact_masks


def drawn(shape, keep=0.5, seed=0):
    return ExactMask.of(np.random.default_rng(seed).random(shape) < keep)


def masks():
    """Of ``chain``: a convolution, a linear layer, and the classifier."""
    return {"conv2": drawn((6, 8, 3, 3)), "hidden": drawn((4, 6)), "fc": drawn((5, 4))}


def sparse_spec(**changes):
    graph = chain()
    return ArchSpec.of(graph, descriptor(graph, masks=masks() | changes), name="sparse")


def outputs(spec):
    x = torch.randn(2, *spec.graph.input_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return build(spec.graph, seed=3).eval()(x)


def test_a_sparse_spec_comes_back_from_disk_as_the_same_function(tmp_path):
    spec = sparse_spec()
    path = spec.save(tmp_path / "new" / "net.json")
    assert {p.name for p in path.parent.iterdir()} == {"net.json", "net.masks.safetensors"}
    again = load(path)
    assert again == spec
    assert torch.equal(outputs(again), outputs(spec))
    for name, mask in masks().items():
        assert np.array_equal(again.graph[name].op.sparsity.array(), mask.array())
        assert np.array_equal(again.descriptor.masks[name].array(), mask.array())


@settings(max_examples=25)
@given(st.data(), graphs())
def test_any_masked_network_comes_back(tmp_path_factory, data, graph):
    sparse = with_exact_masks(graph, data.draw(kernel_masks(graph)))
    spec = ArchSpec(name="any", graph=sparse)
    path = spec.save(tmp_path_factory.mktemp("spec") / "any.json")
    again = load(path)
    assert again == spec
    assert torch.equal(outputs(again), outputs(spec))
    assert masks_path(path).exists() == (spec.masks_file() is not None)


def test_a_reference_under_masks_comes_back_too(tmp_path):
    reference = with_exact_masks(chain(), {"conv2": masks()["conv2"].array()})
    spec = ArchSpec.of(reference, descriptor(reference, masks={"fc": drawn((5, 4))}), name="twice")
    again = load(spec.save(tmp_path / "twice.json"))
    assert again.reference["conv2"].op.sparsity.bits is not None
    assert torch.equal(outputs(again), outputs(spec))


def test_a_dense_spec_has_no_file_beside(tmp_path):
    ArchSpec(name="dense", graph=chain()).save(tmp_path / "dense.json")
    assert [p.name for p in tmp_path.iterdir()] == ["dense.json"]


def test_equal_masks_are_stored_once_and_equal_specs_are_equal_bytes(tmp_path):
    one = sparse_spec(conv1=drawn((8, 3, 3, 3)), conv2=drawn((6, 8, 3, 3)))
    found = [masks_path(one.save(tmp_path / f"{i}.json")).read_bytes() for i in range(5)]
    assert len({*found}) == 1
    stored = load_file(tmp_path / "0.masks.safetensors")
    assert len(stored) == 4
    assert all(tensor.dtype == np.uint8 for tensor in stored.values())


def test_without_its_masks_a_spec_tells_costs_and_what_is_missing(tmp_path):
    spec = sparse_spec()
    path = spec.save(tmp_path / "net.json")
    masks_path(path).unlink()
    again = load(path)
    assert again == spec
    assert effective_macs(again.graph) == effective_macs(spec.graph)
    assert nonzero_params(again.graph) == nonzero_params(spec.graph)
    with pytest.raises(MaskError, match=r"net\.masks\.safetensors is missing"):
        build(again.graph)
    with pytest.raises(MaskError, match=r"net\.masks\.safetensors is missing"):
        again.save(tmp_path / "other.json")
    assert not (tmp_path / "other.json").exists()


def test_json_alone_has_no_bits():
    again = spec_from_json(sparse_spec().to_json())
    assert again == sparse_spec()
    with pytest.raises(MaskError, match="beside the spec"):
        build(again.graph)


def test_neither_file_replaces_another_unasked(tmp_path):
    path = sparse_spec().save(tmp_path / "net.json")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert sparse_spec().save(path) == path
    other = sparse_spec(fc=drawn((5, 4), seed=9))
    with pytest.raises(OutputExistsError, match="net"):
        other.save(path)
    # The masks of another spec are in the way of a name that is free itself.
    path.rename(tmp_path / "away.json")
    with pytest.raises(OutputExistsError, match=r"net\.masks\.safetensors"):
        other.save(path)
    assert not path.exists()
    (tmp_path / "away.json").rename(path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    other.save(path, overwrite=True)
    assert load(path) == other


def broken_files(path):
    """Yield what may lie where the masks should, with what is told of it."""
    good = load_file(path)
    told = {"schema": "1"}
    content = path.read_bytes()
    yield lambda: path.write_bytes(content[: len(content) // 2]), "cut short"
    yield lambda: path.write_bytes(b"not masks"), "cannot be read"
    yield lambda: path.write_bytes(b""), "cannot be read"
    yield lambda: save_file(good, path), "metadata has no schema"
    yield lambda: save_file(good, path, metadata={"schema": "99"}), "schema 99"
    yield lambda: save_file({"other": good[min(good)]}, path, metadata=told), "another spec"
    yield lambda: save_file(dict.fromkeys(good, good[min(good)]), path, metadata=told), "another"
    flipped = {key: bits ^ np.uint8(128) for key, bits in good.items()}
    yield lambda: save_file(flipped, path, metadata=told), "another mask"
    longer = {key: np.append(bits, np.uint8(0)) for key, bits in good.items()}
    yield lambda: save_file(longer, path, metadata=told), "another mask"
    wide = {key: bits.astype(np.float64) for key, bits in good.items()}
    yield lambda: save_file(wide, path, metadata=told), "another mask"


@pytest.mark.parametrize("number", range(10))
def test_a_damaged_or_foreign_file_of_masks_is_refused_by_name(tmp_path, number):
    path = sparse_spec().save(tmp_path / "net.json")
    spoil, message = [*broken_files(masks_path(path))][number]
    spoil()
    with pytest.raises(MaskError, match=message) as caught:
        load(path)
    assert "net.masks.safetensors" in str(caught.value)


def test_there_are_as_many_broken_files_as_are_tried(tmp_path):
    path = sparse_spec().save(tmp_path / "net.json")
    assert len([*broken_files(masks_path(path))]) == 10


def test_a_folder_in_the_place_of_masks_is_told(tmp_path):
    path = sparse_spec().save(tmp_path / "net.json")
    masks_path(path).unlink()
    masks_path(path).mkdir()
    with pytest.raises(MaskError, match="cannot be read"):
        load(path)


def test_a_mask_that_is_not_its_layers_is_refused_in_json(tmp_path):
    text = sparse_spec().to_json().replace('"shape":[5,4]', '"shape":[4,5]')
    with pytest.raises(SpecError, match=r"exact mask|the kernel is"):
        spec_from_json(text)


def test_reading_masks_needs_no_torch(tmp_path):
    path = sparse_spec().save(tmp_path / "net.json")
    code = (
        "import sys; from prunenas.arch.spec import load; "
        f"spec = load({str(path)!r}); "
        "assert spec.graph['fc'].op.sparsity.bits is not None; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_masks_lie_beside_under_the_stem():
    assert masks_path("runs/a.b.json").as_posix() == "runs/a.b.masks.safetensors"
    assert masks_path("net").name == "net.masks.safetensors"
