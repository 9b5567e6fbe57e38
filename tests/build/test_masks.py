"""Masks: drawn once, the same everywhere, and never undone by training."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunenas.build.initialise import build
from prunenas.build.masks import mask_tensor
from prunenas.ir.ops import Conv2d, KernelSparsity
from prunenas.ir.writer import GraphWriter

DENSITY = (1.0, 0.5, 0.0, 0.25, 0.75, 0.1, 0.9, 0.5, 0.3)


def test_each_position_is_kept_with_its_own_probability():
    mask = mask_tensor(KernelSparsity(density=DENSITY, seed=1), (128, 64, 3, 3), "conv")
    assert mask.unique().tolist() == [0.0, 1.0]
    found = mask.mean(dim=(0, 1)).flatten().tolist()
    assert found == pytest.approx(DENSITY, abs=0.03)
    assert found[0] == 1.0
    assert found[2] == 0.0


def test_positions_are_drawn_independently():
    mask = mask_tensor(KernelSparsity(density=(0.5,) * 9), (200, 50, 3, 3), "conv").view(-1, 9)
    correlation = torch.corrcoef(mask.T) - torch.eye(9)
    assert correlation.abs().max() < 0.05


def test_masks_differ_by_seed_and_by_name_and_not_otherwise():
    def drawn(seed, name):
        return mask_tensor(KernelSparsity(density=(0.5,) * 9, seed=seed), (8, 8, 3, 3), name)

    assert torch.equal(drawn(0, "a"), drawn(0, "a"))
    assert not torch.equal(drawn(0, "a"), drawn(1, "a"))
    assert not torch.equal(drawn(0, "a"), drawn(0, "b"))


def test_the_draw_is_the_same_for_ever():
    mask = mask_tensor(KernelSparsity(density=(0.5,) * 4, seed=7), (2, 2, 2, 2), "conv")
    golden = [0, 1, 1, 0, 1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1]
    assert mask.flatten().int().tolist() == golden


@given(
    st.integers(1, 12),
    st.integers(1, 3),
    st.lists(st.sampled_from([0.0, 0.01, 0.5, 1.0]), min_size=4, max_size=4).filter(any),
    st.integers(0, 99),
)
def test_no_filter_is_dead_and_no_forbidden_position_lives(out, into, density, seed):
    mask = mask_tensor(KernelSparsity(density=tuple(density), seed=seed), (out, into, 2, 2), "conv")
    assert mask.view(out, -1).any(dim=1).all()
    forbidden = torch.tensor(density).view(2, 2) == 0
    assert not mask[:, :, forbidden].any()


def sparse(seed=0):
    net = GraphWriter((3, 8, 8))
    density = KernelSparsity(density=(0.5,) * 9, seed=seed)
    x = net.add("conv", Conv2d(width=8, kernel=(3, 3), padding=(1, 1), sparsity=density), net.input)
    x = net.relu("relu", net.batch_norm("bn", x))
    return net.finish(net.linear("fc", net.global_pool("pool", x), 2))


@pytest.mark.parametrize("fused", [True, False])
def test_masked_weights_are_zero_and_stay_zero(fused):
    network = build(sparse())
    conv = network.node("conv")
    before = conv.weight.detach().clone()
    assert not before[conv.mask == 0].any()
    assert before[conv.mask == 1].all()
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1, fused=fused
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        optimizer.zero_grad()
        network(torch.randn(4, 3, 8, 8, generator=generator)).square().sum().backward()
        optimizer.step()
    assert not conv.weight[conv.mask == 0].any()
    assert (conv.weight != before)[conv.mask == 1].all()


def test_the_mask_is_applied_whatever_the_weights():
    network = build(sparse()).eval()
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    conv = network.node("conv")
    with torch.no_grad():
        scores = network(x)
        conv.weight += 100 * (1 - conv.mask)
        assert torch.equal(network(x), scores)


def test_the_mask_follows_from_the_graph_not_from_the_seed_of_the_weights():
    one, other = (build(sparse(), seed=seed).node("conv").mask for seed in (0, 1))
    assert torch.equal(one, other)
    assert not torch.equal(one, build(sparse(seed=1)).node("conv").mask)
