"""Calls of torch's aten ops by name, as files that a user was sent may hold them."""

import contextlib
import re
from typing import Any

import torch
from torch import Tensor, nn

from prunenas.errors import GraphError
from prunenas.ir import ops

_DANGEROUS = re.compile(
    "^_|unsafe|_sparse|_nested|empty|resize|storage|strided|rand|backward|dropout"
)
"""Names whose ops reach memory by numbers that nobody checks, leave it unset, or draw."""

_HARMLESS = frozenset(
    """
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool2d all aminmax
    argsort avg_pool1d baddbmm batch_norm bilinear block_diag bucketize cdist celu chunk conv1d
    conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d cosine_similarity cross
    cummax cummin cumprod diag diag_embed diff dot einsum fft_fft2 fft_ifft2 fft_irfft2
    fft_rfft2 flatten glu grid_sampler group_norm gru hardswish im2col imag instance_norm kron
    kthvalue layer_norm linalg_cross linalg_norm linalg_vector_norm linear log_sigmoid
    log_softmax logcumsumexp logsumexp lstm matmul max max_pool1d max_pool2d max_pool3d median
    meshgrid min mode moveaxis norm one_hot outer pairwise_distance pixel_shuffle
    pixel_unshuffle prelu prod quantile real renorm repeat_interleave rms_norm rnn_relu rnn_tanh
    roll rot90 scaled_dot_product_attention softmax split stack std std_mean sum swapaxes
    take_along_dim tensordot tile transpose tril triu unbind unflatten unfold upsample_bicubic2d
    upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d
    upsample_trilinear3d var var_mean view_as_complex view_as_real
    """.split()  # noqa: SIM905
)
"""What networks call besides torch's core and pointwise ops, in any overload."""


def aten(call: str) -> torch._ops.OpOverload:
    """Return the aten op called ``name.overload``.

    Raises:
        GraphError: There is none, or it is none of those that are known to do no more than return
            tensors: torch's core and pointwise ops, and what else networks call.
    """
    name, overload = call.split(".")
    found = getattr(getattr(torch.ops.aten, name, None), overload, None)
    if not isinstance(found, torch._ops.OpOverload):
        raise GraphError(f"this torch has no aten op {call}")
    schema = found._schema
    returns_tensors = any("Tensor" in str(result.type) for result in schema.returns)
    known = name in _HARMLESS or {torch.Tag.core, torch.Tag.pointwise} & {*found.tags}
    if schema.is_mutable or not returns_tensors or not known or _DANGEROUS.search(name):
        raise GraphError(f"aten op {call} is not known to only return tensors: it is never called")
    return found


class AtenCall(nn.Module):
    """One of torch's aten ops, called as it was seen to be called."""

    def __init__(self, op: ops.Opaque) -> None:
        super().__init__()
        self.function = aten(op.call)
        self.positional, self.named = op.called_with()
        self.op = op
        self.tried = False

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the call's result, or the one of them that is meant.

        Raises:
            GraphError: It has not the sizes that the op states.
        """
        if not self.tried and not torch.compiler.is_compiling():
            # Sizes are tried without memory first: fast kernels trust what they are given.
            with contextlib.suppress(NotImplementedError):
                self._call(tuple(x.to("meta") for x in inputs))
            self.tried = True
        return self._call(inputs)

    def _call(self, inputs: tuple[Tensor, ...]) -> Tensor:
        named = {key: _filled(value, inputs) for key, value in self.named.items()}
        positional = _filled(self.positional, inputs)
        if self.op.call in ("lstm.input", "gru.input", "rnn_tanh.input", "rnn_relu.input"):
            # The first state was made for the batch that was traced.
            x, state, first = positional[0], positional[1], positional[-1]
            count = x.shape[0 if first else 1]
            cut = [h[:, :count] for h in (state if isinstance(state, list) else [state])]
            positional[1] = cut if isinstance(state, list) else cut[0]
        result = self.function(*positional, **named)
        value: Tensor = result if self.op.item is None else result[self.op.item]
        sizes = value.shape if self.op.lead is None else value.shape[1:]
        if tuple(sizes) != self.op.sizes:
            raise GraphError(
                f"{self.op.call} is said to return {list(self.op.sizes)}, it returns {list(sizes)}"
            )
        return value


def _filled(argument: Any, inputs: tuple[Tensor, ...]) -> Any:
    """Return ``argument`` with inputs in the places of their numbers."""
    if isinstance(argument, list):
        return [_filled(item, inputs) for item in argument]
    return inputs[argument["tensor"]] if isinstance(argument, dict) else argument
