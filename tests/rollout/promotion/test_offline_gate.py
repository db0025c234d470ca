from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fettle.measure import Measure
from fettle.params_schema import Promote
from fettle.rollout.promotion.gate_verdict import Verdict, worst
from fettle.rollout.promotion.offline_gate import EvidenceBundle, judge
from fettle.rollout.promotion.rollout_plan import RolloutPlan

PLAN = RolloutPlan.of(Promote())


def papers(**measures: tuple[float, float, float]) -> EvidenceBundle:
    figures = {
        "accuracy": (0.98, 0.97, 0.99),
        "recall.cat": (0.98, 0.95, 0.995),
        "recall.dog": (0.97, 0.94, 0.99),
        "latency_ratio": (2.0, 1.9, 2.1),
        **{name.replace("__", "."): one for name, one in measures.items()},
    }
    taken = {
        name: Measure(value=v, unit="1", n=900, low=low, high=high).to_dict()
        for name, (v, low, high) in figures.items()
    }
    gate: dict[str, Any] = {"passed": True, "failed": [], "measures": taken}
    return EvidenceBundle(gate=gate, validation={"passed": True}, model_bytes=1000, signed=True)


def failing(challenger: EvidenceBundle, champion: EvidenceBundle | None = None) -> dict[str, str]:
    found = judge(challenger, champion or papers(), PLAN)
    assert len(found) == 7
    return {one.name: one.reason for one in found if one.verdict is not Verdict.PASS}


def test_an_equal_release_passes_every_offline_gate() -> None:
    assert failing(papers()) == {}


def test_each_offline_gate_can_fail_and_says_why() -> None:
    report = papers()
    report.gate.update(passed=False, failed=["accuracy drops by 0.02"])
    assert failing(report) == {"report": "accuracy drops by 0.02"}
    assert failing(replace(papers(), validation={"passed": False})) == {
        "data": "data validation did not pass"
    }
    assert failing(replace(papers(), signed=False)) == {
        "signature": "the signature does not fit the files"
    }
    assert failing(papers(accuracy=(0.94, 0.93, 0.95))) == {
        "accuracy": "0.9400 against 0.9800 on test, margin 0.01, chance 0.0214"
    }
    assert failing(papers(recall__dog=(0.90, 0.86, 0.93))) == {
        "classes": "'dog' recall 0.900 against 0.970"
    }
    assert failing(papers(latency_ratio=(1.5, 1.4, 1.6))) == {
        "latency": "1.50 x faster than its float model, the champion 2.00 x"
    }
    assert failing(replace(papers(), model_bytes=2001)) == {
        "size": "2,001 bytes against 1,000, limit 2 x"
    }


def test_a_class_that_is_gone_fails() -> None:
    challenger = papers()
    del challenger.gate["measures"]["recall.cat"]
    assert failing(challenger) == {"classes": "'cat' is gone"}


def test_what_is_missing_holds() -> None:
    challenger = papers()
    del challenger.gate["measures"]["latency_ratio"]
    found = judge(replace(challenger, signed=None), papers(), PLAN)
    assert worst(one.verdict for one in found) is Verdict.INCONCLUSIVE


def test_a_first_release_is_judged_by_its_own_papers() -> None:
    found = judge(papers(), None, PLAN)
    assert [one.name for one in found] == ["report", "data", "signature"]


def test_an_equal_challenger_is_seldom_stopped_for_its_accuracy() -> None:
    """899 images, 98 % right on both, 4 % of the answers differ: by the points 7.5 % were."""
    rng, stopped = np.random.default_rng(1), 0
    for _ in range(400):
        both = rng.multinomial(899, [0.96, 0.02, 0.02, 0.0])
        shares = [(both[0] + both[at]) / 899 for at in (1, 2)]
        ends = [(share, share - 0.001, share + 0.0009) for share in shares]
        stopped += "accuracy" in failing(papers(accuracy=ends[0]), papers(accuracy=ends[1]))
    assert stopped <= 2
