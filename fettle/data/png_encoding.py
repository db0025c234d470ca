"""Encode grey pixels as PNG, for the sources that hold arrays instead of files.

Written out here because it is twice as fast as going through Pillow (28x28 pixels: 40 against 82
microseconds at the same compression), which 70,000 images notice. Pillow reads it back in a test.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, DEFLATE, ADAPTIVE, NOT_INTERLACED = 0, 0, 0, 0  # W3C PNG, 11.2.1 (IHDR)
LEVEL = 1  # level 6 saves 2 % of the size on 28x28 pixels


def grey_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encode uint8 [H, W]."""
    height, width = pixels.shape
    lines = np.zeros((height, width + 1), dtype=np.uint8)  # each begins with its filter, 0: none
    lines[:, 1:] = pixels
    header = struct.pack(">IIBBBBB", width, height, 8, GREY, DEFLATE, ADAPTIVE, NOT_INTERLACED)
    data = zlib.compress(lines.tobytes(), LEVEL)
    return SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
