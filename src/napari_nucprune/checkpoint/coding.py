"""A vector with many zeros as bytes: places of what is not zero, and values as planes.

Places are distances of a byte each, from one nonzero value to the next (0: `FAR` zeros, and no
value yet), in a zstd frame; where more than `DENSE` of the vector is not zero, a bit each, which
takes up to 3 % more than the coded distances there, and no time to unpack. Values are planes of
bytes, the lowest first, of their bits rotated to the left by one (the sign behind the mantissa):
planes as they are, then the highest, the exponent alone, in a zstd frame.

zstd for its Huffman codes. Distances between pruned weights are all but memoryless, so codes by
their frequencies come to within a few per cent of their entropy; blocks have tables of their own,
which follow the densities of the layers; mantissas are noise that no coder shortens. It is in the
standard library from Python 3.14 on, and `backports.zstd` is the same for older ones. zlib, which
all have, gives the same sizes, but takes three to five times as long to unpack.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Mapping
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
#: Part of a vector from which on places are bits.
DENSE = 1 / 6
#: Distances that are taken at a time: what they need stays in the cache.
CHUNK = 2**14
_ARRAY, _SIZE = ctypes.c_void_p, ctypes.c_int64
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
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], int, int | None]:
    """Return a vector's places and values as bytes, and the numbers of values and distances.

    The latter is None where places are bits.

    Parameters
    ----------
    flat
        (n,). The sign of zeros is not kept.
    dtype
        Of the stored values, 2 or 4 bytes, little endian; all of ``flat`` fits it.
    """
    places = np.flatnonzero(flat)
    values = flat[places].astype(dtype)
    bits = values.view(f"<u{dtype.itemsize}")
    rotated = (bits << 1) | (bits >> (8 * dtype.itemsize - 1))
    *low, high = rotated.view(np.uint8).reshape(-1, dtype.itemsize).T
    coded = np.concatenate([*low, _coded(high)])
    if len(values) > DENSE * len(flat):
        return np.packbits(flat != 0, bitorder="little"), coded, len(values), None
    steps = np.diff(places, prepend=-1)
    far = (steps - 1) // FAR
    distances = np.zeros(len(steps) + int(far.sum()), np.uint8)
    distances[np.cumsum(far + 1) - 1] = steps - FAR * far
    return _coded(distances), coded, len(values), len(distances)


def decode(
    total: int,
    streams: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    counts: tuple[int | None, int],
    dtype: np.dtype[Any],
    raw: int,
) -> NDArray[np.float32]:
    """Return the vector, (total,); zstd and the native library drop the GIL.

    Parameters
    ----------
    total
        Its length.
    streams, counts
        Bytes and numbers of distances (None: bits) and values: not trusted, but never more is
        unpacked.
    dtype
        Of the values.
    raw
        Planes that are stored as they are.

    Raises
    ------
    Damaged
        Where bytes and numbers do not fit, the distances run over the end, or lead to another
        number of values, or a value is not finite.
    """
    (places, values), (entries, kept) = streams, counts
    if len(values) < kept * raw:
        raise Damaged(f"too few bytes for {kept:,} weights")
    low = list(np.ascontiguousarray(values[: kept * raw]).reshape(raw, kept))
    high = _decoded(values[kept * raw :].data, kept, dtype.itemsize - raw)
    # The highest bits are the exponent, the last one of which is kept for what is not finite.
    if high[-1].max(initial=0) >= (0xFF if dtype.itemsize == 4 else 0xF8):
        raise Damaged("a weight is not finite")
    planes = [*low, *high]
    put: Callable[..., NDArray[np.float32] | None]
    if entries is None:
        if len(places) != -(-total // 8):
            raise Damaged(f"{len(places):,} bytes of bits for {total:,} weights")
        put = _placed_by_bits if native.is_available() else _placed_by_bits_plainly
        found = put(total, planes, np.ascontiguousarray(places), dtype)
        if found is None:
            raise Damaged(f"its bits are not {kept:,} of {total:,} weights")
        return found
    (steps,) = _decoded(places.data, entries, 1)
    put = _placed if native.is_available() else _placed_plainly
    found = put(total, planes, steps, dtype)
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
    flat = np.zeros(total, np.float32)
    given = _ARRAY(distances.ctypes.data), _SIZE(len(distances))
    return flat if _put("nucprune_place", given, planes, flat) else None


def _placed_by_bits(
    total: int,
    planes: list[NDArray[np.uint8]],
    bits: NDArray[np.uint8],
    dtype: np.dtype[Any],
) -> NDArray[np.float32] | None:
    """Return the vector; None where other than as many bits as values are set."""
    flat = np.empty(total, np.float32)
    given = (_ARRAY(bits.ctypes.data),)
    return flat if _put("nucprune_place_bits", given, planes, flat) else None


def _put(
    name: str,
    places: tuple[ctypes.c_void_p | ctypes.c_int64, ...],
    planes: list[NDArray[np.uint8]],
    flat: NDArray[np.float32],
) -> bool:
    """Call the native library; say whether places and values fit."""
    put = getattr(native.library(), name)
    put.restype = ctypes.c_int32
    starts = (_ARRAY * len(planes))(*(plane.ctypes.data for plane in planes))
    values = starts, _SIZE(len(planes[0])), ctypes.c_int32(len(planes))
    return put(*places, *values, _ARRAY(flat.ctypes.data), _SIZE(len(flat))) == 0


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
        flat[places] = _values([plane[done : done + count] for plane in planes], dtype)
        done += count
    return flat[1:] if done == kept else None


def _placed_by_bits_plainly(
    total: int,
    planes: list[NDArray[np.uint8]],
    bits: NDArray[np.uint8],
    dtype: np.dtype[Any],
) -> NDArray[np.float32] | None:
    """Do as `_placed_by_bits` does, without the native library."""
    is_value = np.unpackbits(bits, bitorder="little").view(bool)
    if is_value[total:].any() or np.count_nonzero(is_value) != len(planes[0]):
        return None
    flat = np.zeros(total, np.float32)
    flat[is_value[:total]] = _values(planes, dtype)
    return flat


def _values(planes: list[NDArray[np.uint8]], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Put planes of bytes together to values."""
    values = np.empty((len(planes[0]), dtype.itemsize), np.uint8)
    # Plane by plane: six times faster than numpy's copy of a transposed array.
    for i, plane in enumerate(planes):
        values[:, i] = plane
    bits = values.view(f"<u{dtype.itemsize}")[:, 0]
    return ((bits >> 1) | (bits << (8 * dtype.itemsize - 1))).view(dtype)


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
