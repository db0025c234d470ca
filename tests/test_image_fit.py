"""What becomes of an image that is not square, in training as in serving."""

from __future__ import annotations

import io
import json
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fettle.preprocessing import Fit, Preprocess
from fettle.serving import image_request

ORIENTATION = 0x0112
FITS = get_args(Fit)
SIZE_PX = 16
quick = settings(max_examples=40, deadline=None)


def preprocess(fit: Fit, *, size_px: int = SIZE_PX, channels: int = 3) -> Preprocess:
    return Preprocess(size_px=size_px, channels=channels, mean=0.5, std=0.5, fit=fit)


def disc(width: int, height: int) -> Image.Image:
    """A white disc in the middle of black, as wide as the shorter side."""
    across, down = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    inside = (across - width / 2) ** 2 + (down - height / 2) ** 2 < (min(width, height) / 2) ** 2
    return Image.fromarray(np.where(inside, 255, 0).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def extent(pixels: np.ndarray) -> tuple[int, int]:
    """How wide and how tall the bright part of a grey image is."""
    bright = pixels[0] > 200
    return int(bright.any(axis=0).sum()), int(bright.any(axis=1).sum())


@quick
@given(st.integers(40, 200), st.integers(40, 200), st.sampled_from(["crop", "pad"]))
def test_a_disc_stays_a_disc_where_the_aspect_is_kept(width: int, height: int, fit: Fit) -> None:
    across, down = extent(
        preprocess(fit, size_px=40, channels=1).pixels(encoded(disc(width, height)))
    )
    assert abs(across - down) <= 2


def test_stretching_makes_an_ellipse_of_it() -> None:
    across, down = extent(
        preprocess("stretch", size_px=40, channels=1).pixels(encoded(disc(100, 50)))
    )
    assert across == pytest.approx(20, abs=2)
    assert down == pytest.approx(40, abs=2)


def test_a_crop_fills_the_square_and_takes_the_centre() -> None:
    image = np.zeros((20, 60), dtype=np.uint8)
    image[:, 20:40] = 255  # the middle third is all that a square can hold
    found = preprocess("crop", channels=1).pixels(encoded(Image.fromarray(image)))
    assert (found[0, :, 1:-1] == 255).all(), "the outermost columns blend with their neighbours"
    assert found.min() > 128


def test_padding_keeps_all_of_it_between_bars_of_the_mean() -> None:
    image = np.full((20, 60), 255, dtype=np.uint8)
    one = Preprocess(size_px=30, channels=1, mean=0.25, std=0.5, fit="pad")
    found = one.pixels(encoded(Image.fromarray(image)))[0]
    assert (found[10:20] == 255).all()
    assert set(np.unique(found[:10])) == set(np.unique(found[20:])) == {64}
    assert np.abs(one.normalise(found[None, None, :9])).max() < 0.01, "the bars are zero"


@quick
@given(st.sampled_from(FITS), st.integers(1, 300), st.integers(1, 300), st.sampled_from([1, 3]))
def test_any_shape_fits(fit: Fit, width: int, height: int, channels: int) -> None:
    found = preprocess(fit, channels=channels).pixels(encoded(Image.new("RGB", (width, height))))
    assert found.shape == (channels, SIZE_PX, SIZE_PX)


@pytest.mark.parametrize("fit", FITS)
def test_a_square_of_the_models_size_is_untouched(fit: Fit) -> None:
    drawn = np.random.default_rng(0).integers(256, size=(SIZE_PX, SIZE_PX, 3)).astype(np.uint8)
    found = preprocess(fit).pixels(encoded(Image.fromarray(drawn)))
    np.testing.assert_array_equal(found, drawn.transpose(2, 0, 1))


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_taken_sideways_gives_the_pixels_of_the_upright_one(
    fit: Fit, orientation: int
) -> None:
    drawn = np.random.default_rng(0).integers(256, size=(50, 32, 3)).astype(np.uint8)
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    upright = Image.fromarray(drawn)
    stored = upright if undo is None else upright.transpose(undo)
    tag = Image.Exif()
    tag[ORIENTATION] = orientation
    found = preprocess(fit).pixels(encoded(stored, exif=tag))
    np.testing.assert_array_equal(found, preprocess(fit).pixels(encoded(upright)))


@quick
@given(st.sampled_from(FITS), st.integers(5, 60), st.integers(5, 60), st.integers(1, 8))
def test_a_request_gives_the_very_pixels_that_training_saw(
    fit: Fit, width: int, height: int, orientation: int
) -> None:
    drawn = np.random.default_rng(width).integers(256, size=(height, width, 3)).astype(np.uint8)
    tag = Image.Exif()
    tag[ORIENTATION] = orientation
    photo = encoded(Image.fromarray(drawn), "JPEG", exif=tag)
    trained = preprocess(fit)
    served = Preprocess(**json.loads(json.dumps(trained.to_dict())))  # as a release carries it
    asked = image_request.read(photo, "image/jpeg", served)
    np.testing.assert_array_equal(asked, trained.batch([photo]))


@pytest.mark.parametrize("fit", FITS)
def test_an_array_in_a_request_is_fitted_as_the_file_of_it_is(fit: Fit) -> None:
    drawn = np.random.default_rng(0).integers(256, size=(24, 40, 3)).astype(np.uint8)
    body = json.dumps([drawn.tolist()]).encode()
    asked = image_request.read(body, "application/json", preprocess(fit))
    np.testing.assert_array_equal(asked[0], preprocess(fit).pixels(encoded(Image.fromarray(drawn))))


def test_a_release_without_the_key_was_made_by_stretching() -> None:
    old = Preprocess(**{"size_px": 8, "channels": 1, "mean": 0.5, "std": 0.5})
    assert old.fit == "stretch"


@pytest.mark.parametrize("channels", [1, 3])
def test_each_channel_has_its_own_mean_and_std(channels: int) -> None:
    mean, std = (0.485, 0.456, 0.406)[:channels], (0.229, 0.224, 0.225)[:channels]
    one = Preprocess(size_px=4, channels=channels, mean=mean, std=std)
    pixels = np.random.default_rng(0).integers(256, size=(2, channels, 4, 4)).astype(np.uint8)
    expected = np.stack(
        [(pixels[:, at] / 255 - mean[at]) / std[at] for at in range(channels)], axis=1
    )
    np.testing.assert_allclose(one.normalise(pixels), expected, atol=1e-5)
    back = Preprocess(**json.loads(json.dumps(one.to_dict())))
    np.testing.assert_array_equal(back.normalise(pixels), one.normalise(pixels))
