from __future__ import annotations

from typing import Any

from fettle.cli import canary_view

GATE: dict[str, Any] = {
    "name": "errors",
    "verdict": "FAIL",
    "reason": "the challenger is worse",
    "champion": {"events": 1.0, "n": 900},
    "challenger": {"events": 9.0, "n": 100},
    "evidence": 2345.6,
    "threshold": 400.0,
}
STATUS: dict[str, Any] = {
    "rollout": "20261124-150000-b2b2b2",
    "state": "rolled_back",
    "weight_percent": 0.0,
    "champion": "a1a1a1a1a1a1",
    "challenger": "b2b2b2b2b2b2",
    "reason": "a gate failed at 10 %",
    "requests": 1000,
    "gates": [GATE],
    "eta_s": None,
    "supervisor": "running",
}


def test_a_rollback_names_the_gate_both_counts_the_evidence_and_the_threshold() -> None:
    assert canary_view.text(STATUS) == (
        "20261124-150000-b2b2b2  rolled_back  0 % of the requests to b2b2b2b2b2b2, the rest to "
        "a1a1a1a1a1a1\n"
        "  a gate failed at 10 %; 1000 requests judged in this step\n"
        "  gate    verdict  champion  challenger  evidence  needs  why\n"
        "  errors  FAIL     1 of 900  9 of 100    2.35e+03  400    the challenger is worse"
    )


def test_without_a_rollout_the_champion_is_named() -> None:
    doc = {"state": "idle", "champion": "a1a1a1a1a1a1", "gates": [], "weight_percent": 0.0}
    assert canary_view.text(doc) == (
        "no rollout; serving a1a1a1a1a1a1. Begin one: fettle canary start"
    )


def test_a_stopped_supervisor_is_said_with_the_way_out() -> None:
    text = canary_view.text({**STATUS, "gates": [], "supervisor": "stopped"})
    assert text.splitlines()[-1] == (
        "  the supervisor is stopped: any order starts it again (fettle canary resume)"
    )


def test_a_weight_that_nobody_judges_is_told_as_what_users_meet() -> None:
    doc = {**STATUS, "gates": [], "state": "step", "decided_percent": 25.0, "supervisor": "stopped"}
    lines = canary_view.text({**doc, "serves": True}).splitlines()
    assert lines[0].startswith("20261124-150000-b2b2b2  step  0 % of the requests to ")
    assert lines[2:] == [
        "  nobody judges now: the challenger gets none of its 25 %",
        "  the supervisor is stopped: any order starts it again (fettle canary resume)",
    ]


def test_what_was_stopped_is_not_said_to_serve() -> None:
    text = canary_view.text({**STATUS, "gates": [], "supervisor": "stopped", "serves": False})
    assert text.splitlines()[-1] == (
        "  nothing serves: fettle serve goes on with this rollout and its evidence"
    )
    idle = {"state": "idle", "champion": "a1a1a1a1a1a1", "gates": [], "serves": False}
    assert canary_view.text(idle) == (
        "no rollout, and nothing serves; a1a1a1a1a1a1 would: fettle serve"
    )


def test_the_time_to_go_is_told_in_the_unit_that_fits() -> None:
    assert [canary_view.eta(seconds) for seconds in (30.0, 600.0, 9000.0, None)] == [
        "; about 30 s to go",
        "; about 10 min to go",
        "; about 2.5 h",
        "",
    ]
