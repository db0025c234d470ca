"""Route `POST /predict`: admit, read, decode, infer, answer; each failure with its own status.

429  more than `concurrent_max` requests are at work in this worker: at once, before the body
400, 408, 413, 415  the body (image_request.py, request_body.py), before it meets a batch
504  no answer within `timeout_s` of the body's arrival
500  the model failed on this very request; its batch mates are run without it
"""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from fettle.preprocessing import Pixels, brightness
from fettle.serving import image_request, request_body
from fettle.serving.asgi_messages import Message, Receive, Send, answer, headers, refuse
from fettle.serving.release_bundle import BATCH_MAX, RankedAnswer, ReleaseBundle
from fettle.serving.request_batching import Batcher
from fettle.serving.request_telemetry import note

TOP = 5  # classes in an answer
CONCURRENT_MAX = 64  # a worker; beyond it 429 at once, instead of a queue that times out
TIMEOUT_S = 30.0  # 256 images of 224 px at 10 ms each, ten times over
TOLD_MAX = 32  # images a request whose answers the router's log keeps: proxies cap headers at 4 kB
DECODERS = 2  # threads: a large photo takes 0.1 s to decode, and must not hold up the others
FORM = "multipart/form-data"


class PredictRoute:
    """The one route of a served release, as an ASGI application."""

    def __init__(
        self,
        served: ReleaseBundle,
        *,
        concurrent_max: int = CONCURRENT_MAX,
        body_max_bytes: int = request_body.MAX_BYTES,
        body_timeout_s: float = request_body.TIMEOUT_S,
        timeout_s: float = TIMEOUT_S,
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._preprocess = served.preprocess
        self._classes = [_opening(label) for label in served.labels]
        self._model = Batcher(partial(served.rank, most=TOP), most=BATCH_MAX, note=on_batch)
        self._named = [(b"x-fettle-release", served.digest.encode())]
        self._concurrent_max = concurrent_max
        self._body_max_bytes = body_max_bytes
        self._body_timeout_s = body_timeout_s
        self._timeout_s = timeout_s
        self._decoders = ThreadPoolExecutor(max_workers=DECODERS, thread_name_prefix="decode")
        self._at_work = 0

    def stuck(self) -> bool:
        """Tell whether the model has been running one batch for longer than any request waits."""
        return self._model.busy_s() > self._timeout_s

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            return await refuse(send, 405, "only POST is taken here", [(b"allow", b"POST")])
        if self._at_work >= self._concurrent_max:
            return await refuse(
                send, 429, f"{self._concurrent_max} requests are at work already: try again"
            )
        self._at_work += 1
        try:
            await self._answer(scope, receive, send)
        finally:
            self._at_work -= 1
        return None

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        given = headers(scope)
        try:
            data = await request_body.read(
                given, receive, max_bytes=self._body_max_bytes, timeout_s=self._body_timeout_s
            )
            async with asyncio.timeout(self._timeout_s):
                pixels = await self._decode(data, given, scope, receive)
                note(scope)["images"] = len(pixels)
                rows = await self._model(pixels)
        except request_body.ClientGone:
            return
        except image_request.BadRequest as err:
            note(scope)["reason"] = str(err)
            if err.status == 413:
                await request_body.refuse_size(
                    receive, send, str(err), timeout_s=self._body_timeout_s
                )
            else:
                await refuse(send, err.status, str(err), self._named)
            return
        except TimeoutError:
            note(scope)["reason"] = "timeout"
            await refuse(send, 504, f"no answer within {self._timeout_s:g} s", self._named)
            return
        except Exception as err:  # the model's: told to the log, not to the client
            note(scope)["reason"] = f"{type(err).__name__}: {err}"
            traceback.print_exc(file=sys.stderr)
            await refuse(send, 500, "the model failed on this request", self._named)
            return
        await answer(
            send,
            200,
            _to_json(rows, self._classes),
            more=[*self._named, *self._told(rows, pixels)],
        )

    def _told(self, rows: list[RankedAnswer], pixels: Pixels) -> list[tuple[bytes, bytes]]:
        """Tell the router's log what was answered, for labels that arrive late and for drift."""
        if len(rows) > TOLD_MAX:
            return []
        classes = ",".join(str(best.classes[0]) for best in rows)
        inputs = ",".join(f"{value:.4f}" for value in brightness(pixels))
        return [(b"x-fettle-prediction", classes.encode()), (b"x-fettle-input", inputs.encode())]

    async def _decode(
        self, data: bytes, given: Mapping[bytes, bytes], scope: Message, receive: Receive
    ) -> Pixels:
        """Decode here what takes no time, the rest in a thread; raises BadRequest."""
        if given.get(b"content-encoding", b"identity") != b"identity":
            raise image_request.BadRequest(
                "a compressed body is not taken: send it as it is", status=415
            )
        kind = given.get(b"content-type", b"").decode("latin-1")
        shape = given[b"x-shape"].decode("latin-1") if b"x-shape" in given else None
        if image_request.media_type(kind) == FORM:
            files = await _split(Request(scope, request_body.replay(data, receive)))
            read = partial(image_request.from_files, files, self._preprocess)
        else:
            read = partial(image_request.read, data, kind, self._preprocess, shape=shape)
            if image_request.is_quick(kind, shape, len(data)):
                return read()
        return await asyncio.get_running_loop().run_in_executor(self._decoders, read)


async def _split(request: Request) -> list[bytes]:
    """Return the file parts of a form; raises BadRequest."""
    try:
        async with request.form(max_files=image_request.IMAGES_MAX) as form:
            parts = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
            return [await part.read() for part in parts]
    except MultiPartException as err:
        raise image_request.BadRequest(err.message) from err


def _opening(label: str) -> str:
    """Write the part of a class in an answer that is the same in all of them."""
    return f'{{"label": {json.dumps(label)}, "probability": '


def _to_json(rows: list[RankedAnswer], classes: Sequence[str]) -> bytes:
    """Write [{"label", "probability", "top": [{"label", "probability"}, …]}, …].

    `classes` are the labels' openings. Written by hand: json.dumps takes three times as long,
    0.2 ms for 32 images.
    """
    doc = []
    for best in rows:
        top = [classes[at] + repr(chance) for at, chance in zip(*best, strict=True)]
        doc.append(f'{top[0]}, "top": [{"}, ".join(top)}}}]}}')
    return f"[{', '.join(doc)}]".encode()
