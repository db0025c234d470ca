from __future__ import annotations

import pytest

from fettle.promotion import rollout
from fettle.promotion.plan import Plan
from fettle.promotion.rollout import Phase, RolloutState, Verb
from fettle.promotion.verdict import Verdict
from fettle.sections import Promote
from fettle.supervisor.watch import why


@pytest.mark.parametrize("verdict", [Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.ERROR])
def test_a_paused_rollout_goes_on_saying_why_it_was_paused(verdict: Verdict) -> None:
    plan = Plan.of(Promote())
    begun = RolloutState(
        rollout_id="r", challenger="b", champion="a", phase=Phase.STEP, weight_percent=1.0
    )
    paused, _, reason = rollout.order(begun, Verb.PAUSE, plan, 1.0)
    said = why(reason, before="begun")
    for now_s in (2.0, 3.0):
        paused, _, reason = rollout.step(paused, verdict, plan, now_s, requests=10)
        said = why(reason, before=said)
    assert said == "paused by order"
