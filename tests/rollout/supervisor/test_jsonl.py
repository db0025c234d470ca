from __future__ import annotations

import json
from pathlib import Path

from fettle.rollout.supervisor import jsonl
from fettle.rollout.supervisor.evidence_collector import pair
from fettle.rollout.supervisor.late_labels import AnsweredRequests, label

LABEL = {"request_id": "a", "time_s": 1.0, "correct": True}


def test_a_torn_line_is_left_out_and_the_next_begins_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    jsonl.append(path, [LABEL])
    with path.open("ab") as out:
        out.write(b'{"request_id": "b", "ti')
    jsonl.append(path, [{**LABEL, "request_id": "c"}], durable=True)
    bad: list[str] = []
    found, at = jsonl.read(path, 0, take=label, bad=bad)
    assert [one.request_id for one in found] == ["a", "c"]
    assert len(bad) == 1
    assert at == path.stat().st_size
    assert jsonl.skip(path, 2, take=label) == at  # counted as they were read


def test_lines_of_other_fields_or_types_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    alien = [
        b"\xff",
        b"[1]",
        b"{}",
        b'{"request_id": 1, "time_s": 1, "correct": true}',
        b"[" * 9000,
    ]
    alien += [json.dumps({**LABEL, "correct": "yes"}).encode(), b'{"time_s": NaN}']
    path.write_bytes(b"\n".join([*alien, json.dumps(LABEL).encode()]) + b"\n")
    assert len(jsonl.read(path, 0, take=label)[0]) == 1
    assert jsonl.read(path, 0, take=pair)[0] == []
    assert AnsweredRequests({}, path).join([], 0.0) == {"accepted": 0, "unknown": 0, "repeated": 0}
