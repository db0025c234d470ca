"""Evidence bundle of a published release: what it brings to the offline gate."""

from __future__ import annotations

import json
from pathlib import Path

from fettle.rollout.promotion.offline_gate import EvidenceBundle


def read(release: Path) -> EvidenceBundle:
    """Return the evidence bundle of a release folder whose signature was verified.

    `fettle canary start` verifies it before a rollout is begun (supervisor_launch.py), and refuses
    otherwise; the controller holds the bytes to the folder's name again.
    """
    model = (path for path in (release / "model").rglob("*") if path.is_file())
    return EvidenceBundle(
        gate=json.loads((release / "gate.json").read_text()),
        validation=json.loads((release / "validation.json").read_text()),
        model_bytes=sum(path.stat().st_size for path in model),
        signed=True,
    )
