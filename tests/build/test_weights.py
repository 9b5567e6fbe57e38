"""Weights on disk: what comes back, and what is refused with which words."""

import json
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from prunenas.arch.descriptor import Descriptor, apply
from prunenas.build.initialise import build
from prunenas.build.weights import load_weights, save_weights
from prunenas.errors import OutputExistsError, WeightsError
from prunenas.families.base import reference
from prunenas.ir.canonical import digest
from prunenas.ir.ops import ExactMask
from tests.generators.networks import attending
from tests.training.networks import every_kernel, half_masks, linear, small


def trained(graph, seed=0):
    """A network of which every tensor, statistics of norms too, is another than at birth."""
    network = build(graph, seed=seed)
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape, generator=draws))
            else:
                tensor.add_(5)
    return network


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    "graph",
    [
        small(),
        every_kernel(),
        attending(),
        reference("preresnet", (1, 8, 8), 3, width=0.25, depth=20),
    ],
    ids=["small", "every kernel", "attending", "selections"],
)
def test_every_tensor_comes_back_bit_for_bit(graph, tmp_path):
    network = trained(graph)
    path = save_weights(network, tmp_path / "deep" / "net.safetensors")
    assert path == tmp_path / "deep" / "net.safetensors"
    back = load_weights(graph, path)
    assert same(back, network)
    assert back.graph == graph
    images = torch.rand(3, *graph.input_size)
    assert torch.equal(back.eval()(images), network.eval()(images))


def test_running_statistics_are_among_them(tmp_path):
    graph = small()
    keys = {*load_file(save_weights(trained(graph), tmp_path / "net.safetensors"))}
    assert keys == {*build(graph).state_dict()}
    assert {"bn0.running_mean", "bn0.running_var", "bn0.num_batches_tracked"} <= keys


def test_saving_and_loading_leave_the_network_and_the_random_state_alone(tmp_path):
    graph = small()
    network, twin = trained(graph).to(memory_format=torch.channels_last), trained(graph)
    state = torch.get_rng_state()
    path = save_weights(network, tmp_path / "net.safetensors")
    load_weights(graph, path)
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training and same(network, twin)
    assert same(load_weights(graph, path), network)


def test_the_same_weights_are_the_same_bytes_and_may_be_written_again(tmp_path):
    one = save_weights(trained(small()), tmp_path / "one.safetensors")
    two = save_weights(trained(small()), tmp_path / "two.safetensors")
    assert one.read_bytes() == two.read_bytes()
    save_weights(trained(small()), one)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.safetensors", "two.safetensors"]


def test_other_files_are_never_overwritten(tmp_path):
    path = save_weights(trained(small()), tmp_path / "net.safetensors")
    before = path.read_bytes()
    with pytest.raises(OutputExistsError, match="exists"):
        save_weights(trained(small(), seed=1), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


def test_weights_of_another_graph_are_refused_with_both_digests(tmp_path):
    graph, other = linear(), linear((1, 4, 4), classes=7)
    path = save_weights(trained(graph), tmp_path / "net.safetensors")
    with pytest.raises(WeightsError) as caught:
        load_weights(other, path)
    for words in (digest(graph), digest(other), "images [1, 4, 4], 4 classes", "7 classes"):
        assert words in str(caught.value)


def test_even_where_all_shapes_fit(tmp_path):
    """A digest tells a pooling from another, which shapes cannot."""
    graph, wider = small((3, 16, 16)), small((3, 20, 20))
    path = save_weights(trained(graph), tmp_path / "net.safetensors")
    with pytest.raises(WeightsError, match="holds weights of the graph"):
        load_weights(wider, path)


def test_a_file_from_elsewhere_is_taken_if_it_fits_exactly(tmp_path):
    network = trained(small())
    save_file(network.state_dict(), tmp_path / "foreign.safetensors", metadata={"format": "pt"})
    assert same(load_weights(small(), tmp_path / "foreign.safetensors"), network)
    save_file(
        {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()},
        tmp_path / "half.safetensors",
    )
    found = load_weights(small(), tmp_path / "half.safetensors")
    assert found.weight("fc").dtype == torch.float32
    assert torch.equal(found.weight("fc"), network.weight("fc").half().float())


def test_a_file_from_elsewhere_that_does_not_fit_is_told_in_one_shortened_message(tmp_path):
    state = trained(small()).state_dict()
    for key in [key for key in state if key.startswith(("conv1", "bn1", "bn2"))]:
        del state[key]
    state |= {"classifier.weight": torch.ones(2), "head": torch.ones(1)}
    state["fc.weight"] = torch.ones(10, 5)
    state["fc.bias"] = torch.ones(10, dtype=torch.int64)
    path = tmp_path / "foreign.safetensors"
    save_file(state, path)
    with pytest.raises(WeightsError) as caught:
        load_weights(small(), path)
    lines = str(caught.value).splitlines()
    assert lines == [
        f"{path} does not fit the network:",
        "  missing: conv1.weight, bn1.weight, bn1.bias, bn1.running_mean, bn1.running_var, "
        "... 11 in all",
        "  unexpected: classifier.weight, head",
        "  of another shape: fc.weight is [10, 5] and should be [10, 32]",
        "  of another type: fc.bias is torch.int64 and should be torch.float32",
    ]


def test_what_the_graph_masks_is_zero_whatever_the_file_says(tmp_path):
    graph = every_kernel()
    masks = half_masks(graph)
    exact = {name: ExactMask.of(mask) for name, mask in masks.items()}
    sparse = apply(graph, Descriptor(reference=digest(graph), masks=exact))
    network = trained(graph)
    save_file(network.state_dict(), tmp_path / "foreign.safetensors")
    found = load_weights(sparse, tmp_path / "foreign.safetensors")
    for name, mask in masks.items():
        wanted = network.weight(name) * torch.from_numpy(mask)
        assert torch.equal(found.weight(name), wanted)


def damaged(content, how):
    size = struct.unpack("<Q", content[:8])[0]
    if how == "cut short":
        return content[:-9]
    if how == "cut in its header":
        return content[: size // 2]
    if how == "empty":
        return b""
    if how == "no safetensors at all":
        return b"PK\x03\x04" + bytes(200)
    header = json.loads(content[8 : 8 + size])
    if how == "metadata that is no JSON":
        header["__metadata__"]["prunenas"] = "{"
    elif how == "metadata that is a list":
        header["__metadata__"]["prunenas"] = "[1]"
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + size :]


@pytest.mark.parametrize(
    "how",
    [
        "cut short",
        "cut in its header",
        "empty",
        "no safetensors at all",
        "metadata that is no JSON",
        "metadata that is a list",
    ],
)
def test_a_damaged_file_is_refused_with_its_name(tmp_path, how):
    path = save_weights(trained(small()), tmp_path / "net.safetensors")
    path.write_bytes(damaged(path.read_bytes(), how))
    with pytest.raises(WeightsError, match=r"net\.safetensors"):
        load_weights(small(), path)


def test_a_file_of_a_newer_version_is_refused(tmp_path):
    path = tmp_path / "net.safetensors"
    told = json.dumps({"schema": 2, "graph": digest(small())})
    save_file(trained(small()).state_dict(), path, metadata={"prunenas": told})
    with pytest.raises(WeightsError, match="schema 2, this version reads up to 1"):
        load_weights(small(), path)


def test_names_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"\.safetensors files, got .*net\.pt"):
        save_weights(trained(small()), tmp_path / "net.pt")
    with pytest.raises(WeightsError, match=r"\.safetensors files"):
        load_weights(small(), tmp_path / "net.pt")
    with pytest.raises(WeightsError, match="no such file"):
        load_weights(small(), tmp_path / "net.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(WeightsError, match="no such file"):
        load_weights(small(), tmp_path / "folder.safetensors")
    with pytest.raises(OutputExistsError, match="folder"):
        save_weights(trained(small()), tmp_path / "folder.safetensors")
