"""Looking into an image: what it is, or one clear reason why it cannot be read."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import tiny_photos
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fettle import preprocessing
from fettle.data.image_inspection import FORMATS, ImageFacts, look
from fettle.preprocessing import FORMATS as SERVED
from fettle.preprocessing import Preprocess

TAKEN = "JPEG, PNG, BMP, GIF, TIFF, WEBP"


def test_a_photo_is_described() -> None:
    seen = look(tiny_photos.jpeg(1, size_px=12))
    assert (seen.format, seen.mode, seen.width, seen.height) == ("JPEG", "RGB", 12, 12)
    assert seen.low is not None
    assert seen.high is not None
    assert 0 <= seen.low < seen.high <= 1
    assert seen.error is None


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_it_takes_is_read(kind: str) -> None:
    seen = look(tiny_photos.encode(Image.fromarray(tiny_photos.pixels(2)), kind))
    assert (seen.format, seen.error) == (kind, None)


def test_an_empty_file_says_so() -> None:
    assert look(b"") == ImageFacts(error="an empty file (0 bytes)")


def test_a_text_file_says_so() -> None:
    assert look(b"<html>Not found</html>\n").error == "no image but text"
    assert look("naïve\n".encode() * 200).error == "no image but text"


def test_bytes_that_are_nothing_known_say_what_is_known() -> None:
    text = f"no image of a known format ({TAKEN})"
    assert look(bytes(range(256))).error == text
    assert look(b"plain\x00nul").error == text


def test_a_truncated_photo_says_so() -> None:
    error = look(tiny_photos.corrupt(3)).error
    assert error is not None
    assert error.startswith("cannot be decoded: image file is truncated (")


def test_a_damaged_png_gives_a_reason_without_an_address_in_memory() -> None:
    whole = bytearray(tiny_photos.png(4, size_px=64))
    whole[60:90] = bytes(30)
    error = look(bytes(whole)).error
    assert error is not None
    assert error.startswith("cannot be decoded: ")
    assert " at 0x" not in error


def test_a_postscript_file_never_reaches_ghostscript() -> None:
    page = tiny_photos.encode(Image.fromarray(tiny_photos.pixels(5)), "EPS")
    assert look(page).error == "no image but text"


def test_an_image_above_the_pixel_limit_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocessing, "WHOLE_PIXELS_MAX", 99)
    error = look(tiny_photos.png(6)).error or ""
    assert error.startswith("too large to decode: 10 x 10 is above 99 pixels, ")


def test_a_decompression_bomb_is_not_decoded() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")
    assert look(bomb).error == "too large to decode: above 178,956,970 pixels"


def test_sixteen_bits_are_scaled_by_their_own_full_scale() -> None:
    ramp = np.linspace(0, 65_535, 100).astype(np.uint16).reshape(10, 10)
    seen = look(tiny_photos.encode(Image.fromarray(ramp)))
    assert (seen.mode, seen.low, seen.high) == ("I;16", 0.0, 1.0)


def test_cmyk_and_float_keep_their_mode() -> None:
    assert look(tiny_photos.cmyk(7)).mode == "CMYK"
    assert look(tiny_photos.floating(7)).mode == "F"


def test_one_colour_has_equal_low_and_high() -> None:
    seen = look(tiny_photos.encode(Image.new("RGB", (9, 9), "red")))
    assert seen.low == seen.high == pytest.approx(76 / 255)


def test_a_drawing_that_is_only_in_the_transparency_has_contrast() -> None:
    icon = Image.new("RGBA", (10, 10), (0, 0, 0, 0))
    icon.paste((0, 0, 0, 255), (2, 2, 6, 6))
    seen = look(tiny_photos.encode(icon))
    assert (seen.low, seen.high) == (0.0, 1.0)


def test_what_transparency_hides_is_no_contrast() -> None:
    hidden = Image.fromarray(tiny_photos.pixels(8)).convert("RGBA")
    hidden.putalpha(0)
    seen = look(tiny_photos.encode(hidden))
    assert (seen.low, seen.high) == (1.0, 1.0)


def test_it_takes_what_the_service_takes() -> None:
    assert sorted(FORMATS) == sorted(SERVED)


@given(st.integers(0, 300), st.binary(min_size=1, max_size=12), st.sampled_from(FORMATS))
@settings(deadline=None, derandomize=True, database=None, max_examples=150)
def test_damaged_bytes_never_raise_and_preprocessing_agrees(
    at: int, patch: bytes, kind: str
) -> None:
    whole = bytearray(tiny_photos.encode(Image.fromarray(tiny_photos.pixels(9)), kind))
    whole[at : at + len(patch)] = patch
    seen = look(bytes(whole))
    assert (seen.error is None) == (seen.mode is not None)
    if seen.error is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of oddities that it then reads
            Preprocess(size_px=8, channels=3, mean=0.5, std=0.5).pixels(bytes(whole))


def test_an_upright_tag_that_cannot_be_read_does_not_get_out() -> None:
    image = Image.fromarray(tiny_photos.pixels(10))
    exif = image.getexif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    assert look(buffer.getvalue()).error is None


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
            "a Git LFS pointer, not the image: `git lfs pull` fetches it",
        ),
        (
            b"\0\0\0\x18ftypheic\0\0",
            f"an HEIC picture, which is not taken: convert it ({TAKEN})",
        ),
        (b"%PDF-1.7\n", f"a PDF, which is not taken: convert it ({TAKEN})"),
    ],
)
def test_what_often_lies_among_pictures_is_named(first: bytes, reason: str) -> None:
    assert look(first).error == reason
