"""The sparse kernels' C ABI (``native/include/nucprune_sparse.h``) as Python sees it."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.architecture import Layer
from ..errors import EnvironmentStopped
from ..native import NativeMissing, library

ABI = 1
OK, CANCELLED, NO_MEMORY = 0, 1, 2


@cache
def sparse_library() -> ctypes.CDLL:
    """Return the library with the sparse functions' signatures set.

    Raises
    ------
    NativeMissing
        Where there is none, or one of another version.
    """
    found = library()
    number, large, pointer, text = (
        ctypes.c_int32,
        ctypes.c_int64,
        ctypes.c_void_p,
        ctypes.c_char_p,
    )
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "abi": (number, []),
        "isa": (text, [text, large]),
        "has_isa": (number, [text]),
        "create": (pointer, [pointer, number, pointer, text, text, large]),
        "free": (None, [pointer]),
        "load": (number, [pointer, pointer, pointer, pointer, number]),
        "count": (None, [pointer, pointer, pointer]),
        "run": (
            number,
            [pointer, pointer, number, large, large, large, pointer, large, number, *3 * [pointer]],
        ),
        "roof": (ctypes.c_double, [pointer]),
    }
    try:
        for name, (result, arguments) in signatures.items():
            function = getattr(found, f"nucprune_sparse_{name}")
            function.restype, function.argtypes = result, arguments
    except AttributeError as error:
        raise NativeMissing("the native library has no sparse kernels; install again") from error
    if found.nucprune_sparse_abi() != ABI:
        raise NativeMissing(
            f"the native library's sparse kernels have version {found.nucprune_sparse_abi()}, "
            f"expected {ABI}; install again"
        )
    return found


def isa() -> str:
    """Return the instruction set that networks use here; ``NUCPRUNE_ISA`` forces one.

    Raises
    ------
    NativeMissing
        Where the library is missing or this CPU lacks the forced one.
    """
    why = ctypes.create_string_buffer(300)
    name: bytes | None = sparse_library().nucprune_sparse_isa(why, len(why))
    if name is None:
        raise NativeMissing(why.value.decode())
    return name.decode()


class SparseNet:
    """One branch in the library.

    Parameters
    ----------
    layers
        Convolutions in forward order.
    kernels
        3 or 1 for each layer.
    isa
        Instruction set by name; None chooses.

    Raises
    ------
    NativeMissing
        See `isa`.
    """

    def __init__(
        self, layers: Sequence[Layer], kernels: Sequence[int], isa: str | None = None
    ) -> None:
        self._library = sparse_library()
        self._handle: int | None = None
        self.layers = list(layers)
        self.depth = (len(layers) + 2) // 5
        widths = np.array([layers[2 * i].outputs for i in range(self.depth)], np.int32)
        sizes = np.array(kernels, np.int32)
        why = ctypes.create_string_buffer(300)
        self._handle = self._library.nucprune_sparse_create(
            widths.ctypes.data,
            self.depth,
            sizes.ctypes.data,
            None if isa is None else isa.encode(),
            why,
            len(why),
        )
        if not self._handle:
            raise NativeMissing(why.value.decode())

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.nucprune_sparse_free(self._handle)

    def load(
        self,
        weights: Mapping[str, NDArray[np.float32]],
        masks: Mapping[str, NDArray[np.bool_]],
        threads: int,
    ) -> None:
        """Take the weights that the masks leave (layers without a mask: all that are not zero).

        Raises
        ------
        ValueError
            Where an array has another shape than its layer.
        EnvironmentStopped
            Where the memory does not hold them.
        """
        held: list[NDArray[Any]] = []
        pointers = [(ctypes.c_void_p * len(self.layers))() for _ in range(3)]
        for i, layer in enumerate(self.layers):
            weight = np.ascontiguousarray(weights[f"{layer.name}.weight"], np.float32)
            bias = np.ascontiguousarray(weights[f"{layer.name}.bias"], np.float32)
            if weight.size != layer.size or bias.shape != (layer.outputs,):
                raise ValueError(f"{layer.name} has the wrong shape")
            held += [weight, bias]
            pointers[0][i] = weight.ctypes.data
            pointers[1][i] = bias.ctypes.data
            if (mask := masks.get(layer.name)) is not None:
                if mask.shape != weight.shape:
                    raise ValueError(f"the mask of {layer.name} has the shape {mask.shape}")
                held.append(np.ascontiguousarray(mask, np.bool_))
                pointers[2][i] = held[-1].ctypes.data
        code = self._library.nucprune_sparse_load(self._handle, *pointers, threads)
        if code != OK:
            raise EnvironmentStopped("The memory does not hold the network; close something else.")

    @property
    def nonzero(self) -> tuple[int, int]:
        """Nonzero weights as loaded, and those left without dead channels."""
        counts = (ctypes.c_int64(), ctypes.c_int64())
        self._library.nucprune_sparse_count(self._handle, *map(ctypes.byref, counts))
        return counts[0].value, counts[1].value

    @property
    def roof(self) -> float:
        """Multiply-adds a second of one core with operands in registers (takes about 50 ms)."""
        return float(self._library.nucprune_sparse_roof(self._handle))

    def run(
        self,
        rgb: NDArray[Any],
        threads: int,
        cancel: ctypes.c_int32 | None = None,
        progress: ctypes.c_int32 | None = None,
        layer_ns: NDArray[np.int64] | None = None,
    ) -> NDArray[np.float32] | None:
        """Run on a tile without holding the GIL.

        Parameters
        ----------
        rgb
            (H, W, 3) uint8 or float32 in 0..255, H and W multiples of the pooling grid.
        threads
            At most so many, the caller's among them.
        cancel
            Any value but 0 stops the run within milliseconds.
        progress
            Set from 0 to 1000 while it runs.
        layer_ns
            A number a layer, to which the time spent in it is added.

        Returns
        -------
        (H, W) float32 before any activation, or None where it was cancelled.

        Raises
        ------
        EnvironmentStopped
            Where the memory does not hold the tile.
        """
        if rgb.dtype not in (np.uint8, np.float32):
            raise ValueError(f"the sparse kernels cannot run {rgb.dtype}")
        height, width = rgb.shape[:2]
        size, row = rgb.itemsize, rgb.strides[0] // rgb.itemsize
        if rgb.strides[1:] != (3 * size, size) or row < 3 * width:
            rgb, row = np.ascontiguousarray(rgb), 3 * width
        out = np.empty((height, width), np.float32)
        code = self._library.nucprune_sparse_run(
            self._handle,
            rgb.ctypes.data,
            int(rgb.dtype == np.float32),
            row,
            height,
            width,
            out.ctypes.data,
            width,
            threads,
            None if cancel is None else ctypes.byref(cancel),
            None if progress is None else ctypes.byref(progress),
            None if layer_ns is None else layer_ns.ctypes.data,
        )
        if code == NO_MEMORY:
            raise EnvironmentStopped(
                f"The memory does not hold a tile of {width} x {height} px; use smaller tiles."
            )
        if code not in (OK, CANCELLED):
            raise ValueError(f"the sparse kernels cannot run the shape {rgb.shape}")
        return out if code == OK else None
