from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fettle.cli import canary, canary_tools
from fettle.errors import ParamsError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project's own two files; the plan is the default one."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _set(project: Path, name: str, value: str) -> None:
    lines = (project / "params.yaml").read_text().splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith(f"  {name}: "))
    lines[at] = f"  {name}: {value}"
    (project / "params.yaml").write_text("\n".join(lines) + "\n")


def _json(*words: str) -> dict[str, object]:
    done = CliRunner().invoke(canary.app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_the_default_plan_can_promote_an_equal_challenger(project: Path) -> None:
    done = CliRunner().invoke(canary.app, ["lint"])
    assert (done.exit_code, done.stdout) == (0, "the plan can promote an equal challenger\n")
    assert _json("lint") == {"refusals": [], "advice": []}


def test_a_budget_too_small_is_refused_with_what_the_gate_needs(project: Path) -> None:
    _set(project, "step_budget_requests", "500")
    with pytest.raises(ParamsError) as caught:
        canary_tools.lint(per_s=50.0, errors=0.01)
    text = str(caught.value)
    assert text.startswith("the plan cannot promote an equal challenger: got 1 %: errors needs ")
    assert "the budget is 500 (promote.step_budget_requests)" in text
    assert canary_tools.forecast(50.0, 0.01)[0].refusals


def test_the_plan_takes_longer_with_less_traffic(project: Path) -> None:
    slow, fast = (_json("plan", "--per-s", per_s) for per_s in ("5", "50"))
    assert slow["requests"] == fast["requests"]
    assert isinstance(slow["eta_s"], float)
    assert isinstance(fast["eta_s"], float)
    assert slow["eta_s"] > fast["eta_s"]
    assert fast["refusals"] == []


def test_replay_without_a_rollout_says_how_to_begin_one(project: Path) -> None:
    done = CliRunner().invoke(canary.app, ["replay"])
    assert str(done.exception) == (
        "there is no rollout to replay: got none yet. Fix: begin one: `fettle canary start`."
    )
