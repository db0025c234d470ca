"""Machine check: no measuring when inputs/machine.json describes another machine."""

from __future__ import annotations

import json
from pathlib import Path

from fettle.errors import ProjectError
from fettle.hardware import machine_fingerprint


def check_machine(path: Path) -> None:
    """Raise ProjectError unless inputs/machine.json describes this machine."""
    recorded = json.loads(path.read_text()) if path.is_file() else {}
    here = json.loads(json.dumps(machine_fingerprint.fingerprint()))
    if recorded != here:
        raise ProjectError(
            "inputs/machine.json does not describe this machine",
            got="; ".join(machine_fingerprint.differences(recorded, here))
            if recorded
            else "no such file",
            rule="a latency is a fact about a machine, so the measurement depends on that file",
            fix="start it with `fettle run`, which writes the file first",
        )
