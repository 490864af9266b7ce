"""A look at a MATLAB file before scipy reads it: damaged type numbers would end the process."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

#: Types of MATLAB's level 5 format that hold numbers or text, a compressed one, a matrix.
PLAIN, COMPRESSED, MATRIX = {1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16, 17, 18}, 15, 14
#: CoNSeP's maps have 1000 x 1000 numbers of 8 bytes.
LARGEST = 200_000_000
HEADER = 128


def check(path: Path) -> None:
    """Walk over the type numbers of a level 5 file; other levels are left to their reader.

    Notes
    -----
    scipy (1.17) looks up the number format in a table by the type number of the file, unchecked.
    "MAT-File Format" (The MathWorks), chapter 1: elements are (type, bytes) of 4 bytes each and
    their data, padded to 8 bytes; up to 4 bytes of data lie within the tag.

    Raises
    ------
    ValueError
        Where a type number is none.
    """
    data = path.read_bytes()
    if len(data) < HEADER or data[126:128] not in (b"IM", b"MI"):
        return
    _walk(data[HEADER:], "<" if data[126:128] == b"IM" else ">", top=True)


def _walk(data: bytes, order: str, top: bool = False) -> None:
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        if kind >> 16 and not top:
            kind, body = kind & 0xFFFF, 0
        else:
            body = size
        inner = data[at + 8 : at + 8 + body]
        if kind == COMPRESSED and top:
            unpacked = zlib.decompressobj().decompress(inner, LARGEST)
            _walk(unpacked, order, top=True)
        elif kind == MATRIX:
            _walk(inner, order)
        elif kind not in PLAIN:
            raise ValueError(f"type {kind} is not known")
        # Compressed elements are not padded.
        at += 8 + (body if kind == COMPRESSED else -(-body // 8) * 8)
