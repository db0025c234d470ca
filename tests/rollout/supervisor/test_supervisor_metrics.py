"""`/metrics` of a rollout: whole, parsed as Prometheus does, true, and for whom it is meant."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from rehearsed import RolloutHarness, Users, wait_for
from served import free_port

from fettle.errors import UserError
from fettle.rollout.router import metrics_access

MONITORING = Path(__file__).resolve().parents[3] / "deploy" / "monitoring"
UNDECIDED: dict[str, object] = {"shadow_gates": [], "alpha_promote": 1e-15}
Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]


@pytest.fixture
def held(harness: RolloutHarness) -> RolloutHarness:
    """A rollout that gathers evidence at 50 %, its champion's server once killed."""
    controller = harness.start(harness.release(1))
    with Users(harness.serving.port):
        controller.obey(harness.order(harness.release(2), **UNDECIDED))
        harness.tick_until("step")
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            controller.tick()
    return harness


def get(harness: RolloutHarness, path: str = "/metrics", **headers: str) -> tuple[int, str, str]:
    link = http.client.HTTPConnection("127.0.0.1", harness.serving.port, timeout=10)
    try:
        link.request("GET", path, headers={n.replace("_", "-"): v for n, v in headers.items()})
        answer = link.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read().decode()
    finally:
        link.close()


def scrape(harness: RolloutHarness) -> Samples:
    status, kind, text = get(harness, Authorization="Bearer k")
    assert (status, kind.partition(";")[0]) == (200, "text/plain")
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation.endswith(".")
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in found.setdefault(sample.name, {})
            found[sample.name][labels] = sample.value
    return found


def test_the_whole_rollout_is_told_and_it_is_true(held: RolloutHarness) -> None:
    found = scrape(held)
    lines = held.attempts()
    for arm in ("champion", "challenger"):
        drawn = sum(line["arm"] == arm for line in lines)
        assert found["fettle_router_requests_total"][("arm", arm), ("code", "200")] == drawn > 0
        assert found["fettle_router_request_seconds_count"][(("arm", arm),)] == drawn
        ends = found["fettle_router_request_seconds_bucket"]
        assert ends[("arm", arm), ("le", "+Inf")] == drawn
        assert ends[("arm", arm), ("le", "0.01")] == 0  # these servers take 20 ms
        assert 0.02 * drawn < found["fettle_router_request_seconds_sum"][(("arm", arm),)]
    (up,) = [found["fettle_router_up"][()]]
    assert up == 1
    assert set(found["fettle_arm_up"].values()) == {1.0}
    phases = {labels[0][1]: value for labels, value in found["fettle_rollout_phase"].items()}
    assert [name for name, value in phases.items() if value] == ["step"]
    assert found["fettle_rollout_weight_percent"][()] == 50
    assert found["fettle_rollout_requests"][()] > 0
    assert found["fettle_gate_requests"][("arm", "champion"), ("gate", "errors")] > 0
    assert (("gate", "split"),) in found["fettle_gate_threshold"]
    verdicts = found["fettle_gate_verdict"]
    assert sum(v for labels, v in verdicts.items() if ("gate", "errors") in labels) == 1
    assert 0 <= found["fettle_lease_age_seconds"][()] < found["fettle_lease_seconds"][()]
    assert found["fettle_restarts_total"][(("what", "champion"),)] == 0


def test_what_changes_is_counted_on(held: RolloutHarness) -> None:
    before = scrape(held)
    assert scrape(held)["fettle_router_requests_total"] == before["fettle_router_requests_total"]
    champion = held.place.serving().champion  # type: ignore[union-attr]  # it serves
    assert champion is not None
    held.stop_arm(champion)
    assert scrape(held)["fettle_arm_up"][("arm", "champion"), ("release", champion.release)] == 0
    held.tick_while(lambda: held.arm(champion) is None)
    after = scrape(held)
    assert after["fettle_restarts_total"][(("what", "champion"),)] == 1
    held.controller.obey({"verb": "abort"})  # type: ignore[union-attr]  # it runs
    last = scrape(held)
    assert last["fettle_rollout_phase"][(("phase", "aborted"),)] == 1
    assert last["fettle_rollout_weight_percent"][()] == 0


def test_the_metrics_need_the_key_and_are_no_request_of_a_user_s(held: RolloutHarness) -> None:
    before = len(held.attempts())
    assert get(held)[0] == 401
    assert get(held, X_API_Key="wrong")[0] == 401
    assert get(held, X_API_Key="k")[0] == 200
    assert len(held.attempts()) == before


def test_from_another_network_they_are_refused_in_words(
    harness: RolloutHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_access, "LOOPBACK", ("10.9.9.9/32",))
    harness.start(harness.release(1))
    status, _, text = get(harness, X_API_Key="k")
    assert (status, text) == (
        403,
        '{"error": "the metrics are told to this machine alone, or to the networks of '
        'FETTLE_METRICS_FROM"}',
    )


def test_dashboard_and_rules_ask_for_metrics_that_there_are(held: RolloutHarness) -> None:
    told = set(scrape(held))
    told |= set(re.findall(r"(?m)^# TYPE (\S+)", get(held, X_API_Key="k")[2]))
    for file in ("grafana-dashboard.json", "fettle.rules.yml"):
        asked = set(re.findall(r"\bfettle_[a-z_]+\b", (MONITORING / file).read_text()))
        assert len(asked - {"fettle_api_key"}) > 5
        assert asked <= told, file
    panels = json.loads((MONITORING / "grafana-dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 8


def test_networks_are_read_and_what_is_none_is_refused() -> None:
    near = metrics_access.LOOPBACK
    assert metrics_access.networks({}) == near
    given = {"FETTLE_METRICS_FROM": "10.1.2.3/8, fd00::7 192.168.1.7"}
    assert metrics_access.networks(given) == (
        *near,
        "10.0.0.0/8",
        "fd00::7/128",
        "192.168.1.7/32",
    )
    for wrong in ("all", "10.0.0.0/33", "1.2.3.4; deny all", "example.com"):
        with pytest.raises(UserError, match="FETTLE_METRICS_FROM names what is no network: got "):
            metrics_access.networks({"FETTLE_METRICS_FROM": wrong})


PROMTOOL = shutil.which("promtool")
PROMETHEUS = shutil.which("prometheus")


@pytest.mark.flows
@pytest.mark.skipif(PROMTOOL is None, reason="needs promtool (Debian's prometheus)")
def test_promtool_finds_nothing_wrong(held: RolloutHarness) -> None:
    text = get(held, X_API_Key="k")[2]
    done = subprocess.run(
        [str(PROMTOOL), "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.flows
@pytest.mark.skipif(PROMTOOL is None, reason="needs promtool (Debian's prometheus)")
@pytest.mark.parametrize(
    "words",
    [
        ["check", "rules", "fettle.rules.yml"],
        ["test", "rules", "fettle.rules.test.yml"],
        ["check", "config", "--syntax-only", "prometheus.yml"],
    ],
)
def test_promtool_takes_the_rules_their_tests_and_the_scrape(words: list[str]) -> None:
    done = subprocess.run(
        [str(PROMTOOL), *words], cwd=MONITORING, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def prometheus(held: RolloutHarness, tmp_path: Path) -> Iterator[int]:
    """A real Prometheus that scrapes the rollout by the committed configuration; its port."""
    key = tmp_path / "api_key"
    key.write_text("k")
    text = (MONITORING / "prometheus.yml").read_text()
    text = text.replace("127.0.0.1:3000", f"127.0.0.1:{held.serving.port}")
    text = text.replace("/etc/prometheus/fettle_api_key", str(key))
    text = text.replace("fettle.rules.yml", str(MONITORING / "fettle.rules.yml"))
    text = text.replace("scrape_interval: 15s", "scrape_interval: 1s")
    (tmp_path / "prometheus.yml").write_text(text)
    port = free_port()
    words = [
        str(PROMETHEUS),
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (tmp_path / "prometheus.log").open("w") as log:
        child = subprocess.Popen(words, stderr=log, env={"PATH": os.environ["PATH"]})
    yield port
    child.kill()
    child.wait()


@pytest.mark.flows
@pytest.mark.skipif(PROMETHEUS is None, reason="needs Debian's prometheus")
def test_a_real_prometheus_scrapes_it_by_the_committed_configuration(
    held: RolloutHarness, prometheus: int
) -> None:
    def value(query: str) -> list[str]:
        address = f"http://127.0.0.1:{prometheus}/api/v1/query?query={quote(query)}"
        try:
            with urlopen(address, timeout=5) as answer:
                return [one["value"][1] for one in json.load(answer)["data"]["result"]]
        except OSError:
            return []

    wait_for(lambda: value("up") == ["1"], timeout_s=60)
    wait_for(lambda: value('fettle_rollout_phase{phase="step"}') == ["1"], timeout_s=20)
    assert len(value("fettle_gate_evidence")) > 0
