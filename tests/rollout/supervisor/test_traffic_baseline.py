from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from fettle import manifest
from fettle.rollout.promotion.sample_size import Traffic
from fettle.rollout.promotion.traffic_statistics import REQUESTS_LEAST
from fettle.rollout.router import access_log, model_servers
from fettle.rollout.supervisor import traffic_baseline
from fettle.rollout.supervisor.state_layout import PinnedRelease, ServingState, StateLayout

ASSUMED = Traffic(requests_per_s=10)


def line(at: int, port: int, *, status: int = 200, seconds: float = 0.004) -> str:
    doc = {"time": 1000 + at / 50, "id": f"r{at}", "arm": "champion", "weight": 0, "key": ""}
    tries = {"addr": f"127.0.0.1:{port}", "statuses": str(status), "times": f"{seconds:.3f}"}
    told = {"status": status, "seconds": seconds, "predicted": "1", "inputs": "0.5"}
    return json.dumps({**doc, **told, **tries})


@pytest.fixture
def place(tmp_path: Path) -> StateLayout:
    made = StateLayout(tmp_path)
    made.router.mkdir()
    champion = PinnedRelease("aaa", "tiny:aaa", "/nowhere")
    made.write_serving(replace(ServingState("127.0.0.1", 1, 2, 3), champion=champion))
    for name, port in (("aaa", 3101), ("bbb", 3102)):
        server = model_servers.RunningServer(name, 1, 0.0, port, [])
        manifest.write_json(made.arms / name / "server.json", asdict(server))
    return made


def write(place: StateLayout, lines: list[str]) -> None:
    (place.router / "attempts.log").write_text("\n".join(lines) + "\n")


def test_the_champions_own_requests_are_counted_and_the_rate_is_of_all(place: StateLayout) -> None:
    n = REQUESTS_LEAST
    write(place, [line(at, 3101 + at % 2, status=200 if at % 20 else 503) for at in range(2 * n)])
    found = traffic_baseline.from_access_log(place, ASSUMED)
    assert found.requests == n
    assert found.assumed == ()
    assert found.traffic.errors == pytest.approx(0.1, abs=1e-3)
    assert found.traffic.requests_per_s == pytest.approx(50, rel=1e-3)


def test_after_a_promotion_the_challenger_is_the_champion(place: StateLayout) -> None:
    serving = place.serving()
    assert serving is not None
    challenger = PinnedRelease("bbb", "tiny:bbb", "/nowhere")
    place.write_serving(replace(serving, challenger=challenger, rollout="r1"))
    manifest.write_json(place.rollout("r1") / "status.json", {"state": "promoted"})
    write(place, [line(at, 3102) for at in range(50)])
    assert traffic_baseline.from_access_log(place, ASSUMED).requests == 50


def test_only_whole_lines_of_the_logs_end_are_read(
    place: StateLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [line(at, 3101) for at in range(100, 200)]
    write(place, lines)
    size = sum(len(one) + 1 for one in lines[-40:])
    monkeypatch.setattr(traffic_baseline, "RECENT_BYTES", size)
    assert traffic_baseline.from_access_log(place, ASSUMED).requests == 40
    monkeypatch.setattr(traffic_baseline, "RECENT_BYTES", size - 5)
    assert traffic_baseline.from_access_log(place, ASSUMED).requests == 39
    assert access_log.recent(place.router / "attempts.log", 10**9) == 0


def test_without_a_log_or_anything_that_serves_all_is_assumed(
    place: StateLayout, tmp_path: Path
) -> None:
    for one in (place, StateLayout(tmp_path / "new")):
        found = traffic_baseline.from_access_log(one, ASSUMED)
        assert (found.traffic, found.requests) == (ASSUMED, 0)
        assert len(found.assumed) == 4
