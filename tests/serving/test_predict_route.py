from __future__ import annotations

import asyncio
import io
import json
import threading
import time
from typing import Any

import numpy as np
import pytest
from asgi_client import ask, asked
from PIL import Image

from fettle.errors import ModelError
from fettle.preprocessing import Floats, Preprocess
from fettle.serving import request_body
from fettle.serving.predict_route import PredictRoute
from fettle.serving.release_bundle import ReleaseBundle

RAW = {"content_type": "application/octet-stream", "x_shape": "2,2"}
BLACK, WHITE = bytes(4), b"\xff" * 4


class Brightness:
    """A model of two classes: dark, bright. An image of level 66 breaks it."""

    def __init__(self, wait_s: float = 0) -> None:
        self.wait_s = wait_s
        self.batches: list[int] = []

    def run(self, batch: Floats) -> Floats:
        time.sleep(self.wait_s)
        self.batches.append(len(batch))
        mean = batch.mean(axis=(1, 2, 3))
        if np.isclose(mean, 66 / 255).any():
            raise ModelError("66 is too much for this model")
        return np.stack([-mean, mean], axis=1).astype(np.float32)


def served(model: Brightness | None = None) -> ReleaseBundle:
    return ReleaseBundle(
        "d1" * 32,
        {"name": "tiny", "output": {"kind": "logits"}},
        Preprocess(size_px=2, channels=1, mean=0.0, std=1.0),
        ("dark", "bright"),
        model or Brightness(),
    )


def predict(**options: Any) -> PredictRoute:
    return PredictRoute(served(), **{"body_max_bytes": 100, **options})


def label(body: bytes) -> str:
    return str(json.loads(body)[0]["label"])


def png(level: int, size: int = 2) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (size, size), level).save(buffer, "PNG")
    return buffer.getvalue()


def test_raw_samples_are_answered() -> None:
    answer = asked(predict(), WHITE, **RAW)
    assert answer.status == 200
    (one,) = answer.json
    chance = 1 / (1 + np.exp(-2))
    assert one["label"] == "bright"
    assert one["probability"] == pytest.approx(chance)
    assert one["top"][1] == {"label": "dark", "probability": pytest.approx(1 - chance)}
    assert answer.headers[b"x-fettle-release"] == b"d1" * 32


def test_the_router_is_told_what_was_answered_and_how_bright_each_image_was() -> None:
    answer = asked(predict(), WHITE + BLACK, **{**RAW, "x_shape": "2, 2, 2"})
    assert answer.headers[b"x-fettle-prediction"] == b"1,0"
    assert answer.headers[b"x-fettle-input"] == b"1.0000,0.0000"


def test_more_images_than_a_proxy_takes_in_a_header_are_not_told() -> None:
    answer = asked(predict(body_max_bytes=200), BLACK * 33, **{**RAW, "x_shape": "33, 2, 2"})
    assert answer.status == 200
    assert b"x-fettle-prediction" not in answer.headers


def test_a_batch_of_raw_samples_is_answered_in_its_order() -> None:
    answer = asked(predict(), WHITE + BLACK + WHITE, **{**RAW, "x_shape": "3, 2, 2"})
    assert [one["label"] for one in answer.json] == ["bright", "dark", "bright"]


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (png(250), {"content_type": "image/png"}),
        (png(250), {"content_type": "application/octet-stream"}),
        (b"[[250, 250], [250, 250]]", {"content_type": "application/json"}),
        (bytes([250] * 27), {**RAW, "x_shape": "3,3,3"}),
    ],
)
def test_every_kind_of_body_is_answered(body: bytes, headers: dict[str, str]) -> None:
    assert label(asked(predict(), body, **headers).body) == "bright"


@pytest.mark.parametrize(
    ("body", "headers", "status", "reason"),
    [
        (WHITE, {**RAW, "x_shape": "2,3"}, 400, "the body has 4 bytes, X-Shape 2,3 needs 6"),
        (
            WHITE,
            {**RAW, "x_shape": "4"},
            400,
            "X-Shape is not taken: '4'; it is two to four sizes: 32,32,1",
        ),
        (
            bytes(8),
            {**RAW, "x_shape": "2,1,2,2"},
            400,
            "shape [2, 1, 2, 2] is not taken: an image is [H, W] or [H, W, C], a batch [N, H, W] "
            "or [N, H, W, C], with C 1 or 3",
        ),
        (
            b"[[NaN, 1]]",
            {"content_type": "application/json"},
            400,
            "the array holds a value that is not finite (NaN or Infinity)",
        ),
        (
            b"x",
            {**RAW, "content_encoding": "gzip"},
            415,
            "a compressed body is not taken: send it as it is",
        ),
        (b"x" * 101, RAW, 413, "the body is larger than 100 bytes"),
        (b"x", {**RAW, "content_length": "-1"}, 400, "the Content-Length is no number"),
    ],
)
def test_a_bad_body_is_told_what_is_wrong(
    body: bytes, headers: dict[str, str], status: int, reason: str
) -> None:
    assert asked(predict(), body, **headers).error == (status, reason)


def test_only_post_is_taken() -> None:
    answer = asked(predict(), method="GET")
    assert answer.error == (405, "only POST is taken here")
    assert answer.headers[b"allow"] == b"POST"


def test_beyond_the_stated_concurrency_429_comes_before_the_body_is_read() -> None:
    async def work() -> None:
        app = predict(concurrent_max=2)
        slow = [asyncio.create_task(ask(app, WHITE, wait_s=0.05, **RAW)) for _ in range(2)]
        await asyncio.sleep(0.01)
        refused = await ask(app, WHITE, **RAW)
        assert refused.error == (429, "2 requests are at work already: try again")
        assert refused.headers[b"retry-after"] == b"1"
        assert len(refused.left) == 1
        assert [one.status for one in await asyncio.gather(*slow)] == [200, 200]
        assert (await ask(app, WHITE, **RAW)).status == 200

    asyncio.run(work())


def test_up_to_the_stated_concurrency_nothing_is_refused() -> None:
    async def work() -> None:
        app = PredictRoute(served(), concurrent_max=64)
        for _ in range(5):
            every = await asyncio.gather(*(ask(app, WHITE, **RAW) for _ in range(64)))
            assert {one.status for one in every} == {200}

    asyncio.run(work())


def test_a_model_that_takes_too_long_is_504_and_not_ready() -> None:
    async def work() -> None:
        app = PredictRoute(served(Brightness(wait_s=0.2)), timeout_s=0.05)
        answer = await ask(app, WHITE, **RAW)
        assert answer.error == (504, "no answer within 0.05 s")
        await asyncio.sleep(0.02)
        assert app.stuck()
        await asyncio.sleep(0.2)
        assert not app.stuck()

    asyncio.run(work())


def test_a_request_on_which_the_model_fails_is_500_and_its_batch_mates_are_answered(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def work() -> None:
        model = Brightness(wait_s=0.02)
        app = PredictRoute(served(model))
        bodies = [WHITE, BLACK, bytes([66] * 4), WHITE]
        every = await asyncio.gather(*(ask(app, body, **RAW) for body in bodies))
        assert [one.status for one in every] == [200, 200, 500, 200]
        assert every[2].error == (500, "the model failed on this request")
        assert model.batches == [4, 1, 1, 1, 1]

    asyncio.run(work())
    assert "66 is too much for this model" in capfd.readouterr().err


def test_a_bad_body_never_meets_the_batch() -> None:
    async def work() -> None:
        model = Brightness(wait_s=0.02)
        app = PredictRoute(served(model))
        every = await asyncio.gather(
            *(ask(app, body, content_type="image/png") for body in (png(9), b"no", png(250)))
        )
        assert [one.status for one in every] == [200, 400, 200]
        assert sum(model.batches) == 2

    asyncio.run(work())


def test_a_client_that_left_is_not_answered() -> None:
    answer = asked(predict(), b"x", leaves=True, **RAW)
    assert answer.messages == []


def test_a_large_body_is_decoded_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    real = Preprocess.pixels

    def noted(self: Preprocess, encoded: bytes) -> Any:
        used.append(threading.current_thread().name)
        return real(self, encoded)

    monkeypatch.setattr(Preprocess, "pixels", noted)
    assert asked(predict(), png(1), content_type="image/png").status == 200
    assert used[0].startswith("decode")


@pytest.mark.parametrize("chunks", [[b"x" * 101], [b"x" * 60, b"x" * 41], [b"x" * 60] * 9])
@pytest.mark.parametrize("stated", [True, False])
def test_a_body_above_the_limit_is_413(chunks: list[bytes], stated: bool) -> None:
    size = {"content_length": str(sum(map(len, chunks)))} if stated else {}
    answer = asked(predict(), *chunks, **RAW, **size)
    assert answer.error == (413, "the body is larger than 100 bytes")


def test_a_body_above_the_limit_is_read_on_before_the_answer_ends() -> None:
    answer = asked(predict(), *[b"x" * 60] * 9, content_length="540", **RAW)
    assert answer.left == []
    assert [message.get("more_body") for message in answer.messages] == [None, True, None]
    assert answer.messages[-1]["body"] == b""


def test_a_size_that_is_stated_is_refused_before_anything_is_read() -> None:
    app = predict(body_timeout_s=0.02)
    assert asked(app, b"x", content_length="101", wait_s=1).error[0] == 413


def test_a_body_without_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_body, "DRAIN_MAX_BYTES", 300)
    answer = asked(predict(), *[b"x" * 60] * 90, **RAW)
    assert answer.status == 413
    assert len(answer.left) > 70


def test_a_body_that_does_not_come_is_408() -> None:
    app = predict(body_timeout_s=0.02)
    answer = asked(app, b"x", wait_s=1, **RAW)
    assert answer.error == (408, "the body did not arrive within 0.02 s")
    assert answer.headers[b"connection"] == b"close"
