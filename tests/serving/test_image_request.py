from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_photos import claiming

from fettle.preprocessing import PIXELS_MAX, Preprocess
from fettle.serving import image_request

GREY = Preprocess(size_px=4, channels=1, mean=0.5, std=0.5)
COLOUR = Preprocess(size_px=4, channels=3, mean=0.5, std=0.5)
JSON = "application/json"


def png(level: int = 9) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (5, 5), level).save(buffer, "PNG")
    return buffer.getvalue()


def posted(doc: object, preprocess: Preprocess = GREY) -> image_request.Pixels:
    return image_request.read(json.dumps(doc).encode(), JSON, preprocess)


def refused(data: bytes, kind: str = JSON) -> tuple[int, str]:
    with pytest.raises(image_request.BadRequest) as caught:
        image_request.read(data, kind, GREY)
    return caught.value.status, str(caught.value)


@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ((6, 7), 1),
        ((6, 7, 1), 1),
        ((6, 7, 3), 1),
        ((2, 6, 7), 2),
        ((1, 6, 7), 1),
        ((2, 6, 7, 1), 2),
        ((2, 6, 7, 3), 2),
        ((1, 1), 1),
    ],
)
@pytest.mark.parametrize("preprocess", [GREY, COLOUR])
def test_every_stated_shape_is_taken(
    shape: tuple[int, ...], count: int, preprocess: Preprocess
) -> None:
    pixels = posted(np.full(shape, 77).tolist(), preprocess)
    assert pixels.shape == (count, preprocess.channels, 4, 4)
    assert pixels.dtype == np.uint8
    assert (pixels == 77).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 255), min_size=4, max_size=4), min_size=4, max_size=4))
def test_an_array_is_the_image_with_these_pixels(rows: list[list[int]]) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.array(rows, dtype=np.uint8)).save(buffer, "PNG")
    as_file = image_request.read(buffer.getvalue(), "image/png", GREY)
    np.testing.assert_array_equal(posted(rows), as_file)
    np.testing.assert_array_equal(as_file[0, 0], rows)


def test_fractions_are_rounded() -> None:
    assert (posted([[1.4, 1.4], [1.4, 1.4]]) == 1).all()
    assert (posted([[254.6, 254.6], [254.6, 254.6]]) == 255).all()


@pytest.mark.parametrize(
    "kind", ["image/png", "image/jpeg", "IMAGE/*; q=1", "application/octet-stream"]
)
def test_an_image_is_known_by_its_bytes(kind: str) -> None:
    assert (image_request.read(png(), kind, GREY) == 9).all()


@pytest.mark.parametrize(
    ("doc", "reason"),
    [
        ({"a": 1}, "the JSON must be an array of numbers, not an object"),
        ("x", "the JSON must be an array of numbers, not a string"),
        (None, "the JSON must be an array of numbers, not null"),
        (True, "the JSON must be an array of numbers, not a boolean"),
        (3, "the JSON must be an array of numbers, not a number"),
        ([], "the array is empty: shape [0]"),
        ([[], []], "the array is empty: shape [2, 0]"),
        ([[1, 2], [3]], "the arrays differ in length: every row needs the same"),
        ([[1, 2], 3], "the arrays differ in length: every row needs the same"),
        ([["1", "2"]], "the array must hold numbers only, 0 to 255"),
        ([[True, False]], "the array must hold numbers only, 0 to 255"),
        ([[None, 1]], "the array must hold numbers only, 0 to 255"),
        ([[1, 10**40]], "the array must hold numbers only, 0 to 255"),
        ([[0, 256]], "the values must lie in 0 to 255, they span 0 to 256"),
        ([[-0.5, 1]], "the values must lie in 0 to 255, they span -0.5 to 1"),
        (
            [1, 2, 3],
            "shape [3] is not taken: an image is [H, W] or [H, W, C], a batch [N, H, W] or "
            "[N, H, W, C], with C 1 or 3",
        ),
        (
            [[[[1, 2]]]],
            "shape [1, 1, 1, 2] is not taken: an image is [H, W] or [H, W, C], a batch [N, H, W] "
            "or [N, H, W, C], with C 1 or 3",
        ),
        ([[[[[1]]]]], "the arrays are nested 5 deep, at most 4 are taken"),
        (json.loads("[" * 70 + "]" * 70), "the arrays are nested 70 deep, at most 4 are taken"),
        (
            [1, json.loads("[" * 70 + "]" * 70)],
            "the arrays differ in length: every row needs the same",
        ),
        ([[[0, 0]]] * 257, "the request holds 257 images, at most 256 are taken"),
    ],
)
def test_a_wrong_array_is_refused_with_its_reason(doc: object, reason: str) -> None:
    assert refused(json.dumps(doc).encode()) == (400, reason)


@pytest.mark.parametrize("word", [b"NaN", b"Infinity", b"-Infinity"])
def test_numbers_that_are_not_finite_are_refused(word: bytes) -> None:
    reason = "the array holds a value that is not finite (NaN or Infinity)"
    assert refused(b"[[1, " + word + b"]]") == (400, reason)


@pytest.mark.parametrize("data", [b"", b"[[1, 2]", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_is_refused(data: bytes) -> None:
    status, reason = refused(data)
    assert status == 400
    assert reason.startswith("the body is no JSON: ")


def test_an_array_of_too_many_pixels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PIXELS_MAX > 10**7
    monkeypatch.setattr(image_request, "PIXELS_MAX", 5)
    assert refused(b"[[1, 2, 3], [4, 5, 6]]") == (400, "an image has 6 pixels, more than 5")


def test_another_content_type_is_415() -> None:
    for kind, shown in (("text/plain; charset=utf-8", "'text/plain'"), ("", "'absent'")):
        assert refused(b"x", kind) == (
            415,
            f"content type {shown} is not taken: send an array as application/json, or an image "
            "file as image/jpeg, image/png or multipart/form-data",
        )


def test_the_bad_one_of_several_files_is_named() -> None:
    with pytest.raises(image_request.BadRequest) as caught:
        image_request.from_files([png(), b"text"], GREY)
    assert str(caught.value) == (
        "image 1 of 2 cannot be read: UnidentifiedImageError: no image of a known format"
    )


def test_files_keep_their_order() -> None:
    pixels = image_request.from_files([png(level) for level in (3, 200, 90)], GREY)
    assert [int(pixel.mean()) for pixel in pixels] == [3, 200, 90]


def test_no_file_at_all_is_refused() -> None:
    with pytest.raises(image_request.BadRequest, match=r"^the request holds no image$"):
        image_request.from_files([], GREY)


def test_many_images_may_not_claim_more_pixels_than_one() -> None:
    head = claiming(png(), 9_000)
    with pytest.raises(image_request.BadRequest) as caught:
        image_request.from_files([head, head], GREY)
    assert str(caught.value) == (
        f"the images have 162000000 pixels together, more than {PIXELS_MAX}"
    )
    assert image_request.from_files([png(), png()], GREY).shape == (2, 1, 4, 4)


def test_raw_samples_are_the_image_with_these_pixels() -> None:
    samples = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)
    raw = image_request.read(samples.tobytes(), "application/octet-stream", GREY, shape="2,4,4")
    np.testing.assert_array_equal(raw, posted(samples.tolist()))
    np.testing.assert_array_equal(raw[:, 0], samples)
    colour = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    raw = image_request.read(colour.tobytes(), "application/octet-stream", COLOUR, shape="4,4,3")
    np.testing.assert_array_equal(raw[0], colour.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("kind", "shape", "size", "quick"),
    [
        ("application/json", None, 8192, True),
        ("application/json", None, 8193, False),
        ("application/octet-stream", "2,2", 262_144, True),
        ("application/octet-stream", "2,2", 262_145, False),
        ("application/octet-stream", None, 10, False),
        ("image/png", None, 10, False),
    ],
)
def test_only_what_takes_no_time_is_decoded_without_a_thread(
    kind: str, shape: str | None, size: int, quick: bool
) -> None:
    assert image_request.is_quick(kind, shape, size) is quick


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 3), (2, 4, 4), (2, 4, 4, 3), (1, 4, 4, 1)])
def test_integers_and_floats_of_the_same_values_are_the_same_image(shape: tuple[int, ...]) -> None:
    samples = np.random.default_rng(3).integers(0, 256, shape)
    found = posted(samples.tolist(), COLOUR)
    assert np.array_equal(found, posted(samples.astype(float).tolist(), COLOUR))
    if shape == (2, 4, 4, 3):
        assert np.array_equal(found, samples.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("doc", "reason"),
    [
        ([3, 4, 5], "shape [3] is not taken: an image is"),
        ([[1, 2], [3, 256]], "the values must lie in 0 to 255, they span 1 to 256"),
        ([[1, 2], [3, -1]], "the values must lie in 0 to 255, they span -1 to 3"),
        ([[1, 2], [3, 10**30]], "the array must hold numbers only, 0 to 255"),
        ([[1, 2], [3]], "the arrays differ in length: every row needs the same"),
        ([[1, 2], 3], "the arrays differ in length: every row needs the same"),
        ([[True, False]], "the array must hold numbers only, 0 to 255"),
        ([[1, 2], {"1": 2, "2": 3}], "the arrays differ in length: every row needs the same"),
        ([[]], "the array is empty: shape [1, 0]"),
    ],
)
def test_almost_integers_of_a_byte_are_refused_as_ever(doc: object, reason: str) -> None:
    with pytest.raises(image_request.BadRequest) as caught:
        posted(doc)
    assert str(caught.value).startswith(reason)


def posted_or_refused(doc: np.ndarray, preprocess: Preprocess, raw: bool) -> str:
    """Send an array as JSON or as raw samples with X-Shape; return the refusal."""
    shape = ",".join(map(str, doc.shape)) if raw else None
    data = doc.astype(np.uint8).tobytes() if raw else json.dumps(doc.tolist()).encode()
    with pytest.raises(image_request.BadRequest) as caught:
        image_request.read(
            data, "application/octet-stream" if raw else JSON, preprocess, shape=shape
        )
    assert caught.value.status == 400
    return str(caught.value)


LAST = "channels first: it is taken as [N, H, W, C], channels last"
FIRST = (
    "channels first: an image is taken as [H, W, C], channels last; a batch of {} grey images as "
)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize(
    ("shape", "preprocess", "reason"),
    [
        ((32, 32, 4), COLOUR, "has 4 channels (RGBA), where C is 1 or 3: leave the alpha out"),
        ((32, 32, 4), GREY, "has 4 channels (RGBA), where C is 1 or 3: leave the alpha out"),
        ((300, 300, 4), GREY, "has 4 channels (RGBA), where C is 1 or 3: leave the alpha out"),
        ((2, 32, 32, 4), COLOUR, "has 4 channels (RGBA), where C is 1 or 3: leave the alpha out"),
        (
            (32, 32, 2),
            GREY,
            "has 2 channels (grey and alpha), where C is 1 or 3: leave the alpha out",
        ),
        ((3, 32, 32), COLOUR, f"is {FIRST.format(3)}[N, H, W, 1]"),
        ((4, 32, 32), COLOUR, f"is {FIRST.format(4)}[N, H, W, 1]"),
        ((2, 3, 32, 32), COLOUR, f"is {LAST}"),
        ((2, 1, 32, 32), GREY, f"is {LAST}"),
    ],
)
def test_an_array_of_another_layout_is_refused_by_name(
    shape: tuple[int, ...], preprocess: Preprocess, reason: str, raw: bool
) -> None:
    sent = np.full(shape, 77)
    assert posted_or_refused(sent, preprocess, raw) == f"shape {list(shape)} {reason}"


def test_what_looks_like_channels_first_is_a_batch_where_nothing_else_is_meant() -> None:
    assert len(posted(np.full((3, 32, 32), 77).tolist(), GREY)) == 3
    assert len(posted(np.full((1, 32, 32), 77).tolist(), COLOUR)) == 1
    assert len(posted(np.full((3, 32, 32, 1), 77).tolist(), COLOUR)) == 3
    assert len(posted(np.full((5, 32, 32), 77).tolist(), COLOUR)) == 5


def test_fractions_of_0_to_1_are_refused_as_scaled() -> None:
    scaled = np.arange(16).reshape(4, 4) / 16
    assert refused(json.dumps(scaled.tolist()).encode()) == (
        400,
        "the values span 0 to 0.9375: fractions of 0 to 1, where 0 to 255 is taken. Multiply them "
        "by 255",
    )
    assert "span 0 to 1: fractions" in refused(b"[[0.0, 1.0]]")[1]
    assert "span 0 to 1: fractions" in refused(b"[[0, 0.5, 1]]")[1]


def test_whole_numbers_of_0_and_1_and_a_black_picture_are_legal() -> None:
    assert (posted(np.zeros((4, 4), dtype=int).tolist()) == 0).all()
    assert (posted(np.zeros((4, 4)).tolist()) == 0).all()
    assert posted(np.eye(4, dtype=int).tolist()).max() == 1


@pytest.mark.parametrize(("kind", "size"), [("<f4", 4), ("<u2", 2), ("<f8", 8)])
def test_raw_samples_of_another_type_are_named(kind: str, size: int) -> None:
    samples = np.zeros((4, 4), dtype=kind).tobytes()
    with pytest.raises(image_request.BadRequest) as caught:
        image_request.read(samples, "application/octet-stream", GREY, shape="4,4")
    assert str(caught.value) == (
        f"the body has {16 * size} bytes, X-Shape 4,4 needs 16: {size} bytes a sample, where uint8 "
        "of 0 to 255 is taken"
    )
