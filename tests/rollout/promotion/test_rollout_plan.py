"""What a plan is stored as: journals and orders of before an upgrade are read after it."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from fettle.params_schema import Promote
from fettle.rollout.promotion.decision_engine import Begin
from fettle.rollout.promotion.event_serialization import begin_from_json, begin_to_json
from fettle.rollout.promotion.rollout_plan import (
    RolloutPlan,
    section_from_json,
    section_to_json,
)

PLAN = RolloutPlan.of(Promote())
# As the version before schema 2 of params.yaml pinned the default plan.
DIGEST = "8bde8c2a6ab0bf4c2efe5de03be3983b8db4f0d76712e6bb71832da30d529e5f"
STEP = {"weight_percent": 50.0, "gates": ["errors", "latency"]}


def test_a_plan_has_the_digest_that_older_journals_pin() -> None:
    assert PLAN.digest() == DIGEST


def test_a_journal_stores_the_names_it_began_with_and_is_read_back() -> None:
    begin = Begin(rollout_id="r", challenger="b", champion=None, plan=PLAN, reference=None)
    stored = json.loads(json.dumps(begin_to_json(begin)))
    assert stored["plan"]["steps"][0] == {
        "weight_percent": 1.0,
        "margin_times": 20.0,
        "gates": ["errors"],
    }
    assert begin_from_json(stored) == begin


def test_an_order_is_one_that_a_supervisor_of_before_the_upgrade_takes() -> None:
    stored = section_to_json(Promote())
    assert [step["margin_times"] for step in stored["steps"]] == [20.0, 8.0, 2.0, 1.0]
    assert not [step for step in stored["steps"] if "margin_multiplier" in step]
    assert section_from_json(stored) == Promote()


@pytest.mark.parametrize("name", ["margin_times", "margin_multiplier"])
def test_an_order_of_either_name_is_read(name: str) -> None:
    steps = [{**STEP, "weight_percent": 20.0, name: 3.0}, {**STEP, name: 1.0}]
    section = section_from_json({"steps": steps})
    assert [step.margin_multiplier for step in section.steps] == [3.0, 1.0]


@pytest.mark.parametrize("doc", [None, [], {"steps": [7]}, {"steps": 7}, {"steps": [{"x": 1}]}])
def test_an_order_that_is_none_is_refused(doc: object) -> None:
    with pytest.raises(ValidationError):
        section_from_json(doc)
