from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served import free_port

from fettle.rollout.supervisor import jsonl
from fettle.rollout.supervisor.late_labels import Answered, AnsweredRequests, FeedbackRoute

# the two releases order their classes differently
CLASSES = {"champion": ["dog", "cat"], "challenger": ["cat", "dog"]}


class Desk:
    """A feedback endpoint that knows two requests: "a" was answered dog, "b" cat and dog."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.path = folder / "labels.jsonl"
        self.memory = AnsweredRequests(CLASSES, self.path)
        self.memory.remember("a", Answered("challenger", (1,)))
        self.memory.remember("b", Answered("champion", (1, 0)))
        self.server = FeedbackRoute(self.port, "secret", lambda: b"fettle_up 1\n")
        self.server.attach(self.memory)

    def post(self, doc: object, key: str = "secret") -> tuple[int, Any]:
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        body = doc if isinstance(doc, bytes) else json.dumps(doc).encode()
        link.request("POST", "/feedback", body, {"Authorization": f"Bearer {key}"})
        answer = link.getresponse()
        try:
            return answer.status, json.loads(answer.read())
        finally:
            link.close()

    def correct(self) -> dict[str, bool]:
        return {doc["request_id"]: doc["correct"] for doc in jsonl.read(self.path, 0)[0]}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.server.close()


def test_labels_join_their_requests_and_every_image_must_be_right(desk: Desk) -> None:
    given = [{"request_id": "a", "label": "dog"}, {"request_id": "b", "labels": ["cat", "cat"]}]
    assert desk.post(given) == (200, {"accepted": 2, "unknown": 0, "repeated": 0})
    assert desk.correct() == {"a": True, "b": False}


def test_a_request_counts_once_even_after_the_controller_was_killed(desk: Desk) -> None:
    assert desk.post({"request_id": "a", "label": "dog"})[1]["accepted"] == 1
    assert desk.post({"request_id": "a", "label": "cat"})[1]["repeated"] == 1
    again = AnsweredRequests(CLASSES, desk.path)
    again.remember("a", Answered("challenger", (1,)))
    assert again.join([("a", ("cat",))], 0.0)["repeated"] == 1
    assert desk.correct() == {"a": True}


def test_a_request_that_is_not_known_is_404_and_counted(desk: Desk) -> None:
    assert desk.post({"request_id": "z", "label": "dog"}) == (
        404,
        {"accepted": 0, "unknown": 1, "repeated": 0},
    )


@pytest.mark.parametrize(
    ("doc", "text"),
    [
        ({"request_id": "a", "label": "cow"}, "'cow' is no class; the classes are cat, dog"),
        ({"request_id": "b", "label": "cat"}, "request b had 2 images, not 1"),
        (
            {"request_id": 7, "label": "cat"},
            'each label is an object with "request_id" and "label"',
        ),
        ({"request_id": "a"}, '"label" is a class name; "labels" is a list of them'),
        ([], "one to 5000 labels at a time, not 0"),
    ],
)
def test_a_label_that_cannot_be_one_is_400_with_the_reason(
    desk: Desk, doc: object, text: str
) -> None:
    assert desk.post(doc) == (400, {"error": text})
    assert desk.correct() == {}


def test_what_is_no_json_is_400(desk: Desk) -> None:
    assert desk.post(b"{")[0] == 400


def test_without_the_key_nothing_is_taken(desk: Desk) -> None:
    assert desk.post({"request_id": "a", "label": "dog"}, key="wrong")[0] == 401
    assert desk.correct() == {}


def test_a_body_beyond_the_cap_is_413_unread(desk: Desk) -> None:
    assert desk.server.answer("1048577", {"x-api-key": "secret"}, lambda _: b"")[0] == 413


def test_without_a_rollout_there_is_nothing_to_join(desk: Desk) -> None:
    desk.server.attach(None)
    assert desk.post({"request_id": "a", "label": "dog"})[0] == 409


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer secret"},
        {"authorization": "bearer secret "},
        {"X-API-Key": "secret"},
        {"Authorization": "Basic secret", "x-api-key": "secret"},
    ],
)
def test_the_key_is_taken_by_the_rules_of_the_server_itself(
    desk: Desk, headers: dict[str, str]
) -> None:
    assert desk.server.answer("x", headers, lambda _: b"")[0] == 411
    wrong = {name: value.replace("secret", "sécret") for name, value in headers.items()}
    assert desk.server.answer("x", wrong, lambda _: b"")[0] == 401
