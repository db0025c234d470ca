from __future__ import annotations

import pytest
from simulated_traffic import agreeing_pairs, an_engine, attempts

from fettle.rollout.promotion.decision_engine import Observed
from fettle.rollout.promotion.request_records import REPLAYED_STATUSES, failed
from fettle.rollout.promotion.rollout_state import BROKEN, OVER, Phase, is_over


@pytest.mark.parametrize("status", [0, 429, 500, 501, 502, 503, 504, 599, *REPLAYED_STATUSES])
def test_what_gave_no_answer_is_the_arms_failure(status: int) -> None:
    assert failed(status)


@pytest.mark.parametrize("status", [200, 204, 301, 400, 401, 404, 413, 422])
def test_what_the_caller_did_is_not(status: int) -> None:
    assert not failed(status)


def test_a_challenger_that_answers_429_is_rolled_back() -> None:
    from dataclasses import replace

    engine = an_engine()
    engine.decide(agreeing_pairs(300))
    busy = [
        replace(one, status=429 if one.arm == "challenger" else 200)
        for one in attempts(1, 0.1, 400, errors=(0.0, 0.0))
    ]
    decision = engine.decide(Observed(now_s=2.0, records=tuple(busy)))
    assert decision.state.phase is Phase.ROLLED_BACK


def test_the_states_in_which_no_rollout_is_under_way() -> None:
    assert {"promoted", "rolled_back", "aborted", BROKEN} == OVER
    assert [phase.value for phase in Phase if not is_over(phase)] == [
        "pending",
        "shadow",
        "step",
        "bake",
        "paused",
    ]
