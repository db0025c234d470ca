"""Made photos: many JPEG files of a few drawings, no two of the same bytes, a folder a class."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("bars", "checks", "rings", "slopes")
DRAWINGS = 400
QUALITY, GRAIN = 85, 6  # 11 kB a photo of 224 px, about what a camera's thumbnail takes


def make_photos(folder: Path, count: int, side_px: int, *, seed: int = 20) -> None:
    """Write `count` photos below `folder`: a drawing each, with its number in a comment."""
    draw = np.random.default_rng(seed)
    drawings = [drawing(draw, at % len(CLASSES), side_px) for at in range(min(count, DRAWINGS))]
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    for number in range(count):
        encoded = drawings[number % len(drawings)]
        path = folder / CLASSES[number % len(CLASSES)] / f"{number:06d}.jpg"
        path.write_bytes(with_comment(encoded, f"photo {number}"))


def drawing(draw: np.random.Generator, kind: int, side_px: int) -> bytes:
    """Draw one picture of a class, with a camera's grain, as JPEG."""
    down, across = np.mgrid[0:side_px, 0:side_px] / side_px
    turn, rate = draw.uniform(0, 2 * np.pi), draw.uniform(3, 6) * 2 * np.pi
    waves = (
        np.sin(rate * across + turn),
        np.sin(rate * across + turn) * np.sin(rate * down),
        np.sin(rate * np.hypot(across - 0.5, down - 0.5) + turn),
        across * np.cos(turn) + down * np.sin(turn),
    )
    colour = draw.uniform(30, 90, 3)
    grain = draw.normal(0, GRAIN, (side_px, side_px, 3))
    levels = 128 + waves[kind][:, :, None] * colour + grain
    buffer = io.BytesIO()
    Image.fromarray(levels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def with_comment(jpeg: bytes, text: str) -> bytes:
    """Put a comment segment behind the start marker: other bytes, the same picture."""
    body = text.encode()
    return jpeg[:2] + b"\xff\xfe" + (len(body) + 2).to_bytes(2, "big") + body + jpeg[2:]
