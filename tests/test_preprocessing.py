from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fettle import preprocessing as room
from fettle.data import image_inspection as ingest
from fettle.preprocessing import Preprocess, UnreadableImage

# what each mode is saved as: the formats that really carry it
FORMATS = {
    "1": "PNG",
    "L": "PNG",
    "LA": "PNG",
    "P": "GIF",
    "RGB": "PNG",
    "RGBA": "PNG",
    "CMYK": "TIFF",
    "YCbCr": "TIFF",
    "LAB": "TIFF",
    "I;16": "PNG",
    "F": "TIFF",
}
SIDES = st.integers(1, 40)
SIZES = st.integers(1, 24)
CHANNELS = st.sampled_from([1, 3])
quick = settings(max_examples=60, deadline=None)


def preprocess(size_px: int = 8, channels: int = 1, mean: float = 0.5, std: float = 0.5) -> Any:
    return Preprocess(size_px=size_px, channels=channels, mean=mean, std=std)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def grey_of(mode: str, level: int, width: int, height: int) -> Image.Image:
    """An image of one grey level (0 to 255), written in `mode`."""
    if mode == "I;16":
        return Image.fromarray(np.full((height, width), level * 257, dtype=np.uint16))
    if mode == "F":
        return Image.fromarray(np.full((height, width), level / 255, dtype=np.float32))
    if mode == "CMYK":
        return Image.new("CMYK", (width, height), (0, 0, 0, 255 - level))
    if mode == "LAB":
        return Image.new("LAB", (width, height), (level, 128, 128))
    if mode == "1":
        return Image.new("1", (width, height), 1 if level > 127 else 0)
    return Image.new("L", (width, height), level).convert(mode)


@quick
@given(st.sampled_from(sorted(FORMATS)), SIDES, SIDES, SIZES, CHANNELS)
def test_every_mode_and_size_becomes_the_models_shape(
    mode: str, width: int, height: int, size_px: int, channels: int
) -> None:
    image = encoded(grey_of(mode, 90, width, height), FORMATS[mode])
    pixels = preprocess(size_px, channels).pixels(image)
    assert pixels.shape == (channels, size_px, size_px)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous


@quick
@given(
    st.sampled_from([m for m in sorted(FORMATS) if m != "1"]),
    st.integers(0, 255),
    SIDES,
    SIDES,
    SIZES,
    CHANNELS,
)
def test_a_constant_image_stays_constant(
    mode: str, level: int, width: int, height: int, size_px: int, channels: int
) -> None:
    image = encoded(grey_of(mode, level, width, height), FORMATS[mode])
    pixels = preprocess(size_px, channels).pixels(image).astype(int)
    # YCbCr and the palette round by one; the rest is exact
    assert np.abs(pixels - level).max() <= 1
    assert pixels.max() == pixels.min() or mode in ("YCbCr", "P")


@quick
@given(
    st.floats(0, 1),
    st.floats(0.05, 1),
    st.lists(st.integers(0, 255), min_size=1, max_size=20),
)
def test_normalising_stays_in_its_bounds_and_keeps_the_order(
    mean: float, std: float, levels: list[int]
) -> None:
    pixels = np.array(sorted(levels), dtype=np.uint8).reshape(1, 1, 1, -1)
    values = preprocess(mean=mean, std=std).normalise(pixels)
    assert values.dtype == np.float32
    assert values.shape == pixels.shape
    np.testing.assert_allclose(values, (pixels / 255 - mean) / std, atol=1e-5 / std)
    assert values.min() >= -mean / std - 1e-5 / std
    assert values.max() <= (1 - mean) / std + 1e-5 / std
    assert (np.diff(values.ravel()) >= 0).all()


@pytest.mark.parametrize(
    ("orientation", "corner"),
    [(1, "nw"), (2, "ne"), (3, "se"), (4, "sw"), (5, "nw"), (6, "ne"), (7, "se"), (8, "sw")],
)
def test_a_photo_is_turned_upright_by_its_exif_tag(orientation: int, corner: str) -> None:
    stored = np.zeros((16, 16), dtype=np.uint8)
    stored[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = encoded(Image.fromarray(stored), "PNG", exif=exif)
    seen = preprocess(2).pixels(photo)[0]
    bright = {"nw": (0, 0), "ne": (0, 1), "sw": (1, 0), "se": (1, 1)}[corner]
    assert np.unravel_index(seen.argmax(), seen.shape) == bright


def test_a_transparent_image_lies_on_white() -> None:
    hidden = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (preprocess(4, 3).pixels(encoded(hidden)) == 255).all()
    half = Image.new("LA", (4, 4), (0, 128))
    assert preprocess(4).pixels(encoded(half)).max() == pytest.approx(127, abs=1)


def test_a_16_bit_image_keeps_its_greys() -> None:
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    seen = preprocess(8).pixels(encoded(Image.fromarray(ramp)))[0]
    np.testing.assert_array_equal(seen, ramp // 256)


def test_shrinking_averages_instead_of_dropping_pixels() -> None:
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    seen = preprocess(8).pixels(encoded(Image.fromarray(board)))
    assert seen.min() >= 120
    assert seen.max() <= 135


def test_colours_keep_their_channels() -> None:
    seen = preprocess(4, 3).pixels(encoded(Image.new("RGB", (9, 5), (10, 20, 30))))
    assert [int(plane.mean()) for plane in seen] == [10, 20, 30]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "UnidentifiedImageError: no image of a known format"),
        (b"hello, I am a text", "UnidentifiedImageError: no image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "UnidentifiedImageError: no image of a known format"),
    ],
)
def test_what_is_no_image_is_named_without_an_address(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImage) as caught:
        preprocess().pixels(data)
    assert str(caught.value) == reason


def test_a_truncated_image_is_refused() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise))
    with pytest.raises(UnreadableImage, match="truncated"):
        preprocess().pixels(whole[: len(whole) // 2])


# Pillow warns at the same bound, which here would come before our own refusal
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded() -> None:
    bomb = encoded(Image.new("1", (10_000, 9_000)))
    assert len(bomb) < 50_000
    with pytest.raises(UnreadableImage) as caught:
        preprocess().pixels(bomb)
    assert str(caught.value).startswith("too large to decode: 10000 x 9000 is above 16,777,216 ")


def test_a_batch_is_its_images_in_order() -> None:
    levels = [0, 100, 255]
    images = [encoded(Image.new("L", (5, 7), level)) for level in levels]
    batch = preprocess(4).batch(images)
    assert batch.shape == (3, 1, 4, 4)
    assert [int(one.mean()) for one in batch] == levels


def test_its_json_form_makes_the_same_preprocessing() -> None:
    one = preprocess(12, 3, 0.4, 0.2)
    assert one.to_dict() == {
        "size_px": 12,
        "channels": 3,
        "mean": 0.4,
        "std": 0.2,
        "fit": "stretch",
    }
    assert Preprocess(**one.to_dict()) == one


def test_ingest_and_serving_take_the_same_formats_and_sizes() -> None:
    assert set(room.FORMATS) == set(ingest.FORMATS)
    assert room.PIXELS_MAX == ingest.PIXELS_MAX


@pytest.mark.parametrize("mode", sorted(FORMATS))
@pytest.mark.parametrize("damage", [0, 1, 40])
def test_what_ingest_lets_through_can_be_trained_on_and_served(mode: str, damage: int) -> None:
    draw = np.random.default_rng(damage)
    whole = encoded(grey_of(mode, 200, 23, 17), FORMATS[mode])
    for _ in range(1 if damage == 0 else 60):
        data = bytearray(whole)
        for at in draw.integers(0, len(data), damage):
            data[at] = draw.integers(0, 256)
        if ingest.look(bytes(data)).error is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow warns of oddities that it then reads well
                assert preprocess().pixels(bytes(data)).shape == (1, 8, 8)
        else:
            assert damage > 0


def wide_png(samples: np.ndarray, colour: int) -> bytes:
    """A PNG of 16 bits a sample: Pillow writes grey only. `colour` is its IHDR colour type."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width = samples.shape[:2]
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def noise(most: int, *shape: int, kind: type = np.uint16) -> np.ndarray:
    drawn = np.random.default_rng(5).integers(0, most, (9, 9, *shape))
    drawn.flat[0] = 0
    drawn.flat[-max(1, *shape, 1) :] = most
    return drawn.astype(kind)


TWELVE = (
    "16-bit samples that end at {} of 65,535: 12 bits or fewer, stored in 16. Stretch them to "
    "65,535 (12 bits: times 16), or save them as 8 bits"
)
UNSCALED = {
    "12 bits, grey PNG": (wide_png(noise(4095), 0), TWELVE.format("4,095")),
    "10 bits, grey PNG": (wide_png(noise(1023), 0), TWELVE.format("1,023")),
    "12 bits, RGB PNG": (wide_png(noise(4095, 3), 2), TWELVE.format("3,840")),
    "12 bits, grey and alpha PNG": (wide_png(noise(4095, 2), 4), TWELVE.format("3,840")),
    "12 bits, RGBA PNG": (wide_png(noise(4095, 4), 6), TWELVE.format("3,840")),
    "12 bits, TIFF": (
        encoded(Image.fromarray(noise(4095)), "TIFF", compression="tiff_lzw"),
        TWELVE.format("4,095"),
    ),
    "8 bits in 32": (
        encoded(Image.fromarray(noise(255, kind=np.int32)), "TIFF"),
        TWELVE.format("255"),
    ),
    "32 bits": (
        encoded(Image.fromarray(noise(99_999, kind=np.int32)), "TIFF"),
        "integer samples of 0 to 99999, where 0 to 65,535 is taken",
    ),
    "floats to 255": (
        encoded(Image.fromarray(noise(255, kind=np.float32)), "TIFF"),
        "floating-point samples of 0 to 255, where 0 to 1 is taken",
    ),
    "floats, one of them no number": (
        encoded(Image.fromarray(np.array([[0.5, np.nan]], dtype=np.float32)), "TIFF"),
        "floating-point samples of nan to nan, where 0 to 1 is taken",
    ),
}


@pytest.mark.parametrize("name", UNSCALED)
def test_samples_of_no_sure_scale_are_refused_in_training_and_in_serving(name: str) -> None:
    data, reason = UNSCALED[name]
    assert ingest.look(data).error == reason
    with pytest.raises(UnreadableImage) as caught:
        preprocess().pixels(data)
    assert str(caught.value) == reason


@pytest.mark.parametrize("colour", [0, 2, 4, 6])
def test_samples_of_sixteen_bits_are_taken_by_their_upper_eight(colour: int) -> None:
    channels = {0: (), 2: (3,), 4: (2,), 6: (4,)}[colour]
    samples = noise(65_535, *channels)
    if colour in (4, 6):
        samples[:, :, -1] = 65_535
    data = wide_png(samples, colour)
    assert ingest.look(data).error is None
    kept = samples if colour in (0, 2) else samples[:, :, :-1]
    wanted = (kept // 256).reshape(9, 9, -1).transpose(2, 0, 1)
    seen = preprocess(9, 3 if colour in (2, 6) else 1).pixels(data)
    np.testing.assert_array_equal(seen, wanted)


def test_a_drawing_in_the_alpha_of_a_black_picture_is_no_lack_of_scale() -> None:
    samples = noise(65_535, 2)
    samples[:, :, 0] = 0
    data = wide_png(samples, 4)
    assert ingest.look(data).error is None
    assert preprocess(9).pixels(data).max() == 255
