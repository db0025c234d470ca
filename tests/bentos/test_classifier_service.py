from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import served
from PIL import Image
from tiny_project import CLASSES, pixels
from tiny_release import TinyRelease

from fettle.adapters import bento_store
from fettle.serving import api_key_file

BOUNDARY = "the-boundary"


class Line:
    """A packaged release, its Bento in a store of its own, and its server with a key."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.work = TinyRelease(root / "project")
        self.digest = str(self.work.package().facts["digest"])
        self.env = served.environment(root / "served")
        self.store = Path(self.env["BENTOML_HOME"])
        self.tag = bento_store.build(
            self.work.release, name="tiny", version=self.digest[:12], home=self.store
        )
        file = api_key_file.make({"XDG_CONFIG_HOME": str(root / "keys")})
        self.key = file.read_text().strip()
        self.keyed = {**self.env, "FETTLE_API_KEY_FILE": str(file)}

    def command(self, what: str, *options: str) -> list[str]:
        return [sys.executable, "-m", "bentoml", "serve", what, *options]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return Line(tmp_path_factory.mktemp("line"))


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


def shapes(count: int) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """Images [8, 8]; image i shows class i % 3."""
    return [one[0] for one in pixels(count, seed=5)]


def png(image: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def form(*files: bytes, name: str = "image") -> bytes:
    parts = [
        f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"; filename="a.png"\r\n'
        "content-type: image/png\r\n\r\n".encode()
        + file
        + b"\r\n"
        for file in files
    ]
    return b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])


FORM = f"multipart/form-data; boundary={BOUNDARY}"
JSON = "application/json"


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


def refused(line: Line, what: str, *options: str, **added: str) -> tuple[int, str]:
    with subprocess.Popen(
        line.command(what, "--port", str(served.free_port()), *options),
        cwd=line.root,
        env={**line.env, "BENTOML_HOME": str(line.root / "refused"), **added},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said = process.communicate(timeout=30)[1]
        except subprocess.TimeoutExpired:  # it serves: its worker must not outlive the test
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, said.strip().splitlines()[-1]


def test_without_a_key_the_default_host_is_refused(line: Line) -> None:
    code, said = refused(line, str(line.work.release))
    assert code == 1
    assert said == (
        "Error: [serve] `serve` failed: this server has no API key, so it may listen on loopback "
        "only: got host 0.0.0.0, where anyone who reaches the port could use it; `bentoml serve` "
        "listens on every address unless told otherwise. Fix: add `--host 127.0.0.1`, or make a "
        "key with `fettle doctor --make-key` (or set FETTLE_API_KEY) and start again."
    )


def test_a_changed_release_is_not_served(line: Line, tmp_path: Path) -> None:
    folder = shutil.copytree(line.work.release, tmp_path / line.digest[:12])
    (folder / "labels.json").write_text('["right", "middle", "left"]')
    code, said = refused(line, str(folder), "--host", "127.0.0.1")
    assert code == 1
    assert said.startswith(
        "Error: [serve] `serve` failed: labels.json of the release is changed: got "
    )


def test_a_release_under_another_ones_name_is_not_served(line: Line, tmp_path: Path) -> None:
    folder = shutil.copytree(line.work.release, tmp_path / "0123456789ab")
    code, said = refused(line, str(folder), "--host", "127.0.0.1")
    assert code == 1
    assert said == (
        "Error: [serve] `serve` failed: the release is not the one that its name says: got "
        f"{line.digest[:12]}; it is named 0123456789ab, after the digest of what it held. Fix: "
        "delete it and run `fettle run`, which makes it again."
    )


def test_a_release_folder_is_served_without_a_key_on_loopback(line: Line, tmp_path: Path) -> None:
    folder = shutil.copytree(line.work.release, tmp_path / "releases" / line.digest[:12])
    port = served.free_port()
    command = line.command(str(folder), "--host", "127.0.0.1", "--port", str(port))
    env = {**line.env, "BENTOML_HOME": str(tmp_path / "home")}
    with served.serving(command, port=port, cwd=tmp_path, env=env) as one:
        status, answer = one.post(png(shapes(3)[2]), "image/png")
        assert (status, answer[0]["label"]) == (200, "right")
        assert one.post(b"[[1]]", JSON, host="evil.example")[0] == 403
        assert one.interrupt() == 0
    assert "Traceback" not in one.log.read_text()


def test_a_killed_server_leaves_no_worker_behind(line: Line) -> None:
    port = served.free_port()
    command = line.command(line.tag, "--host", "127.0.0.1", "--port", str(port))
    with served.serving(command, port=port, cwd=line.root, env=line.env) as one:
        workers = psutil.Process(one.process.pid).children(recursive=True)
        assert workers
        one.process.kill()
        one.process.wait(timeout=20)
        _, alive = psutil.wait_procs(workers, timeout=20)
        assert alive == []


SMALL = png(shapes(1)[0])


@pytest.fixture
def own(line: Line, tmp_path: Path) -> Iterator[served.Server]:
    """A server of one test's own, which may harm it."""
    port = served.free_port()
    command = line.command(str(line.work.release), "--host", "127.0.0.1", "--port", str(port))
    env = {**line.env, "BENTOML_HOME": str(tmp_path / "home")}
    with served.serving(command, port=port, cwd=tmp_path, env=env) as one:
        yield one


def half_sent(port: int, body: bytes, key: str = "none") -> socket.socket:
    """Open a request and send its first half."""
    link = socket.create_connection(("127.0.0.1", port), timeout=20)
    head = f"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n"
    head += f"x-api-key: {key}\r\ncontent-type: image/png\r\n\r\n"
    link.sendall(head.encode() + body[: len(body) // 2])
    return link


def test_a_server_told_to_stop_answers_what_it_began_and_is_gone(own: served.Server) -> None:
    with half_sent(own.port, SMALL) as link:
        time.sleep(0.3)  # the head has arrived
        own.process.terminate()
        time.sleep(0.5)
        assert own.process.poll() is None
        link.sendall(SMALL[len(SMALL) // 2 :])
        assert link.recv(15) == b"HTTP/1.1 200 OK"
    assert own.process.wait(served.STOP_S) == 0
    assert "Traceback" not in own.log.read_text()


def test_a_killed_worker_is_made_again_and_leaves_no_gauge_behind(own: served.Server) -> None:
    workers = set(psutil.Process(own.process.pid).children())
    assert len(workers) == 2
    victim = min(workers, key=lambda one: one.pid)
    with half_sent(own.port, SMALL), half_sent(own.port, SMALL), half_sent(own.port, SMALL):
        victim.kill()
        deadline = time.monotonic() + served.READY_S
        while len(alive := [w for w in children(own) if w != victim]) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert len(set(alive) - workers) == 1
    for _ in range(20):
        assert own.post(SMALL, "image/png")[0] == 200
    text = own.get("/metrics")[2].decode()
    assert 'fettle_requests_total{method="POST",route="/predict",status="200"} 20.0' in text
    # the request for the metrics itself is at work; what the dead worker held is not counted
    assert "\nfettle_requests_running 1.0\n" in text


def children(server: served.Server) -> list[psutil.Process]:
    """Return the workers that live."""
    found = psutil.Process(server.process.pid).children()
    return [one for one in found if one.status() != psutil.STATUS_ZOMBIE]


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
