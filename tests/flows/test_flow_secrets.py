"""One secret of each kind is given to a project, and nothing that it writes or prints holds one."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import team_servers
from box import Box, set_params
from test_flow_push import SETTINGS

from fettle.release import signing

pytestmark = [pytest.mark.flows, pytest.mark.slow]

SECRETS = {
    "the server's API key": "s3cretApiKey0001",
    "the token in MLflow's address": "s3cretMlflow0002",
    "the token in the webhook's address": "s3cretWebhook003",
    "Prefect's API key": "s3cretPrefect004",
    "Prefect's password": "s3cretPrefect005",
    "the DVC remote's password": "s3cretRemote0006",
    "MLflow's token": "s3cretMlflow0007",
}
NOWHERE = "127.0.0.1:9"


@dataclass(frozen=True)
class SecretBox(Box):
    """A box whose environment holds secrets."""

    secrets: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        return {**super().environment(), **self.secrets}


@dataclass(frozen=True)
class Told:
    """What was printed, and the places that were written to."""

    printed: str
    places: tuple[Path, ...]
    given: frozenset[Path]  # the files that a person wrote the secrets into


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Run a project in all ways that write something, with its secrets in every place for them."""
    root = tmp_path_factory.mktemp("secrets")
    key, mlflow_token, webhook, api_key, password, remote, token = SECRETS.values()
    with (
        team_servers.prefect(
            root / "team", PREFECT_SERVER_API_AUTH_STRING=f"admin:{password}"
        ) as prefect,
        team_servers.mlflow(root / "team") as mlflow,
    ):
        secrets = {  # of environment variables, too
            "FETTLE_API_KEY": key,
            "FETTLE_ON_FAILURE_WEBHOOK": f"http://{NOWHERE}/hook/{webhook}",
            "PREFECT_API_KEY": api_key,
            "PREFECT_API_AUTH_STRING": f"admin:{password}",
            "PREFECT_API_URL": prefect.url,
            "MLFLOW_TRACKING_TOKEN": token,
        }
        box = SecretBox(root, root / "fruit", secrets)
        assert box.fettle("init", "fruit", cwd=root).returncode == 0
        set_params(box.project / "params.yaml", {**SETTINGS, "finetune.epochs_max": "1"})
        local = box.project / "inputs" / "local.yaml"
        local.parent.mkdir(exist_ok=True)
        address = mlflow.url.replace("//", f"//ci:{mlflow_token}@")
        local.write_text(f"mlflow_tracking_uri: {address}\n")
        dvc = box.project / ".dvc" / "config.local"
        dvc.write_text(
            "['remote \"team\"']\n"
            f"    url = https://{NOWHERE}/data\n    user = ci\n    password = {remote}\n"
        )
        printed = [_everything(box)]
        local.write_text(f"mlflow_tracking_uri: {address.replace(mlflow.url[-5:], NOWHERE[-2:])}\n")
        for words in (("run", "--force"), ("doctor",), ("ui",)):  # a server that is gone
            done = box.fettle(*words)
            printed.append(done.stdout + done.stderr)
        local.write_text(f"mlflow_tracking_uri: {address}\n")
    given = frozenset({local, dvc, root / ".config" / "fettle" / "signing_key.pem"})
    return Told("\n".join(printed), (root,), given)


def _everything(box: Box) -> str:
    """Run, run in a workspace, report, deploy, and let a worker fail; return all that is said."""
    said = []
    for words in (
        ("run",),
        ("run", "--set", "verdict.limits=[{metric: accuracy, min: 1.0}]"),
        ("doctor",),
        ("doctor", "--json"),
        ("report", "--json"),
        ("report", "--markdown"),
        ("ui",),
        ("lineage", "fruit"),
        ("deploy", "--cron", "30 3 * * *"),
    ):
        done = box.fettle(*words)
        said.append(f"$ {words}: {done.returncode}\n{done.stdout}{done.stderr}")
    assert "$ ('run',): 0\n" in said[0], said[0]
    assert ": 2\n" in said[1], said[1]
    run = ("-m", "prefect", "deployment", "run", "release/fruit", "-p", 'overrides=["nonsense"]')
    worker_log = box.home / "worker.log"
    with worker_log.open("w") as log:
        worker = subprocess.Popen(
            box.command("worker", "--on-failure", "cat"),
            cwd=box.project,
            env=box.environment(),
            stdout=log,
            stderr=log,
        )
        try:
            done = subprocess.run(
                [box.command()[0], *run],
                env=box.environment(),
                capture_output=True,
                text=True,
                check=False,
            )
            deadline = time.monotonic() + 120
            while "the webhook did not take it: " not in worker_log.read_text():
                assert time.monotonic() < deadline, worker_log.read_text() + done.stderr
                time.sleep(0.5)
            said += [_arguments(worker.pid)]
        finally:
            worker.terminate()
            worker.wait(60)
    return "\n".join([*said, worker_log.read_text()])


def _arguments(pid: int) -> str:
    """The command lines of a process and all below it, which every user of the machine may read."""
    import psutil

    process = psutil.Process(pid)
    return "\n".join(" ".join(one.cmdline()) for one in (process, *process.children(True)))


def holders(told: Told, secret: bytes) -> list[str]:
    """Name the files that hold a secret, but for those that it was given in."""
    return [
        str(path)
        for place in told.places
        for path in sorted(place.rglob("*"))
        if path.is_file() and not path.is_symlink() and path not in told.given
        if secret in path.read_bytes()
    ]


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_is_in_nothing_that_is_written_or_printed(told: Told, kind: str) -> None:
    assert holders(told, SECRETS[kind].encode()) == []
    assert SECRETS[kind] not in told.printed


def test_the_signing_key_is_in_its_own_file_alone(told: Told) -> None:
    (path,) = (one for one in told.given if one.name == "signing_key.pem")
    secret = path.read_bytes().splitlines()[1]
    assert len(secret) > 30
    assert holders(told, secret) == []
    assert secret.decode() not in told.printed


def test_the_places_that_were_searched_hold_what_the_run_wrote(told: Told) -> None:
    """Else nothing was looked at: the databases, the artefacts, the release and the report."""
    (root,) = told.places
    for pattern in ("team/prefect/prefect.db", "team/team-mlflow.db", "fruit/releases/*/card.md"):
        assert list(root.glob(pattern)), pattern
    for pattern in ("fruit/report/index.html", "fruit/.fettle/ws/*/params.yaml", "worker.log"):
        assert list(root.glob(pattern)), pattern
    assert len(holders(told, b"fruit")) > 50
    assert "***@" in told.printed
    assert signing.KEY_FILE not in told.printed
