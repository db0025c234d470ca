"""Read IDX files, the format of MNIST and its kin, gzipped or plain.

Layout (Y. LeCun, "The MNIST database"): two zero bytes, a type byte (8: uint8), the number of
dimensions, each dimension as a big-endian uint32, then the values, the last dimension fastest.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from fettle.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

GZIP_MAGIC = b"\x1f\x8b"
UINT8 = 8


def unpack(data: bytes, name: str) -> bytes:
    """Return the plain bytes of a file that may be gzipped; `name` is for the error text.

    Raises DataError when the gzip stream is broken or cut short.
    """
    if not data.startswith(GZIP_MAGIC):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as err:
        raise DataError(
            f"{name} is no whole gzip file",
            got=str(err),
            fix="delete it and fetch it again",
        ) from err


def parse(data: bytes, name: str) -> npt.NDArray[np.uint8]:
    """Read one uint8 array of any shape.

    Raises DataError when the header is not IDX, the type is not uint8, or the length does not
    match the header.
    """
    import numpy as np

    header = f"{name} is no IDX file of bytes"
    rule = "it begins with the bytes 0, 0, 8, number of dimensions"
    if len(data) < 4 or data[:3] != bytes([0, 0, UINT8]) or data[3] == 0:
        raise DataError(header, got=f"the first bytes {list(data[:4])}", rule=rule)
    dimensions = data[3]
    start = 4 + 4 * dimensions
    if len(data) < start:
        raise DataError(header, got=f"{len(data)} bytes", rule="its header is cut short")
    shape = struct.unpack(f">{dimensions}I", data[4:start])
    if len(data) - start != prod(shape):
        raise DataError(
            f"{name} has the wrong length",
            got=f"{len(data) - start} values",
            rule=f"its header says {' x '.join(map(str, shape))} = {prod(shape)}",
            fix="fetch it again",
        )
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)


def find(folder: Path, name: str) -> Path | None:
    """Find `name` in a folder, gzipped or plain."""
    return next((p for p in (folder / f"{name}.gz", folder / name) if p.is_file()), None)
