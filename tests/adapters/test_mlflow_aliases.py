"""MLflow's real registry on a scratch database."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from fettle.adapters import mlflow_aliases
from fettle.adapters.mlflow_aliases import ModelRegistry, Version, WantedAliases
from fettle.adapters.mlflow_tracking import Tracker
from fettle.errors import UserError
from fettle.rollout.router.model_servers import ModelServers
from fettle.rollout.supervisor.actuator import Actuator

OLD, NEW = "a" * 12, "b" * 12


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture(scope="module")
def registry(uri: str, tmp_path_factory: pytest.TempPathFactory) -> ModelRegistry:
    folder = tmp_path_factory.mktemp("artifacts")
    tracker = Tracker(uri, folder / "artifacts", "tiny")
    tracker.start("tiny", {"seed": 1}, {})
    for release in (OLD, NEW):
        tags = {"release_digest": release * 5, "bento_tag": f"tiny:{release}", "gate": "passed"}
        tracker.register("tiny", folder, tags, challenger=True)
    return ModelRegistry(uri, "tiny")


def test_the_aliases_follow_what_was_decided_and_a_second_time_changes_nothing(
    registry: ModelRegistry,
) -> None:
    wanted = WantedAliases(
        {"champion": NEW, "previous_champion": OLD, "challenger": None},
        {NEW: {"canary": "promoted"}},
    )
    assert registry.project(wanted) == [
        "challenger=None",
        f"champion={NEW}",
        f"previous_champion={OLD}",
    ]
    assert registry.project(wanted) == []
    names = ("champion", "previous_champion", "challenger")
    assert [registry.resolve(name) for name in names] == [NEW, OLD, None]


def test_an_alias_of_a_release_that_nobody_registered_is_refused(registry: ModelRegistry) -> None:
    with pytest.raises(UserError) as caught:
        registry.project(WantedAliases({"champion": "c" * 12}))
    assert str(caught.value) == (
        "release cccccccccccc is not registered as tiny; aliases name registered versions. "
        "Fix: run `fettle run`, which registers it."
    )


def test_the_next_challenger_is_the_newest_that_waited_and_passed() -> None:
    made = [
        Version(str(number), f"r{number}", f"tiny:r{number}", passed)
        for number, passed in ((1, True), (2, True), (3, True), (4, False))
    ]
    assert mlflow_aliases.next_challenger(made, "r1") == "r3"
    assert mlflow_aliases.next_challenger(made, "r3") is None
    assert mlflow_aliases.next_challenger(made, "unknown") is None


def test_names_that_are_written_anew_while_the_old_ones_are_told_are_told_too(
    uri: str, registry: ModelRegistry, tmp_path: Path
) -> None:
    def write(champion: str) -> None:
        doc = {"model": "tiny", "aliases": {"champion": champion}, "tags": {}}
        path.write_text(json.dumps(doc))

    path = tmp_path / "aliases.json"
    write(OLD)
    arms = ModelServers(tmp_path, {}, key=None)
    acting = Actuator(router=None, arms=arms, renew=lambda: None, tracking_uri=uri)  # type: ignore[arg-type]
    acting.project(path)  # begins
    time.sleep(0.2)  # it has not read the file yet, or it has: either way the new names count
    write(NEW)
    deadline = time.monotonic() + 60
    while path.is_file() and time.monotonic() < deadline:
        acting.project(path)
        time.sleep(0.1)
    assert json.loads(path.with_suffix(".done").read_text())["aliases"] == {"champion": NEW}
    assert registry.resolve("champion") == NEW
