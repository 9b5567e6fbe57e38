"""The file as a template: what stands around the classes, and the helpers that some ops need."""

TEMPLATE = '''"""
{{- about | join("\n") }}
"""

{% if masks or constants %}
import base64
{% if constants %}
import zlib
{% endif %}

{% endif %}
import torch
{% if uses_functional %}
import torch.nn.functional as F
{% endif %}
from torch import Tensor, nn
{% if "ChannelSelection" in helpers %}


class ChannelSelection(nn.Module):
    """The channels at fixed indices, told as text such as "0-3 7 9-10"."""

    def __init__(self, indices: str) -> None:
        super().__init__()
        chosen = []
        for run in indices.split():
            first, _, last = run.partition("-")
            chosen.extend(range(int(first), int(last or first) + 1))
        self.register_buffer("indices", torch.tensor(chosen), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(1, self.indices)
{% endif %}
{% if "ConstantTensor" in helpers %}


class ConstantTensor(nn.Module):
    """A tensor that is not trained. It is not in the state dict, but moves with the network."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value, persistent=False)

    def forward(self) -> Tensor:
        return self.value
{% endif %}
{% if "DropPath" in helpers %}


class DropPath(nn.Module):
    """Zeroes whole images with probability p while training, scales the others by 1 / (1 - p)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        kept = torch.rand(x.shape[0], *[1] * (x.dim() - 1), device=x.device) >= self.p
        return x * kept.to(x.dtype) / (1 - self.p)
{% endif %}
{% if "MaskedConv1d" in helpers %}


class MaskedConv1d(nn.Conv1d):
    """A convolution along one dimension whose kernel is multiplied by a fixed mask."""

    def __init__(self, *args, mask: str, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        put_under(self, mask)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight * self.mask, self.bias)
{% endif %}
{% if "MaskedConv2d" in helpers %}


class MaskedConv2d(nn.Conv2d):
    """A convolution whose kernel is multiplied by a fixed mask."""

    def __init__(self, *args, mask: str, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        put_under(self, mask)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight * self.mask, self.bias)
{% endif %}
{% if "MaskedLinear" in helpers %}


class MaskedLinear(nn.Linear):
    """A linear layer whose matrix is multiplied by a fixed mask."""

    def __init__(self, *args, mask: str, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        put_under(self, mask)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight * self.mask, self.bias)
{% endif %}
{% if "PadShortcut" in helpers %}


class PadShortcut(nn.Module):
    """Brings x to the shape of another tensor: subsampled or averaged, then zero channels added."""

    def __init__(self, stride: int = 1, average: bool = False, detach: bool = False) -> None:
        super().__init__()
        self.stride, self.average, self.detach = stride, average, detach

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        if self.detach:
            x = x.detach()
        step = self.stride
        x = F.avg_pool2d(x, step) if self.average else x[:, :, ::step, ::step]
        return F.pad(x, (0, 0, 0, 0, 0, like.shape[1] - x.shape[1]))
{% endif %}
{% if "Permute" in helpers %}


class Permute(nn.Module):
    """Puts the dimensions in another order."""

    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order)
{% endif %}
{% if "ShiftNorm" in helpers %}


class ShiftNorm(nn.LayerNorm):
    """A layer norm with a shift and without a scale."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.register_parameter("weight", None)
{% endif %}
{% if "TrainableTensor" in helpers %}


class TrainableTensor(nn.Module):
    """A tensor that is trained: drawn from a narrow normal, or filled with one number."""

    def __init__(self, *sizes: int, fill: float | None = None) -> None:
        super().__init__()
        fresh = 0.02 * torch.randn(sizes) if fill is None else torch.full(sizes, fill)
        self.value = nn.Parameter(fresh)

    def forward(self) -> Tensor:
        return self.value
{% endif %}
{% if "channel_shuffle" in helpers %}


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave equal groups of channels."""
    n, c, *size = x.shape
    return x.view(n, groups, c // groups, *size).transpose(1, 2).reshape(x.shape)
{% endif %}
{% if masks %}


def put_under(layer: nn.Module, mask: str) -> None:
    """Give a layer a fixed mask of zeros and ones for its weight.

    The mask comes as base64 of its bits, the first one highest in its byte. It is not in the state
    dict. Weights that start at zero under it stay exactly zero.
    """
    packed = torch.tensor(list(base64.b64decode(mask)))
    bits = packed[:, None] >> torch.arange(7, -1, -1) & 1
    kept = bits.flatten()[: layer.weight.numel()].view_as(layer.weight)
    layer.register_buffer("mask", kept.to(layer.weight.dtype), persistent=False)
    with torch.no_grad():
        layer.weight.mul_(layer.mask)
{% endif %}
{% if constants %}


def stored(name: str) -> Tensor:
    """Return a tensor of the table at the end of this file."""
    dtype, sizes, text = CONSTANTS[name]
    numbers = bytearray(zlib.decompress(base64.b64decode(text)))
    return torch.frombuffer(numbers, dtype=dtype).reshape(sizes)
{% endif %}
{% for block in blocks %}


class {{ block.class[0] }}(nn.Module):
    """{{ block.class[1] }}"""

{{ block.head | join("\n") }}
        super().__init__()
{{ block.declarations | join("\n") }}

    def forward(self, x: Tensor) -> Tensor:
{{ block.statements | join("\n") }}
{% endfor %}


class {{ name }}(nn.Module):
    """{{ summary }}"""

    def __init__(self) -> None:
        super().__init__()
{% for line in network.declarations %}
{{ line }}
{% endfor %}
{% if initialises %}
        initialise(self)
{% endif %}

    def forward(self, x: Tensor) -> Tensor:
{{ network.statements | join("\n") }}
{% if initialises %}


def initialise(network: nn.Module) -> None:
    """Draw fresh weights by the scheme of the spec, from torch's own random state."""
    for module in network.modules():
{% if draws_convs %}
        if isinstance(module, {{ draws_convs }}):
{% if init.conv == "fan_out" %}
            fan = module.weight[0, 0].numel() * module.out_channels
{% else %}
            fan = module.weight[0].numel()
{% endif %}
{% if draws_masked_convs %}
            if isinstance(module, {{ draws_masked_convs }}):
                fan *= module.mask.mean().item()  # what survives under the mask
{% endif %}
            nn.init.normal_(module.weight, std=(2 / fan) ** 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
{% if draws_masked_convs %}
            if isinstance(module, {{ draws_masked_convs }}):
                with torch.no_grad():
                    module.weight.mul_(module.mask)
{% endif %}
{% endif %}
{% if draws_linears %}
        if isinstance(module, nn.Linear):
{% if init.linear == "normal_0.01" %}
            nn.init.normal_(module.weight, std=0.01)
{% else %}
            nn.init.trunc_normal_(module.weight, std=0.02)
{% endif %}
            if module.bias is not None:
                nn.init.zeros_(module.bias)
{% if draws_masked_linears %}
            if isinstance(module, MaskedLinear):
                with torch.no_grad():
                    module.weight.mul_(module.mask)
{% endif %}
{% endif %}
{% for dimension, scale in scales %}
        if isinstance(module, nn.BatchNorm{{ dimension }}d):
            nn.init.constant_(module.weight, {{ scale }})
{% endfor %}
{% endif %}
{% if masks %}


MASKS = {
{% for key, text in masks %}
    "{{ key }}": """
{{ text }}
""",
{% endfor %}
}
{% endif %}
{% if constants %}


CONSTANTS = {
{% for key, dtype, sizes, text in constants %}
    "{{ key }}": (torch.{{ dtype }}, {{ sizes }}, """
{{ text }}
"""),
{% endfor %}
}
{% endif %}
'''
