"""Networks of a few layers, each with one thing that an importer can get wrong."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

SIZE = (3, 8, 8)


class Net(nn.Module):
    """Two convolutions and a head; ``middle`` is what stands between them."""

    def __init__(self, width: int = 8, middle: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.middle = middle or nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Linear(width, 5)

    def body(self, x):
        return self.conv2(self.middle(self.conv1(x)))

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


class Does(nn.Module):
    """A module whose forward is ``function``."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def between(function, width: int = 8) -> Net:
    return Net(width, Does(function))


class ByShape(Net):
    """Control flow that depends on sizes: torch.fx cannot follow, torch.export can."""

    def forward(self, x):
        x = self.body(x)
        while x.shape[-1] > 3:
            x = F.max_pool2d(x, 2)
        return self.head(x.mean((2, 3)))


class ByValue(Net):
    """Control flow that depends on values."""

    def forward(self, x):
        x = self.body(x)
        if x.sum() > 0:
            x = x * 2
        return self.head(x.mean((2, 3)))


class TwoUnknown(Net):
    """Two calls that no op describes."""

    def forward(self, x):
        x = self.conv1(x)
        x = x.cumsum(1)
        x = self.conv2(torch.relu(x))
        x = torch.logcumsumexp(x, 2)
        return self.head(x.mean((2, 3)))


class OneUnknown(Net):
    """A call that no op describes, between layers that vary."""

    def __init__(self) -> None:
        super().__init__()
        self.conv3 = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        x = self.conv2(torch.relu(self.conv1(x))).cumsum(1)
        return self.head(self.conv3(x).relu().mean((2, 3)))


class Twice(nn.Module):
    """One convolution that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.conv(F.relu(self.conv(self.stem(x))))
        return self.head(x.mean((2, 3)))


class Tied(nn.Module):
    """Two layers that are made with one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.one = nn.Conv2d(8, 8, 1, bias=False)
        self.other = nn.Conv2d(8, 8, 1, bias=False)
        self.other.weight = self.one.weight
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.other(F.relu(self.one(self.stem(x))))
        return self.head(x.mean((2, 3)))


class Auxiliary(Net):
    """A second head that only training uses."""

    def __init__(self) -> None:
        super().__init__()
        self.aux = nn.Linear(8, 5)

    def forward(self, x):
        x = self.body(x)
        scores = self.head(x.mean((2, 3)))
        return (scores, self.aux(x.mean((2, 3)))) if self.training else scores


class SqueezeExcite(nn.Module):
    """One factor for each channel, from the means of all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(8, 4, 1)
        self.up = nn.Conv2d(4, 8, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


class Tokens(nn.Module):
    """Patches, class token, position embedding, one block that scales its branch."""

    def __init__(self, attention: str = "module", width: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 2, stride=2)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.place = nn.Parameter(torch.randn(1, 17, width))
        self.norm = nn.LayerNorm(width)
        self.heads, self.attention = 2, attention
        if attention == "module":
            self.attend = nn.MultiheadAttention(width, 2, batch_first=True)
        else:
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        if attention == "bias":
            self.bias = nn.Parameter(torch.randn(1, 2, 17, 17))
        self.scale = nn.Parameter(torch.full((width,), 0.1))
        self.head = nn.Linear(width, 5)

    def attended(self, x):
        if self.attention == "module":
            return self.attend(x, x, x, need_weights=False)[0]
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if self.attention == "einsum":
            scores = torch.einsum("bhid,bhjd->bhij", q, k) * (c // self.heads) ** -0.5
            mixed = torch.einsum("bhij,bhjd->bhid", scores.softmax(-1), v)
        elif self.attention == "bias":
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias)
        else:
            scores = q @ k.transpose(-2, -1) * (c // self.heads) ** -0.5
            mixed = scores.softmax(dim=-1) @ v
        return self.out(mixed.transpose(1, 2).flatten(2))

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        x = x + self.scale * self.attended(self.norm(x))
        return self.head(x[:, 0])


def lively(module: nn.Module, seed: int = 0) -> nn.Module:
    """Return ``module`` with every tensor drawn, so that no mistake is multiplied by zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.is_floating_point():
                tensor.normal_(0, 0.3, generator=generator)
    return module.eval()
