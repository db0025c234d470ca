"""Every module of benchmarks/ imports, parses its command line, and finds the files it names."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from benchmarks import compress, serve, sim_canary
from benchmarks.compress_rows import budget, int8_alone
from benchmarks.context import Context
from benchmarks.serving import servers_under_load

ROOT = Path(__file__).resolve().parents[2]
# run in environments of the rivals' own, where nothing of fettle can be imported
ELSEWHERE = {"nncf_script", "lit", "mlflow_model", "mlserver_model", "model"}
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "benchmarks").rglob("*.py")
    if path.stem not in {*ELSEWHERE, "__init__"}
)
COMMANDS = ("benchmarks.main", "benchmarks.compress", "benchmarks.serve", "benchmarks.sim_canary")


def test_the_modules_are_found() -> None:
    assert len(MODULES) > 30
    assert {*COMMANDS, "benchmarks.page"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports(name: str) -> None:
    assert importlib.import_module(name).__doc__


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_how_it_is_used(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(name).main()
    assert ended.value.code == 0
    assert "--only" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_refuses_a_row_that_it_does_not_have(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--only", "no such row"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(name).main()
    assert ended.value.code == 2
    assert "invalid choice: 'no such row'" in capsys.readouterr().err


def test_the_rows_of_compression_are_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["compress", "--list"])
    compress.main()
    assert len(capsys.readouterr().out.splitlines()) == len(compress.names())


def test_every_row_of_serving_states_what_it_measures() -> None:
    assert len(serve.names()) == 5
    assert all(serve.row(name).WHAT and serve.row(name).GOAL for name in serve.names())


def test_the_scripts_of_other_environments_are_where_they_are_asked_for() -> None:
    named = [int8_alone.NNCF_SCRIPT, *servers_under_load.RIVALS.glob("*.py")]
    assert {path.stem for path in named} >= ELSEWHERE
    assert all(path.is_file() for path in named)


def test_a_row_of_compression_is_measured() -> None:
    rows = list(budget.run(Context(data=("digits",))))
    assert [row.verdict for row in rows] == ["met", "met"]
    assert all(row.seeds == () for row in rows)


def test_a_simulated_rollout_makes_rows_with_their_seeds() -> None:
    rows = list(sim_canary.part("rollback", 2))
    assert [row.n for row in rows] == [2, 2, 2]
    assert all(row.seeds and row.goal for row in rows)
