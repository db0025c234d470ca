"""Attack the HTTP interface: whatever is sent, the answer is one that the document states."""

from __future__ import annotations

import json
import random

import pytest
import schemathesis
from asgi_client import asked
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi import checks
from test_predict_route import Brightness, png, served
from tiny_photos import claiming

from fettle.serving import asgi_app
from fettle.serving.asgi_messages import Message, Receive, Send, answer
from fettle.serving.openapi_document import ERRORS

KEY = "a-key"
SENT = {"x-api-key": KEY}
STATED = {200, *ERRORS} - {500}


async def pages(scope: Message, receive: Receive, send: Send) -> None:
    """Stand for BentoML's own pages."""
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    known = scope["path"] in asgi_app.THEIRS
    status = (200 if scope["method"] in ("GET", "HEAD") else 405) if known else 404
    await answer(send, status, b"\n", kind=b"text/plain")


schemathesis.serializer.alias(["image/bmp", "image/tiff"], "application/octet-stream")
LOG: list[str] = []
SERVER = asgi_app.build(served(Brightness()), pages=pages, key=KEY, write=LOG.append)
schema = schemathesis.openapi.from_asgi("/docs.json", SERVER, headers=SENT)


@schema.parametrize()
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_every_answer_is_one_that_the_document_states(case: schemathesis.Case) -> None:
    for name in [n for n in case.headers if n.lower() in ("authorization", "x-api-key")]:
        case.headers.pop(name)  # the document's own schemes: random keys would stop at 401
    response = case.call(headers=SENT)
    assert response.status_code != 500
    if case.operation.path == "/predict" and response.status_code != 405:
        assert response.status_code in STATED
        case.validate_response(
            response,
            checks=[
                checks.status_code_conformance,
                checks.content_type_conformance,
                checks.response_schema_conformance,
            ],
        )


TYPES = (
    *("application/json", "application/octet-stream", "image/png", "image/jpeg", "image/tiff"),
    *("multipart/form-data; boundary=b", "multipart/form-data", "text/plain", "", "a;b=\xff"),
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.binary(max_size=300),
    st.sampled_from(TYPES),
    st.one_of(st.none(), st.text("0123456789, -x", max_size=12), st.just("2,2,999999999,3")),
)
def test_no_bytes_make_the_server_fail(body: bytes, kind: str, shape: str | None) -> None:
    extra = {} if shape is None else {"x_shape": shape}
    answer = asked(SERVER, body, x_api_key=KEY, content_type=kind, **extra)
    assert answer.status in STATED


JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text("a"), inner)),
    max_leaves=30,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(JSON_VALUES)
def test_no_json_makes_the_server_fail(doc: object) -> None:
    body = json.dumps(doc).encode()
    answer = asked(SERVER, body, x_api_key=KEY, content_type="application/json")
    assert answer.status in (200, 400)


def test_a_damaged_image_is_answered_or_refused() -> None:
    rng, whole = random.Random(7), png(200, size=9)
    seen = set()
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        cut = bytes(damaged[: rng.randrange(len(damaged) + 1)])
        seen.add(asked(SERVER, cut, x_api_key=KEY, content_type="image/png").status)
    assert seen <= {200, 400}
    assert 400 in seen


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b"[" * 900 + b"1" + b"]" * 900,
        b"[[1e999]]",
        b"[[-1e-999, 1]]",
        b"[[" + b"9" * 5000 + b"]]",
        b"[[NaN]]",
        b"[[Infinity]]",
        b"[[[[[1]]]]]",
        b"[[true]]",
        b'[["a"]]',
        b"[[null]]",
        b"[[1], [[2]]]",
        b"[]",
        b"[[], []]",
        b"\xff\xfe[[1]]",
        b"",
    ],
)
def test_json_made_to_break_a_parser_is_400(body: bytes) -> None:
    answer = asked(SERVER, body, x_api_key=KEY, content_type="application/json")
    assert answer.status == 400
    assert answer.json["error"]


def test_a_picture_that_claims_to_be_huge_is_refused_by_its_header() -> None:
    for side in (9_500, 60_000):  # 90 million and 3.6 thousand million pixels
        huge = claiming(png(1), side)
        answer = asked(SERVER, huge, x_api_key=KEY, content_type="image/png")
        assert answer.status == 400
        assert "ixels" in answer.json["error"]
