from __future__ import annotations

from pathlib import Path

import pytest

from fettle import manifest
from fettle.adapters.mlflow_aliases import ModelRegistry
from fettle.adapters.mlflow_tracking import Tracker
from fettle.project import Project
from fettle.rollout.supervisor.state_layout import ServingState, StateLayout

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)


def test_a_run_leaves_the_challenger_of_a_rollout_under_way_alone(tmp_path: Path) -> None:
    from flows.publish import register

    project, place = Project(tmp_path, tmp_path), StateLayout(tmp_path / ".fettle" / "canary")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracker = Tracker(uri, tmp_path / "artifacts", "tiny")
    tracker.start("tiny", {"seed": 1}, {})

    def challenger_after(digit: str, *, passed: bool = True) -> str | None:
        """Register the next release; return who is the challenger then."""
        tags = {"release_digest": digit * 60, "bento_tag": f"tiny:{digit * 12}", "gate": "passed"}
        register(tracker, project, tmp_path, tags, passed=passed)
        return ModelRegistry(uri, "tiny").resolve("challenger")

    assert challenger_after("a") == "a" * 12
    assert challenger_after("b", passed=False) == "a" * 12
    place.write_serving(ServingState("127.0.0.1", 1, 2, 3, rollout="r1"))
    for state in ("step", "paused"):
        manifest.write_json(place.rollout("r1") / "status.json", {"state": state})
        assert challenger_after("c") == "a" * 12
    manifest.write_json(place.rollout("r1") / "status.json", {"state": "rolled_back"})
    assert challenger_after("d") == "d" * 12
