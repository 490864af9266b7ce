"""Dense rivals of the sparse kernels: one branch on one image, by name."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.format import Weights
from ..errors import InputError

#: Runs once and returns the logits, (H, W) float32.
Run = Callable[[], NDArray[np.float32]]
RIVALS = (
    "torch",
    "torch-channels-last",
    "torch-compile",
    "onnxruntime",
    "openvino",
    "openvino-bf16",
    "deepsparse",
)


class RivalMissing(InputError):
    """A rival is not installed, or cannot run here; the text says why."""


def open_rival(name: str, weights: Weights, rgb: NDArray[np.uint8], threads: int) -> Run:
    """Return a rival with a branch loaded and an image at hand, run once.

    Parameters
    ----------
    name
        One of `RIVALS`.
    weights
        Of the branch, as they stand.
    rgb
        (H, W, 3), H and W multiples of the pooling grid.
    threads
        That it may use; torch's own number is set by the caller.

    Raises
    ------
    RivalMissing
        Where it is not installed or does not work here.
    """
    if name not in RIVALS:
        raise InputError(f"The rival {name!r} is not known; choose of {', '.join(RIVALS)}.")
    x = np.ascontiguousarray(rgb.transpose(2, 0, 1)[None], np.float32)
    kind = name.partition("-")[0]
    opened = {"torch": _torch, "onnxruntime": _onnx, "openvino": _openvino}.get(kind, _deepsparse)
    try:
        run = opened(name, weights, x, threads)
        run()
    except Exception as error:
        why = (str(error).strip().splitlines() or [""])[0][:120]
        raise RivalMissing(f"{name} is missing: {why or type(error).__name__}") from error
    return run


def _torch(name: str, weights: Weights, x: NDArray[np.float32], threads: int) -> Run:
    import torch

    from ..checkpoint.unet import build

    net: Any = build(weights)
    given = torch.from_numpy(x)
    if name != "torch":
        net = net.to(memory_format=torch.channels_last)
        given = given.to(memory_format=torch.channels_last)
    if name == "torch-compile":
        net = torch.compile(net)

    def run() -> NDArray[np.float32]:
        with torch.inference_mode():
            found: NDArray[np.float32] = net(given)[0, 0].numpy()
            return found

    return run


def _onnx(name: str, weights: Weights, x: NDArray[np.float32], threads: int) -> Run:
    from .onnx_runtime import open_session

    session = open_session(weights, threads)
    return lambda: np.asarray(session.run(None, {"x": x})[0][0, 0])


def _openvino(name: str, weights: Weights, x: NDArray[np.float32], threads: int) -> Run:
    import openvino

    from .onnx_model import onnx_model

    core = openvino.Core()
    if name == "openvino-bf16" and "BF16" not in core.get_property(
        "CPU", "OPTIMIZATION_CAPABILITIES"
    ):
        raise RivalMissing(f"this CPU ({platform.machine()}) has no bf16")
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "bf16" if name == "openvino-bf16" else "f32",
    }
    model = core.read_model(onnx_model(weights))
    model.reshape(list(x.shape))
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda: np.array(request.infer({0: x})[0][0, 0])


def _deepsparse(name: str, weights: Weights, x: NDArray[np.float32], threads: int) -> Run:
    import tempfile
    from pathlib import Path

    import deepsparse

    from .onnx_model import onnx_model

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "branch.onnx"
        path.write_bytes(onnx_model(weights))
        shapes = [list(x.shape)]
        engine = deepsparse.Engine(str(path), 1, num_cores=threads, input_shapes=shapes)
    return lambda: np.asarray(engine.run([x])[0][0, 0])
