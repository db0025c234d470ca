"""MLflow's real registry on a scratch database."""

from __future__ import annotations

import pytest

from fettle.adapters import aliases
from fettle.adapters.aliases import Registry, Version, Wanted
from fettle.adapters.tracking import Tracker
from fettle.errors import UserError

OLD, NEW = "a" * 12, "b" * 12


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    tracker = Tracker(uri, folder / "artifacts", "tiny")
    tracker.start("tiny", {"seed": 1}, {})
    for release in (OLD, NEW):
        tags = {"release_digest": release * 5, "bento_tag": f"tiny:{release}", "gate": "passed"}
        tracker.register("tiny", folder, tags, challenger=True)
    return Registry(uri, "tiny")


def test_the_aliases_follow_what_was_decided_and_a_second_time_changes_nothing(
    registry: Registry,
) -> None:
    wanted = Wanted(
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


def test_an_alias_of_a_release_that_nobody_registered_is_refused(registry: Registry) -> None:
    with pytest.raises(UserError) as caught:
        registry.project(Wanted({"champion": "c" * 12}))
    assert str(caught.value) == (
        "release cccccccccccc is not registered as tiny; aliases name registered versions. "
        "Fix: run `fettle run`, which registers it."
    )


def test_the_next_challenger_is_the_newest_that_waited_and_passed() -> None:
    made = [
        Version(str(number), f"r{number}", f"tiny:r{number}", passed)
        for number, passed in ((1, True), (2, True), (3, True), (4, False))
    ]
    assert aliases.next_challenger(made, "r1") == "r3"
    assert aliases.next_challenger(made, "r3") is None
    assert aliases.next_challenger(made, "unknown") is None
