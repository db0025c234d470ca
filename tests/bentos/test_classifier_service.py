"""Requests to a Bento that serves by its tag: answers, refusals, key, document, log."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
import served
from bento_line import FORM, JSON, SMALL, Line, form, half_sent, png, shapes
from PIL import Image
from tiny_project import CLASSES


@pytest.fixture(scope="module")
def server(line: Line) -> Iterator[served.Server]:
    """The Bento, served by its tag from another folder, with a key."""
    port, cwd = served.free_port(), line.root / "elsewhere"
    cwd.mkdir()
    command = line.command(line.tag, "--host", "127.0.0.1", "--port", str(port))
    with served.serving(command, port=port, cwd=cwd, env=line.keyed) as one:
        yield one


@pytest.fixture
def ask(line: Line, server: served.Server) -> Any:
    def post(body: bytes, kind: str) -> tuple[int, Any]:
        return server.post(body, kind, authorization=f"Bearer {line.key}")

    return post


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_array_is_answered_with_label_and_probability(ask: Any, at: int) -> None:
    status, answer = ask(json.dumps(shapes(3)[at].tolist()).encode(), JSON)
    assert status == 200
    (one,) = answer
    assert one["label"] == CLASSES[at]
    assert 0.5 < one["probability"] <= 1
    assert one["top"][0] == {"label": one["label"], "probability": one["probability"]}
    assert {best["label"] for best in one["top"]} == set(CLASSES)
    # each rounded to a millionth: half of one off at most
    rounding = 0.5e-6 * len(one["top"])
    assert sum(best["probability"] for best in one["top"]) == pytest.approx(1, abs=rounding + 1e-9)


def test_a_batch_is_answered_in_its_order(ask: Any) -> None:
    status, answer = ask(json.dumps([one.tolist() for one in shapes(40)]).encode(), JSON)
    assert status == 200
    assert [one["label"] for one in answer] == [CLASSES[at % 3] for at in range(40)]


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream"])
def test_an_image_file_is_answered_as_its_array_is(ask: Any, kind: str) -> None:
    image = shapes(2)[1]
    assert ask(png(image), kind) == ask(json.dumps(image.tolist()).encode(), JSON)
    assert ask(png(image), kind)[1][0]["label"] == "middle"


def test_a_form_of_files_is_answered_in_its_order(ask: Any) -> None:
    status, answer = ask(form(*(png(one) for one in shapes(3))), FORM)
    assert status == 200
    assert [one["label"] for one in answer] == CLASSES


def test_a_large_photo_in_colour_is_answered(ask: Any) -> None:
    photo = Image.fromarray(shapes(1)[0]).convert("RGB").resize((640, 480))
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG")
    status, answer = ask(buffer.getvalue(), "image/jpeg")
    assert status == 200
    assert answer[0]["label"] == "left"


def test_every_answer_names_the_release(line: Line, server: served.Server) -> None:
    body = json.dumps(shapes(1)[0].tolist()).encode()
    _, headers, _ = server.send("POST", "/predict", body, content_type=JSON, x_api_key=line.key)
    assert headers["x-fettle-release"] == line.digest


@pytest.mark.parametrize(
    ("body", "kind", "status", "reason"),
    [
        (b'{"a": 1}', JSON, 400, "the JSON must be an array of numbers, not an object"),
        (b"[[0, 300]]", JSON, 400, "the values must lie in 0 to 255, they span 0 to 300"),
        (b"[[1], [2, 3]]", JSON, 400, "the arrays differ in length: every row needs the same"),
        (
            b"a text named .jpg",
            "image/jpeg",
            400,
            "the image cannot be read: UnidentifiedImageError: no image of a known format",
        ),
        (b"x", FORM, 400, "Invalid multipart data."),
        (b"x", "multipart/form-data", 400, "Missing boundary in multipart."),
        (form(), FORM, 400, "the request holds no image"),
        (
            form(png(shapes(1)[0]), b"text"),
            FORM,
            400,
            "image 1 of 2 cannot be read: UnidentifiedImageError: no image of a known format",
        ),
        (
            b"x",
            "text/plain",
            415,
            "content type 'text/plain' is not taken: send an array as application/json, or an "
            "image file as image/jpeg, image/png or multipart/form-data",
        ),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(
    ask: Any, body: bytes, kind: str, status: int, reason: str
) -> None:
    assert ask(body, kind) == (status, {"error": reason})


def test_a_bad_request_leaves_the_server_well(ask: Any) -> None:
    ask(b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "image/png")
    assert ask(png(shapes(1)[0]), "image/png")[1][0]["label"] == "left"


def test_a_body_too_large_is_413(ask: Any) -> None:
    assert ask(bytes(16 * 2**20 + 1), "image/png") == (
        413,
        {"error": "the body is larger than 16777216 bytes"},
    )


@pytest.mark.parametrize("given", [{}, {"authorization": "Bearer wrong"}, {"x_api_key": "wrong"}])
def test_without_the_key_there_is_no_answer(server: served.Server, given: dict[str, str]) -> None:
    status, answer = server.post(png(shapes(1)[0]), "image/png", **given)
    assert status == 401
    assert answer == {"error": "this server needs its API key: `Authorization: Bearer KEY`"}


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz"])
def test_health_needs_no_key(server: served.Server, path: str) -> None:
    assert server.get(path)[0] == 200


@pytest.mark.parametrize("path", ["/", "/metrics", "/docs.json"])
def test_everything_else_needs_the_key(line: Line, server: served.Server, path: str) -> None:
    assert server.get(path)[0] == 401
    assert server.get(path, x_api_key=line.key)[0] == 200


def test_the_page_may_load_nothing_from_elsewhere(line: Line, server: served.Server) -> None:
    _, headers, _ = server.get("/", x_api_key=line.key)
    assert headers["content-security-policy"].startswith("default-src 'self';")


def test_the_document_tells_all_that_the_route_takes(line: Line, server: served.Server) -> None:
    doc = json.loads(server.get("/docs.json", x_api_key=line.key)[2])
    assert set(doc["paths"]) == {
        *("/predict", "/livez", "/readyz", "/healthz", "/metrics", "/docs.json")
    }
    post = doc["paths"]["/predict"]["post"]
    assert set(post["requestBody"]["content"]) == {
        "application/json",
        *(f"image/{name}" for name in ("bmp", "gif", "jpeg", "png", "tiff", "webp")),
        "application/octet-stream",
        "multipart/form-data",
    }
    assert set(post["responses"]) == {
        *("200", "400", "401", "403", "408", "413", "415", "429", "500", "504")
    }
    assert post["security"] == [{"bearer": []}, {"api_key": []}]
    assert set(doc["components"]["securitySchemes"]) == {"bearer", "api_key"}
    answer = post["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer == {"type": "array", "items": {"$ref": "#/components/schemas/Prediction"}}
    assert set(doc["components"]["schemas"]["Prediction"]["properties"]) == {
        *("label", "probability", "top")
    }


def test_the_server_ran_its_own_sources_without_torch_or_the_network(
    line: Line, server: served.Server, ask: Any
) -> None:
    ask(png(shapes(1)[0]), "image/png")
    folder = line.root / "served"
    assert len(set(served.seen(folder, "start"))) >= 2  # the parent and its worker
    ran = served.seen(folder, "run")
    src = line.store / "bentos" / "tiny" / line.digest[:12] / "src"
    assert {os.path.relpath(path, src) for path in ran} >= {
        "fettle/serving/release_bundle.py",
        "fettle/hardware/runtimes/ort.py",
    }
    assert [path for path in ran if not path.startswith(f"{src}{os.sep}")] == []
    assert served.seen(folder, "import") == []
    reached = {where for where in served.seen(folder, "reach") if where not in ("None", "")}
    assert reached <= {"127.0.0.1", "::1", "localhost"}


def test_slow_clients_do_not_hold_up_the_others(line: Line, server: served.Server) -> None:
    links = [half_sent(server.port, SMALL, line.key) for _ in range(40)]
    try:
        assert server.post(SMALL, "image/png", x_api_key=line.key)[0] == 200
        links[0].sendall(SMALL[len(SMALL) // 2 :])
        assert links[0].recv(15) == b"HTTP/1.1 200 OK"
    finally:
        for link in links:
            link.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"\r\n\r\n",
        b"GET / SMTP/9\r\n\r\n",
        b"POST /predict HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"POST /predict HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /predict HTTP/1.1\r\n" + b"a: b\r\n" * 5000 + b"\r\n",
    ],
)
def test_what_is_no_http_leaves_the_server_well(
    line: Line, server: served.Server, sent: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as link:
        link.sendall(sent)
        link.settimeout(1)
        with contextlib.suppress(TimeoutError, ConnectionError):
            answer = link.recv(100)
            assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))
    assert server.post(SMALL, "image/png", x_api_key=line.key)[0] == 200


def test_a_router_names_the_request_and_finds_it_in_the_log(
    line: Line, server: served.Server
) -> None:
    _, headers, _ = server.send(
        "POST", "/predict", SMALL, content_type="image/png", x_api_key=line.key,
        x_request_id="from-the-router",
    )  # fmt: skip
    assert headers["x-request-id"] == "from-the-router"
    deadline = time.monotonic() + 10  # the line is written once the answer is gone
    said: list[str] = []
    while not said and time.monotonic() < deadline:
        time.sleep(0.05)
        lines = server.log.read_text().splitlines(keepends=True)
        said = [one for one in lines if "from-the-router" in one and one.endswith("\n")]
    assert [json.loads(one)["status"] for one in said] == [200]


def test_raw_samples_are_answered_as_their_array_is(
    line: Line, server: served.Server, ask: Any
) -> None:
    image = shapes(3)[2]
    raw = server.post(
        image.tobytes(), "application/octet-stream", x_api_key=line.key, x_shape="8,8"
    )
    assert raw == ask(json.dumps(image.tolist()).encode(), JSON)
    assert raw[1][0]["label"] == "right"
