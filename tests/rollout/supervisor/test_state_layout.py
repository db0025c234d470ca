"""What the supervisor's small files may hold: garbage, another version, an order too old."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from fettle import manifest
from fettle.errors import ProjectError
from fettle.rollout.supervisor import order_queue
from fettle.rollout.supervisor import state_layout as places
from fettle.rollout.supervisor.state_layout import PinnedRelease, ServingState, StateLayout

SERVING = ServingState("127.0.0.1", 1, 2, 3, champion=PinnedRelease("a", "tiny:a", "/a"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "an order cannot be understood: got {}; its verb is one of start, pause, "),
        ("no json", "an order cannot be read: got "),
        ("[1]", "an order cannot be understood: got [1]; "),
        ('{"verb": "dance"}', 'an order cannot be understood: got {"verb": "dance"}; '),
        (
            '{"verb": "abort", "version": 99}',
            "the supervisor does not understand this order: got one of version 99; it takes "
            "version 1. ",
        ),
        ('{"verb": "start", "until_s": 5}', "the order to start came too late: got "),
        ('{"verb": "start", "until_s": "soon"}', "the order to start came too late: got "),
    ],
)
def test_what_is_no_order_is_answered_and_put_aside(tmp_path: Path, text: str, said: str) -> None:
    place = StateLayout(tmp_path)
    place.inbox.mkdir()
    (place.inbox / "1.json").write_text(text)
    good = order_queue.submit_order(place, {"verb": "abort"})
    assert [name for name, _ in order_queue.pending_orders(place)] == [good]
    answer = order_queue.await_answer(place, "1", timeout_s=0)
    assert answer is not None
    assert answer["kind"] == "user"
    assert str(answer["error"]).startswith(said)
    assert (place.outbox / "1.bad").read_text() == text
    assert not (place.inbox / "1.json").exists()


def test_an_order_that_was_taken_back_is_not_obeyed(tmp_path: Path) -> None:
    place = StateLayout(tmp_path)
    order_queue.withdraw_order(place, order_queue.submit_order(place, {"verb": "abort"}))
    assert list(order_queue.pending_orders(place)) == []


def test_what_serves_reads_back_and_carries_its_version(tmp_path: Path) -> None:
    place = StateLayout(tmp_path)
    place.write_serving(SERVING)
    assert place.serving() == SERVING
    assert json.loads((tmp_path / "serving.json").read_text())["version"] == places.VERSION


def test_a_serving_json_from_before_it_had_a_version_is_read(tmp_path: Path) -> None:
    doc = asdict(replace(SERVING, challenger=PinnedRelease("b", "tiny:b", "/b"), rollout="r1"))
    del doc["state"]
    manifest.write_json(tmp_path / "serving.json", doc)
    manifest.write_json(tmp_path / "rollouts" / "r1" / "status.json", {"state": "promoted"})
    found = StateLayout(tmp_path).serving()
    assert found is not None
    assert found.promoted


def test_of_a_newer_serving_json_what_is_known_is_taken(tmp_path: Path) -> None:
    doc = {**asdict(SERVING), "version": 99, "colour": "green"}
    doc["champion"] = {**asdict(SERVING)["champion"], "weight": 3}
    manifest.write_json(tmp_path / "serving.json", doc)
    assert StateLayout(tmp_path).serving() == SERVING


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"host": "x", "port": "y"}', '"x"'])
def test_a_serving_json_that_is_none_is_refused_with_the_way_out(tmp_path: Path, text: str) -> None:
    (tmp_path / "serving.json").write_text(text)
    with pytest.raises(ProjectError) as caught:
        StateLayout(tmp_path).serving()
    assert str(caught.value).startswith(f"{tmp_path}/serving.json does not say what serves: got ")
    assert (
        StateLayout(tmp_path).active() == "unreadable"
    )  # no alias is moved under a rollout unseen
