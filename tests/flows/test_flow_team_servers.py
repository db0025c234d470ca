"""A run that is told to a team's servers, real ones: found, unreachable, lost, and others' runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import team_servers
from box import Box, set_params
from box_processes import stage_process, wait_for
from test_flow_push import SETTINGS

pytestmark = [pytest.mark.flows, pytest.mark.slow]


def ask(url: str, doc: dict[str, Any]) -> Any:  # Any: JSON
    body = json.dumps(doc).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


class Team:
    """A project in a home of its own, and the two servers that its inputs/local.yaml names."""

    def __init__(self, root: Path, prefect: str) -> None:
        self.box, self.prefect = Box(root, root / "fruit"), prefect
        done = self.box.fettle("init", "fruit", cwd=root)
        assert done.returncode == 0, done.stderr
        set_params(self.box.project / "params.yaml", {**SETTINGS, "finetune.epochs_max": "1"})
        self.mlflow = ""

    def use(self, mlflow: str) -> None:
        self.mlflow = mlflow
        path = self.box.project / "inputs" / "local.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"prefect_api_url: {self.prefect}\nmlflow_tracking_uri: {mlflow}\n")

    def limit(self, accuracy: float) -> None:
        """Change what the last two stages depend on."""
        limits = f"[{{metric: accuracy, min: {accuracy}}}]"
        set_params(self.box.project / "params.yaml", {"verdict.limits": limits})

    def begin(self, stage: str = "verdict") -> subprocess.Popen[str]:
        """Start a run, and wait until a stage of it is at work."""
        run = subprocess.Popen(
            self.box.command("run"),
            cwd=self.box.project,
            env=self.box.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: stage_process(self.box, stage))
        return run

    def states(self) -> dict[str, str]:
        """{name: state} of every run in MLflow; a pipeline's run is named after the project."""
        base = f"{self.mlflow}/api/2.0/mlflow"
        with urllib.request.urlopen(f"{base}/experiments/search?max_results=9") as answer:
            ids = [one["experiment_id"] for one in json.load(answer)["experiments"]]
        runs = ask(f"{base}/runs/search", {"experiment_ids": ids, "max_results": 999})
        return {one["info"]["run_id"]: one["info"]["status"] for one in runs.get("runs", [])}

    def flow_states(self) -> list[str]:
        runs = ask(f"{self.prefect}/flow_runs/filter", {"sort": "START_TIME_ASC"})
        return [run["state_type"] for run in runs]

    def stranger(self) -> str:
        """Open a run of somebody else in MLflow; return its id."""
        base = f"{self.mlflow}/api/2.0/mlflow"
        made = ask(f"{base}/runs/create", {"experiment_id": "0", "run_name": "a colleague's"})
        return str(made["run"]["info"]["run_id"])


def answers_of(model: str, tracking_uri: str, cwd: Path) -> str:
    """Load a model from the server, far from the project, and let it answer ten images."""
    code = """if True:
        import io, sys, warnings
        warnings.simplefilter("ignore")
        import mlflow, numpy as np
        from PIL import Image
        model = mlflow.pyfunc.load_model(sys.argv[1])
        images = []
        for seed in range(10):
            drawn = np.random.default_rng(seed).integers(0, 256, (20, 20), dtype=np.uint8)
            file = io.BytesIO()
            Image.fromarray(drawn).save(file, "PNG")
            images.append(file.getvalue())
        print(model.predict(images)["label"].notna().sum(), "labels")
    """
    environ = {**os.environ, "MLFLOW_TRACKING_URI": tracking_uri}
    environ.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-c", code, model],
        cwd=cwd,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or done.stderr


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[team_servers.TeamServer]:
    with team_servers.prefect(tmp_path_factory.mktemp("team-prefect")) as server:
        yield server


@pytest.fixture(scope="module")
def team(
    tmp_path_factory: pytest.TempPathFactory, prefect: team_servers.TeamServer
) -> Iterator[Team]:
    made = Team(tmp_path_factory.mktemp("team"), prefect.url)
    yield made
    made.box.fettle("ui", "--stop")


def test_a_run_is_told_to_the_team_s_servers_and_starts_none(team: Team, tmp_path: Path) -> None:
    with team_servers.mlflow(tmp_path) as mlflow:
        team.use(mlflow.url)
        done = team.box.fettle("run")
        assert done.returncode == 0, done.stderr
        assert f"told to {team.prefect} (PREFECT_API_URL, by inputs/local.yaml)\n" in done.stderr
        assert f"told to {mlflow.url} (MLFLOW_TRACKING_URI, by inputs/local.yaml)\n" in done.stderr
        assert not (team.box.project / ".fettle" / "mlflow.db").exists()
        assert not (team.box.project / ".fettle" / "prefect-server.json").exists()
        assert team.flow_states() == ["COMPLETED"]
        assert set(team.states().values()) == {"FINISHED"}
        url = f"{mlflow.url}/api/2.0/mlflow/registered-models/alias?name=fruit&alias=challenger"
        with urllib.request.urlopen(url) as answer:
            assert json.load(answer)["model_version"]["version"] == "1"
        assert answers_of("models:/fruit@challenger", mlflow.url, tmp_path) == "10 labels"
        ui = team.box.fettle("ui").stdout
        assert ui.splitlines() == [
            f"prefect  {team.prefect.removesuffix('/api')}  (PREFECT_API_URL, by "
            "inputs/local.yaml)",
            f"mlflow   {mlflow.url}  (MLFLOW_TRACKING_URI, by inputs/local.yaml)",
        ]

        # killed, and others at work on the same servers
        stranger = team.stranger()
        theirs = ask(f"{team.prefect}/flows/", {"name": "release"})["id"]
        other = ask(
            f"{team.prefect}/flow_runs/",
            {"flow_id": theirs, "state": {"type": "RUNNING", "name": "Running"}},
        )["id"]
        team.limit(0.01)
        with team.begin() as run:
            run.kill()
        done = team.box.fettle("run")
        assert done.returncode == 0, done.stderr
        assert "recovered: 1 run left open in Prefect, ended as killed\n" in done.stderr
        assert "left open in MLflow, ended as killed\n" in done.stderr
        found = team.states()
        assert found.pop(stranger) == "RUNNING"
        assert set(found.values()) == {"FINISHED", "KILLED"}
        with urllib.request.urlopen(f"{team.prefect}/flow_runs/{other}") as answer:
            assert json.load(answer)["state_type"] == "RUNNING"
        assert sorted(team.flow_states()) == ["COMPLETED", "COMPLETED", "CRASHED", "RUNNING"]


def test_an_mlflow_that_is_lost_in_the_middle_costs_no_stage(team: Team, tmp_path: Path) -> None:
    with team_servers.mlflow(tmp_path / "one") as mlflow:
        team.use(mlflow.url)
        team.limit(0.02)
        with team.begin() as run:
            mlflow.kill()
            _, said = run.communicate(timeout=200)
    assert run.returncode == 1
    assert "fettle: MLflow did not take what the run did: got " in said
    assert (
        "package. Every stage's artefact is kept, and nothing is published that no tracker knows. "
        "Fix: run again when it answers: no stage repeats, and their runs are written then.\n"
    ) in said
    assert "Traceback" not in said
    done = team.box.fettle("run")
    assert done.returncode == 1
    assert done.stderr == (
        f"fettle: MLflow's server does not take this run: got Connection refused from {mlflow.url} "
        "(MLFLOW_TRACKING_URI, by inputs/local.yaml); a run is told to it from the first stage on, "
        "so it has 5 s to answer before the work. Fix: start it, or mend MLFLOW_TRACKING_URI, or "
        "take it out: the project then keeps its own.\n"
    )
    with team_servers.mlflow(tmp_path / "two") as mlflow:
        team.use(mlflow.url)
        done = team.box.fettle("run")
        assert done.returncode == 0, done.stderr
        assert "verdict                      unchanged" in done.stderr
        assert len(team.states()) > 8  # every stage has its run there
        assert set(team.states().values()) == {"FINISHED"}


def test_a_prefect_that_is_lost_in_the_middle_costs_no_stage(
    team: Team, prefect: team_servers.TeamServer, tmp_path: Path
) -> None:
    with team_servers.mlflow(tmp_path) as mlflow:
        team.use(mlflow.url)
        team.limit(0.03)
        with team.begin() as run:
            prefect.kill()
            _, said = run.communicate(timeout=300)
        assert run.returncode == 1
        assert "  verdict                      ran" in said
        last = said.splitlines()[-1] if "fettle:" in said.splitlines()[-1] else said
        assert "fettle: Prefect's server does not answer any more: got ConnectError: " in last
        assert "every stage's artefact is kept. Fix: run again when it answers: no stage" in last
        assert "Traceback" not in said
        done = team.box.fettle("run")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(
            f"fettle: Prefect's server does not take this run: got Connection refused from "
            f"{prefect.url} (PREFECT_API_URL, by inputs/local.yaml); "
        )
        ui = team.box.fettle("ui")
        assert (ui.returncode, ui.stderr) == (1, done.stderr)
