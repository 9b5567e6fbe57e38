"""Modules that calculate with elements: functions of torch, and attention."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional


class Function(nn.Module):
    """A function of tensors without parameters."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the function's value."""
        return self.function(*inputs)


class ScaleShift(nn.Module):
    """Every element times ``scale`` plus ``shift``; a scale of 1 or a shift of 0 costs nothing."""

    def __init__(self, scale: float, shift: float) -> None:
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled and shifted tensor."""
        if self.scale != 1:
            x = x * self.scale
        return x if self.shift == 0 else x + self.shift


class ScaledAttention(nn.Module):
    """Softmax of scaled query-key products, times values; torch picks the kernel."""

    def __init__(self, scale: float | None, dropout: float) -> None:
        super().__init__()
        self.scale, self.dropout = scale, dropout

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        """Return the values ``[... n v]`` that ``query`` attends to; a bias may be boolean."""
        return functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=bias,
            dropout_p=self.dropout if self.training else 0.0,
            scale=self.scale,
        )
