"""A network in ONNX Runtime, on the CPU."""

import importlib.util
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prunenas.build.measure.timing import Call
from prunenas.build.network import Network

_TOLERANCE = 1e-3
"""Of the largest score: single precision, summed up in another order."""

_NEEDED = ("onnx", "onnxscript", "onnxruntime")


def why_not(device: torch.device) -> str | None:
    """Return why nothing can be timed in ONNX Runtime beside ``device``; None if it can."""
    if device.type != "cpu":
        return "it is timed on CPUs only"
    absent = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        return f"{', '.join(absent)} not installed: pip install 'prunenas[onnx]'"
    return None


def onnx_call(network: Network, images: Tensor) -> Call | str:
    """Return what computes a batch in ONNX Runtime, or why it cannot be timed.

    What it computes has been compared with torch in single precision.

    Args:
        network: In evaluation mode, on the CPU.
        images: ``[n c h w]``; the file is written for this number of images.
    """
    images = images.contiguous()
    try:
        session = _session(network, images)
        feed = {session.get_inputs()[0].name: images.numpy()}
        found = torch.from_numpy(session.run(None, feed)[0])
    # Exporter and runtime raise whatever the library below them does.
    except Exception as error:
        return f"it cannot be had: {type(error).__name__}: {_first_line(error)}"
    wanted = network(images)
    scale = float(wanted.abs().max())
    difference = float((found - wanted).abs().max())
    # Written so that what is not finite is refused too.
    if not difference <= _TOLERANCE * scale:
        return f"its scores differ from torch's by {difference:.1e}, which are up to {scale:.1e}"
    return lambda: session.run(None, feed)


def _session(network: Network, images: Tensor) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # The exporter's are about itself; the scores are compared.
        warnings.simplefilter("ignore")
        path = str(Path(folder, "network.onnx"))
        torch.onnx.export(network, (images,), path, dynamo=True, external_data=False, verbose=False)
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")
