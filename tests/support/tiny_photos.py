"""Make small image files, good and bad ones, and folders of them with a class each."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

PIXELS = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def pixels(seed: int, *, size_px: int = 10, channels: int = 3) -> PIXELS:
    """Noise that no other seed gives: uint8 [S, S, C], or [S, S] for one channel."""
    shape = (size_px, size_px, channels) if channels > 1 else (size_px, size_px)
    return np.random.default_rng(seed).integers(0, 256, size=shape, dtype=np.uint8)


def encode(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def png(seed: int, *, size_px: int = 10, channels: int = 3) -> bytes:
    return encode(Image.fromarray(pixels(seed, size_px=size_px, channels=channels)))


def jpeg(seed: int, *, size_px: int = 10) -> bytes:
    return encode(Image.fromarray(pixels(seed, size_px=size_px)), "JPEG")


def cmyk(seed: int) -> bytes:
    return encode(Image.fromarray(pixels(seed)).convert("CMYK"), "JPEG")


def sixteen_bit(seed: int) -> bytes:
    wide = pixels(seed, channels=1).astype(np.uint16) * 256
    return encode(Image.fromarray(wide))


def floating(seed: int) -> bytes:
    return encode(Image.fromarray(pixels(seed, channels=1).astype(np.float32) / 255), "TIFF")


def corrupt(seed: int) -> bytes:
    """A JPEG cut in the middle: its header still opens."""
    whole = jpeg(seed, size_px=64)
    return whole[: len(whole) // 2]


def fill(root: Path, classes: Iterable[str], count: int, *, size_px: int = 10) -> Path:
    """Write `count` photos a class, all different, as root/CLASS/000.jpg."""
    for kind, name in enumerate(classes):
        for at in range(count):
            place(root, f"{name}/{at:03d}.jpg", jpeg(kind * 1000 + at, size_px=size_px))
    return root


def place(root: Path, row: str, encoded: bytes) -> Path:
    path = root / row
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded)
    return path


def claiming(png: bytes, side: int) -> bytes:
    """Change a PNG's head, checksum included, to claim `side` x `side` pixels."""
    made = bytearray(png)
    made[16:24] = side.to_bytes(4, "big") * 2
    made[29:33] = zlib.crc32(made[12:29]).to_bytes(4, "big")
    return bytes(made)
