"""A vector with many zeros as bytes: distances between what is not zero, and values as planes.

Distances are a byte each, from one nonzero value to the next (0: `FAR` zeros, and no value yet),
in a zstd frame. Values are planes of bytes, the lowest first, of their bits rotated to the left by
one (the sign behind the mantissa): the lower half of the planes as they are, then a zstd frame for
each of the upper half, the highest of which is the exponent alone.

zstd for its Huffman codes. Distances between pruned weights are all but memoryless, so codes by
their frequencies come to within a few per cent of their entropy; blocks have tables of their own,
which follow the densities of the layers; the lower halves of mantissas are noise that no coder
shortens. It is in the standard library from Python 3.14 on, and `backports.zstd` is the same for
older ones. zlib, which all have, gives the same sizes, but takes three to five times as long to
unpack.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import native

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: The largest distance in one byte.
FAR = 255
#: Distances that are taken at a time: what they need stays in the cache.
CHUNK = 2**14
_P = zstd.CompressionParameter
#: Long matches alone: short ones take bytes away from the codes, and make files larger.
OPTIONS: Mapping[int, int] = {
    _P.compression_level: 1,
    _P.min_match: 7,
    _P.hash_log: 6,
    _P.checksum_flag: 1,
}
#: Bits of the decoder's window, hence its memory; this level uses 19 at most.
WINDOW: Mapping[int, int] = {zstd.DecompressionParameter.window_log_max: 22}


class Damaged(ValueError):
    """Bytes do not give what they should; the text says why, as part of a sentence."""


def encode(
    flat: NDArray[np.float32], dtype: np.dtype[Any]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], int, int]:
    """Return a vector's distances and values as bytes, and the numbers of values and distances.

    Parameters
    ----------
    flat
        (n,). The sign of zeros is not kept.
    dtype
        Of the stored values, 2 or 4 bytes, little endian; all of ``flat`` fits it.
    """
    places = np.flatnonzero(flat)
    values = flat[places].astype(dtype)
    steps = np.diff(places, prepend=-1)
    far = (steps - 1) // FAR
    distances = np.zeros(len(steps) + int(far.sum()), np.uint8)
    distances[np.cumsum(far + 1) - 1] = steps - FAR * far
    bits = values.view(f"<u{dtype.itemsize}")
    rotated = (bits << 1) | (bits >> (8 * dtype.itemsize - 1))
    low, high = np.split(rotated.view(np.uint8).reshape(-1, dtype.itemsize).T, 2)
    coded = np.concatenate([low.ravel(), *map(_coded, high)])
    return _coded(distances), coded, len(values), len(distances)


def decode(
    total: int,
    streams: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    counts: tuple[int, int],
    dtype: np.dtype[Any],
) -> NDArray[np.float32]:
    """Return the vector, (total,); zstd and the native library drop the GIL.

    Parameters
    ----------
    total
        Its length.
    streams, counts
        Bytes and numbers of distances and values: not trusted, but never more is unpacked.
    dtype
        Of the values.

    Raises
    ------
    Damaged
        Where bytes and numbers do not fit, the distances run over the end, or lead to another
        number of values, or a value is not finite.
    """
    (distances, values), (entries, kept) = streams, counts
    planes = dtype.itemsize // 2
    raw = kept * planes
    if len(values) < raw:
        raise Damaged(f"too few bytes for {kept:,} weights")
    low = list(np.ascontiguousarray(values[:raw]).reshape(planes, kept))
    high = _decoded(values[raw:].data, kept, planes)
    # The highest bits are the exponent, the last one of which is kept for what is not finite.
    if high[-1].max(initial=0) >= (0xFF if dtype.itemsize == 4 else 0xF8):
        raise Damaged("a weight is not finite")
    (steps,) = _decoded(distances.data, entries, 1)
    place = _placed if native.is_available() else _placed_plainly
    found = place(total, [*low, *high], steps, dtype)
    if found is None:
        raise Damaged(f"its gaps do not lead to {kept:,} of {total:,} weights")
    return found


def _placed(
    total: int,
    planes: list[NDArray[np.uint8]],
    distances: NDArray[np.uint8],
    dtype: np.dtype[Any],
) -> NDArray[np.float32] | None:
    """Return the vector; None where the distances do not lead to the values' places."""
    put = native.library().nucprune_place
    array, size = ctypes.c_void_p, ctypes.c_int64
    put.argtypes = [array, size, array, size, ctypes.c_int32, array, size]
    put.restype = size
    kept = len(planes[0])
    flat = np.zeros(total, np.float32)
    starts = (array * len(planes))(*(plane.ctypes.data for plane in planes))
    given = distances.ctypes.data, len(distances), starts, kept, len(planes)
    return flat if put(*given, flat.ctypes.data, total) == kept else None


def _placed_plainly(
    total: int,
    planes: list[NDArray[np.uint8]],
    distances: NDArray[np.uint8],
    dtype: np.dtype[Any],
) -> NDArray[np.float32] | None:
    """Do as `_placed` does, without the native library."""
    kept = len(planes[0])
    # A running sum of distances counts from 1.
    flat = np.zeros(total + 1, np.float32)
    values = np.empty((CHUNK, dtype.itemsize), np.uint8)
    done = start = 0
    for first in range(0, len(distances), CHUNK):
        steps = distances[first : first + CHUNK]
        is_value = steps != 0
        plain = bool(is_value.all())
        if not plain:
            steps = np.where(is_value, steps, np.uint8(FAR))
        places = np.cumsum(steps, dtype=np.int64)
        places += start
        start = int(places[-1])
        if not plain:
            places = places[is_value]
        count = len(places)
        if done + count > kept or start > total:
            return None
        # Plane by plane: six times faster than numpy's copy of a transposed array.
        for i, plane in enumerate(planes):
            values[:count, i] = plane[done : done + count]
        bits = values[:count].view(f"<u{dtype.itemsize}")[:, 0]
        flat[places] = ((bits >> 1) | (bits << (8 * dtype.itemsize - 1))).view(dtype)
        done += count
    return flat[1:] if done == kept else None


def _coded(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.frombuffer(zstd.compress(data.tobytes(), options=OPTIONS), np.uint8)


def _decoded(stream: memoryview, size: int, frames: int) -> list[NDArray[np.uint8]]:
    """Return what so many frames of ``size`` bytes each hold."""
    parts = []
    for _ in range(frames):
        decoder = zstd.ZstdDecompressor(options=WINDOW)
        try:
            frame = zstd.get_frame_size(stream)
            # One more than there may be: where a frame goes on, it shows, and unpacks no further.
            parts.append(decoder.decompress(stream[:frame], size + 1))
        except zstd.ZstdError as error:
            raise Damaged("a zstd frame is not whole") from error
        if len(parts[-1]) != size or not decoder.eof:
            raise Damaged(f"a zstd frame does not hold {size:,} bytes")
        stream = stream[frame:]
    if stream:
        raise Damaged("bytes follow its last zstd frame")
    return [np.frombuffer(part, np.uint8) for part in parts]
