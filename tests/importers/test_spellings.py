"""Many ways to write one thing: each is the same function, and most are the same graph."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from prunenas.errors import TraceError
from prunenas.importers.trace import import_network, trace
from prunenas.ir.cost import params
from prunenas.ir.coupling import couple
from tests.importers.nets import SIZE, Net, SqueezeExcite, Tokens, between, lively


def kinds(graph):
    return [node.op.kind for node in graph.nodes]


def checked(module, size=SIZE):
    """Import ``module`` and compare once more, on other images than the certificate's."""
    module = lively(module)
    imported = import_network(module, size)
    x = torch.randn(3, *size, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        wanted = module(x)
        torch.testing.assert_close(imported.network()(x), wanted, rtol=1e-4, atol=1e-4)
    assert wanted.std() > 0
    return imported.graph


SAME = {
    "relu": [
        F.relu,
        torch.relu,
        torch.relu_,
        lambda x: x.relu(),
        lambda x: x.relu_(),
        lambda x: F.relu(x, inplace=True),
        nn.ReLU(),
        nn.ReLU(inplace=True),
    ],
    "sigmoid": [torch.sigmoid, F.sigmoid, lambda x: x.sigmoid(), nn.Sigmoid()],
    "silu": [F.silu, nn.SiLU(), nn.SiLU(inplace=True), lambda x: F.silu(x, inplace=True)],
    "gelu": [F.gelu, nn.GELU(), lambda x: F.gelu(x, approximate="none")],
    "add": [
        lambda x: x + x.relu(),
        lambda x: torch.add(x, x.relu()),
        lambda x: x.add(x.relu()),
        lambda x: x.clone().add_(x.relu()),
    ],
    "scale": [
        lambda x: x * 2 + 1,
        lambda x: 1 + 2 * x,
        lambda x: x.mul(2).add(1),
        lambda x: x / 0.5 + 1.0,
        lambda x: x * torch.tensor(2.0) + 1,
        lambda x: torch.add(x * 2, 1),
        lambda x: x.mul_(2).add_(1),
    ],
    "difference": [lambda x: 1 - x, lambda x: torch.rsub(x, 1), lambda x: torch.sub(1, x)],
    "shuffle": [lambda x: F.channel_shuffle(x, 2), nn.ChannelShuffle(2)],
    "flatten": [
        lambda x: x.flatten(1).unflatten(1, (8, 8, 8)),
        lambda x: torch.flatten(x, 1).view(-1, 8, 8, 8),
        lambda x: x.view(x.size(0), -1).reshape(x.shape),
        lambda x: x.reshape(x.shape[0], -1).view_as(x),
    ],
    "concat": [
        lambda x: torch.cat([x, x], 1)[:, 4:12],
        lambda x: torch.cat((x, x), dim=-3)[:, 4:12, ...],
        lambda x: torch.concat([x, x], dim=1).narrow(1, 4, 8),
    ],
    "chunk": [
        lambda x: torch.cat([*x.chunk(2, 1)][::-1], 1),
        lambda x: torch.cat([*x.split(4, 1)][::-1], 1),
        lambda x: torch.cat([*torch.split(x, [4, 4], dim=-3)][::-1], 1),
        lambda x: torch.cat([*torch.chunk(x, 2, dim=1)][::-1], -3),
    ],
    "pool": [
        lambda x: F.max_pool2d(x, 2),
        nn.MaxPool2d(2),
        nn.MaxPool2d((2, 2), stride=2),
        lambda x: torch.max_pool2d(x, 2),
        lambda x: F.max_pool2d(x, kernel_size=2, stride=2, padding=0),
    ],
    "dropout": [
        nn.Dropout(0.3),
        lambda x: F.dropout(x, 0.3, False),
        lambda x: F.dropout(x, p=0.3, training=False),
    ],
}


@pytest.mark.parametrize("what", SAME)
def test_spellings_give_one_graph(what):
    modules = [Net(8, f) if isinstance(f, nn.Module) else between(f) for f in SAME[what]]
    found = [checked(module) for module in modules]
    steps = [[(n.op, len(n.inputs)) for n in graph.nodes] for graph in found]
    assert all(step == steps[0] for step in steps)


FUNCTIONS = {
    "int_first": lambda x: 3 - x * 2,
    "float_over": lambda x: 2.0 / (x.abs() + 1),
    "negative": lambda x: -x,
    "power": lambda x: x**2 + (x.abs() + 1) ** 0.5,
    "alpha": lambda x: torch.add(x, x.relu(), alpha=0.5),
    "subtract_alpha": lambda x: torch.sub(x, x.relu(), alpha=2),
    "in_place": lambda x: x.clone().add_(1).mul_(2).sub_(x).div_(3).relu_(),
    "in_place_operators": lambda x: _operators(x),
    "swap_negative_dims": lambda x: x.transpose(-1, -2),
    "permute_and_back": lambda x: x.permute(0, 2, 3, 1).permute(0, -1, 1, 2),
    "channels_last_norm": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (8,)).permute(0, 3, 1, 2),
    "softmax": lambda x: x.softmax(dim=-3) + torch.softmax(x, 2),
    "none_and_ellipsis": lambda x: x[:, None, ..., None].squeeze(-1)[:, 0],
    "slices": lambda x: x[:, :, 1:-1, ::2],
    "slice_of_channels": lambda x: torch.cat([x[:, 5:], x[:, :5]], 1),
    "list": lambda x: x[:, [0, 2, 4, 6, 1, 3, 5, 7]],
    "list_negative": lambda x: x[:, [-1, -2]].repeat(1, 4, 1, 1),
    "integer": lambda x: x[:, -1].unsqueeze(1) + x,
    "unbind": lambda x: torch.stack(x.unbind(1)[::-1], 1),
    "stack": lambda x: torch.stack([x, x.relu()], dim=2).sum(2),
    "split_unequal": lambda x: torch.cat(x.split([3, 5], 1)[::-1], 1),
    "chunk_unequal": lambda x: torch.cat(x.chunk(3, 1)[::-1], 1),
    "expand": lambda x: x.mean(1, keepdim=True).expand(-1, 8, -1, -1) + x,
    "expand_as": lambda x: x.amax((2, 3), keepdim=True).expand_as(x) * x,
    "repeat": lambda x: x[:, :4].repeat(1, 2, 1, 1),
    "roll": lambda x: torch.roll(x, shifts=(1, -2), dims=(2, 3)) + x.roll(1, 1),
    "pad": lambda x: F.pad(x, (1, 0, 2, 0)),
    "pad_channels": lambda x: F.pad(x[:, :4], (0, 0, 0, 0, 2, 2)),
    "clamp": lambda x: x.clamp(-0.5, 0.5) + x.clamp(min=0) + F.hardtanh(x),
    "maximum": lambda x: torch.maximum(x, -x) - torch.minimum(x, x * 0.5),
    "mean_all": lambda x: x - x.mean((1, 2, 3), keepdim=True),
    "mean_one_by_one": lambda x: x * x.mean(-1, keepdim=True).mean(-2, keepdim=True),
    "variance": lambda x: x / (x.var(1, unbiased=False, keepdim=True) + 1).sqrt(),
    "norm": lambda x: F.normalize(x, dim=1) + x.norm(dim=1, keepdim=True),
    "group_norm": lambda x: F.layer_norm(x, (8, 8, 8)),
    "interpolate": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "pixel_shuffle": nn.Sequential(nn.Conv2d(8, 32, 1), nn.PixelShuffle(2)),
    "unfold": lambda x: F.unfold(x, 3, padding=1).view(-1, 8, 9, 8, 8).sum(2),
    "constant": lambda x: x + torch.arange(8.0).view(1, 8, 1, 1),
    "new_constant": lambda x: x + x.new_ones(1, 8, 1, 1) * torch.linspace(0, 1, 8),
    "reflect": nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
    "einsum": lambda x: torch.einsum("bchw,bdhw->bcd", x, x)[..., None] + x[:, :, :1],
    "matmul": lambda x: x @ x.transpose(2, 3),
    "addcmul": lambda x: torch.addcmul(x, x, x, value=0.5),
    "sizes": lambda x: x.view(x.size(0), x.shape[1] // 2, 2, 8, -1).amax(2).repeat(1, 2, 1, 1),
}


def _operators(x):
    x = x.clone()
    x += 1
    x *= 2
    x -= x.relu()
    x /= 3
    return x


@pytest.mark.parametrize("what", FUNCTIONS)
def test_a_function_of_tensors_is_what_it_was(what):
    function = FUNCTIONS[what]
    graph = checked(Net(8, function) if isinstance(function, nn.Module) else between(function))
    assert kinds(graph).count("Conv2d") >= 2


# Idioms that have a word of their own


def shuffled(x):
    b, c, h, w = x.shape
    return x.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous().view(b, c, h, w)


def test_a_channel_shuffle_is_a_shuffle():
    graph = checked(between(shuffled))
    assert "Shuffle" in kinds(graph)
    assert not {"Reshape", "Permute"} & {*kinds(graph)}


def test_a_dropout_that_also_drops_in_evaluation_is_refused():
    with pytest.raises(TraceError, match="drops at random while the network is evaluated"):
        trace(between(lambda x: F.dropout(x, 0.3)), SIZE)


def test_squeeze_and_excite_is_a_gate():
    graph = checked(Net(8, SqueezeExcite()))
    assert {"Gate", "GlobalPool"} <= {*kinds(graph)}
    assert couple(graph)["conv1"].members == ("conv1", "middle.up")
    assert couple(graph)["middle.down"].fixed is None


@pytest.mark.parametrize("keep", [True, False])
def test_a_mean_over_height_and_width_is_a_global_pool(keep):
    def scaled(x):
        mean = x.mean((-2, -1), keepdim=keep)
        return x * (mean if keep else mean[:, :, None, None])

    graph = checked(between(scaled))
    assert kinds(graph).count("GlobalPool") == 2
    assert "Gate" in kinds(graph)


def test_a_depthwise_convolution_is_one():
    graph = checked(Net(8, nn.Conv2d(8, 8, 3, groups=8, padding="same")))
    assert graph["middle"].op.kind == "Depthwise2d"


# Transformers


@pytest.mark.parametrize("attention", ["module", "einsum", "bias", "plain"])
def test_a_transformer_is_what_it_was(attention):
    module = Tokens(attention)
    graph = checked(module)
    assert params(graph) == sum(p.numel() for p in module.parameters())
    starts = {node.name: node.op.start for node in graph.nodes if node.op.kind == "Parameter"}
    assert {"token", "place", "scale"} <= {*starts}
    assert starts["scale"] == "ones"
    groups = couple(graph)
    assert groups["patches"].fixed is None
    assert {*groups["patches"].members} >= {"patches"}
    assert len(groups.free) == 3


@pytest.mark.parametrize("attention", ["module", "bias"])
def test_attention_has_a_word_of_its_own(attention):
    assert "Attention" in kinds(trace(Tokens(attention), SIZE))


def test_attention_between_different_tensors_is_refused():
    class Cross(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.Conv2d(3, 8, 2, stride=2)
            self.query = nn.Parameter(torch.randn(1, 1, 8))
            self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
            self.head = nn.Linear(8, 5)

        def forward(self, x):
            x = self.patches(x).flatten(2).transpose(1, 2)
            query = self.query.expand(x.shape[0], -1, -1)
            return self.head(self.attend(query, x, x, need_weights=False)[0][:, 0])

    with pytest.raises(TraceError, match="the batch is not the first dimension"):
        trace(Cross(), SIZE)
