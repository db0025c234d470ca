from __future__ import annotations

import json
from pathlib import Path

from fettle.recorder import JsonlRecorder


def test_every_event_is_one_line_that_a_tail_can_read_at_once(tmp_path: Path) -> None:
    recorder = JsonlRecorder(tmp_path / "records" / "finetune.jsonl")
    recorder.scalar("loss", 0.5, step=3)
    recorder.progress(0.25, "epoch 1/4")
    lines = (tmp_path / "records" / "finetune.jsonl").read_text().splitlines()  # not closed yet
    events = [json.loads(line) for line in lines]
    assert [(e["kind"], e.get("step"), e.get("text")) for e in events] == [
        ("scalar", 3, None),
        ("progress", None, "epoch 1/4"),
    ]
    recorder.close()
